"""Writes the silver lung mask of a patient as a DICOM segmentation, as a reader's contours would arrive."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset
from pydicom.sr.coding import Code

from healthimaging.segmentation import SegmentDescription, write_segmentation
from workbench.demo.patients import Patient, deterministic_uid

SERIES_DESCRIPTION = "Silver lung mask"
"""By this the dataset query tells labels from results of models in the same study."""
SEGMENT = "lung"


def write_label(
    patient: Patient, source: Sequence[Dataset], mask: npt.NDArray[np.bool_], folder: Path
) -> Path:
    """One binary SEG of `mask`, (slices, rows, columns) in the order of `source`, beside the patient's CT."""
    dataset = write_segmentation(
        source=list(source),
        masks=mask[np.newaxis],
        segments=[
            SegmentDescription(
                number=1,
                label=SEGMENT,
                category=Code("123037004", "SCT", "Anatomical Structure"),
                type=Code("39607008", "SCT", "Lung"),
            )
        ],
        series_instance_uid=deterministic_uid(patient.name, "silver label"),
        sop_instance_uid=deterministic_uid(patient.name, "silver label", "instance"),
        series_number=90,
        series_description=SERIES_DESCRIPTION,
        algorithm_name="Threshold and morphology",
        algorithm_version="1",
        manufacturer="MONAI on AWS demo",
        manufacturer_model_name="Silver label",
    )
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{patient.name}-label.dcm"
    dataset.save_as(path, enforce_file_format=True)
    return path
