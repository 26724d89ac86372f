"""The place of a regular grid of voxels in the patient.

Patient coordinates are DICOM's: LPS, in mm (x grows to the patient's left, y to the back, z to the head;
DICOM PS3.3 section C.7.6.2.1.1). Index order is (column, row, slice) wherever a point is meant, and (slice,
row, column) for arrays.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from healthimaging.errors import GeometryError, GeometryMismatchError

FloatArray = npt.NDArray[np.float64]

DIRECTION_TOLERANCE = 1e-3
"""How far direction cosines may be from unit length and right angles.

ImageOrientationPatient is decimal text, and scanners write as few as three decimals. 1e-3 rad displaces the
far edge of a 500 mm image by 0.5 mm at most.
"""

MATCH_TOLERANCE = 0.1
"""Largest distance of corresponding voxels of one grid, as a fraction of the smallest voxel side.

A tenth of a voxel is more than rounding of decimal text (16 characters) ever makes, and less than any real
shift of the grid.
"""


@dataclass(frozen=True, eq=False)
class Geometry:
    """A regular, rectangular grid of voxels in the patient (LPS, mm).

    Attributes:
        affine: 4x4 float64, read-only. Maps (column, row, slice, 1) indices, counted from 0 at the centre
            of the first voxel, to LPS mm.
        shape: (slices, rows, columns): the shape of the array that lies on the grid.
        frame_of_reference_uid: Frame of Reference UID (0020,0052) that the coordinates belong to; None when
            the header has none.
    """

    affine: FloatArray
    shape: tuple[int, int, int]
    frame_of_reference_uid: str | None = None

    def __post_init__(self) -> None:
        affine = np.array(self.affine, dtype=np.float64)
        if affine.shape != (4, 4):
            msg = f"A geometry's affine must be 4x4, got {affine.shape}"
            raise GeometryError(msg)
        if not np.isfinite(affine).all() or not np.array_equal(affine[3], [0, 0, 0, 1]):
            msg = f"A geometry's affine must be finite with last row 0 0 0 1, got {affine.tolist()}"
            raise GeometryError(msg)
        shape = tuple(int(n) for n in self.shape)
        if len(shape) != 3 or min(shape) < 1:
            msg = (
                f"A geometry's shape must be three positive numbers (slices, rows, columns), got {self.shape}"
            )
            raise GeometryError(msg)
        spacing = np.linalg.norm(affine[:3, :3], axis=0)
        if spacing.min() <= 0:
            msg = f"A geometry's voxels must have a size, got {spacing.tolist()} mm"
            raise GeometryError(msg)
        cosines = affine[:3, :3] / spacing
        if np.abs(cosines.T @ cosines - np.eye(3)).max() > DIRECTION_TOLERANCE:
            msg = f"A geometry's axes must be at right angles, got directions {cosines.tolist()}"
            raise GeometryError(msg)
        affine.setflags(write=False)
        object.__setattr__(self, "affine", affine)
        object.__setattr__(self, "shape", shape)

    @classmethod
    def from_dicom(
        cls,
        *,
        position: Sequence[float],
        orientation: Sequence[float],
        pixel_spacing: Sequence[float],
        slice_spacing: float,
        shape: tuple[int, int, int],
        frame_of_reference_uid: str | None = None,
    ) -> Geometry:
        """The grid of slices along the normal of the image plane (DICOM PS3.3 section C.7.6.2.1.1).

        Args:
            position: ImagePositionPatient of the first slice: LPS mm of the centre of its first voxel.
            orientation: ImageOrientationPatient: direction cosines along a row (growing column index), then
                along a column.
            pixel_spacing: PixelSpacing: (between rows, between columns) in mm.
            slice_spacing: Distance of slice centres along the normal (row x column direction), in mm.
            shape: (slices, rows, columns).
            frame_of_reference_uid: Frame of Reference UID.
        """
        along_row, along_column, normal = plane_directions(orientation)
        between_rows, between_columns = pixel_spacing
        affine = np.eye(4)
        affine[:3, 0] = along_row * between_columns
        affine[:3, 1] = along_column * between_rows
        affine[:3, 2] = normal * slice_spacing
        affine[:3, 3] = position
        return cls(affine, shape, frame_of_reference_uid)

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Voxel size in mm along (column, row, slice) indices."""
        column, row, slice_ = np.linalg.norm(self.affine[:3, :3], axis=0)
        return float(column), float(row), float(slice_)

    @property
    def origin(self) -> tuple[float, float, float]:
        """LPS mm of the centre of voxel (0, 0, 0)."""
        x, y, z = self.affine[:3, 3]
        return float(x), float(y), float(z)

    @property
    def direction(self) -> FloatArray:
        """3x3 float64; its columns are the unit vectors of growing column, row and slice index in LPS."""
        return np.asarray(self.affine[:3, :3] / self.spacing, dtype=np.float64)

    @property
    def ras_affine(self) -> FloatArray:
        """The affine in RAS mm, as NIfTI and MONAI want it: same index order, x and y negated."""
        return np.diag([-1.0, -1.0, 1.0, 1.0]) @ self.affine

    @property
    def voxel_volume(self) -> float:
        """Volume of one voxel in mm3."""
        return float(abs(np.linalg.det(self.affine[:3, :3])))

    def at_level(self, level: int) -> Geometry:
        """The grid of the same slices at a lower resolution.

        JPEG 2000 keeps every second sample, from the first on (ISO/IEC 15444-1 section F.3): pixel (row,
        column) of level n lies where pixel (row x 2^n, column x 2^n) of the full resolution lies. So the
        origin and the directions stay, the spacing within the slice doubles with each level, and slices are
        as many and as far apart as before.

        Args:
            level: How often rows and columns are halved (rounded up); 0 is the full resolution.

        Raises:
            ValueError: The level is negative.
        """
        if level < 0:
            msg = f"A level counts halvings of the full resolution from 0, got {level}"
            raise ValueError(msg)
        step = 2**level
        slices, rows, columns = self.shape
        affine = self.affine.copy()
        affine[:3, :2] *= step
        return Geometry(affine, (slices, -(-rows // step), -(-columns // step)), self.frame_of_reference_uid)

    def to_patient(self, indices: npt.ArrayLike) -> FloatArray:
        """Maps (..., 3) indices (column, row, slice), which may lie between voxels, to (..., 3) LPS mm."""
        points = np.asarray(indices, dtype=np.float64)
        mapped: FloatArray = points @ self.affine[:3, :3].T + self.affine[:3, 3]
        return mapped

    def to_index(self, points: npt.ArrayLike) -> FloatArray:
        """Maps (..., 3) LPS mm to (..., 3) indices (column, row, slice), which may lie between voxels."""
        offsets = np.asarray(points, dtype=np.float64) - self.affine[:3, 3]
        return np.asarray(np.linalg.solve(self.affine[:3, :3], offsets[..., None])[..., 0], dtype=np.float64)

    def largest_shift(self, other: Geometry) -> float:
        """Largest distance in mm of corresponding corner voxels; infinite when the shapes differ."""
        if self.shape != other.shape:
            return float("inf")
        slices, rows, columns = self.shape
        corners = [(c, r, s) for c in (0, columns - 1) for r in (0, rows - 1) for s in (0, slices - 1)]
        return float(np.linalg.norm(self.to_patient(corners) - other.to_patient(corners), axis=1).max())

    def matches(self, other: Geometry, *, tolerance: float = MATCH_TOLERANCE) -> bool:
        """Whether both are one grid: shape, place, and the frame of reference where both name one.

        Args:
            other: The grid to compare with.
            tolerance: Largest distance of two corresponding voxels, as a fraction of the smallest voxel side.
        """
        frames = {self.frame_of_reference_uid, other.frame_of_reference_uid} - {None}
        return len(frames) < 2 and self.largest_shift(other) <= tolerance * min(self.spacing)

    def require_match(self, other: Geometry, *, tolerance: float = MATCH_TOLERANCE) -> None:
        """Like `matches`, with an error that says what differs.

        Raises:
            GeometryMismatchError: The grids differ.
        """
        if self.matches(other, tolerance=tolerance):
            return
        if self.shape != other.shape:
            msg = f"Grids differ in shape (slices, rows, columns): {self.shape} and {other.shape}"
        elif (shift := self.largest_shift(other)) > tolerance * min(self.spacing):
            msg = f"Grids of spacing {self.spacing} and {other.spacing} mm lie up to {shift:.3f} mm apart"
        else:
            msg = "Grids belong to different frames of reference"
        raise GeometryMismatchError(msg)


def plane_directions(orientation: Sequence[float]) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Unit vectors (LPS) along a row, along a column, and along the normal (row x column) of an image plane.

    Args:
        orientation: ImageOrientationPatient, six direction cosines.

    Raises:
        GeometryError: The cosines are not unit vectors at right angles, within `DIRECTION_TOLERANCE`.
    """
    cosines = np.asarray(orientation, dtype=np.float64)
    if cosines.shape != (6,) or not np.isfinite(cosines).all():
        msg = f"ImageOrientationPatient must be six numbers, got {cosines.tolist()}"
        raise GeometryError(msg)
    row, column = cosines[:3], cosines[3:]
    lengths = np.linalg.norm(row), np.linalg.norm(column)
    if (
        max(abs(length - 1) for length in lengths) > DIRECTION_TOLERANCE
        or abs(row @ column) > DIRECTION_TOLERANCE
    ):
        msg = f"ImageOrientationPatient must be two unit vectors at right angles, got {cosines.tolist()}"
        raise GeometryError(msg)
    along_row = row / lengths[0]
    # Rounded text leaves the two cosines not quite at right angles; the column direction gives way.
    along_column = column - (column @ along_row) * along_row
    along_column /= np.linalg.norm(along_column)
    return along_row, along_column, np.cross(along_row, along_column)
