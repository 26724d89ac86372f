"""Distinct chest CTs in a datastore, and the manifest of a classification over them.

The local cloud keeps equal frames once, and so does a page cache: volumes that share frames would be read
from memory after the first. Each volume here is the same CT, shifted along the rows and in its values, so
that no frame of one is a frame of another.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from benchmarks.reading.archive import Archive
from healthimaging import Case, ImageSetRef, Manifest
from healthimaging.manifest import patient_key
from workbench.demo.ct_series import HIGHEST_HU, LOWEST_HU, ct_datasets
from workbench.demo.nrrd_volume import CtVolume
from workbench.demo.patients import Patient

CLASSES = ("negative", "positive")
"""Of the shipped classification bundle; volumes take turns."""
SHIFT_PIXELS = 8
"""Along the rows, from one volume to the next."""


def store_volumes(archive: Archive, volume: CtVolume, *, count: int, name: str) -> list[str]:
    """Import so many variants of a CT, each as its own patient's; their image set ids."""
    return [
        archive.import_series(ct_datasets(_variant(volume, number), patient(name, number)))
        for number in range(count)
    ]


def patient(name: str, number: int) -> Patient:
    """The synthetic patient of a variant; the name keeps its UIDs apart from every other benchmark's."""
    return Patient(
        name=f"training-{name}-{number}",
        patient_name="Synthetic^Benchmark",
        patient_id=f"BENCH-{name}-{number}",
        study_id="BENCH",
        accession_number=f"{name}-{number}"[:16],
        study_date="20000101",
    )


def class_manifest(archive: Archive, image_set_ids: list[str], *, name: str) -> Manifest:
    """Every volume for training, the classes in turns."""
    return Manifest(
        query="every volume of the benchmark",
        datastore_id=archive.datastore_id,
        seed=0,
        labels={"kind": "class"},
        cases=tuple(
            Case(
                patient_key=patient_key(patient(name, number).patient_id),
                split="train",
                image=ImageSetRef(
                    datastore_id=archive.datastore_id, image_set_id=image_set_id, version_id="1"
                ),
                class_name=CLASSES[number % len(CLASSES)],
            )
            for number, image_set_id in enumerate(image_set_ids)
        ),
    )


def write_manifest(manifest: Manifest, folder: Path) -> Path:
    """As `manifest.json` in a new folder."""
    folder.mkdir(parents=True)
    file = folder / "manifest.json"
    file.write_text(manifest.to_json(), encoding="utf-8")
    return file


def _variant(volume: CtVolume, number: int) -> CtVolume:
    shifted = np.roll(volume.array, number * SHIFT_PIXELS, axis=1).astype(np.int32) + number
    return CtVolume(array=np.clip(shifted, LOWEST_HU, HIGHEST_HU).astype(np.int16), affine=volume.affine)
