"""Tilted or unevenly spaced slices resampled onto a regular, rectangular grid. Only on request.

Interpolation is linear: within the slices where they shift sideways (gantry tilt), along the normal where
they are unevenly spaced, and nowhere else, so that slices of a tilted but even stack are not mixed with each
other. Only places between measured pixels get a value; what lies outside gets the smallest value of the
volume, which is air for CT. A place where a slice is missing is not filled: that would invent anatomy.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from healthimaging.errors import GantryTiltError, MissingSliceError
from healthimaging.volumes.geometry import FloatArray, Geometry
from healthimaging.volumes.slices import (
    SIDEWAYS_TOLERANCE,
    SlicePlane,
    Stack,
    common_orientation,
    slice_coordinates,
    usual_gap,
)
from healthimaging.volumes.volume import Volume, VolumePlan

WIDEST_GAP = 1.5
"""Widest gap that is interpolated, as a multiple of the usual one: from 2 on a slice is missing in it."""

_FINEST = 0.5
"""Smallest distance of the new slices, as a fraction of the usual one: two slices that nearly touch do not
make thousands.
"""

_EXACT = 1e-6
"""Voxels: nearer than this is at the same place, and values are taken over as they are."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Resampling:
    """From slices as they lie to a regular grid."""

    geometry: Geometry
    """The regular grid; it holds every slice wholly."""
    shifts: tuple[tuple[float, float], ...]
    """(columns, rows) of the grid where the first pixel of each slice lies, lowest slice first."""
    heights: tuple[float, ...]
    """Where each slice lies along the grid's slices, from 0 on; growing."""

    @property
    def nearest(self) -> tuple[int, ...]:
        """For each slice of the grid the nearest slice that was measured; the lower of two."""
        heights = np.array(self.heights)
        return tuple(int(np.argmin(np.abs(heights - k))) for k in range(self.geometry.shape[0]))


def plan_resampling(
    slices: Sequence[SlicePlane],
    *,
    rows: int,
    columns: int,
    frame_of_reference_uid: str | None,
    spacing_tolerance: float,
    level: int = 0,
) -> tuple[Stack, Resampling]:
    """The regular grid for slices of one plane that `stack_slices` refuses as tilted or uneven.

    The grid starts at the lowest slice, whose pixels lie on it exactly, and ends at the highest. Evenly
    spaced slices keep their distance; uneven ones get the smallest distance that occurs, at least half the
    usual one, stretched so that both ends are kept.

    Args:
        slices: Of one plane and pixel spacing, no two at one place, at least two.
        rows: Rows of every slice at full resolution.
        columns: Columns likewise.
        frame_of_reference_uid: Frame of Reference UID of the series.
        spacing_tolerance: As `healthimaging.volumes.slices.SPACING_TOLERANCE`.
        level: Of the pixels that will be resampled.

    Returns:
        The slices' order, with the grid on which they would lie were they straight and even, which only
        says the shape of the array to resample; and how to resample it.

    Raises:
        MissingSliceError: Slices are missing between others.
        GantryTiltError: The slices shift by more than their own size.
    """
    coordinates = slice_coordinates(slices)
    order = np.argsort(coordinates[:, 2], kind="stable")
    ordered = [slices[i] for i in order]
    offsets = coordinates[order] - coordinates[order[0]]
    heights, spacing = _even_heights(ordered, offsets[:, 2], spacing_tolerance)
    straight = Geometry.from_dicom(
        position=ordered[0].position,
        orientation=common_orientation(slices),
        pixel_spacing=ordered[0].pixel_spacing,
        slice_spacing=spacing,
        shape=(len(slices), rows, columns),
        frame_of_reference_uid=frame_of_reference_uid,
    ).at_level(level)
    sideways = offsets[:, :2]
    if np.hypot(*sideways.T).max() <= SIDEWAYS_TOLERANCE * min(ordered[0].pixel_spacing):
        sideways = np.zeros_like(sideways)  # straight within the tolerance: not interpolated
    shifts = sideways / straight.spacing[:2]
    low = np.floor(shifts.min(axis=0) + _EXACT).astype(int)
    added = np.ceil(shifts.max(axis=0) - _EXACT).astype(int) - low
    _, level_rows, level_columns = straight.shape
    if added[0] > level_columns or added[1] > level_rows:
        worst = ordered[int(np.argmax(np.hypot(*sideways.T)))]
        msg = f"Slices shift sideways by {np.hypot(*sideways.T).max():.3f} mm, more than their own size"
        raise GantryTiltError(msg, sop_instance_uid=worst.sop_instance_uid, frame_number=worst.frame_number)
    affine = straight.affine.copy()
    affine[:3, 3] = straight.to_patient((low[0], low[1], 0))
    grid = Geometry(
        affine,
        (round(float(heights[-1])) + 1, level_rows + int(added[1]), level_columns + int(added[0])),
        frame_of_reference_uid,
    )
    return (
        Stack(order=tuple(int(i) for i in order), geometry=straight),
        Resampling(
            geometry=grid,
            shifts=tuple((float(column), float(row)) for column, row in shifts - low),
            heights=tuple(float(height) for height in heights),
        ),
    )


