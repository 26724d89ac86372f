"""Resampling of tilted and uneven stacks: exact where linear interpolation is, and never invented."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from planned_series import header, rotation, series, stack
from scipy.interpolate import RegularGridInterpolator

from healthimaging import Volume
from healthimaging.errors import GantryTiltError, GeometryError, IrregularSpacingError, MissingSliceError
from healthimaging.volumes.planning import VolumePlan, plan_volumes
from healthimaging.volumes.resampling import resample

Array = np.ndarray[Any, Any]


def planned(headers: list[dict[str, Any]], **options: Any) -> VolumePlan:
    (plan,) = plan_volumes(series(headers), resample=True, **options)
    return plan


def measured(plan: VolumePlan, array: Array) -> Volume:
    """The plan's slices with these values, (slices, rows, columns) in slice order."""
    return Volume(
        array=array,
        geometry=plan.stack.geometry,
        series_instance_uid=plan.series.series_instance_uid,
        instance_uids=tuple(instance.sop_instance_uid for instance, _ in plan.frames),
        frame_numbers=tuple(number for _, number in plan.frames),
        modality="CT",
    )


def tilted(degrees: float, *, slices: int = 6, spacing: float = 3, pixel: float = 1) -> list[dict[str, Any]]:
    shift = math.tan(math.radians(degrees)) * spacing
    return [header(f"1.2.{k}", (0, shift * k, spacing * k), spacing=(pixel, pixel)) for k in range(slices)]


# What needs it, and what is refused even so
# ----------------------------------------------------------------------------------------------------


def test_regular_stacks_are_not_touched() -> None:
    plan = planned(stack("1", [0, 2, 4]))
    volume = measured(plan, np.zeros((3, 8, 9), np.int16))
    assert plan.resampling is None
    assert resample(volume, plan) is volume
    assert not volume.resampled


@pytest.mark.parametrize(
    ("headers", "error"),
    [(tilted(10), GantryTiltError), (stack("1", [0, 2, 4.3, 6]), IrregularSpacingError)],
)
def test_without_the_request_they_are_refused(headers: Any, error: type[GeometryError]) -> None:
    with pytest.raises(error):
        plan_volumes(series(headers))
    assert planned(headers).resampling is not None


@pytest.mark.parametrize(
    "heights",
    [
        (0, 2, 4, 8, 10),  # one is missing
        (0, 4, 6),
        (0, 2, 4.3, 8.5, 10.4),  # one is missing among uneven ones
        (0, 2, 4, 7.1, 9.1),
        (0, 2, 4, 6, 30),
        (0, 2, 5.3),
        (0, 3.3, 5.3),
    ],
)
def test_a_missing_slice_is_never_interpolated(heights: tuple[float, ...]) -> None:
    with pytest.raises(MissingSliceError):
        planned(stack("1", heights))


def test_a_missing_slice_of_a_tilted_stack_is_never_interpolated() -> None:
    headers = tilted(12, slices=8)
    del headers[4]
    with pytest.raises(MissingSliceError):
        planned(headers)


def test_slices_that_shift_by_more_than_their_size_are_no_stack() -> None:
    with pytest.raises(GantryTiltError, match="more than their own size"):
        planned([header(f"1.2.{k}", (30 * k, 0, 2 * k)) for k in range(4)])


# Where the voxels come from
# ----------------------------------------------------------------------------------------------------


def test_tilt_by_whole_pixels_moves_pixels_and_changes_no_value() -> None:
    plan = planned([header(f"1.2.{k}", (0, 2 * k, 3 * k)) for k in range(4)])
    values = np.random.default_rng(1).integers(-1000, 3000, (4, 8, 9)).astype(np.int16)
    found = resample(measured(plan, values), plan)
    assert found.array.shape == (4, 8 + 6, 9)
    assert found.array.dtype == np.int16
    assert found.resampled
    assert found.instance_uids == ("1.2.0", "1.2.1", "1.2.2", "1.2.3")
    for k in range(4):
        assert np.array_equal(found.array[k, 2 * k : 2 * k + 8], values[k])
        outside = np.delete(found.array[k], range(2 * k, 2 * k + 8), axis=0)
        assert (outside == values.min()).all()
    assert found.geometry.origin == (0, 0, 0)
    assert found.geometry.spacing == (1, 1, 3)


