"""DICOM PS3.15 Table E.1-1, the column "Basic Prof.", as the library dicom-anonymizer carries it as data.

Only its data are used. Its engine works at the top level of a dataset alone, knows no options, keeps its UID
mapping in a process-wide dictionary of random UIDs, and gives every date the same dummy.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import version
from types import MappingProxyType
from typing import Any, Literal

from dicomanonymizer.dicom_anonymization_databases import dicomfields_2026c

EDITION = "2026c"
"""Edition of the DICOM standard that the table is from."""
LIBRARY = "dicom-anonymizer"

Basic = Literal["D", "Z", "X", "U", "Z/D", "X/Z", "X/D", "X/Z/D", "X/Z/U*"]

_LISTS: Mapping[Basic, str] = {
    "D": "D_TAGS",
    "Z": "Z_TAGS",
    "X": "X_TAGS",
    "U": "U_TAGS",
    "Z/D": "Z_D_TAGS",
    "X/Z": "X_Z_TAGS",
    "X/D": "X_D_TAGS",
    "X/Z/D": "X_Z_D_TAGS",
    "X/Z/U*": "X_Z_U_STAR_TAGS",
}


def _read(module: Any) -> tuple[dict[int, Basic], tuple[tuple[int, int, Basic], ...]]:
    single: dict[int, Basic] = {}
    masked: list[tuple[int, int, Basic]] = []
    for action, name in _LISTS.items():
        for entry in getattr(module, name):
            if len(entry) == 2:
                single[entry[0] << 16 | entry[1]] = action
            else:
                group, element, group_mask, element_mask = entry
                masked.append((group << 16 | element, group_mask << 16 | element_mask, action))
    return single, tuple(masked)


_SINGLE, _MASKED = _read(dicomfields_2026c)

TABLE: Mapping[int, Basic] = MappingProxyType(_SINGLE)
"""Action of the Basic Profile by tag; repeating groups are not in it, see `basic_action`."""


def basic_action(tag: int) -> Basic | None:
    """What the Basic Profile does with `tag`; None where the table does not name it. Repeating groups
    included."""
    found = TABLE.get(tag)
    if found is None:
        found = next((action for value, mask, action in _MASKED if tag & mask == value & mask), None)
    return found


def table_version() -> dict[str, str]:
    """Edition of the table and version of the library that carries it, for reports."""
    return {
        "standard": f"DICOM PS3.15 {EDITION} Table E.1-1",
        "library": LIBRARY,
        "version": version(LIBRARY),
    }