def _even_heights(
    ordered: Sequence[SlicePlane], distances: FloatArray, spacing_tolerance: float
) -> tuple[FloatArray, float]:
    """Where slices lie along the new ones, and the distance of these in mm."""
    gaps = np.diff(distances)
    usual, extent = usual_gap(gaps), float(distances[-1])
    widest = int(np.argmax(gaps))
    if gaps[widest] > WIDEST_GAP * usual:
        msg = f"A gap of {gaps[widest]:.3f} mm where {usual:.3f} mm is usual: a slice in it is missing"
        raise MissingSliceError(
            msg,
            sop_instance_uid=ordered[widest].sop_instance_uid,
            frame_number=ordered[widest].frame_number,
        )
    even = extent / len(gaps)
    if np.abs(distances - even * np.arange(len(distances))).max() <= spacing_tolerance * even:
        return np.arange(len(distances), dtype=np.float64), even
    finest = max(float(gaps.min()), _FINEST * usual)
    spacing = extent / int(np.ceil(extent / finest - _EXACT))
    return np.asarray(distances / spacing, dtype=np.float64), spacing


def resample(volume: Volume, plan: VolumePlan) -> Volume:
    """The volume on the regular grid that was planned; the volume itself where none was needed.

    Args:
        volume: The plan's slices as they were measured, in their order, rescaled.
        plan: With `resampling` where it is needed.

    Returns:
        A volume of the same type; integers are rounded to the nearest. `instance_uids` and `frame_numbers`
        name the nearest measured slice of each slice, which is the only one that it was made of where the
        slices were evenly spaced.
    """
    how = plan.resampling
    if how is None:
        return volume
    nearest = how.nearest
    return replace(
        volume,
        array=_interpolated(volume.array, how),
        geometry=how.geometry,
        instance_uids=tuple(volume.instance_uids[k] for k in nearest),
        frame_numbers=tuple(volume.frame_numbers[k] for k in nearest),
        resampled=True,
    )


def _interpolated(array: npt.NDArray[Any], how: Resampling) -> npt.NDArray[Any]:
    samples = array.shape[3:]
    resampled = np.full((*how.geometry.shape, *samples), array.min(), dtype=array.dtype)
    heights = np.array(how.heights)
    moved: dict[int, _Window] = {}
    for k, target in enumerate(resampled):
        above = min(int(np.searchsorted(heights, k - _EXACT)), len(heights) - 1)
        below = max(above - 1, 0)
        part = (
            1.0
            if abs(heights[above] - k) <= _EXACT
            else (k - heights[below]) / (heights[above] - heights[below])
        )
        weights = {j: w for j, w in ((below, 1 - part), (above, part)) if w > 0}
        # Only the two slices between which the new one lies are kept.
        moved = {j: moved[j] if j in moved else _moved(array[j], *how.shifts[j]) for j in weights}
        top, left = (max(moved[j].start[axis] for j in weights) for axis in (0, 1))
        bottom, right = (min(moved[j].stop[axis] for j in weights) for axis in (0, 1))
        if top >= bottom or left >= right:
            continue
        values = sum(w * moved[j].cut(top, bottom, left, right) for j, w in weights.items())
        target[top:bottom, left:right] = np.rint(values) if array.dtype.kind in "iu" else values
    return resampled


@dataclass(frozen=True, kw_only=True, eq=False)
class _Window:
    """The pixels of the grid that lie between pixels of one slice."""

    values: FloatArray
    start: tuple[int, int]
    """(row, column) of the grid."""

    @property
    def stop(self) -> tuple[int, int]:
        return self.start[0] + self.values.shape[0], self.start[1] + self.values.shape[1]

    def cut(self, top: int, bottom: int, left: int, right: int) -> FloatArray:
        row, column = self.start
        return self.values[top - row : bottom - row, left - column : right - column]


def _moved(pixels: npt.NDArray[Any], column: float, row: float) -> _Window:
    values = pixels.astype(np.float64)
    start = []
    for axis, shift in enumerate((row, column)):
        first = int(np.ceil(shift - _EXACT))
        part = first - shift
        if part > _EXACT:
            before, after = (np.take(values, range(k, values.shape[axis] - 1 + k), axis=axis) for k in (0, 1))
            values = before * (1 - part) + after * part
        start.append(first)
    return _Window(values=values, start=(start[0], start[1]))
