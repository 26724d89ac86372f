"""Volumes as MONAI MetaTensors, and manifests as MONAI datasets. Needs torch and monai.

MONAI's conventions: channel first, spatial axes in the order of the affine's columns, affine in RAS mm. A
(slices, rows, columns) array therefore becomes (1, columns, rows, slices), and the LPS affine has x and y
negated.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from monai.data import MetaTensor
from monai.transforms import Transform

from healthimaging.client import connect
from healthimaging.errors import GeometryMismatchError, ManifestError, VolumeError
from healthimaging.image_set import ImageSet
from healthimaging.manifest import Case, patient_key
from healthimaging.monai_reader import (
    ImageSetReader,
    ProcessClient,
    channel_first,
    describe,
    describe_grid,
    only_volume,
    open_pinned,
)
from healthimaging.reference import ImageSetRef
from healthimaging.volumes.volume import Volume

if TYPE_CHECKING:
    from healthimaging.segmentation import LabelVolume
    from healthimaging.volumes.geometry import Geometry

__all__ = [
    "ImageSetDataset",
    "ImageSetReader",
    "LoadCase",
    "load_case",
    "load_metatensor",
    "open_case",
]

# PersistentDataset reads its files with `weights_only=True`, and items name their case.
torch.serialization.add_safe_globals([Case, ImageSetRef])


def load_metatensor(volume: Volume | LabelVolume, image_set: ImageSet | None = None) -> MetaTensor:
    """A volume as a MetaTensor.

    Args:
        volume: An image, or masks.
        image_set: Where an image comes from, to be named in `meta`.

    Returns:
        float32 (1, columns, rows, slices) for a grey image and (3, columns, rows, slices) for colour; uint8
        (segments, columns, rows, slices) of 0 and 1 for masks. Its affine maps (column, row, slice) to RAS
        mm; `meta` names the series and its instances.
    """
    if isinstance(volume, Volume):
        return _metatensor(channel_first(volume, dtype=np.float32), describe(volume, image_set))
    masks = np.ascontiguousarray(volume.array.transpose(0, 3, 2, 1)).astype(np.uint8, copy=False)
    labels = [segment.label for segment in volume.segments]
    return _metatensor(masks, describe_grid(volume.geometry) | {"segment_labels": labels})


def _metatensor(array: npt.NDArray[Any], meta: dict[str, Any]) -> MetaTensor:
    meta = {name: torch.from_numpy(v) if name.endswith("affine") else v for name, v in meta.items()}
    return MetaTensor(torch.from_numpy(array), meta=meta)


def open_case(client: Any, case: Case) -> tuple[ImageSet, ImageSet | None]:
    """Opens image and label of a case, without pixels, and makes sure that they are of one patient and study.

    Raises:
        ManifestError: The image is not of the case's patient, or the label is of another patient or study.
            Patients scanned by one protocol share a grid, so that geometry cannot tell.
        HealthImagingError: One cannot be read; the subclass says why.
    """
    image = open_pinned(client, case.image)
    patient_id = image.metadata.patient.text("PatientID")
    if patient_key(patient_id or "") != case.patient_key:
        msg = f"The image set is not of patient {case.patient_key}, whose split it is in"
        raise ManifestError(msg, image_set_id=case.image.image_set_id)
    if case.label is None:
        return image, None
    label = open_pinned(client, case.label)
    if label.metadata.patient.text("PatientID") != patient_id:
        msg = f"The label is of another patient than image set {case.image.image_set_id}"
        raise ManifestError(msg, image_set_id=case.label.image_set_id)
    if label.metadata.study_instance_uid != image.metadata.study_instance_uid:
        msg = f"The label is of another study than image set {case.image.image_set_id}"
        raise ManifestError(msg, image_set_id=case.label.image_set_id)
    return image, label


def load_case(client: Any, case: Case, *, level: int = 0) -> dict[str, Any]:
    """One case of a manifest: `image`, `label` (only where the case has one) and `case`.

    Args:
        client: `medical-imaging` client.
        case: From a manifest.
        level: How often the image is halved in its plane, by decoding less of it. The label has the value at
            the centre of each remaining pixel.

    Raises:
        VolumeError: The image set is not one volume, or the label image set not one segmentation.
        HealthImagingError: As `open_case`, or it cannot be read; the subclass says why.
    """
    image, label = open_case(client, case)
    volume = only_volume(image, level=level)
    data: dict[str, Any] = {"image": load_metatensor(volume, image), "case": case}
    if label is not None:
        data["label"] = load_metatensor(_label(label, volume.geometry, level=level))
    return data


def _label(image_set: ImageSet, geometry: Geometry, *, level: int) -> LabelVolume:
    """The masks of a segmentation on the grid of its image at a level."""
    from healthimaging.segmentation import read_segmentation

    datasets = image_set.datasets()
    if len(datasets) != 1:
        msg = f"The label image set holds {len(datasets)} instances, a case needs one segmentation"
        raise VolumeError(msg, image_set_id=image_set.ref.image_set_id)
    if level == 0:
        return read_segmentation(datasets[0], geometry)
    # The masks are stored on the full grid. Pixel (r, c) of the level is its pixel (r, c) x 2^level.
    step = 2**level
    affine = geometry.affine.copy()
    affine[:, :2] /= step
    rows, columns = datasets[0].get("Rows", 1), datasets[0].get("Columns", 1)
    shape = (geometry.shape[0], int(rows), int(columns))
    full = read_segmentation(datasets[0], replace(geometry, affine=affine, shape=shape))
    coarse = replace(full, array=full.array[..., ::step, ::step], geometry=geometry)
    if coarse.array.shape[1:] != geometry.shape:
        msg = f"The label has {rows} x {columns} pixels, which is not the grid of the image"
        raise GeometryMismatchError(msg, image_set_id=image_set.ref.image_set_id)
    return coarse


class LoadCase(Transform):
    """The first of a chain of dictionary transforms: reads a `Case` as `load_case` does.

    `PersistentDataset(manifest.split("train"), Compose([LoadCase(), ...]), ...)` then reads every case once:
    MONAI names its files after the case, which is pinned.

    Args:
        client: As of `ImageSetReader`: best a function that makes a client.
        level: As of `load_case`.
    """

    def __init__(self, client: Any | Callable[[], Any] = connect, *, level: int = 0) -> None:
        self._client = ProcessClient(client)
        self._level = level

    def __call__(self, data: Case) -> dict[str, Any]:
        return load_case(self._client.get(), data, level=self._level)


class ImageSetDataset(Sequence[dict[str, Any]]):
    """Cases of a manifest, read from the datastore whenever they are asked for.

    Items are dictionaries of `image`, `label` and `case`, ready for MONAI's dictionary transforms; batches
    are made of tensors, so leave `case` out of them with `DeleteItemsd("case")`. Reading
    takes a second or so a case: give this as `data` to MONAI's `CacheDataset` with the deterministic
    transforms, which reads once. `PersistentDataset` reads an item to learn the name of its file: give it
    the cases themselves, and `LoadCase` as the first transform.

    Args:
        client: As of `ImageSetReader`: a function that makes a `medical-imaging` client, or a client.
        cases: From `Manifest.split`.
        transform: Applied to every item.
        level: As of `load_case`.
    """

    def __init__(
        self,
        client: Any | Callable[[], Any],
        cases: Sequence[Case],
        transform: Callable[[dict[str, Any]], Any] | None = None,
        *,
        level: int = 0,
    ) -> None:
        self._client = client if isinstance(client, ProcessClient) else ProcessClient(client)
        self._cases = tuple(cases)
        self._transform = transform
        self._level = level

    def __len__(self) -> int:
        return len(self._cases)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return ImageSetDataset(self._client, self._cases[index], self._transform, level=self._level)
        loaded = load_case(self._client.get(), self._cases[index], level=self._level)
        return loaded if self._transform is None else self._transform(loaded)
