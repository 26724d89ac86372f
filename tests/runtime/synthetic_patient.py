"""Synthetic CT series as DICOM datasets."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.uid import CTImageStorage, EnhancedCTImageStorage, ExplicitVRLittleEndian, generate_uid


@dataclass(frozen=True, kw_only=True)
class Patient:
    """A synthetic CT series: ``array`` is int16 (slices, rows, columns) in HU."""

    patient_id: str
    datasets: Sequence[Dataset]
    array: npt.NDArray[np.int16]


def make_patient(
    patient_id: str, *, seed: int, modality: str = "CT", shape: tuple[int, int, int] = (20, 56, 48)
) -> Patient:
    """Make a body of soft tissue with two air-filled ellipsoids, on a grid of 1.25 x 1.5 x 4 mm.

    The slices are listed out of order, as archives do.
    """
    generator = np.random.default_rng(seed)
    slices, rows, columns = shape
    k, r, c = np.meshgrid(*(np.linspace(-1, 1, n) for n in shape), indexing="ij")
    body = (r**2 + c**2) < 0.9
    size = 0.25 + 0.3 * generator.random()
    lungs = ((np.abs(c) - 0.4) ** 2 / 0.1 + r**2 / size + k**2 / 0.8) < 1
    hu = np.where(body, np.where(lungs, -800, 40), -1000) + generator.normal(0, 20, shape)
    array = hu.clip(-1024, 3000).astype(np.int16)
    study, series, frame_of_reference = generate_uid(), generate_uid(), generate_uid()
    datasets = []
    for index in generator.permutation(slices):
        dataset = Dataset()
        dataset.file_meta = FileMetaDataset()
        dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        dataset.file_meta.MediaStorageSOPClassUID = CTImageStorage
        dataset.SOPClassUID = CTImageStorage
        dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = generate_uid()
        dataset.PatientID, dataset.PatientName = patient_id, f"Synthetic^{patient_id}"
        dataset.PatientBirthDate, dataset.PatientSex = "19700101", "O"
        dataset.StudyInstanceUID, dataset.SeriesInstanceUID = study, series
        dataset.StudyID, dataset.AccessionNumber = f"S{seed}", f"A{seed}"
        dataset.StudyDate, dataset.StudyTime = "20240102", "101112"
        dataset.ReferringPhysicianName = ""
        dataset.Modality, dataset.Manufacturer = modality, "Test"
        dataset.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
        dataset.SeriesNumber, dataset.InstanceNumber = 2, int(index) + 1
        dataset.FrameOfReferenceUID, dataset.PositionReferenceIndicator = frame_of_reference, ""
        dataset.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
        dataset.ImagePositionPatient = [-30.0, -42.0, 4.0 * int(index)]
        dataset.PixelSpacing, dataset.SliceThickness = [1.5, 1.25], 4.0
        dataset.Rows, dataset.Columns = rows, columns
        dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
        dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, 16, 15
        dataset.PixelRepresentation = 1
        dataset.RescaleSlope, dataset.RescaleIntercept, dataset.RescaleType = 1, 0, "HU"
        dataset.KVP, dataset.AcquisitionNumber = 120, 1
        dataset.PixelData = array[index].tobytes()
        datasets.append(dataset)
    return Patient(patient_id=patient_id, datasets=datasets, array=array)


def as_multi_frame(patient: Patient) -> Patient:
    """The series as one Enhanced CT instance, whose frames run from head to feet."""
    slices = sorted(patient.datasets, key=lambda one: -one.ImagePositionPatient[2])
    enhanced = copy.deepcopy(slices[0])
    enhanced.SOPClassUID = enhanced.file_meta.MediaStorageSOPClassUID = EnhancedCTImageStorage
    enhanced.NumberOfFrames, enhanced.InstanceNumber = len(slices), 1

    def group(macro: str, *keywords: str) -> Dataset:
        item = Dataset()
        for keyword in keywords:
            item[keyword] = copy.deepcopy(slices[0][keyword])
        holder = Dataset()
        setattr(holder, macro, [item])
        return holder

    shared = group("PixelMeasuresSequence", "PixelSpacing", "SliceThickness")
    shared.update(group("PlaneOrientationSequence", "ImageOrientationPatient"))
    shared.update(
        group("PixelValueTransformationSequence", "RescaleSlope", "RescaleIntercept", "RescaleType")
    )
    for sequence in shared:
        for keyword in [element.keyword for element in sequence.value[0]]:
            delattr(enhanced, keyword)
    del enhanced.ImagePositionPatient
    enhanced.SharedFunctionalGroupsSequence = [shared]
    enhanced.PerFrameFunctionalGroupsSequence = []
    for one in slices:
        frame = Dataset()
        frame.PlanePositionSequence = [Dataset()]
        frame.PlanePositionSequence[0].ImagePositionPatient = one.ImagePositionPatient
        enhanced.PerFrameFunctionalGroupsSequence.append(frame)
    enhanced.PixelData = b"".join(one.PixelData for one in slices)
    return Patient(patient_id=patient.patient_id, datasets=[enhanced], array=patient.array)
