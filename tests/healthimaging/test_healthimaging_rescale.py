"""Values of volumes: rescale is exact, whatever types, slopes and intercepts the slices have."""

from __future__ import annotations

from typing import Any

import numpy as np
from fake_healthimaging import DATASTORE, IMAGE_SET, FakeService, image_set, instance
from hypothesis import given
from hypothesis import strategies as st

from healthimaging import ImageSet
from healthimaging.volume import rescale


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
