"""Geometry and slice order: properties over random grids, highdicom as second opinion, and every refusal."""

from __future__ import annotations

import math
from typing import Any

import highdicom
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from healthimaging import Geometry
from healthimaging.errors import (
    DuplicatePositionError,
    GantryTiltError,
    GeometryError,
    GeometryMismatchError,
    IrregularSpacingError,
    MissingGeometryError,
    MissingSliceError,
    MixedOrientationError,
)
from healthimaging.metadata import Attributes
from healthimaging.volumes.slices import SlicePlane, slice_plane, stack_slices

angles = st.floats(-math.pi, math.pi)
sides = st.floats(0.2, 8)


def rotation(a: float, b: float, c: float) -> np.ndarray[Any, Any]:
    about_z = np.array([[math.cos(a), -math.sin(a), 0], [math.sin(a), math.cos(a), 0], [0, 0, 1]])
    about_x = np.array([[1, 0, 0], [0, math.cos(b), -math.sin(b)], [0, math.sin(b), math.cos(b)]])
    again = np.array([[math.cos(c), -math.sin(c), 0], [math.sin(c), math.cos(c), 0], [0, 0, 1]])
    return about_z @ about_x @ again


@st.composite
def grids(draw: st.DrawFn) -> Geometry:
    turn = rotation(draw(angles), draw(angles), draw(angles))
    spacing = np.array([draw(sides), draw(sides), draw(sides)])
    affine = np.eye(4)
    affine[:3, :3] = turn * spacing
    affine[:3, 3] = [draw(st.floats(-500, 500)) for _ in range(3)]
    shape = (draw(st.integers(2, 40)), draw(st.integers(1, 512)), draw(st.integers(1, 512)))
    return Geometry(affine, shape)


def planes(grid: Geometry, *, digits: int = 6) -> list[SlicePlane]:
    """The slices of a grid as a header would have them, in decimal text of so many digits."""
    column, row, _ = grid.spacing
    orientation = tuple(float(x) for x in grid.direction[:, :2].T.reshape(-1))
    built = []
    for k in range(grid.shape[0]):
        x, y, z = (round(float(v), digits) for v in grid.to_patient((0, 0, k)))
        built.append(
            SlicePlane(
                sop_instance_uid=f"1.2.{k}",
                frame_number=1,
                position=(x, y, z),
                orientation=orientation,
                pixel_spacing=(row, column),
                thickness=grid.spacing[2],
            )
        )
    return built


def axial(*heights: float, shift: float = 0.0) -> list[SlicePlane]:
    """Axial slices of 1 mm pixels at these heights, each shifted along y by `shift` per mm of height."""
    return [
        SlicePlane(
            sop_instance_uid=f"1.2.{k}",
            frame_number=1,
            position=(0, shift * z, z),
            orientation=(1, 0, 0, 0, 1, 0),
            pixel_spacing=(1, 1),
            thickness=2.0,
        )
        for k, z in enumerate(heights)
    ]


@settings(deadline=None)
@given(grids(), st.randoms(use_true_random=False))
def test_shuffled_slices_give_back_the_grid_and_their_order(grid: Geometry, random: Any) -> None:
    slices = planes(grid)
    order = list(range(len(slices)))
    random.shuffle(order)
    stack = stack_slices([slices[i] for i in order], rows=grid.shape[1], columns=grid.shape[2])
    assert [order[i] for i in stack.order] == list(range(len(slices)))
    assert stack.geometry.largest_shift(grid) < 1e-3
    assert stack.geometry.spacing == pytest.approx(grid.spacing, rel=1e-4)


@settings(max_examples=30, deadline=None)
@given(grids())
def test_highdicom_computes_the_same_affine(grid: Geometry) -> None:
    slices = planes(grid, digits=9)
    stack = stack_slices(list(reversed(slices)), rows=grid.shape[1], columns=grid.shape[2])
    first = slices[0]
    theirs = highdicom.spatial.ImageToReferenceTransformer(
        image_position=first.position, image_orientation=first.orientation, pixel_spacing=first.pixel_spacing
    )
    # Their image coordinates count from the corner of the first pixel, indices from its centre.
    far = np.array([[grid.shape[2] - 0.5, grid.shape[1] - 0.5]])
    ours = stack.geometry.to_patient((grid.shape[2] - 1, grid.shape[1] - 1, 0))
    assert theirs(far)[0] == pytest.approx(ours, abs=1e-4)
    spacing, positions = highdicom.spatial.get_volume_positions(
        [list(s.position) for s in slices], list(slices[0].orientation)
    )
    assert spacing == pytest.approx(stack.geometry.spacing[2], rel=1e-6)
    # Their default order is of a left-handed index space (down, right, slice): the same line, the other way.
    assert positions == list(reversed(range(len(slices))))


