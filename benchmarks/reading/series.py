"""Real CT frames as DICOM series in the local cloud, with the pixels that every client must give back."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np

from benchmarks.reading.archive import Archive
from benchmarks.reading.reader import Stored
from benchmarks.report import Progress
from workbench.demo.ct_series import LOWEST_HU, ct_datasets
from workbench.demo.nrrd_volume import CtVolume, read_nrrd
from workbench.demo.patients import Patient
from workbench.demo.source_data import fetch


@dataclass(frozen=True, kw_only=True)
class Series:
    """One image set of one CT series."""

    stored: Stored
    instances: int
    decoded_bytes: int
    digests: dict[str, dict[str, str]]
    """By kind of reading: SHA-256 of the pixels that it must give, by SOP Instance UID."""


def chest_ct(name: str, progress: Progress) -> CtVolume:
    """`lung1` (48 slices) or `lung2` (61 slices), 512 x 512."""
    return read_nrrd(fetch(progress=progress) / f"{name}_image.nrrd")


def store_series(archive: Archive, *, volume: CtVolume, instances: int) -> Series:
    """Import a series of so many slices; a volume that has fewer is repeated, going on upwards."""
    repeats = -(-instances // len(volume.array))
    array = np.concatenate([volume.array] * repeats)[:instances]
    datasets = ct_datasets(CtVolume(array=array, affine=volume.affine), _patient(instances))
    image_set_id = archive.import_series(datasets)
    uids = [str(dataset.SOPInstanceUID) for dataset in datasets]
    hounsfield = {
        uid: _digest(pixels.astype("<i2").tobytes()) for uid, pixels in zip(uids, array, strict=True)
    }
    stored_values = {
        uid: _digest((pixels - LOWEST_HU).astype("<u2").tobytes())
        for uid, pixels in zip(uids, array, strict=True)
    }
    return Series(
        stored=Stored(datastore_id=archive.datastore_id, image_set_id=image_set_id),
        instances=instances,
        decoded_bytes=array.nbytes,
        digests={"arrays": hounsfield, "datasets": stored_values, "datasets, new client": stored_values},
    )


def _patient(instances: int) -> Patient:
    """A synthetic patient for a series of this length; the name keeps its UIDs apart from the others'."""
    return Patient(
        name=f"benchmark-{instances}",
        patient_name="Synthetic^Benchmark",
        patient_id=f"BENCH-{instances}",
        study_id="BENCH",
        accession_number=f"BENCH-{instances}",
        study_date="20000101",
    )


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
