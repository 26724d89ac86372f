"""One attribute of the metadata JSON as one DICOM data element.

The value representation (VR) comes from `DICOMVRs` where the document has it, else from the dictionary
(DICOM PS3.6). Null is an element without a value, which DICOM knows (type 2, PS3.5 section 7.4.3): it is
kept.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable, Mapping
from typing import Any

from pydicom import DataElement, Dataset
from pydicom._dicom_dict import RepeatersDictionary
from pydicom.config import IGNORE
from pydicom.datadict import dictionary_VR, private_dictionary_VR, tag_for_keyword
from pydicom.sequence import Sequence
from pydicom.tag import BaseTag, Tag

from healthimaging.errors import MetadataError

PIXEL_DATA_TAGS = frozenset({0x7FE00001, 0x7FE00002, 0x7FE00008, 0x7FE00009, 0x7FE00010})
"""Pixel data and its offset tables: null in the metadata, and the frames hold what they stand for."""

_REPEATING_GROUPS = {
    entry[4]: int(tag.replace("x", "0"), 16) for tag, entry in RepeatersDictionary.items() if entry[4]
}
"""Keyword -> tag in the first group of overlays (60xx) and curves (50xx); keywords name no group."""

_HEXADECIMAL = re.compile(r"\(?([0-9A-Fa-f]{4}),?\s?([0-9A-Fa-f]{4})\)?\Z")
_BINARY = frozenset({"OB", "OD", "OF", "OL", "OV", "OW", "UN"})
_INTEGER = frozenset({"SL", "SS", "SV", "UL", "US", "UV", "US or SS"})
_REAL = frozenset({"FD", "FL"})
_UNDIVIDED_TEXT = frozenset({"LT", "ST", "UR", "UT"})
_WORDS_OR_BYTES = frozenset({"OB or OW", "US or OW", "US or SS or OW"})


def fill_dataset(
    dataset: Dataset,
    values: Mapping[str, Any],
    vrs: Mapping[str, Any],
    *,
    sop_instance_uid: str,
    bulk: bool = True,
) -> None:
    """Adds every attribute of one level, except pixel data and the imported file's meta information.

    Args:
        dataset: Is added to.
        values: Attributes by keyword or hexadecimal tag (`DICOM`).
        vrs: Value representations by the same keys (`DICOMVRs`).
        sop_instance_uid: For errors.
        bulk: Whether large values, which the metadata only points to, are wanted; False leaves them empty.

    Raises:
        MetadataError: A key names no tag, or a value does not fit its VR, or is bulk data and wanted, which
            is not supported. The message has the key, never the value.
    """
    tagged = sorted((_tag(key, sop_instance_uid), key) for key in values)
    # In order of tags, so that a private creator stands before the elements whose VR it decides.
    for tag, key in tagged:
        if tag in PIXEL_DATA_TAGS or tag.group == 0x0002:
            continue
        vr = _value_representation(tag, key, vrs, dataset)
        value = values[key]
        if isinstance(value, dict) and "BulkDataURI" in value:
            if bulk:
                msg = f"Attribute {key} is bulk data, which is not supported"
                raise MetadataError(msg, sop_instance_uid=sop_instance_uid)
            value = None
        try:
            if vr == "SQ":
                converted: Any = _sequence(value, vrs.get(key), vrs, sop_instance_uid, bulk=bulk)
            else:
                converted = _value(value, vr)
            # What was imported is given back: pydicom's warnings on values would quote patient data.
            dataset[tag] = DataElement(tag, vr, converted, validation_mode=IGNORE)
        except (ValueError, TypeError, OverflowError, AttributeError):
            msg = f"Attribute {key} does not fit its value representation {vr}"
            # Without the cause: it would quote the value, which may be patient data.
            raise MetadataError(msg, sop_instance_uid=sop_instance_uid) from None


def _tag(key: str, sop_instance_uid: str) -> BaseTag:
    found = _find_tag(key)
    if found is None:
        msg = f"Attribute {key} is neither a DICOM keyword nor a tag"
        raise MetadataError(msg, sop_instance_uid=sop_instance_uid)
    return found


def _find_tag(key: str) -> BaseTag | None:
    found = tag_for_keyword(key) or _REPEATING_GROUPS.get(key)
    if found is not None:
        return Tag(found)
    match = _HEXADECIMAL.match(key)
    return None if match is None else Tag(int(match[1], 16), int(match[2], 16))


def _tag_value(item: Any) -> BaseTag:
    found = Tag(item) if isinstance(item, int) else _find_tag(str(item))
    if found is None:
        raise ValueError
    return found


def _value_representation(tag: BaseTag, key: str, vrs: Mapping[str, Any], dataset: Dataset) -> str:
    declared = vrs.get(key)
    if isinstance(declared, str):
        return declared
    if isinstance(declared, (dict, list)):
        return "SQ"
    if tag.is_private_creator:
        return "LO"
    try:
        if tag.is_private:
            creator = dataset.get(Tag(tag.group, tag.element >> 8))
            return private_dictionary_VR(tag, str(creator.value)) if creator is not None else "UN"
        return dictionary_VR(tag)
    except KeyError:
        return "UN"


def _value(value: Any, vr: str) -> Any:
    if value is None:
        return b"" if vr in _BINARY else None
    if vr in _BINARY or (vr in _WORDS_OR_BYTES and _is_text(value)):
        return _bytes(value)
    if vr in _INTEGER or vr in _WORDS_OR_BYTES:
        return _each(value, _whole)
    if vr in _REAL:
        return _each(value, float)
    if vr == "AT":
        return _each(value, _tag_value)
    if vr == "PN":
        return _each(value, _person_name)
    if vr in _UNDIVIDED_TEXT and isinstance(value, list):
        value = "\\".join(str(item) for item in value if item is not None)
    # DICOM pads text to even length (PS3.5 section 6.2); the service keeps the padding, a dataset does not.
    return _each(value, lambda item: "" if item is None else str(item).rstrip(" \0"))


def _each(value: Any, convert: Callable[[Any], Any]) -> Any:
    if not isinstance(value, list):
        return convert(value)
    converted = [convert(item) for item in value]
    return converted[0] if len(converted) == 1 else converted or None


def _is_text(value: Any) -> bool:
    first = value[0] if isinstance(value, list) and value else value
    return isinstance(first, str)


def _whole(item: Any) -> int:
    number = int(item)
    if isinstance(item, float) and number != item:
        raise ValueError
    return number


def _bytes(value: Any) -> bytes:
    if isinstance(value, list):
        if len(value) > 1:
            raise ValueError
        value = value[0] if value else ""
    try:
        return base64.b64decode(value or "", validate=True)
    except binascii.Error as error:
        raise ValueError from error


def _person_name(item: Any) -> str:
    if isinstance(item, dict):  # as in DICOM JSON (PS3.18 section F.2.2)
        groups = [str(item.get(part) or "") for part in ("Alphabetic", "Ideographic", "Phonetic")]
        return "=".join(groups).rstrip("=")
    return "" if item is None else str(item).rstrip(" \0")


def _sequence(
    value: Any, nested: Any, vrs: Mapping[str, Any], sop_instance_uid: str, *, bulk: bool
) -> Sequence:
    items = value if isinstance(value, list) else [] if value is None else [value]
    datasets = []
    for index, item in enumerate(items):
        if item is not None and not isinstance(item, dict):
            raise TypeError
        # Seen in the field: one flat table for all levels. A table per sequence or per item is read, too.
        own = nested[index] if isinstance(nested, list) and index < len(nested) else nested
        dataset = Dataset()
        fill_dataset(
            dataset,
            item or {},
            {**vrs, **own} if isinstance(own, dict) else vrs,
            sop_instance_uid=sop_instance_uid,
            bulk=bulk,
        )
        datasets.append(dataset)
    return Sequence(datasets)
