"""DICOM files that arrive: CT slices as they are, and many small instances."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from pydicom.uid import UID

from workbench.demo.ct_series import ct_datasets, write_series
from workbench.demo.nrrd_volume import CtVolume
from workbench.demo.patients import Patient, deterministic_uid

SMALL_SERIES = 200
"""Instances in a series of small files."""
_SMALL_SIDE = 64


def patient_named(name: str) -> Patient:
    """A synthetic patient with one study of one series; another name gives other UIDs."""
    return Patient(
        name=f"catalog-{name}",
        patient_name="Synthetic^Benchmark",
        patient_id=f"BENCH-{name}"[:64],
        study_id="BENCH",
        accession_number=name[-16:],
        study_date="20230401",
    )


def write_slices(
    volume: CtVolume, folder: Path, *, name: str, series: int = 1, slices: int | None = None
) -> int:
    """Write the volume (or its first slices) as so many series of as many patients; the number of files."""
    some = CtVolume(array=volume.array[:slices], affine=volume.affine)
    return sum(
        len(write_series(ct_datasets(some, patient_named(f"{name}-{number}")), folder / str(number)))
        for number in range(series)
    )


def write_small_files(volume: CtVolume, folder: Path, *, name: str, count: int) -> int:
    """Write so many instances of 64 x 64 pixels, 200 a series; the number of files.

    All are copies of one with other UIDs and numbers: 20,000 would take pydicom as long as what is measured.
    """
    template, places = _template(volume)
    for number in range(count):
        series, instance = divmod(number, SMALL_SERIES)
        if instance == 0:
            inside = folder / f"{series:04d}"
            inside.mkdir(parents=True)
            of_series = {
                what: _uid(name, what, str(series)) for what in ("study", "series", "frame of reference")
            }
        values = {**of_series, "instance": _uid(name, "instance", str(number))}
        content = template
        for what, place in places.items():
            content = content.replace(place, values[what])
        (inside / f"{instance:04d}.dcm").write_bytes(content)
    return count


def _template(volume: CtVolume) -> tuple[bytes, dict[str, bytes]]:
    """A file, and the UIDs in it that stand for others."""
    step = volume.array.shape[1] // _SMALL_SIDE
    small = CtVolume(array=np.ascontiguousarray(volume.array[:1, ::step, ::step]), affine=volume.affine)
    (dataset,) = ct_datasets(small, patient_named("template"))
    places = {
        what: _uid("template", what, "") for what in ("study", "series", "frame of reference", "instance")
    }
    dataset.StudyInstanceUID = places["study"].decode()
    dataset.SeriesInstanceUID = places["series"].decode()
    dataset.FrameOfReferenceUID = places["frame of reference"].decode()
    dataset.SOPInstanceUID = places["instance"].decode()
    dataset.file_meta.MediaStorageSOPInstanceUID = UID(places["instance"].decode())
    file = io.BytesIO()
    dataset.save_as(file, enforce_file_format=True)
    return file.getvalue(), places


def _uid(*parts: str) -> bytes:
    """Of the same length for all: a UID in place of another moves no byte."""
    digits = str(deterministic_uid(*parts)).removeprefix("2.25.")[-36:]
    return f"2.25.1{digits.rjust(36, '1')}".encode()
