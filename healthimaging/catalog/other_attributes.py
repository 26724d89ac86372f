"""The attributes that have no column of their own, as a map from keyword to text."""

from __future__ import annotations

import json
from collections.abc import Collection
from typing import Any

from healthimaging.catalog.binary_keywords import BINARY_KEYWORDS
from healthimaging.metadata import Attributes

MOST_CHARACTERS = 4_000
"""Of one value. A longer one is cut, and says how long it was."""
MOST_IN_A_ROW = 100_000
"""Characters of all values of a row. What comes after them only says how long it was."""

BINARY = frozenset({"OB", "OD", "OF", "OL", "OV", "OW", "UN"})
"""Value representations whose values nobody searches by; they are left out."""


def other_attributes(attributes: Attributes, *, without: Collection[str]) -> dict[str, str]:
    """Every attribute that has a value, by DICOM keyword (private ones by eight hexadecimal digits).

    Several values have a backslash between them, as in DICOM; sequences are JSON as in the metadata. Left
    out is what is empty, and binary data (those within a sequence are part of its JSON).

    Args:
        attributes: Of one level.
        without: Keywords that columns have.
    """
    found: dict[str, str] = {}
    room = MOST_IN_A_ROW
    for keyword, value in attributes.values.items():
        if keyword in without or _is_binary(keyword, attributes.vrs.get(keyword)):
            continue
        text = as_text(value)
        if not text:
            continue
        kept = min(MOST_CHARACTERS, room)
        found[keyword] = text if len(text) <= kept else f"{text[:kept]}... ({len(text)} characters)"
        room -= min(len(text), kept)
    return found


def as_text(value: Any) -> str:
    """A value of the metadata as text; "" for what is empty."""
    if value is None:
        return ""
    if isinstance(value, dict) or (isinstance(value, list) and any(isinstance(one, dict) for one in value)):
        return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    if isinstance(value, list):
        texts = ["" if one is None else _plain(one) for one in value]
        return "\\".join(texts) if any(texts) else ""
    return _plain(value)


def _is_binary(keyword: str, vr: Any) -> bool:
    """Args: `vr` as the document has it: for a sequence it may be a list, of its items' tables."""
    return vr in BINARY if isinstance(vr, str) else keyword in BINARY_KEYWORDS


def _plain(value: Any) -> str:
    return str(value).strip(" \0")
