"""Values of volumes: rescale is exact, whatever types, slopes and intercepts the slices have."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from fake_healthimaging import DATASTORE, IMAGE_SET, FakeService, image_set, instance
from hypothesis import given, settings
from hypothesis import strategies as st

from healthimaging import ImageSet
from healthimaging.volumes.assembly import rescale


def opened(service: FakeService) -> ImageSet:
    return ImageSet.open(service, DATASTORE, IMAGE_SET)


def test_first_slice_positive_later_negative_does_not_wrap() -> None:
    built = [
        instance(np.full((2, 2), value, np.int16), number=k, position=(0, 0, k), RescaleIntercept="0")
        for k, value in enumerate((100, -1000))
    ]
    (volume,) = opened(image_set(built)).volumes()
    assert volume.array[:, 0, 0].tolist() == [100, -1000]


def test_signed_and_unsigned_slices_in_one_volume() -> None:
    low = instance(np.full((2, 2), -5, np.int16), number=1, position=(0, 0, 0), RescaleIntercept="0")
    high = instance(np.full((2, 2), 60000, np.uint16), number=2, position=(0, 0, 1), RescaleIntercept="0")
    (volume,) = opened(image_set([low, high])).volumes()
    assert volume.array[:, 0, 0].tolist() == [-5, 60000]
    assert volume.array.dtype == np.int32


def test_fractional_slope_of_one_slice_makes_the_volume_float() -> None:
    built = [
        instance(np.full((2, 2), 3, np.uint16), number=k, position=(0, 0, k), RescaleSlope=slope)
        for k, slope in enumerate(("1", "0.25"))
    ]
    (volume,) = opened(image_set(built)).volumes()
    assert volume.array.dtype == np.float32
    assert volume.array[:, 0, 0].tolist() == [-1021, -1023.25]


@given(
    st.sampled_from([np.uint8, np.int8, np.uint16, np.int16, np.int32, np.uint32]),
    st.lists(
        st.tuples(st.integers(-70000, 70000), st.sampled_from([1, 1, 1, -1, 2, 1000])), min_size=1, max_size=4
    ),
    st.booleans(),
    st.randoms(use_true_random=False),
)
def test_rescale_is_exact_arithmetic(
    dtype: Any, lines: list[tuple[int, int]], extremes: bool, random: Any
) -> None:
    limits = np.iinfo(dtype)
    span = (limits.min, limits.max) if extremes else (max(limits.min, -3000), min(limits.max, 3000))
    stored = np.array(
        [[[random.randint(*span) for _ in range(3)] for _ in range(2)] for _ in lines], dtype=dtype
    )
    expected = [
        [[int(v) * slope + intercept for v in row] for row in plane]
        for plane, (intercept, slope) in zip(stored, lines, strict=True)
    ]
    values = rescale(
        stored,
        slopes=[slope for _, slope in lines],
        intercepts=[intercept for intercept, _ in lines],
        lows=[int(plane.min()) for plane in stored],
        highs=[int(plane.max()) for plane in stored],
    )
    assert values.tolist() == expected
    assert values.dtype.kind == "i"


@settings(max_examples=80, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from([np.uint8, np.int16, np.uint16]),
            st.sampled_from(["1", "1", "1", "-1", "2", "0.5", "1.0375"]),
            st.one_of(st.integers(-70000, 70000), st.sampled_from([-1024, 0, -32768, 0.25])),
        ),
        min_size=1,
        max_size=4,
    ),
    st.sampled_from(["extremes", "small", "any"]),
    st.integers(0, 2**16),
)
def test_values_of_volumes_are_exact_whatever_is_mixed_in_one_series(
    slices: list[tuple[Any, str, float]], span: str, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    stored, built = [], []
    for k, (dtype, slope, intercept) in enumerate(slices):
        limits = np.iinfo(dtype)
        low, high = (max(limits.min, -200), 200) if span == "small" else (limits.min, limits.max)
        pixels = rng.integers(low, high, size=(3, 4), endpoint=True).astype(dtype)
        if span == "extremes":
            pixels[0, 0], pixels[0, 1] = low, high
        stored.append(pixels)
        built.append(
            instance(
                pixels, number=k, position=(0, 0, k), RescaleSlope=slope, RescaleIntercept=str(intercept)
            )
        )
    (volume,) = opened(image_set([built[k] for k in rng.permutation(len(built))])).volumes()
    exact = [
        [[Fraction(slope) * int(v) + Fraction(intercept) for v in row] for row in pixels]
        for pixels, (_, slope, intercept) in zip(stored, slices, strict=True)
    ]
    if volume.array.dtype.kind == "i":
        assert volume.array.tolist() == exact
    else:
        assert volume.array.dtype == np.float32
        assert any(value.denominator > 1 for _, s, i in slices for value in (Fraction(s), Fraction(i)))
        assert volume.array == pytest.approx(np.array(exact, dtype=np.float64), rel=2**-24, abs=1e-30)
