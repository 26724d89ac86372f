"""What happens to an attribute, and by which rule: Table E.1-1 seen through the options of a profile.

Where the table leaves a choice by the attribute's type in the IOD (`X/D`, `Z/D`, ...), the choice is the one
that is valid for every type: a value that says nothing rather than no attribute.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from functools import lru_cache

from pydicom.datadict import dictionary_has_tag, dictionary_VR, repeater_has_tag

from arrival.deidentification.options import (
    ALWAYS_REMOVED,
    CODE_VALUES,
    DESCRIPTORS,
    DEVICE_IDENTITY,
    INSTITUTION_IDENTITY,
    NOT_SHIFTED,
    PATIENT_CHARACTERISTICS,
    PSEUDONYMS,
    REFERENCES,
    TIMES_KEPT_BESIDES,
    UNLISTED_DESCRIPTORS,
)
from arrival.deidentification.profile import Profile
from arrival.deidentification.table import Basic, basic_action

PATIENT_AGE = 0x00101010
TEXT = frozenset({"LO", "SH", "ST", "LT", "UT", "UC"})
LONG_TEXT = frozenset({"ST", "LT", "UT", "UC", "UR"})
TEMPORAL = frozenset({"DA", "DT", "TM"})
_KINDS = {
    **dict.fromkeys(("AE", "CS", "LO", "LT", "SH", "ST", "UC", "UR", "UT"), "text"),
    **dict.fromkeys(("DS", "FD", "FL", "IS", "SL", "SS", "SV", "UL", "US", "UV"), "number"),
    **dict.fromkeys(("OB", "OD", "OF", "OL", "OV", "OW"), "bytes"),
}
"""VRs that took each other's place from one edition of the dictionary to the next. The others stand alone."""


class Action(Enum):
    KEEP = "keep"
    """Unchanged; a sequence item by item."""
    REMOVE = "remove"
    EMPTY = "empty"
    DUMMY = "dummy"
    """A value that says nothing; in a sequence, for everything in its items."""
    UID = "uid"
    SHIFT = "shift"
    CLEAN = "clean"
    AGE = "age"
    PSEUDONYM = "pseudonym"


@dataclass(frozen=True, kw_only=True, slots=True)
class Rule:
    """What to do, and the name under which the report counts it."""

    action: Action
    name: str
    otherwise: Action = Action.REMOVE
    """For SHIFT and CLEAN: what to do where nothing of the value can stay."""


KEEP = Rule(action=Action.KEEP, name="keep")


@lru_cache(maxsize=8192)
def rule_of(tag: int, vr: str, profile: Profile) -> Rule:
    """The rule for a public attribute. `vr` is the value representation of the element in hand."""
    group, element = tag >> 16, tag & 0xFFFF
    if element == 0 or group < 8 or tag in ALWAYS_REMOVED:
        return Rule(action=Action.REMOVE, name="group length, command, padding or encrypted")
    if 0x5000 <= group <= 0x50FF or 0x6000 <= group <= 0x60FF:
        # The planes of a removed overlay or curve mean nothing without its data, and are refused by readers.
        return Rule(action=Action.REMOVE, name="overlay or curve")
    if not (dictionary_has_tag(tag) or repeater_has_tag(tag)):
        return Rule(action=Action.REMOVE, name="unknown attribute")
    if not _is_of_its_kind(tag, vr):
        # A date that calls itself text would escape the treatment of dates.
        return Rule(action=Action.REMOVE, name="representation not the dictionary's")
    listed = basic_action(tag)
    return _of_option(tag, vr, listed, profile) or _of_table(vr, listed) or _unlisted(tag, vr, profile)


def _is_of_its_kind(tag: int, vr: str) -> bool:
    """Whether an element has a VR of the kind that the dictionary gives its attribute."""
    allowed = {_KINDS.get(one, one) for one in dictionary_VR(tag).split(" or ")}
    return all(_KINDS.get(one, one) in allowed for one in vr.split(" or "))


def _of_option(tag: int, vr: str, listed: Basic | None, profile: Profile) -> Rule | None:
    if tag in PSEUDONYMS:
        return Rule(action=Action.PSEUDONYM, name="pseudonym")
    if tag in PATIENT_CHARACTERISTICS and profile.retain_patient_characteristics:
        return Rule(action=Action.AGE, name="age capped") if tag == PATIENT_AGE else KEEP
    if tag in DEVICE_IDENTITY and profile.retain_device_identity:
        return KEEP
    if tag in INSTITUTION_IDENTITY and profile.retain_institution_identity:
        return KEEP
    if tag in REFERENCES or (vr == "UI" and listed != "X" and profile.retain_uids):
        return KEEP
    if profile.shift_dates and (tag in TIMES_KEPT_BESIDES or (vr == "TM" and tag not in NOT_SHIFTED)):
        return KEEP
    if profile.shift_dates and vr in ("DA", "DT") and tag not in NOT_SHIFTED:
        return Rule(action=Action.SHIFT, name="date shift", otherwise=_without_iod(listed))
    if profile.clean_descriptors and tag in DESCRIPTORS and vr in TEXT:
        return Rule(action=Action.CLEAN, name="clean descriptor", otherwise=_without_iod(listed))
    return None


def _of_table(vr: str, listed: Basic | None) -> Rule | None:
    if listed is None:
        return None
    if vr == "UI" and listed != "X":
        return Rule(action=Action.UID, name="U")
    if vr == "SQ" and listed in ("X/D", "X/Z/D"):
        # Without the IOD no item can be invented; these are optional in the IODs that are let through.
        return Rule(action=Action.REMOVE, name=listed)
    return Rule(action=_without_iod(listed), name=listed)


def _unlisted(tag: int, vr: str, profile: Profile) -> Rule:
    """Attributes that the table does not name stay, save those whose kind says that they could tell
    something."""
    if vr == "UI":
        return Rule(action=Action.UID, name="U")
    if vr == "PN":
        return Rule(action=Action.EMPTY, name="unlisted person name")
    if vr in TEMPORAL:
        # Dates come here only where they are not shifted.
        return Rule(action=Action.EMPTY, name="unlisted date or time")
    if (vr in LONG_TEXT and tag not in CODE_VALUES) or tag in UNLISTED_DESCRIPTORS:
        if profile.clean_descriptors and vr in TEXT:
            return Rule(action=Action.CLEAN, name="clean unlisted text", otherwise=Action.DUMMY)
        return Rule(action=Action.DUMMY, name="unlisted text")
    return KEEP


def _without_iod(listed: Basic | None) -> Action:
    """The action of the table that is valid whatever the attribute's type in the IOD is."""
    if listed is None or listed in ("Z", "X/Z", "X/Z/U*"):
        return Action.EMPTY
    return Action.REMOVE if listed == "X" else Action.DUMMY