@settings(deadline=None)
@given(grids(), st.lists(st.tuples(*[st.floats(-50, 50)] * 3), min_size=1, max_size=5))
def test_indices_and_patient_coordinates_are_inverse(
    grid: Geometry, indices: list[tuple[float, ...]]
) -> None:
    assert grid.to_index(grid.to_patient(indices)) == pytest.approx(np.array(indices), abs=1e-6)


def test_pixel_spacing_is_between_rows_first() -> None:
    grid = Geometry.from_dicom(
        position=(1, 2, 3),
        orientation=(1, 0, 0, 0, 1, 0),
        pixel_spacing=(2, 0.5),
        slice_spacing=4,
        shape=(5, 6, 7),
    )
    assert grid.spacing == (0.5, 2, 4)
    assert grid.to_patient((1, 0, 0)).tolist() == [1.5, 2, 3]
    assert grid.to_patient((0, 1, 0)).tolist() == [1, 4, 3]
    assert grid.to_patient((0, 0, 1)).tolist() == [1, 2, 7]
    assert grid.voxel_volume == pytest.approx(4)
    assert grid.origin == (1, 2, 3)
    assert np.array_equal(grid.direction, np.eye(3))
    assert grid.ras_affine[:2, 3].tolist() == [-1, -2]


def test_affine_is_read_only() -> None:
    grid = Geometry(np.eye(4), (1, 1, 1))
    with pytest.raises(ValueError, match="read-only"):
        grid.affine[0, 0] = 2


