"""Values of the metadata JSON as values of DICOM data elements."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable
from typing import Any

from pydicom.tag import BaseTag

HEXADECIMAL = re.compile(r"\(?([0-9A-Fa-f]{4}),?\s?([0-9A-Fa-f]{4})\)?\Z")
"""A tag as text: `00280010`, `(0028,0010)` or `0028,0010`."""

BINARY = frozenset({"OB", "OD", "OF", "OL", "OV", "OW", "UN"})
NUMBERS: dict[str, tuple[int, int] | None] = {
    "SL": (-(2**31), 2**31 - 1),
    "SS": (-(2**15), 2**15 - 1),
    "SV": (-(2**63), 2**63 - 1),
    "UL": (0, 2**32 - 1),
    "US": (0, 2**16 - 1),
    "UV": (0, 2**64 - 1),
    "FD": None,
    "FL": None,
}
"""Binary numbers: VR -> smallest and largest whole number, None for real numbers."""

TEXT_OF_A_CHARACTER_SET = frozenset({"LO", "LT", "PN", "SH", "ST", "UC", "UT"})
"""Text in SpecificCharacterSet (DICOM PS3.5 section 6.1.2.3)."""
TEXT = TEXT_OF_A_CHARACTER_SET | {"AE", "AS", "CS", "DA", "DS", "DT", "IS", "TM", "UI", "UR"}
_UNDIVIDED_TEXT = frozenset({"LT", "ST", "UR", "UT"})
_LARGEST_FLOAT = 3.4028235677973366e38
"""Half a step above the largest number of 32 bits: what rounds to infinity is refused."""


def converted(value: Any, vr: str, find_tag: Callable[[str], BaseTag | None]) -> Any:
    """What a pydicom element of this VR takes.

    Args:
        value: Of the document, or the bytes of bulk data.
        vr: One VR, not SQ.
        find_tag: Tag of a keyword or of hexadecimal digits.

    Raises:
        ValueError: The value does not fit the VR. TypeError and AttributeError may come, too.
    """
    if value is None:
        return b"" if vr in BINARY else None
    if vr in BINARY:
        return value if isinstance(value, bytes) else _bytes(value)
    if vr in NUMBERS:
        return _each(value, lambda item: _number(item, vr))
    if vr == "AT":
        return _each(value, lambda item: _tag(item, find_tag))
    if vr in _UNDIVIDED_TEXT and isinstance(value, list):
        value = "\\".join(_text(item) for item in value)
    if isinstance(value, list):
        # A backslash divides values (PS3.5 section 6.2), wherever it stands.
        texts = "\\".join(_text(item, vr) for item in value).split("\\") if value else []
        if vr in ("DS", "IS"):
            texts = [text if text.strip() else "" for text in texts]
        # DICOM pads a value field to even length at its end (PS3.5 section 6.2): in the last value only.
        if texts:
            texts[-1] = texts[-1].rstrip(" \0")
        found: Any = texts[0] if len(texts) == 1 else texts or None
    else:
        found = _text(value, vr).rstrip(" \0")
    if vr not in TEXT_OF_A_CHARACTER_SET and found:
        # These are written in the default repertoire; pydicom reads bytes beyond it as Latin 1.
        "".join(found).encode("latin-1")
    return found


def _each(value: Any, convert: Callable[[Any], Any]) -> Any:
    if not isinstance(value, list):
        return convert(value)
    found = [convert(item) for item in value]
    return found[0] if len(found) == 1 else found or None


def _number(item: Any, vr: str) -> int | float:
    limits = NUMBERS[vr]
    if limits is None:
        number = float(item)
        if vr == "FL" and _LARGEST_FLOAT <= abs(number) < float("inf"):
            raise ValueError
        return number
    whole = int(item)
    if (isinstance(item, float) and whole != item) or not limits[0] <= whole <= limits[1]:
        raise ValueError
    return whole


def _tag(item: Any, find_tag: Callable[[str], BaseTag | None]) -> BaseTag:
    if isinstance(item, int) and 0 <= item < 2**32:
        return BaseTag(item)
    found = find_tag(str(item))
    if found is None:
        raise ValueError
    return found


def _text(item: Any, vr: str = "") -> str:
    if item is None:
        return ""
    if vr == "PN" and isinstance(item, dict):  # as in DICOM JSON (PS3.18 section F.2.2)
        groups = [_text(item.get(part)) for part in ("Alphabetic", "Ideographic", "Phonetic")]
        return "=".join(groups).rstrip("=")
    if isinstance(item, (dict, list)):
        raise TypeError
    return str(item)


def _bytes(value: Any) -> bytes:
    if isinstance(value, list):
        if len(value) > 1:
            raise ValueError
        value = value[0] if value else ""
    try:
        return base64.b64decode(value or "", validate=True)
    except binascii.Error as error:
        raise ValueError from error
