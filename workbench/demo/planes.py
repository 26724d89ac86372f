"""Three orthogonal planes of a volume with the contours of masks, as a report shows them.

Every picture has square pixels (slices of 5 mm and pixels of 0.6 mm would otherwise show a flattened
patient), all three have the same scale in mm, and the side letters come from the geometry and not from
habit.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from dataclasses import dataclass

import contourpy
import numpy as np
import numpy.typing as npt
from PIL import Image
from scipy import ndimage

from healthimaging.volumes.geometry import Geometry

Array = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]

PIXEL_MM = 0.8
"""Size of a picture's pixel: finer than the contours' accuracy, coarse enough for a small page."""
MARGIN_MM = 28.0
"""Body around the masks that stays in the picture."""
WINDOW = (-600.0, 1500.0)
"""Centre and width in HU: the lung window."""
NAMES = ("Axial", "Coronal", "Sagittal")


@dataclass(frozen=True, kw_only=True)
class Plane:
    """One picture."""

    name: str
    position: str
    """Where the plane lies: "slice 31 of 61"."""
    png: str
    """Base64 of an 8-bit grey PNG."""
    width: int
    height: int
    """Pixels of PIXEL_MM."""
    contours: Mapping[str, str]
    """SVG path data by the mask's name, in the picture's pixel coordinates."""
    left: str
    right: str
    top: str
    bottom: str
    """Anatomical directions of the sides: R L A P H F."""


def orthogonal_planes(
    hounsfield: npt.NDArray[np.generic], geometry: Geometry, masks: Mapping[str, Mask]
) -> tuple[Plane, ...]:
    """Axial, coronal and sagittal plane through the middle of the masks.

    Args:
        hounsfield: (slices, rows, columns) in HU.
        geometry: Its grid; the slices are taken to be axial, as a chest CT's are.
        masks: Masks of the same shape by name.
    """
    union = np.logical_or.reduce(list(masks.values()))
    volume = np.asarray(hounsfield, dtype=np.float32)
    column_mm, row_mm, slice_mm = geometry.spacing
    spacing = (slice_mm, row_mm, column_mm)
    box = _box(union, spacing)
    centre = _centre(union)
    planes = []
    for axis, name in enumerate(NAMES):
        index = centre[axis]
        vertical, horizontal = [one for one in range(3) if one != axis]
        # Radiological display: head or front up, the patient's right (or front, in a sagittal plane) at the
        # left.
        directions = [_direction(geometry, vertical), _direction(geometry, horizontal)]
        flips = [_letter(directions[0]) in "AH", _letter(directions[1]) in "AR"]
        shown = [-d if flip else d for d, flip in zip(directions, flips, strict=True)]
        sizes = (spacing[vertical], spacing[horizontal])
        window = (box[vertical], box[horizontal])
        picture = _picture(np.take(volume, index, axis=axis), sizes, window, flips)
        contours = {
            key: _contour(_picture(np.take(mask, index, axis=axis).astype(np.float32), sizes, window, flips))
            for key, mask in masks.items()
        }
        planes.append(
            Plane(
                name=name,
                position=f"{('slice', 'row', 'column')[axis]} {index + 1} of {volume.shape[axis]}",
                png=_png(picture),
                width=picture.shape[1],
                height=picture.shape[0],
                contours=contours,
                left=_letter(-shown[1]),
                right=_letter(shown[1]),
                top=_letter(-shown[0]),
                bottom=_letter(shown[0]),
            )
        )
    return tuple(planes)


def _box(mask: Mask, spacing: tuple[float, float, float]) -> list[tuple[float, float]]:
    """First and one-past-last index with the margin around the mask, per axis; the volume's limits if it is
    empty.
    """
    limits = []
    for axis, size in enumerate(mask.shape):
        others = tuple(one for one in range(3) if one != axis)
        used = np.flatnonzero(mask.any(axis=others))
        margin = MARGIN_MM / spacing[axis]
        first, last = (used[0], used[-1] + 1) if used.size else (0, size)
        limits.append((max(0.0, first - margin), min(float(size), last + margin)))
    return limits


def _centre(mask: Mask) -> tuple[int, int, int]:
    """Per axis the plane that cuts most of the mask: the middle of two lungs lies between them."""
    if not mask.any():
        return mask.shape[0] // 2, mask.shape[1] // 2, mask.shape[2] // 2
    counts = [mask.sum(axis=tuple(one for one in range(3) if one != axis)) for axis in range(3)]
    return int(counts[0].argmax()), int(counts[1].argmax()), int(counts[2].argmax())


def _picture(
    plane: npt.NDArray[np.float32],
    sizes: tuple[float, float],
    window: tuple[tuple[float, float], tuple[float, float]],
    flips: list[bool],
) -> Array:
    """Resample a plane linearly to square pixels of PIXEL_MM within `window` (index limits per axis)."""
    axes = []
    for size, (first, last) in zip(sizes, window, strict=True):
        count = max(2, round((last - first) * size / PIXEL_MM))
        # Pixel centres: index i covers i .. i + 1 in units of voxels, its centre is at i + 0.5.
        axes.append(first + (np.arange(count) + 0.5) * (last - first) / count - 0.5)
    grid = np.meshgrid(*axes, indexing="ij")
    picture: Array = ndimage.map_coordinates(plane.astype(np.float64), grid, order=1, mode="nearest")
    for axis, flip in enumerate(flips):
        if flip:
            picture = np.flip(picture, axis=axis)
    return picture


def _contour(mask: Array) -> str:
    """SVG path of the line at one half, which for a mask of voxels is its smoothed border."""
    # Padded with zeros, so that a mask that reaches the edge is closed there.
    lines = contourpy.contour_generator(z=np.pad(mask, 1)).lines(0.5)
    parts = []
    for line in lines:
        # From the padded grid's indices to pixel centres of the picture.
        points = np.asarray(line, dtype=np.float64) - 0.5
        parts.append("M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in points) + "Z")
    return "".join(parts)


def _png(hounsfield: Array) -> str:
    centre, width = WINDOW
    grey = np.clip((hounsfield - (centre - width / 2)) / width, 0, 1) * 255
    data = io.BytesIO()
    Image.fromarray(grey.astype(np.uint8)).save(data, format="PNG", optimize=True)
    return base64.b64encode(data.getvalue()).decode("ascii")


def _direction(geometry: Geometry, axis: int) -> Array:
    """LPS direction of a growing index; `axis` counts (slice, row, column), the affine's columns the other
    way.
    """
    column = np.asarray(geometry.affine, dtype=np.float64)[:3, 2 - axis]
    return column / float(np.linalg.norm(column))


def _letter(direction: Array) -> str:
    """The anatomical side that an LPS direction mostly points to."""
    axis = int(np.abs(direction).argmax())
    return (("L", "R"), ("P", "A"), ("H", "F"))[axis][0 if direction[axis] > 0 else 1]
