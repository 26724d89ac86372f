"""A lung mask by classical image processing: the silver label of the demo, and the reference that it scores
against.

No expert drew it. It separates air inside the body from air outside, which is nearly all there is to lungs
on a CT without disease of the chest wall; airways are part of it.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from workbench.errors import WorkbenchError

AIR_HU = -400
"""Below this a voxel is air or aerated lung; soft tissue starts near -100 HU."""
CLOSING_MM = 6.0
"""Radius of the in-plane closing: vessels at the hilum are thinner than twice this."""
LARGEST_HOLE_MM2 = 1500.0
"""Vessels and masses within a lung are filled; what both lungs and the airways may ring in one plane is the
heart.
"""
SMALLEST_PART = 0.05
"""Air pockets below this share of the largest one are bowel gas or noise, not a lung."""

Mask = npt.NDArray[np.bool_]


def silver_lung_mask(hounsfield: npt.NDArray[np.integer], *, spacing: tuple[float, float, float]) -> Mask:
    """Lungs of a chest CT.

    Args:
        hounsfield: (slices, rows, columns) in HU.
        spacing: (column, row, slice) in mm.

    Returns:
        A mask of the same shape.
    """
    air = hounsfield < AIR_HU
    inside = np.stack([_without_border_air(plane) for plane in air])
    lungs = _large_parts(inside)
    if not lungs.any():
        raise WorkbenchError(
            "There is no air inside the body in this volume, hence no lung.", advice="Give a chest CT in HU."
        )
    element = _disk(CLOSING_MM, (spacing[1], spacing[0]))
    largest_hole = LARGEST_HOLE_MM2 / (spacing[0] * spacing[1])
    return np.stack([_closed_and_filled(plane, element, largest_hole) for plane in lungs])


def _without_border_air(plane: Mask) -> Mask:
    """Drop every air region that reaches the image's edge, and what is not enclosed by the largest body."""
    tissue, count = ndimage.label(~plane)
    if count == 0:
        return np.zeros_like(plane)
    sizes = np.bincount(tissue.ravel())
    sizes[0] = 0
    # The table is tissue-like too, but smaller than the body; filling the body alone leaves the air under
    # it outside.
    body = ndimage.binary_fill_holes(tissue == int(sizes.argmax()))
    labels, _ = ndimage.label(plane)
    edge = np.unique(np.concatenate([labels[0], labels[-1], labels[:, 0], labels[:, -1]]))
    enclosed: Mask = plane & np.asarray(body, dtype=np.bool_) & ~np.isin(labels, edge[edge != 0])
    return enclosed


def _large_parts(mask: Mask) -> Mask:
    labels, count = ndimage.label(mask)
    if count == 0:
        return mask
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    kept: Mask = np.isin(labels, np.flatnonzero(sizes >= SMALLEST_PART * sizes.max()))
    return kept


def _closed_and_filled(plane: Mask, element: Mask, largest_hole: float) -> Mask:
    if not plane.any():
        return plane
    # Only the box around the lungs, padded: a closing would otherwise erode at the edge of the image.
    rows, columns = ndimage.find_objects(plane.astype(np.uint8))[0]
    margin = max(element.shape)
    padded = np.pad(plane[rows, columns], margin)
    closed = ndimage.binary_closing(padded, structure=element)
    holes, _ = ndimage.label(ndimage.binary_fill_holes(closed) & ~closed)
    small = np.bincount(holes.ravel()) <= largest_hole
    small[0] = False
    result = plane.copy()
    result[rows, columns] = (closed | small[holes])[margin:-margin, margin:-margin]
    return result


def _disk(radius_mm: float, spacing: tuple[float, float]) -> Mask:
    """An ellipse of pixels that is a disk in mm; `spacing` is (row, column)."""
    half = [max(1, int(radius_mm / one)) for one in spacing]
    rows, columns = np.ogrid[-half[0] : half[0] + 1, -half[1] : half[1] + 1]
    disk: Mask = (rows * spacing[0]) ** 2 + (columns * spacing[1]) ** 2 <= radius_mm**2
    return disk
