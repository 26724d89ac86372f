"""Which options of the standard's confidentiality profile are on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

BASIC = ("113100", "Basic Application Confidentiality Profile")

OPTION_CODES: Mapping[str, tuple[str, str]] = MappingProxyType(
    {
        "clean_descriptors": ("113105", "Clean Descriptors Option"),
        "shift_dates": ("113107", "Retain Longitudinal Temporal Information Modified Dates Option"),
        "retain_patient_characteristics": ("113108", "Retain Patient Characteristics Option"),
        "retain_device_identity": ("113109", "Retain Device Identity Option"),
        "retain_uids": ("113110", "Retain UIDs Option"),
        "retain_safe_private": ("113111", "Retain Safe Private Option"),
        "retain_institution_identity": ("113112", "Retain Institution Identity Option"),
    }
)
"""Code values and meanings in the scheme DCM (PS3.16 CID 7050), by the field of `Profile` that switches
them."""


@dataclass(frozen=True, kw_only=True)
class Profile:
    """The Basic Application Level Confidentiality Profile and the options that are on (PS3.15 E.2 and
    E.3)."""

    shift_dates: bool = True
    """Dates are moved by a number of days that the key gives each patient, times of day stay. Off: dates and
    times are removed, emptied or replaced as the table says."""
    clean_descriptors: bool = True
    """Descriptions keep the words of an imaging vocabulary. Off: they are removed, emptied or replaced."""
    retain_patient_characteristics: bool = True
    """Sex, age (90 and over as 90), size and weight stay."""
    retain_device_identity: bool = False
    """Station name, serial number and their like stay."""
    retain_institution_identity: bool = False
    """Name, address and department of the institution stay."""
    retain_safe_private: bool = True
    """Numbers in private elements that PS3.15 Table E.3.10-1 lists as safe stay."""
    retain_uids: bool = False
    """UIDs stay what they are. Off: they are replaced by keyed hashes, consistently."""
    extra_words: frozenset[str] = frozenset()
    """Words in lower case that descriptions may keep beside the vocabulary's."""

    @property
    def codes(self) -> tuple[tuple[str, str], ...]:
        """Code value and meaning of the profile and of every option that is on."""
        return (BASIC, *(code for field, code in OPTION_CODES.items() if getattr(self, field)))

    def to_json(self) -> dict[str, object]:
        """The options as the report names them."""
        options: dict[str, object] = {field: getattr(self, field) for field in OPTION_CODES}
        return options | {"extra_words": sorted(self.extra_words)}


DEFAULT = Profile()
