"""Reads a segmentation back from the datastore and compares it with a reference mask."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

import healthimaging
from healthimaging.volumes.geometry import Geometry
from workbench.demo.nrrd_volume import CtVolume
from workbench.errors import WorkbenchError

Mask = npt.NDArray[np.bool_]

POSITION_TOLERANCE_MM = 0.01
"""Decimal strings of a DICOM header keep positions far better than this; a voxel is fifty times larger."""


def stored_mask(client: Any, *, datastore_id: str, image_set_id: str, label: str, like: Geometry) -> Mask:
    """The segment `label` of a stored segmentation on the grid `like`, (slices, rows, columns)."""
    datasets = healthimaging.ImageSet.open(client, datastore_id, image_set_id).datasets()
    if len(datasets) != 1:
        raise WorkbenchError(
            f"Image set {image_set_id} holds {len(datasets)} instances, not one segmentation.",
            advice="Look at it: monai-aws show " + image_set_id,
        )
    volume = healthimaging.read_segmentation(datasets[0], like)
    names = [segment.label for segment in volume.segments]
    if label not in names:
        raise WorkbenchError(
            f"Segmentation {datasets[0].SOPInstanceUID} has no segment {label!r}, only {', '.join(names)}.",
            advice="The model's channel names say what its segments are called.",
        )
    return np.asarray(volume.array[names.index(label)], dtype=np.bool_)


def on_grid(array: npt.NDArray[np.generic], source: CtVolume, geometry: Geometry) -> npt.NDArray[np.generic]:
    """`array`, which lies on the grid of `source`, in the slice order of `geometry`; both must be one grid
    in space.

    Files and datastore agree on voxels, but not on which end of the patient comes first.
    """
    ours, theirs = source.affine, np.asarray(geometry.affine, dtype=np.float64)
    if np.dot(ours[:3, 2], theirs[:3, 2]) < 0:
        array = array[::-1]
        ours = ours.copy()
        ours[:3, 3] += ours[:3, 2] * (array.shape[0] - 1)
        ours[:3, 2] *= -1
    corners = np.array([[0, 0, 0, 1], [n - 1 for n in array.shape[::-1]] + [1]], dtype=np.float64).T
    shift = float(np.abs(ours @ corners - theirs @ corners).max())
    if array.shape != tuple(geometry.shape) or shift > POSITION_TOLERANCE_MM:
        raise WorkbenchError(
            f"The datastore's volume {tuple(geometry.shape)} lies {shift:.3f} mm off its source "
            f"{array.shape}.",
            advice="Geometry was lost between the files and the datastore: please report it.",
        )
    return array


def dice(one: Mask, other: Mask) -> float:
    """Dice coefficient of two masks; 1 if both are empty."""
    total = int(one.sum()) + int(other.sum())
    return 1.0 if total == 0 else 2.0 * int((one & other).sum()) / total