def test_tilt_the_other_way_starts_the_grid_before_the_first_slice() -> None:
    plan = planned([header(f"1.2.{k}", (-2 * k, 0, 3 * k)) for k in range(4)])
    values = np.random.default_rng(1).integers(0, 3000, (4, 8, 9)).astype(np.uint16)
    found = resample(measured(plan, values), plan)
    assert found.geometry.origin == (-6, 0, 0)
    assert found.array.shape == (4, 8, 15)
    for k in range(4):
        assert np.array_equal(found.array[k, :, 6 - 2 * k : 15 - 2 * k], values[k])


def test_uneven_slices_are_interpolated_as_scipy_does() -> None:
    heights = [0, 2, 4.5, 6, 8.2, 11]
    plan = planned(stack("1", heights))
    values = np.random.default_rng(2).normal(size=(6, 8, 9)).astype(np.float32)
    found = resample(measured(plan, values), plan)
    assert found.geometry.spacing[2] == pytest.approx(11 / math.ceil(11 / 1.5))
    assert found.array.dtype == np.float32
    oracle = RegularGridInterpolator((heights, range(8), range(9)), values)
    slices, rows, columns = np.indices(found.array.shape)
    at = found.geometry.to_patient(np.stack([columns, rows, slices], axis=-1))
    at[..., 2] = at[..., 2].clip(0, 11)
    assert found.array == pytest.approx(oracle(at[..., ::-1]), abs=1e-6)
    # Both ends are measured slices.
    assert np.array_equal(found.array[0], values[0])
    assert np.array_equal(found.array[-1], values[-1])
    assert found.instance_uids[0] == "1.2.1.0"
    assert found.instance_uids[-1] == "1.2.1.5"
    assert len(found.instance_uids) == len(found.frame_numbers) == found.array.shape[0]


def test_integers_are_rounded_to_the_nearest() -> None:
    heights, values = [0, 2, 4, 5.5], np.array([0, 10, -1, 100], np.int16)
    plan = planned(stack("1", heights))
    found = resample(measured(plan, values[:, None, None] * np.ones((1, 8, 9), np.int16)), plan)
    wanted = np.interp(np.linspace(0, 5.5, 5), heights, values)
    assert found.array.dtype == np.int16
    assert found.array[:, 3, 4].tolist() == np.rint(wanted).tolist() == [0, 7, 6, 7, 100]


def test_two_slices_that_nearly_touch_do_not_make_thousands() -> None:
    plan = planned(stack("1", [0, 2, 4, 4.02, 6, 8, 10]))
    assert plan.resampling is not None
    assert plan.resampling.geometry.shape[0] == 11


def test_colour_is_interpolated_sample_by_sample() -> None:
    colour = {"SamplesPerPixel": 3, "PhotometricInterpretation": "RGB", "BitsAllocated": 8, "BitsStored": 8}
    plan = planned([header(f"1.2.{k}", (0, 0.5 * k, 3 * k), **colour) for k in range(4)])
    values = np.random.default_rng(3).integers(5, 255, (4, 8, 9, 3)).astype(np.uint8)
    found = resample(measured(plan, values), plan)
    assert found.array.shape == (4, 10, 9, 3)
    assert found.array.dtype == np.uint8
    wanted = np.rint((values[1, :-1].astype(float) + values[1, 1:]) / 2)
    assert np.array_equal(found.array[1, 1:8], wanted)
    assert (found.array[1, [0, 8]] == values.min()).all()  # not between measured pixels


def test_a_tilt_within_the_tolerance_is_left_alone_where_only_spacing_is_uneven() -> None:
    plan = planned([header(f"1.2.{k}", (0, 0.02 * k, z)) for k, z in enumerate((0, 2, 4.3, 6))])
    assert plan.resampling is not None
    assert plan.resampling.geometry.shape[1:] == (8, 9)
    assert plan.resampling.shifts == ((0, 0),) * 4


