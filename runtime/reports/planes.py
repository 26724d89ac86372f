"""Three planes through a volume, turned as radiologists look at them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import permutations

import numpy as np
import numpy.typing as npt
from pydicom import Dataset

from healthimaging import Geometry, Volume
from runtime.reports.segment_frames import segment_frames

_LETTERS = (("R", "L"), ("A", "P"), ("F", "H"))
"""Directions of falling and growing LPS x, y and z (PS3.3, C.7.6.1.1.1)."""

_SECOND_LETTER = 0.35
"""Least share of a second axis in a direction that is named by two letters: some 20 degrees."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Plane:
    """One plane of the volume.

    Rows run down and columns to the right on the screen, both along axes of the volume's own grid: nothing
    is interpolated between slices of an oblique series, whose planes are then oblique, too, and their
    letters say so.
    """

    name: str
    """``axial``, ``coronal`` or ``sagittal``: the nearest of the three."""
    values: npt.NDArray[np.float32]
    """(rows, columns)"""
    masks: Mapping[int, npt.NDArray[np.bool_]]
    """Segment number -> (rows, columns); segments without a voxel here are left out."""
    spacing: tuple[float, float]
    """mm between rows and between columns."""
    left: str
    right: str
    top: str
    bottom: str
    """Letters of the patient's directions at the edges (PS3.3, C.7.6.1.1.1)."""


@dataclass(frozen=True, kw_only=True)
class _Axis:
    """A direction of the patient as an axis of the volume's array."""

    array_axis: int
    """Of (slices, rows, columns)."""
    growing: bool
    """Whether the index grows along LPS x, y or z."""


@dataclass(frozen=True, kw_only=True)
class _Turn:
    """How a plane of the array becomes one of the screen."""

    transposed: bool
    rows: bool
    columns: bool

    def of(self, plane: npt.NDArray[np.generic]) -> npt.NDArray[np.generic]:
        if self.transposed:
            plane = plane.T
        return plane[:: -1 if self.rows else 1, :: -1 if self.columns else 1]


_PLANES = (("axial", 2, 1, 0), ("coronal", 1, 2, 0), ("sagittal", 0, 2, 1))
"""Name, and the patient axes (0 left, 1 back, 2 head) across the plane, down the screen and to the right."""


def three_planes(*, volume: Volume, segmentation: Dataset, segment_number: int) -> tuple[Plane, ...]:
    """Cut a volume where a segment is widest in each direction; without a voxel of it, through the middle.

    Parameters
    ----------
    volume
        (slices, rows, columns) of one quantity.
    segmentation
        On the volume's grid, as `runtime.reports.segment_frames` reads it.
    segment_number
        Of the segment to cut.

    Returns
    -------
    tuple of Plane
        Axial, coronal and sagittal. The patient's right is on the left of the screen, the head and the front
        are at the top, and the front is on the left of sagittal planes.
    """
    grid = volume.geometry
    axes = _patient_axes(grid)
    cut = _widest(segmentation, grid, segment_number)
    masks = _masks_on_planes(segmentation, grid, cut)
    planes = []
    for name, across, down, right in _PLANES:
        fixed = axes[across].array_axis
        values = np.take(volume.array, cut[fixed], axis=fixed).astype(np.float32)
        spacing = [grid.spacing[2 - axes[axis].array_axis] for axis in (down, right)]
        rows, columns = _directions(grid, axes[down]), _directions(grid, axes[right])
        # On the screen y grows to the back, but z grows to the head, that is upwards.
        head_up = down == 2
        turn_rows = axes[down].growing if head_up else not axes[down].growing
        turn_columns = not axes[right].growing

        turn = _Turn(
            transposed=axes[down].array_axis > axes[right].array_axis,
            rows=turn_rows,
            columns=turn_columns,
        )
        if turn_rows:
            rows = -rows
        if turn_columns:
            columns = -columns
        planes.append(
            Plane(
                name=name,
                values=np.ascontiguousarray(turn.of(values), dtype=np.float32),
                masks={
                    number: np.ascontiguousarray(turn.of(mask), dtype=np.bool_)
                    for number, mask in masks[fixed].items()
                    if mask.any()
                },
                spacing=(spacing[0], spacing[1]),
                left=direction_letters(-columns),
                right=direction_letters(columns),
                top=direction_letters(-rows),
                bottom=direction_letters(rows),
            )
        )
    return tuple(planes)


def direction_letters(direction: npt.NDArray[np.float64]) -> str:
    """Name a direction in LPS by the patient's sides, the main one first (PS3.3, C.7.6.1.1.1)."""
    strongest = sorted(range(3), key=lambda axis: -abs(direction[axis]))[:2]
    return "".join(
        _LETTERS[axis][int(direction[axis] > 0)]
        for position, axis in enumerate(strongest)
        if position == 0 or abs(direction[axis]) >= _SECOND_LETTER
    )


def _patient_axes(grid: Geometry) -> tuple[_Axis, _Axis, _Axis]:
    """The array axes nearest to the patient's left, back and head, each used once."""
    direction = grid.direction  # columns: growing column, row and slice index
    best = max(permutations(range(3)), key=lambda order: sum(abs(direction[a, order[a]]) for a in range(3)))
    first, second, third = (
        _Axis(array_axis=2 - index, growing=bool(direction[axis, index] > 0))
        for axis, index in enumerate(best)
    )
    return first, second, third


def _directions(grid: Geometry, axis: _Axis) -> npt.NDArray[np.float64]:
    """Unit vector (LPS) of the growing index along an array axis."""
    vector: npt.NDArray[np.float64] = grid.direction[:, 2 - axis.array_axis]
    return vector


def _widest(segmentation: Dataset, grid: Geometry, segment_number: int) -> tuple[int, int, int]:
    """Index (slice, row, column) of the planes that hold most voxels of a segment."""
    counts = [np.zeros(size, dtype=np.int64) for size in grid.shape]
    for frame in segment_frames(segmentation, grid):
        if frame.segment_number == segment_number:
            counts[0][frame.slice_index] += int(np.count_nonzero(frame.mask))
            counts[1] += np.count_nonzero(frame.mask, axis=1)
            counts[2] += np.count_nonzero(frame.mask, axis=0)
    slice_, row, column = (
        int(np.argmax(count)) if count.any() else size // 2
        for count, size in zip(counts, grid.shape, strict=True)
    )
    return slice_, row, column


def _masks_on_planes(
    segmentation: Dataset, grid: Geometry, cut: tuple[int, int, int]
) -> dict[int, dict[int, npt.NDArray[np.bool_]]]:
    """Array axis -> segment number -> mask on the plane across that axis."""
    slices, rows, columns = grid.shape
    shapes = {0: (rows, columns), 1: (slices, columns), 2: (slices, rows)}
    numbers = [int(segment.SegmentNumber) for segment in segmentation.SegmentSequence]
    planes = {
        axis: {number: np.zeros(shape, dtype=np.bool_) for number in numbers}
        for axis, shape in shapes.items()
    }
    for frame in segment_frames(segmentation, grid):
        number, index = frame.segment_number, frame.slice_index
        if index == cut[0]:
            planes[0][number] |= frame.mask
        planes[1][number][index] = frame.mask[cut[1], :]
        planes[2][number][index] = frame.mask[:, cut[2]]
    return planes
