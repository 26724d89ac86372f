"""What can be written besides the object that a result is."""

from __future__ import annotations

from enum import StrEnum


class Output(StrEnum):
    """What is derived from a DICOM SEG, each stored once for each result.

    The SEG itself is always written, as is the report of a classification, beside which there is nothing.
    """

    MEASUREMENT_REPORT = "measurement-report"
    """DICOM SR with the volume of each segment (PS3.16, TID 1500)."""

    SNAPSHOT = "snapshot"
    """Secondary capture with the contours on three planes, for readers whose viewer shows no SEG."""

    NIFTI = "nifti"
    """The masks as NIfTI in S3, for tools that read no DICOM."""


CLASSIFICATION_REPORT = "classification-report"
"""Kind of the DICOM SR that a classification is, beside the kinds in `Output`."""
