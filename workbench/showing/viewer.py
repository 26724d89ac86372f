"""Writes the page in which a person looks at a volume and its segmentations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

from healthimaging.errors import GeometryError, ServiceError, VolumeError
from healthimaging.image_set import ImageSet
from healthimaging.volumes.volume import Volume
from workbench.deployment import Deployment
from workbench.errors import WorkbenchError
from workbench.failures import ACCESS_DENIED
from workbench.progress import Progress, silent
from workbench.show import headers_of
from workbench.showing.grey_values import grey_values
from workbench.showing.page import Scene, page
from workbench.showing.patient_axes import PatientAxes
from workbench.showing.private_file import write_private
from workbench.showing.reduction import reduced
from workbench.showing.segmentations import overlay, segmentations_of, segmented_series

NO_SEGMENTATION = "none"
"""In place of a segmentation's image set."""


@dataclass(frozen=True, kw_only=True)
class Viewed:
    """The page that was written."""

    image_set_id: str
    version_id: str
    html: Path
    segments: tuple[str, ...]
    """Labels of the segments that it shows."""
    notes: tuple[str, ...]

    def to_json(self) -> dict[str, object]:
        return {
            "imageSetId": self.image_set_id,
            "versionId": self.version_id,
            "html": str(self.html),
            "segments": list(self.segments),
            "notes": list(self.notes),
        }


def write_viewer(
    deployment: Deployment,
    image_set_id: str,
    *,
    version_id: str | None = None,
    segmentation: str | None = None,
    folder: Path,
    patient: bool = False,
    progress: Progress = silent,
) -> Viewed:
    """Write `<folder>/<image set id>.viewer.html`, mode 0600: the largest volume, with its segmentations.

    Args:
        deployment: Whose data store it is.
        image_set_id: An image set with a volume.
        version_id: Its version; the latest when None.
        segmentation: The image set of the one segmentation that is shown, or `NO_SEGMENTATION`; every one of
            the study that refers to the series when None.
        folder: Where the page goes.
        patient: Whether attributes of the person are written into it.
        progress: Is told what is read.

    Raises:
        WorkbenchError: The image set holds no volume in grey values.
        HealthImagingError: It cannot be read.
    """
    datastore = deployment.stack("data")["DatastoreId"]
    client = deployment.session.client("medical-imaging")
    image_set = ImageSet.open(client, datastore, image_set_id, version_id)
    if segmented := segmented_series(image_set):
        raise WorkbenchError(
            f"Image set {image_set_id} is a segmentation of series {', '.join(sorted(segmented))}.",
            advice="Show the image set of that series: its segmentations are found.",
        )
    progress("reading the volume")
    volume, notes = _volume(image_set)
    axes = PatientAxes.of(volume.geometry)
    small = reduced(axes.turned(volume.array), axes.affine)
    if prod(small.factors) > 1:
        z, y, x = small.factors
        notes.append(
            f"Reduced: every voxel in the picture and under the pointer is the mean of {x} x {y} x {z}, and "
            "a segment is drawn wherever one voxel of such a block is in it. Volumes in ml are of the "
            "original."
        )
    progress("looking for segmentations")
    found, told = _segmentations(client, datastore, image_set, volume, segmentation)
    shown = overlay(
        found,
        like=volume.geometry,
        axes=axes,
        factors=small.factors,
    )
    notes += [*told, *shown.notes]
    headers = {str(one.SOPInstanceUID): one for one in image_set.datasets(pixels=False)}
    slices = [
        (headers[uid], frame) for uid, frame in zip(volume.instance_uids, volume.frame_numbers, strict=True)
    ]
    grey = grey_values(slices, small.array)
    notes += grey.notes
    document = page(
        Scene(
            title=f"Image set {image_set_id}, version {image_set.ref.version_id}",
            array=small.array,
            affine=small.affine,
            slice_axis=axes.slice_axis,
            grey=grey,
            overlay=shown,
            headers=headers_of(slices[0][0], patient=patient),
            notes=notes,
        )
    )
    html = folder / f"{image_set_id}.viewer.html"
    write_private(html, document.encode())
    return Viewed(
        image_set_id=image_set_id,
        version_id=image_set.ref.version_id,
        html=html,
        segments=tuple(one.label for one in shown.segments),
        notes=tuple(notes),
    )


def _volume(image_set: ImageSet) -> tuple[Volume, list[str]]:
    """The largest volume, and what has to be said of it."""
    notes = []
    try:
        volumes = image_set.volumes(resample=True)
        grey = [one for one in volumes if one.array.ndim == 3]
        if not grey:
            raise VolumeError("its pictures are in colour")
    except (GeometryError, VolumeError) as error:
        raise WorkbenchError(
            f"Image set {image_set.ref.image_set_id} has no volume to show: {error}",
            advice="Without --viewer its header is shown.",
        ) from error
    volume = max(grey, key=lambda one: one.array.size)
    if volume.resampled:
        notes.append("Interpolated onto a regular grid: the slices are tilted or unevenly spaced.")
    if len(volumes) > 1:
        told = ", ".join(f"{keyword} {value}" for keyword, value in volume.distinction)
        notes.append(f"One of {len(volumes)} volumes, the largest{f': {told}' if told else ''}.")
    if volume.unplaced_instance_uids:
        notes.append(f"{len(volume.unplaced_instance_uids)} instances of the series lie in no volume.")
    if not image_set.is_primary:
        notes.append("This image set is not primary: it conflicts with others of its study.")
    return volume, notes


def _segmentations(
    client: Any, datastore: str, image_set: ImageSet, volume: Volume, wanted: str | None
) -> tuple[Sequence[ImageSet], Sequence[str]]:
    """The segmentations that are wanted, and what has to be said of the search for them."""
    if wanted == NO_SEGMENTATION:
        return [], []
    if wanted is not None:
        one = ImageSet.open(client, datastore, wanted)
        if volume.series_instance_uid not in segmented_series(one):
            raise WorkbenchError(
                f"Image set {wanted} is no segmentation of series {volume.series_instance_uid}.",
                advice="Leave --segmentation out: those of the series are found.",
            )
        return [one], []
    try:
        found, unsearched = segmentations_of(
            client,
            datastore,
            study_instance_uid=str(image_set.metadata.study_instance_uid),
            series_instance_uid=volume.series_instance_uid,
        )
    except ServiceError as error:
        if error.code not in ACCESS_DENIED:
            raise
        # Who may read image sets by their names need not be allowed to search the archive.
        note = "Nobody looked for segmentations: that takes medical-imaging:SearchImageSets."
        return [], [f"{note} Name one with --segmentation."]
    unsearched = [name for name in unsearched if name != image_set.ref.image_set_id]
    if not unsearched:
        return found, []
    note = "Nobody looked into image sets of the study that are not primary"
    return found, [f"{note}: {', '.join(unsearched)}. Name a segmentation with --segmentation."]
