"""The two people of the demo. Nothing about them is real but their anatomy.

The published volumes come without identity; every attribute here is made up and says so.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass

from pydicom.uid import UID

NAMESPACE = uuid.UUID("8f1c9d2e-6a57-5b0e-9d43-5a1f0c7b2e64")
"""Namespace of the demo's UIDs; a constant, so that a second demo brings the same studies again and not new
ones.
"""


@dataclass(frozen=True, kw_only=True)
class Patient:
    """A patient with one study of one CT series."""

    name: str
    """Name of the volume in the source package: lung1."""
    patient_name: str
    patient_id: str
    study_id: str
    accession_number: str
    study_date: str
    """DICOM date YYYYMMDD."""

    @property
    def study_instance_uid(self) -> str:
        return deterministic_uid(self.name, "study")

    @property
    def series_instance_uid(self) -> str:
        return deterministic_uid(self.name, "ct")

    @property
    def frame_of_reference_uid(self) -> str:
        return deterministic_uid(self.name, "frame of reference")


def deterministic_uid(*parts: str) -> UID:
    """A UID in the form 2.25.<UUID as an integer> (PS3.5 B.2), the same for the same parts."""
    return UID(f"2.25.{uuid.uuid5(NAMESPACE, '/'.join(parts)).int}")


LUNG1 = Patient(
    name="lung1",
    patient_name="Synthetic^Demo One",
    patient_id="DEMO-LUNG1",
    study_id="DEMO1",
    accession_number="DEMO-ACC-1",
    study_date="20000101",
)
LUNG2 = Patient(
    name="lung2",
    patient_name="Synthetic^Demo Two",
    patient_id="DEMO-LUNG2",
    study_id="DEMO2",
    accession_number="DEMO-ACC-2",
    study_date="20000102",
)
PATIENTS = (LUNG1, LUNG2)
