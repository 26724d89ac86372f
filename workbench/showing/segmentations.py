"""Finds the segmentations of a series in its study, and lays their segments over its volume."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from healthimaging.catalog.references import referenced_series
from healthimaging.errors import HealthImagingError
from healthimaging.image_set import ImageSet
from healthimaging.image_set_search import find_image_sets
from healthimaging.primary_image_sets import open_primary
from healthimaging.segmentation import SEGMENTATION_SOP_CLASS, LabelVolume, read_segmentation
from healthimaging.timings import Stopwatch
from healthimaging.volumes.geometry import Geometry
from workbench.showing.patient_axes import PatientAxes
from workbench.showing.reduction import Factors, any_in_block

MASK_BYTES = 4 * 2**30
"""Of all masks of one segmentation, which are read at once, a byte a voxel."""

WORKERS = 8

COLOURS = (
    *((230, 159, 0), (86, 180, 233), (0, 158, 115), (240, 228, 66), (0, 114, 178), (213, 94, 0)),
    *((204, 121, 167), (150, 220, 120), (190, 150, 255), (255, 170, 170)),
)
"""For segments that bring none: the palette of Okabe and Ito, which colour-blind people can tell apart, and
four more.
"""

LAYER_SEGMENTS = 255
"""A layer is a byte a voxel, and 0 is none."""


@dataclass(frozen=True, kw_only=True)
class ShownSegment:
    """A segment as the page knows it."""

    label: str
    image_set_id: str
    """Of the segmentation that it is from."""
    colour: tuple[int, int, int]
    millilitres: float
    """At the resolution of the segmentation."""
    layer: int
    value: int
    """What its voxels have in that layer."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Overlay:
    """Segments over a volume.

    Attributes:
        layers: (z, y, x) of uint8 each; segments that overlap are in different ones.
        segments: In the order of segmentations and segment numbers.
        notes: Which segmentations could not be shown, and why.
    """

    layers: tuple[npt.NDArray[np.uint8], ...]
    segments: tuple[ShownSegment, ...]
    notes: tuple[str, ...]


def segmentations_of(
    client: Any, datastore_id: str, *, study_instance_uid: str, series_instance_uid: str
) -> tuple[list[ImageSet], list[str]]:
    """The primary image sets of a study whose segmentations refer to a series, and the ids of those that were
    not opened, because they are not primary.

    Raises:
        ServiceError: The service refused or failed.
    """
    found = find_image_sets(client, datastore_id, DICOMStudyInstanceUID=study_instance_uid)
    opened, others = open_primary(client, found, workers=WORKERS, stopwatch=Stopwatch())
    shown = [one for one in opened if series_instance_uid in segmented_series(one)]
    return shown, [one.image_set_id for one in others]


def segmented_series(image_set: ImageSet) -> set[str]:
    """The Series Instance UIDs that segmentations in an image set refer to; empty if it has none."""
    return {
        uid
        for series in image_set.metadata.series.values()
        if series.attributes.text("Modality") == "SEG"
        for attributes in (series.attributes, *(one.attributes for one in series.instances.values()))
        for uid in referenced_series(attributes)
    }


def overlay(
    image_sets: Sequence[ImageSet], *, like: Geometry, axes: PatientAxes, factors: Factors
) -> Overlay:
    """The segments of segmentations, turned and reduced as the volume on `like` was."""
    layers: list[npt.NDArray[np.uint8]] = []
    taken: list[int] = []
    segments: list[ShownSegment] = []
    notes: list[str] = []
    for image_set in image_sets:
        name = image_set.ref.image_set_id
        try:
            for volume in _label_volumes(image_set, like):
                for mask, description in zip(volume.array, volume.segments, strict=True):
                    small = any_in_block(np.asarray(axes.turned(mask), dtype=np.bool_), factors)
                    layer = _free_layer(layers, taken, small)
                    taken[layer] += 1
                    layers[layer][small] = taken[layer]
                    segments.append(
                        ShownSegment(
                            label=description.label,
                            image_set_id=name,
                            colour=_colour(description.color, segments),
                            millilitres=float(mask.sum()) * like.voxel_volume / 1000,
                            layer=layer,
                            value=taken[layer],
                        )
                    )
        except (HealthImagingError, _TooLarge) as error:
            notes.append(f"Segmentation {name} is not shown: {error}")
    return Overlay(layers=tuple(layers), segments=tuple(segments), notes=tuple(notes))


class _TooLarge(Exception):
    """Its masks do not fit into memory."""


def _label_volumes(image_set: ImageSet, like: Geometry) -> Iterator[LabelVolume]:
    for dataset in image_set.datasets():
        if dataset.get("SOPClassUID") != SEGMENTATION_SOP_CLASS:
            continue
        needed = len(dataset.get("SegmentSequence") or ()) * int(np.prod(like.shape))
        if needed > MASK_BYTES:
            raise _TooLarge(f"its masks take {needed / 2**30:.0f} GiB of memory")
        yield read_segmentation(dataset, like)


def _colour(own: tuple[int, int, int] | None, before: Sequence[ShownSegment]) -> tuple[int, int, int]:
    """A segment's own colour unless another has it: two results of one model must be told apart."""
    used = {one.colour for one in before}
    if own is not None and own not in used:
        return own
    return next((one for one in COLOURS if one not in used), COLOURS[len(before) % len(COLOURS)])


def _free_layer(layers: list[npt.NDArray[np.uint8]], taken: list[int], mask: npt.NDArray[np.bool_]) -> int:
    """The first layer in which the mask's voxels are free, or a new one."""
    for number, layer in enumerate(layers):
        if taken[number] < LAYER_SEGMENTS and not layer[mask].any():
            return number
    layers.append(np.zeros(mask.shape, dtype=np.uint8))
    taken.append(0)
    return len(layers) - 1