# Property: a field that is linear in the patient is its own interpolation
# ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, eq=False)
class Leaning:
    """A stack that is tilted, uneven, both or neither."""

    headers: list[dict[str, Any]]
    directions: Array
    pixel: Array
    """(column, row) side in mm."""
    firsts: Array
    """(slices, 3): first pixels, lowest slice first."""
    tilted: bool
    uneven: bool
    level: int


@st.composite
def leaning_stacks(draw: st.DrawFn) -> Leaning:
    angles = st.floats(-3.1, 3.1)
    axes = rotation(draw(angles), draw(angles), draw(angles))
    between_rows, between_columns, spacing = (draw(st.floats(0.4, 3)) for _ in range(3))
    rows, columns = draw(st.integers(16, 24)), draw(st.integers(16, 24))
    count = draw(st.integers(2, 7))
    tilt = np.array([draw(st.floats(-0.5, 0.5)) for _ in range(2)]) * draw(st.sampled_from([0, 1, 1]))
    jitter = draw(st.lists(st.floats(-1, 1), min_size=count, max_size=count))
    uneven = draw(st.sampled_from([0.0, 0.2]))
    heights = spacing * (np.arange(count) + uneven * np.array(jitter))
    origin = np.array([draw(st.floats(-300, 300)) for _ in range(3)])
    firsts = origin + np.outer(heights, axes[:, 2] + axes[:, :2] @ tilt)
    headers = [
        header(
            f"1.2.{k}",
            first.tolist(),
            orientation=axes[:, :2].T.reshape(-1).tolist(),
            spacing=(between_rows, between_columns),
            Rows=rows,
            Columns=columns,
        )
        for k, first in enumerate(firsts)
    ]
    return Leaning(
        headers=draw(st.permutations(headers)),
        directions=axes,
        pixel=np.array([between_columns, between_rows]),
        firsts=firsts,
        tilted=bool(tilt.any()),
        uneven=bool(uneven),
        level=draw(st.integers(0, 2)),
    )


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.filter_too_much])
@given(leaning_stacks(), st.tuples(*[st.floats(-5, 5)] * 3))
def test_a_linear_field_is_reproduced_at_every_voxel_between_measured_ones(
    made: Leaning, gradient: tuple[float, ...]
) -> None:
    try:
        plan = planned(made.headers, level=made.level)
    except GeometryError:
        assume(False)  # too uneven, or shifted by more than its size
    how = plan.resampling
    assume(how is not None)
    assert how is not None
    straightened = made.tilted and not any(any(shift) for shift in how.shifts)
    evened = made.uneven and np.array_equal(how.heights, range(len(how.heights)))
    assume(not straightened and not evened)  # off by less than the tolerance, and so not exact
    slices, rows, columns = plan.stack.geometry.shape
    r, c = np.indices((rows, columns)) * 2**made.level
    places = (
        made.firsts[:, None, None]
        + (c * made.pixel[0])[..., None] * made.directions[:, 0]
        + (r * made.pixel[1])[..., None] * made.directions[:, 1]
    )
    values = 1e4 + places @ np.array(gradient)
    found = resample(measured(plan, values), plan)
    assert found.array.shape == found.geometry.shape
    assert found.geometry.spacing[:2] == pytest.approx(tuple(made.pixel * 2**made.level))
    at = found.geometry.to_patient(np.stack(np.indices(found.array.shape)[::-1], axis=-1))
    right = np.abs(found.array - (1e4 + at @ np.array(gradient))) < 1e-3
    assert (right | (found.array == values.min())).all()
    if not made.uneven:
        assert right.sum() >= slices * (rows - 1) * (columns - 1)
    if not made.tilted:
        assert right.all()
    # The grid holds every measured pixel, and those of the lowest slice lie on it.
    indices = found.geometry.to_index(places)
    assert indices.min() > -1e-3
    assert (indices.max(axis=(0, 1, 2)) < np.array(found.geometry.shape)[::-1] - 1 + 1e-3).all()
    assert np.abs(indices[0] - np.round(indices[0])).max() < 1e-3
    assert indices[-1, ..., 2] == pytest.approx(found.geometry.shape[0] - 1, abs=1e-3)
