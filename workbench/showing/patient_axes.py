"""Turns a volume so that its axes run as near as they can to the patient's: left, back and head.

Nothing is interpolated: axes are exchanged and reversed, and the affine says so. After that every plane can
be shown without asking again how the scanner wrote it, and the letters at its sides come from the affine.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import permutations

import numpy as np
import numpy.typing as npt

from healthimaging.volumes.geometry import FloatArray, Geometry

LETTERS = (("R", "L"), ("A", "P"), ("F", "H"))
"""The two ends of the patient's axes in LPS (PS3.3 section C.7.6.1.1.1): falling and growing x, y, z."""

SECOND_LETTER = 0.2
"""Smallest direction cosine that gets a letter of its own: 11.5 degrees out of a plane are seen."""


@dataclass(frozen=True, kw_only=True, eq=False)
class PatientAxes:
    """How one grid is turned.

    Attributes:
        affine: 4x4; maps indices (x, y, z, 1) of the turned array to LPS mm. x grows towards the patient's
            left, y to the back, z to the head, or as near to that as an axis of the grid runs.
        shape: (z, y, x): the shape of the turned array.
        slice_axis: Which of x, y, z (0, 1, 2) crosses the slices as they were acquired.
    """

    affine: FloatArray
    shape: tuple[int, int, int]
    slice_axis: int
    _order: tuple[int, int, int]
    _reversed: tuple[int, ...]

    @classmethod
    def of(cls, geometry: Geometry) -> PatientAxes:
        """The turn that brings a grid nearest to the patient's axes."""
        direction = geometry.direction
        columns = max(
            permutations(range(3)),
            key=lambda order: float(sum(abs(direction[axis, order[axis]]) for axis in range(3))),
        )
        affine = geometry.affine.copy()
        counts = geometry.shape[::-1]
        backwards = []
        for axis, column in enumerate(columns):
            step = geometry.affine[:3, column]
            if direction[axis, column] < 0:
                affine[:3, 3] += step * (counts[column] - 1)
                step = -step
                backwards.append(2 - axis)
            affine[:3, axis] = step
        return cls(
            affine=affine,
            shape=(counts[columns[2]], counts[columns[1]], counts[columns[0]]),
            slice_axis=columns.index(2),
            # An array counts (slice, row, column), an affine (column, row, slice).
            _order=(2 - columns[2], 2 - columns[1], 2 - columns[0]),
            _reversed=tuple(backwards),
        )

    def turned(self, array: npt.NDArray[np.generic]) -> npt.NDArray[np.generic]:
        """A view of an array on the grid, (slices, rows, columns), as (z, y, x)."""
        return np.flip(array.transpose(self._order), axis=self._reversed)


def sides(affine: FloatArray) -> tuple[tuple[str, str], ...]:
    """The letters at the low and the high end of each index axis of an affine: ("R", "L") or, where it is
    oblique, ("RA", "LP"); the nearest axis first.
    """
    found = []
    for axis in range(3):
        step = affine[:3, axis] / np.linalg.norm(affine[:3, axis])
        near = [one for one in np.argsort(-np.abs(step), kind="stable") if abs(step[one]) >= SECOND_LETTER]
        high = "".join(LETTERS[one][int(step[one] > 0)] for one in near)
        low = "".join(LETTERS[one][int(step[one] < 0)] for one in near)
        found.append((low, high))
    return tuple(found)


def tilt_degrees(affine: FloatArray) -> tuple[float, ...]:
    """The angle between each axis of an affine and the patient's axis of the same number."""
    cosines = [abs(affine[axis, axis]) / np.linalg.norm(affine[:3, axis]) for axis in range(3)]
    return tuple(float(np.degrees(np.arccos(min(1.0, cosine)))) for cosine in cosines)
