"""Volumes as MONAI MetaTensors, and manifests as MONAI datasets. Needs torch and monai.

MONAI's conventions: channel first, spatial axes in the order of the affine's columns, affine in RAS mm. A
(slices, rows, columns) array therefore becomes (1, columns, rows, slices), and the LPS affine has x and y
negated.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from monai.data import MetaTensor

from healthimaging.errors import ManifestError, VolumeError
from healthimaging.geometry import Geometry
from healthimaging.image_set import ImageSet
from healthimaging.manifest import Case, patient_key
from healthimaging.reference import ImageSetRef
from healthimaging.segmentation import LabelVolume, read_segmentation
from healthimaging.volume import Volume


def load_metatensor(volume: Volume | LabelVolume) -> MetaTensor:
    """A volume as a MetaTensor.

    Returns:
        float32 (1, columns, rows, slices) for an image; uint8 (segments, columns, rows, slices) of 0 and 1
        for labels. Its affine maps (column, row, slice) to RAS mm; `meta` names the series and its instances.
    """
    if isinstance(volume, LabelVolume):
        return _metatensor(
            volume.array.astype(np.uint8),
            volume.geometry,
            {"segment_labels": [segment.label for segment in volume.segments]},
        )
    return _metatensor(
        volume.array[None].astype(np.float32),
        volume.geometry,
        {
            "series_instance_uid": volume.series_instance_uid,
            "instance_uids": list(volume.instance_uids),
            "modality": volume.modality,
        },
    )


def _metatensor(array: npt.NDArray[Any], geometry: Geometry, meta: Mapping[str, Any]) -> MetaTensor:
    """From (channels, slices, rows, columns)."""
    column_first = np.ascontiguousarray(array.transpose(0, 3, 2, 1))
    affine = torch.from_numpy(geometry.ras_affine.copy())
    tensor: MetaTensor = MetaTensor(torch.from_numpy(column_first), affine=affine, meta=dict(meta))
    # What MONAI's own readers set: Spacing and Invert compare it with the affine.
    tensor.meta["original_affine"] = affine.clone()
    tensor.meta["spatial_shape"] = np.array(column_first.shape[1:])
    tensor.meta["original_channel_dim"] = 0
    return tensor


def open_case(client: Any, case: Case) -> tuple[ImageSet, ImageSet | None]:
    """Opens image and label of a case, without pixels, and makes sure that they are of one patient and study.

    Raises:
        ManifestError: The image is not of the case's patient, or the label is of another patient or study.
            Patients scanned by one protocol share a grid, so that geometry cannot tell.
        HealthImagingError: One cannot be read; the subclass says why.
    """
    image = _open(client, case.image)
    patient_id = image.metadata.patient.text("PatientID")
    if patient_key(patient_id or "") != case.patient_key:
        msg = f"The image set is not of patient {case.patient_key}, whose split it is in"
        raise ManifestError(msg, image_set_id=case.image.image_set_id)
    if case.label is None:
        return image, None
    label = _open(client, case.label)
    if label.metadata.patient.text("PatientID") != patient_id:
        msg = f"The label is of another patient than image set {case.image.image_set_id}"
        raise ManifestError(msg, image_set_id=case.label.image_set_id)
    if label.metadata.study_instance_uid != image.metadata.study_instance_uid:
        msg = f"The label is of another study than image set {case.image.image_set_id}"
        raise ManifestError(msg, image_set_id=case.label.image_set_id)
    return image, label


def load_case(client: Any, case: Case) -> dict[str, Any]:
    """One case of a manifest: `image`, `label` (only where the case has one) and `case`.

    Raises:
        VolumeError: The image set is not one volume, or the label image set not one segmentation.
        HealthImagingError: As `open_case`, or it cannot be read; the subclass says why.
    """
    image, label = open_case(client, case)
    volumes = image.volumes()
    if len(volumes) != 1:
        msg = f"The image set holds {len(volumes)} volumes, a case needs one"
        raise VolumeError(msg, image_set_id=case.image.image_set_id)
    data: dict[str, Any] = {"image": load_metatensor(volumes[0]), "case": case}
    if label is not None:
        labels = label.datasets()
        if len(labels) != 1:
            msg = f"The label image set holds {len(labels)} instances, a case needs one segmentation"
            raise VolumeError(msg, image_set_id=label.ref.image_set_id)
        data["label"] = load_metatensor(read_segmentation(labels[0], volumes[0].geometry))
    return data


def _open(client: Any, ref: ImageSetRef) -> ImageSet:
    return ImageSet.open(client, ref.datastore_id, ref.image_set_id, ref.version_id)


class ImageSetDataset(Sequence[dict[str, Any]]):
    """Cases of a manifest, read from the datastore when they are asked for.

    Items are dictionaries of `image`, `label` and `case`, ready for MONAI's dictionary transforms. Reading
    takes a second or so a case: give this as `data` to MONAI's `CacheDataset` or `PersistentDataset` with
    the deterministic transforms, which read once.

    Args:
        client: `medical-imaging` client from `healthimaging.connect`.
        cases: From `Manifest.split`.
        transform: Applied to every item.
    """

    def __init__(
        self, client: Any, cases: Sequence[Case], transform: Callable[[dict[str, Any]], Any] | None = None
    ) -> None:
        self._client = client
        self._cases = tuple(cases)
        self._transform = transform

    def __len__(self) -> int:
        return len(self._cases)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return ImageSetDataset(self._client, self._cases[index], self._transform)
        loaded = load_case(self._client, self._cases[index])
        return loaded if self._transform is None else self._transform(loaded)
