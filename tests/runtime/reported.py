"""A segmentation with its source, as reports are made of them, and what checks DICOM objects."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from pydicom import Dataset
from pydicom.sr.codedict import codes
from synthetic_patient import Patient, as_multi_frame, make_patient

from healthimaging import Geometry, SegmentDescription, Volume, write_segmentation
from runtime.results.answer import ModelIdentity
from runtime.results.identity import ResultIdentity

MODEL = ModelIdentity(name="chest test", version="0.3.1", sha256="5a" * 32)
RESULT = ResultIdentity(image_set_id="a" * 32, version_id="1", model_fingerprint="f" * 64)

needs_dciodvfy = pytest.mark.skipif(shutil.which("dciodvfy") is None, reason="dicom3tools is not installed")


def require_conformity(dataset: Dataset, folder: Path) -> None:
    """dciodvfy finds no error in the object as a file."""
    file = folder / f"{dataset.SOPInstanceUID}.dcm"
    dataset.save_as(file, enforce_file_format=True)
    report = subprocess.run(["dciodvfy", "-new", file], check=False, capture_output=True, text=True)
    assert "Error" not in report.stderr + report.stdout, report.stderr + report.stdout
    # The program names the object that it recognized; without a name it has checked nothing.
    assert report.stderr.split(), "dciodvfy did not recognize the object"


@dataclass(frozen=True, kw_only=True, eq=False)
class Segmented:
    """A patient of `synthetic_patient` with two segments: bool masks (2, slices, rows, columns)."""

    patient: Patient
    headers: list[Dataset]
    volume: Volume
    masks: npt.NDArray[np.bool_]
    segmentation: Dataset


def segmented(*, overlap: bool = False, empty: bool = False, multi_frame: bool = False) -> Segmented:
    """Segment "lung" (7 x 20 x 12 voxels in the patient's right front, near the feet) and "tumor", whose
    categories differ."""
    patient = make_patient("INDIA-44", seed=4)
    slices = sorted(patient.datasets, key=lambda one: one.ImagePositionPatient[2])
    headers = list(as_multi_frame(patient).datasets) if multi_frame else slices
    grid = Geometry.from_dicom(
        position=slices[0].ImagePositionPatient,
        orientation=slices[0].ImageOrientationPatient,
        pixel_spacing=slices[0].PixelSpacing,
        slice_spacing=4.0,
        shape=patient.array.shape,  # type: ignore[arg-type]  # numpy does not know that it has three axes
        frame_of_reference_uid=str(slices[0].FrameOfReferenceUID),
    )
    masks = np.zeros((2, *grid.shape), dtype=np.bool_)
    if not empty:
        masks[0, 2:9, 8:28, 8:20] = True
        masks[1, 6:8, 20:26, (10 if overlap else 30) : 38] = True
    segmentation = write_segmentation(
        source=headers,
        masks=masks,
        grid=grid,
        segments=[
            SegmentDescription(
                number=1,
                label="lung",
                category=codes.SCT.AnatomicalStructure,
                type=codes.SCT.Lung,
                color=(0, 160, 255),
            ),
            SegmentDescription(
                number=2,
                label="tumor",
                category=codes.SCT.MorphologicallyAbnormalStructure,
                type=codes.SCT.Neoplasm,
                color=(255, 60, 60),
            ),
        ],
        series_instance_uid=RESULT.series_instance_uid,
        sop_instance_uid=RESULT.sop_instance_uid,
        series_number=900,
        algorithm_name=MODEL.name,
        algorithm_version=MODEL.version,
    )
    volume = Volume(
        array=patient.array,
        geometry=grid,
        series_instance_uid=str(slices[0].SeriesInstanceUID),
        instance_uids=tuple(str(one.SOPInstanceUID) for one in slices),
        frame_numbers=(1,) * len(slices),
        modality="CT",
    )
    return Segmented(patient=patient, headers=headers, volume=volume, masks=masks, segmentation=segmentation)
