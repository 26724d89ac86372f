"""A small patient, as files that could arrive from anywhere."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pydicom import dcmread
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import (
    ComprehensiveSRStorage,
    EncapsulatedPDFStorage,
    ExplicitVRLittleEndian,
    MultiFrameGrayscaleByteSecondaryCaptureImageStorage,
)

from workbench.demo.ct_series import ct_datasets, write_series
from workbench.demo.label import write_label
from workbench.demo.nrrd_volume import CtVolume
from workbench.demo.patients import Patient, deterministic_uid


@dataclass(frozen=True, kw_only=True)
class Arrival:
    """The files of a small patient who has not been imported yet."""

    patient: Patient
    images: list[Path]
    label: Path


def arrival(name: str, folder: Path, *, thick: int = 16) -> Arrival:
    """A body with two lungs, small enough to import in a moment.

    Its 16 slices are fewer than any rule of the environment `local` asks for, so that it starts nothing by
    itself; `thick` is another number of them.
    """
    slices, rows, columns = np.ogrid[0:thick, 0:48, 0:64]
    body = ((rows - 24) / 22) ** 2 + ((columns - 32) / 30) ** 2 + 0 * slices < 1
    lungs = ((rows - 24) / 12) ** 2 + ((np.abs(columns - 32) - 14) / 9) ** 2 + ((slices - 8) / 7) ** 2 < 1
    volume = CtVolume(
        array=np.where(lungs, -800, np.where(body, 40, -1000)).astype(np.int16),
        affine=np.diag([4.0, 4.0, 5.0, 1.0]),
    )
    patient = Patient(
        name=name,
        patient_name=f"Synthetic^{name}",
        patient_id=name.upper(),
        study_id="1",
        accession_number=name.upper(),
        study_date="20000103",
    )
    datasets = ct_datasets(volume, patient)
    images = write_series(datasets, folder / name)
    label = write_label(patient, datasets, np.broadcast_to(lungs, volume.array.shape), folder)
    return Arrival(patient=patient, images=images, label=label)


def results_of(arrived: Arrival, folder: Path) -> dict[str, Path]:
    """What could be said about the images, one file of each kind, in their study; by the kind."""
    files = {"SEG": arrived.label}
    for kind, dataset in {
        "SR": _report(),
        "secondary capture": _snapshot(frames=len(arrived.images)),
        "PDF": _document(),
    }.items():
        images = dcmread(arrived.images[0], stop_before_pixels=True)
        for keyword in (
            "PatientName", "PatientID", "PatientBirthDate", "PatientSex",
            "StudyInstanceUID", "StudyDate", "StudyTime", "StudyID", "AccessionNumber",
            "ReferringPhysicianName",
        ):  # fmt: skip
            if keyword in images:
                dataset[keyword] = images[keyword]
        name = arrived.patient.name
        dataset.SeriesInstanceUID = deterministic_uid(name, kind)
        dataset.SOPInstanceUID = deterministic_uid(name, kind, "instance")
        dataset.SeriesNumber, dataset.InstanceNumber = 95, 1
        # Of another maker: the kind alone has to be enough.
        dataset.Manufacturer = "Another"
        dataset.ContentDate, dataset.ContentTime = "20000103", "120000"
        dataset.file_meta = FileMetaDataset()
        dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
        dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
        dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        files[kind] = folder / f"{name}-{kind.replace(' ', '-')}.dcm"
        dataset.save_as(files[kind], enforce_file_format=True)
    return files


def _report() -> Dataset:
    dataset = Dataset()
    dataset.SOPClassUID, dataset.Modality = ComprehensiveSRStorage, "SR"
    dataset.ValueType, dataset.ContinuityOfContent = "CONTAINER", "SEPARATE"
    dataset.CompletionFlag, dataset.VerificationFlag = "COMPLETE", "UNVERIFIED"
    return dataset


def _snapshot(*, frames: int) -> Dataset:
    """As many pictures as the series has, and with its modality: as a rule would want them."""
    dataset = Dataset()
    dataset.SOPClassUID, dataset.Modality = MultiFrameGrayscaleByteSecondaryCaptureImageStorage, "CT"
    dataset.ConversionType = "WSD"
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.Rows = dataset.Columns = 8
    dataset.BitsAllocated = dataset.BitsStored = 8
    dataset.HighBit, dataset.PixelRepresentation = 7, 0
    dataset.NumberOfFrames = frames
    dataset.PixelData = bytes(64 * frames)
    return dataset


def _document() -> Dataset:
    dataset = Dataset()
    dataset.SOPClassUID, dataset.Modality = EncapsulatedPDFStorage, "CT"
    dataset.ConversionType, dataset.BurnedInAnnotation = "WSD", "NO"
    dataset.DocumentTitle, dataset.MIMETypeOfEncapsulatedDocument = "Result", "application/pdf"
    dataset.EncapsulatedDocument = b"%PDF-1.4\n%%EOF\n"
    return dataset
