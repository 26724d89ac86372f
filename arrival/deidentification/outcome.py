"""What de-identification of one instance answers: the new instance with its changes, or the reasons against
it."""

from __future__ import annotations

from dataclasses import dataclass

from pydicom.dataset import Dataset


@dataclass(frozen=True, kw_only=True, slots=True)
class Change:
    """One attribute that is no longer what it was. Never a value."""

    tag: str
    """(0010,0020)"""
    keyword: str
    """The DICOM keyword; `Private` and `Unknown` for attributes that the dictionary does not have."""
    rule: str
    """Why: the action of the standard's table (`X`, `Z`, `D`, `U`), or a rule named in
    docs/deidentification.md."""
    path: str
    """The sequences around it, outermost first: `ReferencedSeriesSequence[0].`, empty at the top."""


@dataclass(frozen=True, kw_only=True, slots=True, repr=False)
class Identity:
    """Who and what an instance was, for the sealed record. The original half is shown to nobody else."""

    original_patient_id: str
    patient_id: str
    original_study_instance_uid: str
    study_instance_uid: str
    original_series_instance_uid: str
    series_instance_uid: str
    original_sop_instance_uid: str
    sop_instance_uid: str
    days_of_shift: int
    """Days that were added to every date; negative, and 0 where dates were removed."""

    def __repr__(self) -> str:
        return f"Identity(sop_instance_uid={self.sop_instance_uid!r}, ...)"


@dataclass(frozen=True, kw_only=True, repr=False)
class Deidentified:
    """An instance that may be imported."""

    dataset: Dataset
    """New, with file meta information; transfer syntax and pixel data as they were."""
    changes: tuple[Change, ...]
    identity: Identity

    def __repr__(self) -> str:
        return f"Deidentified(sop_instance_uid={self.identity.sop_instance_uid!r}, ...)"


@dataclass(frozen=True, kw_only=True, repr=False)
class Quarantined:
    """An instance that must not be imported before a person looked at it."""

    reasons: tuple[str, ...]
    """One sentence each; attributes by name, and values only of attributes that describe the image."""
    sop_instance_uid: str
    """The ORIGINAL one: for the person who gave the file, not for logs."""
    study_instance_uid: str
    """The new one, for the study's report; empty where the instance names no study."""

    def __repr__(self) -> str:
        return f"Quarantined(reasons={self.reasons!r}, ...)"
