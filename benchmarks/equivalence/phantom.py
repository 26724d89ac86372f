"""A made-up CT and a made-up MR series, on grids that a float32 holds exactly.

NIfTI keeps its affine in single precision, DICOM in decimal text: on a grid that only one of them holds
exactly, two right readers would differ in the last digits, and random networks with them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.uid import UID, CTImageStorage, ExplicitVRLittleEndian, MRImageStorage, generate_uid

SHAPE = (24, 56, 48)
"""(slices, rows, columns): every length can be halved three times, as networks without padding want."""


@dataclass(frozen=True, kw_only=True)
class Grid:
    """Where a series lies, in DICOM's terms: LPS, mm."""

    orientation: tuple[float, ...]
    """ImageOrientationPatient (0020,0037)."""
    origin: tuple[float, float, float]
    spacing: tuple[float, float, float]
    """Between slices, rows and columns."""

    @property
    def affine_ras(self) -> npt.NDArray[np.float64]:
        """(column, row, slice) -> RAS mm: NIfTI's convention, with x and y of DICOM's negated."""
        along_row, along_column = np.reshape(self.orientation, (2, 3))
        normal = np.cross(along_row, along_column)
        between_slices, between_rows, between_columns = self.spacing
        affine = np.eye(4)
        affine[:3, 0] = along_row * between_columns
        affine[:3, 1] = along_column * between_rows
        affine[:3, 2] = normal * between_slices
        affine[:3, 3] = self.origin
        return np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine


GRIDS = {
    "CT": Grid(orientation=(1, 0, 0, 0, 1, 0), origin=(-30.0, -42.0, -48.5), spacing=(4.0, 1.5, 1.25)),
    # Sagittal, so that a reader that mistakes an axis does not get away with it.
    "MR": Grid(orientation=(0, 1, 0, 0, 0, -1), origin=(-40.0, -24.0, 36.0), spacing=(3.0, 1.25, 1.5)),
}


def series(modality: str) -> list[Dataset]:
    """The series of a modality, in the order of its slices; int16 values that look like HU."""
    grid = GRIDS[modality]
    array = values(modality)
    along_row, along_column = np.reshape(grid.orientation, (2, 3))
    step = np.cross(along_row, along_column) * grid.spacing[0]
    study, one_series, frame = generate_uid(), generate_uid(), generate_uid()
    return [
        _instance(
            modality,
            array[index],
            index,
            [float(value) for value in np.asarray(grid.origin) + index * step],
            uids=(study, one_series, frame),
        )
        for index in range(len(array))
    ]


def values(modality: str) -> npt.NDArray[np.int16]:
    """The voxels of a modality: (slices, rows, columns)."""
    generator = np.random.default_rng(5 if modality == "CT" else 6)
    k, r, c = np.meshgrid(*(np.linspace(-1, 1, n) for n in SHAPE), indexing="ij")
    body = (r**2 + c**2 + 0.2 * k**2) < 0.8
    hollow = ((np.abs(c) - 0.4) ** 2 / 0.1 + r**2 / 0.4 + k**2 / 0.8) < 1
    lump = ((c - 0.1) ** 2 + (r + 0.2) ** 2 + (k - 0.1) ** 2) < 0.05
    smooth = np.where(body, np.where(lump, 180, np.where(hollow, -800, 40)), -1000)
    if modality == "MR":
        # Magnitudes; zero outside, as normalisations of non-zero voxels expect.
        smooth = np.where(body, np.where(lump, 900, np.where(hollow, 150, 420)), 0)
    noise = generator.normal(0, 25, SHAPE) * (body if modality == "MR" else 1)
    lowest = 0 if modality == "MR" else -1024
    return (smooth + noise).clip(lowest, 3000).astype(np.int16)


def _instance(
    modality: str,
    pixels: npt.NDArray[np.int16],
    index: int,
    position: list[float],
    *,
    uids: tuple[UID, UID, UID],
) -> Dataset:
    grid = GRIDS[modality]
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.SOPClassUID = CTImageStorage if modality == "CT" else MRImageStorage
    dataset.SOPInstanceUID = generate_uid()
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    dataset.PatientID, dataset.PatientName = f"PHANTOM-{modality}", f"Phantom^{modality}"
    dataset.PatientBirthDate, dataset.PatientSex = "", ""
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID, dataset.FrameOfReferenceUID = uids
    dataset.StudyID, dataset.AccessionNumber = modality, modality
    dataset.StudyDate, dataset.StudyTime = "20240102", "101112"
    dataset.ReferringPhysicianName, dataset.PositionReferenceIndicator = "", ""
    dataset.Modality, dataset.Manufacturer = modality, "Phantom"
    dataset.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL" if modality == "CT" else "OTHER"]
    dataset.SeriesNumber, dataset.InstanceNumber, dataset.AcquisitionNumber = 1, index + 1, 1
    dataset.ImageOrientationPatient = list(grid.orientation)
    dataset.ImagePositionPatient = position
    dataset.PixelSpacing, dataset.SliceThickness = list(grid.spacing[1:]), grid.spacing[0]
    dataset.Rows, dataset.Columns = pixels.shape
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, 16, 15
    dataset.PixelRepresentation = 1
    dataset.RescaleSlope, dataset.RescaleIntercept, dataset.RescaleType = 1, 0, "HU"
    dataset.PixelData = pixels.tobytes()
    return dataset
