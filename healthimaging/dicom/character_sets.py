"""Whether a character set can hold texts, which are Unicode in the metadata."""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Any

from pydicom.charset import (
    convert_encodings,
    custom_encoders,
    default_encoding,
    encode_string,
    python_encoding,
)
from pydicom.config import IGNORE
from pydicom.tag import BaseTag
from pydicom.valuerep import PersonName
from pydicom.values import convert_PN, convert_single_string

CHARACTER_SET = BaseTag(0x00080005)
UNICODE = "ISO_IR 192"
"""UTF-8 (DICOM PS3.3 section C.12.1.1.2)."""

_ENTERED = frozenset({"ISO 2022 IR 87", "ISO 2022 IR 159"})
"""Sets that are entered by an escape sequence. As the first one they leave pydicom 3.0 without a way to write
an empty part of a name (`Doe^^Jane`).
"""

_GROUPS = re.compile(r"[=\\]")
"""Between the groups of a name, and between values."""


def suits(declared: Any, texts: Collection[str]) -> bool:
    """Whether a dataset can be written in its declared character sets.

    Args:
        declared: Value of SpecificCharacterSet: one term or several; empty means ASCII.
        texts: All texts of the dataset beyond ASCII, each of which must fit into one of the sets.
    """
    if not texts and not declared:
        return True
    terms = [declared] if isinstance(declared, str) else list(declared or ())
    if terms and terms[0] in _ENTERED:
        return False
    if not texts:
        return True
    # Without a declaration text is ASCII, which these are not; pydicom would take it for Latin 1.
    if not any(terms) or not all(term in python_encoding for term in terms):
        return False
    if len(terms) > 1 and not all(term == "" or term.startswith("ISO 2022") for term in terms):
        return False  # the others stand alone (PS3.5 section 6.1.2.4)
    encodings = convert_encodings([term or "ISO_IR 6" for term in terms])
    parts = {part for text in texts for part in _GROUPS.split(text)}
    if not all(any(_holds(encoding, part, encodings) for encoding in encodings) for part in parts):
        return False
    # pydicom does not read back all that it writes in several sets: the proof is in doing it.
    return len(encodings) == 1 or all(_is_kept(text, encodings) for text in texts)


def _holds(encoding: str, part: str, encodings: list[str]) -> bool:
    """Whether a set has all characters of a part; besides others only those that are not ASCII."""
    if len(encodings) == 1:
        return _encodes(part, encoding)
    return all(character.isascii() or _encodes(character, encoding) for character in part)


def _is_kept(text: str, encodings: list[str]) -> bool:
    names = [PersonName(name, validation_mode=IGNORE) for name in text.split("\\")]
    try:
        written = encode_string(text, encodings)
        if convert_single_string(written, encodings) != text.rstrip(" "):
            return False
        return all(
            str(convert_PN(name.encode(encodings), encodings)).rstrip("^= ") == str(name).rstrip("^= ")
            for name in names
        )
    except UserWarning:  # where warnings are made errors
        return False


def _encodes(text: str, encoding: str) -> bool:
    if encoding == default_encoding:
        return text.isascii()  # Latin 1 for pydicom, which no term declares
    encode = custom_encoders.get(encoding)
    try:
        data = text.encode(encoding) if encode is None else encode(text)
        # The yen sign is where ASCII has the backslash in ISO_IR 13: it would come back as another character.
        return bool(data.decode(encoding) == text)
    except UnicodeError:
        return False
    except LookupError:  # a set that pydicom knows and Python does not
        return True
