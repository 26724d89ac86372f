"""What an instance must repeat of its source to be filed beside it.

HealthImaging groups instances by attributes of the patient and the study (AWS HealthImaging developer guide,
"Understanding image sets"). One that contradicts its study becomes a non-primary image set, which DICOMweb
does not show.
"""

from __future__ import annotations

from copy import deepcopy

from pydicom import Dataset

GROUPING_ATTRIBUTES = ("PatientID", "StudyInstanceUID", "StudyID", "StudyDate", "AccessionNumber")
"""What HealthImaging compares to decide whether a new instance is consistent with its study."""

_TYPE_2_ATTRIBUTES = (
    *("PatientName", "PatientID", "PatientBirthDate", "PatientSex"),
    *("StudyDate", "StudyTime", "StudyID", "AccessionNumber", "ReferringPhysicianName"),
)
"""What every instance must have, if only empty (DICOM PS3.3 sections C.7.1.1 and C.7.2.1)."""


def with_empty_attributes(source: Dataset) -> Dataset:
    """A copy of the source with empty attributes in place of missing ones, which highdicom wants.

    The elements are those of the source, not copies of them.
    """
    completed = Dataset()
    completed.update(source)
    if hasattr(source, "file_meta"):
        completed.file_meta = source.file_meta
    for keyword in _TYPE_2_ATTRIBUTES:
        if keyword not in completed:
            setattr(completed, keyword, None)
    return completed


def repeat_grouping_attributes(source: Dataset, derived: Dataset) -> None:
    """Writes the source's grouping attributes into an instance that was made from it, exactly as they are.

    One that the source lacks stays as it is in the derived instance, where it must be empty or absent.
    """
    for keyword in GROUPING_ATTRIBUTES:
        if keyword in source:
            derived[keyword] = deepcopy(source[keyword])