@pytest.mark.parametrize(
    ("affine", "shape", "message"),
    [
        (np.eye(3), (1, 1, 1), "4x4"),
        (np.full((4, 4), np.nan), (1, 1, 1), "finite"),
        (np.eye(4), (1, 0, 1), "positive"),
        (np.diag([1.0, 0.0, 1.0, 1.0]), (1, 1, 1), "size"),
        (np.array([[1, 0.2, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]), (1, 1, 1), "right angles"),
    ],
)
def test_impossible_grids_are_refused(affine: Any, shape: Any, message: str) -> None:
    with pytest.raises(GeometryError, match=message):
        Geometry(affine, shape)


def test_rounded_positions_are_one_grid() -> None:
    # Real oblique MR: 7 mm slices whose positions are rounded to a hundredth.
    grid = Geometry.from_dicom(
        position=(-101.37, 12.9, 44.1),
        orientation=(0.98, 0.1990, 0, -0.1990, 0.98, 0),
        pixel_spacing=(0.6, 0.6),
        slice_spacing=7.013,
        shape=(19, 256, 256),
    )
    stack = stack_slices(planes(grid, digits=2), rows=256, columns=256)
    assert stack.geometry.largest_shift(grid) < 0.05


def test_order_runs_from_feet_to_head_for_axial_slices() -> None:
    stack = stack_slices(axial(10, 5, 0), rows=4, columns=4)
    assert stack.order == (2, 1, 0)
    assert stack.geometry.origin == (0, 0, 0)


def test_missing_slice_names_the_slice_before_the_gap() -> None:
    with pytest.raises(MissingSliceError, match="1 of 6 slices") as caught:
        stack_slices(axial(0, 2, 4, 8, 10), rows=4, columns=4)
    assert caught.value.sop_instance_uid == "1.2.2"


@pytest.mark.parametrize("heights", [(0, 4, 6), (0, 2, 6), (0, 4, 8, 10), (0, 2, 6, 8, 12, 14)])
def test_missing_slices_are_recognised_however_many_they_are(heights: tuple[float, ...]) -> None:
    with pytest.raises(MissingSliceError, match=r"where 2\.000 mm is usual"):
        stack_slices(axial(*heights), rows=4, columns=4)


def test_missing_slice_is_recognised_among_rounded_positions() -> None:
    with pytest.raises(MissingSliceError, match="1 of 6 slices"):
        stack_slices(axial(0, 2.01, 4, 8.02, 10), rows=4, columns=4)


def test_small_changes_of_spacing_that_add_up_are_irregular_not_missing() -> None:
    heights = np.cumsum([0] + [2.0] * 10 + [2.05] * 10)
    with pytest.raises(IrregularSpacingError):
        stack_slices(axial(*heights), rows=4, columns=4)


def test_irregular_spacing_names_the_unusual_slice() -> None:
    with pytest.raises(IrregularSpacingError, match="varies") as caught:
        stack_slices(axial(0, 2, 4, 6, 8.9, 10.9), rows=4, columns=4)
    assert caught.value.sop_instance_uid == "1.2.3"


def test_tolerance_of_spacing_can_be_widened() -> None:
    slices = axial(0, 2, 4.1, 6, 8)
    with pytest.raises(IrregularSpacingError):
        stack_slices(slices, rows=4, columns=4)
    assert stack_slices(slices, rows=4, columns=4, spacing_tolerance=0.1).geometry.spacing[2] == 2


def test_duplicate_position_names_both() -> None:
    with pytest.raises(DuplicatePositionError, match=r"1\.2\.1") as caught:
        stack_slices(axial(0, 2, 2, 4), rows=4, columns=4)
    assert caught.value.sop_instance_uid == "1.2.2"


@pytest.mark.parametrize("degrees", [1, 5, 20])
def test_gantry_tilt_is_refused(degrees: float) -> None:
    with pytest.raises(GantryTiltError, match=f"{degrees:.2f} degrees"):
        stack_slices(axial(*range(0, 40, 2), shift=math.tan(math.radians(degrees))), rows=4, columns=4)


def test_localizer_among_axial_slices_is_named() -> None:
    slices = axial(0, 2, 4)
    sagittal = SlicePlane(
        sop_instance_uid="1.2.99",
        frame_number=1,
        position=(0, 0, 1),
        orientation=(0, 1, 0, 0, 0, -1),
        pixel_spacing=(1, 1),
        thickness=2,
    )
    with pytest.raises(MixedOrientationError) as caught:
        stack_slices([*slices, sagittal], rows=4, columns=4)
    assert caught.value.sop_instance_uid == "1.2.99"
    assert "1.2.99" in str(caught.value)


def test_mixed_pixel_spacing_is_refused() -> None:
    slices = axial(0, 2)
    other = SlicePlane(**{**slices[1].__dict__, "pixel_spacing": (1, 1.1)})
    with pytest.raises(MixedOrientationError, match="pixel spacing"):
        stack_slices([slices[0], other], rows=4, columns=4)


def test_single_slice_takes_its_thickness_or_is_refused() -> None:
    (one,) = axial(3)
    assert stack_slices([one], rows=4, columns=4).geometry.spacing == (1, 1, 2)
    with pytest.raises(MissingGeometryError, match="SliceThickness"):
        stack_slices([SlicePlane(**{**one.__dict__, "thickness": None})], rows=4, columns=4)


@pytest.mark.parametrize("orientation", [(1, 0, 0, 1, 0, 0), (2, 0, 0, 0, 1, 0), (0, 0, 0, 0, 0, 0)])
def test_impossible_orientation_is_refused(orientation: tuple[float, ...]) -> None:
    (one,) = axial(3)
    with pytest.raises(GeometryError, match="unit vectors") as caught:
        stack_slices([SlicePlane(**{**one.__dict__, "orientation": orientation})], rows=4, columns=4)
    assert caught.value.sop_instance_uid == one.sop_instance_uid


COMPLETE = {
    "ImagePositionPatient": ["1", "2 ", "3"],
    "ImageOrientationPatient": ["1", "0", "0", "0", "1", "0"],
    "PixelSpacing": ["0.5", "0.7"],
    "SliceThickness": "5",
}


@pytest.mark.parametrize("keyword", ["ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing"])
@pytest.mark.parametrize("value", ["absent", None, [], ["1"], ["a", "b", "c"], [None, None, None]])
def test_slice_without_usable_geometry_is_named(keyword: str, value: Any) -> None:
    attributes = {**COMPLETE, keyword: value}
    if value == "absent":
        del attributes[keyword]
    with pytest.raises(MissingGeometryError, match=keyword) as caught:
        slice_plane(Attributes(attributes, {}), sop_instance_uid="1.9")
    assert caught.value.sop_instance_uid == "1.9"


def test_slice_spacing_prefers_spacing_between_slices() -> None:
    plane = slice_plane(Attributes({**COMPLETE, "SpacingBetweenSlices": "4"}, {}), sop_instance_uid="1.9")
    assert plane.thickness == 4
    assert plane.position == (1, 2, 3)


def test_functional_groups_go_before_the_top_level() -> None:
    frame = Attributes({"PlanePositionSequence": [{"ImagePositionPatient": ["7", "8", "9"]}]}, {})
    plane = slice_plane(Attributes(COMPLETE, {}), sop_instance_uid="1.9", frame_number=2, frame=[frame])
    assert plane.position == (7, 8, 9)


def test_grids_that_differ_are_refused_with_the_reason() -> None:
    grid = Geometry(np.diag([1.0, 1, 2, 1]), (5, 6, 7), "1.2.3")
    moved = grid.affine.copy()
    moved[2, 3] = 0.5
    assert grid.matches(Geometry(grid.affine, grid.shape))
    for other, reason in (
        (Geometry(grid.affine, (5, 6, 8)), "shape"),
        (Geometry(moved, grid.shape), r"0\.500 mm"),
        (Geometry(grid.affine, grid.shape, "9.9"), "frames of reference"),
    ):
        assert not grid.matches(other)
        with pytest.raises(GeometryMismatchError, match=reason):
            grid.require_match(other)


def test_highdicom_agrees_on_what_is_no_volume() -> None:
    for slices in (axial(0, 2, 4, 8), axial(0, 2, 2, 4), axial(0, 2, 5, 6.5)):
        theirs, _ = highdicom.spatial.get_volume_positions(
            [list(s.position) for s in slices], list(slices[0].orientation)
        )
        assert theirs is None
        with pytest.raises(GeometryError):
            stack_slices(slices, rows=4, columns=4)
