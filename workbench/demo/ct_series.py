"""Writes a CT volume as a DICOM series of CT Image Storage instances (PS3.3 A.3), one file a slice."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian

from workbench.demo.nrrd_volume import CtVolume
from workbench.demo.patients import Patient, deterministic_uid
from workbench.errors import WorkbenchError

IMPLEMENTATION_CLASS_UID = deterministic_uid("implementation")
LOWEST_HU, HIGHEST_HU = -1024, 3071
"""What 12 bits with intercept -1024 hold: the range of ordinary CT scanners."""
WINDOW = (-600, 1500)
"""Centre and width of the usual lung window, HU."""


def ct_datasets(volume: CtVolume, patient: Patient) -> list[FileDataset]:
    """One dataset a slice, in the volume's slice order."""
    if volume.array.min() < LOWEST_HU or volume.array.max() > HIGHEST_HU:
        raise WorkbenchError(
            f"Volume {patient.name} has values outside {LOWEST_HU}..{HIGHEST_HU} HU, which 12 bits do "
            "not hold.",
            advice="Clip it to the range of a CT scanner first.",
        )
    return [_slice(volume, patient, index) for index in range(volume.array.shape[0])]


def write_series(datasets: list[FileDataset], folder: Path) -> list[Path]:
    """Write each dataset as `<folder>/<instance number>.dcm`; the same datasets give the same bytes."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for dataset in datasets:
        path = folder / f"{int(dataset.InstanceNumber):04d}.dcm"
        dataset.save_as(path, enforce_file_format=True)
        paths.append(path)
    return paths


def _slice(volume: CtVolume, patient: Patient, index: int) -> FileDataset:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = CTImageStorage
    meta.MediaStorageSOPInstanceUID = deterministic_uid(patient.name, "ct", str(index))
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.ImplementationClassUID = IMPLEMENTATION_CLASS_UID
    dataset = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    _patient_and_study(dataset, patient)
    _series_and_equipment(dataset, patient)
    _image(dataset, patient, index)
    _plane(dataset, volume, index)
    _pixels(dataset, volume.array[index])
    return dataset


def _patient_and_study(dataset: Dataset, patient: Patient) -> None:
    """Patient (C.7.1.1), General Study (C.7.2.1)."""
    dataset.PatientName = patient.patient_name
    dataset.PatientID = patient.patient_id
    dataset.PatientBirthDate = ""
    dataset.PatientSex = "O"
    dataset.PatientIdentityRemoved = "YES"
    dataset.DeidentificationMethod = "Published without identity; attributes here are synthetic"
    dataset.PatientComments = "Synthetic demonstration patient"
    dataset.StudyInstanceUID = patient.study_instance_uid
    dataset.StudyDate = patient.study_date
    dataset.StudyTime = "120000"
    dataset.ReferringPhysicianName = ""
    dataset.StudyID = patient.study_id
    dataset.AccessionNumber = patient.accession_number
    dataset.StudyDescription = "Demonstration chest CT"


def _series_and_equipment(dataset: Dataset, patient: Patient) -> None:
    """General Series (C.7.3.1), Frame of Reference (C.7.4.1), General Equipment (C.7.5.1)."""
    dataset.Modality = "CT"
    dataset.SeriesInstanceUID = patient.series_instance_uid
    dataset.SeriesNumber = 1
    dataset.SeriesDate = patient.study_date
    dataset.SeriesTime = "120000"
    dataset.SeriesDescription = "Chest CT from NRRD"
    dataset.BodyPartExamined = "CHEST"
    dataset.PatientPosition = "HFS"
    dataset.FrameOfReferenceUID = patient.frame_of_reference_uid
    dataset.PositionReferenceIndicator = ""
    dataset.Manufacturer = "MONAI on AWS demo"
    dataset.ManufacturerModelName = "NRRD to DICOM"
    dataset.SoftwareVersions = "1"


def _image(dataset: Dataset, patient: Patient, index: int) -> None:
    """General Image (C.7.6.1), General Acquisition (C.7.10.1), CT Image (C.8.2.1), SOP Common (C.12.1)."""
    dataset.SOPClassUID = CTImageStorage
    dataset.SOPInstanceUID = deterministic_uid(patient.name, "ct", str(index))
    # DERIVED: the pixels went through another file format after the scanner.
    dataset.ImageType = ["DERIVED", "PRIMARY", "AXIAL"]
    dataset.DerivationDescription = "Converted from NRRD"
    dataset.InstanceNumber = index + 1
    dataset.AcquisitionNumber = 1
    dataset.ContentDate = patient.study_date
    dataset.ContentTime = "120000"
    dataset.KVP = None


def _plane(dataset: Dataset, volume: CtVolume, index: int) -> None:
    """Image Plane (C.7.6.2): orientation is the direction of growing column, then of growing row, in LPS."""
    affine = volume.affine
    column_mm, row_mm, slice_mm = volume.spacing
    along_columns, along_rows = affine[:3, 0] / column_mm, affine[:3, 1] / row_mm
    dataset.ImageOrientationPatient = [_decimal(v) for v in (*along_columns, *along_rows)]
    dataset.ImagePositionPatient = [_decimal(v) for v in affine[:3, 3] + index * affine[:3, 2]]
    dataset.PixelSpacing = [_decimal(row_mm), _decimal(column_mm)]
    # NRRD gives the distance of slices only; contiguous slices are assumed.
    dataset.SliceThickness = _decimal(slice_mm)
    dataset.SpacingBetweenSlices = _decimal(slice_mm)


def _pixels(dataset: Dataset, hounsfield: npt.NDArray[np.int16]) -> None:
    """Image Pixel (C.7.6.3) as a scanner stores it: 12 bits, unsigned, intercept -1024."""
    dataset.SamplesPerPixel = 1
    dataset.PhotometricInterpretation = "MONOCHROME2"
    dataset.Rows, dataset.Columns = hounsfield.shape
    dataset.BitsAllocated = 16
    dataset.BitsStored = 12
    dataset.HighBit = 11
    dataset.PixelRepresentation = 0
    dataset.RescaleIntercept = LOWEST_HU
    dataset.RescaleSlope = 1
    dataset.RescaleType = "HU"
    dataset.WindowCenter, dataset.WindowWidth = WINDOW
    dataset.PixelData = (hounsfield - LOWEST_HU).astype("<u2").tobytes()


def _decimal(value: float) -> str:
    """A decimal string of at most 16 characters (VR DS, PS3.5 6.2), without "-0"."""
    text = f"{float(value) + 0.0:.10g}"
    return "0" if float(text) == 0 else text
