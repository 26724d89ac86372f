"""Data elements as plain JSON values, and back to DICOM.

The form in which image set versions are stored: nothing that the file said is lost (numbers in text keep
their spelling and padding, private elements keep their VR), and both of HealthImaging's views, its own
metadata JSON and DICOM JSON, are made from it. Values: strings for text, DS and IS (as written in the file),
numbers for binary numbers, eight hexadecimal digits for AT, base64 for bytes, nested attributes for
sequences.
"""

from __future__ import annotations

import base64
import struct
from collections.abc import Callable, Mapping
from typing import Any, NotRequired, TypedDict

import numpy as np
from pydicom import config
from pydicom.datadict import dictionary_VR
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.tag import BaseTag, Tag
from pydicom.valuerep import PersonName

BULK_THRESHOLD_BYTES = 1_000_000
"""Binary values above this size leave the metadata and become bulk data (devguide: importing, private
binary > 1 MB)."""

BINARY_VRS = frozenset({"OB", "OW", "OD", "OF", "OL", "OV", "UN"})
_WORD_BYTES = {"OW": 2, "OF": 4, "OL": 4, "OD": 8, "OV": 8}
_TEXT_VRS = frozenset({"LO", "LT", "PN", "SH", "ST", "UC", "UT"})
"""VRs whose bytes depend on the character set (PS3.5 6.1.2.2)."""
NUMBER_FORMATS = {"US": "H", "SS": "h", "UL": "I", "SL": "i", "UV": "Q", "SV": "q", "FL": "f", "FD": "d"}
_AMBIGUOUS_VRS = {"US or SS": "US", "OB or OW": "OW", "US or OW": "OW", "US or SS or OW": "OW"}


class Element(TypedDict):
    """One data element: its VR, and its values or the identifier of its bulk data."""

    vr: str
    value: list[Any]
    bulk: NotRequired[str]


Attributes = dict[str, Element]
"""Data elements by tag, eight upper-case hexadecimal digits."""


def read_attributes(
    dataset: Dataset,
    *,
    little_endian: bool,
    keep_bulk: Callable[[bytes], str],
    without: frozenset[int] = frozenset(),
) -> Attributes:
    """Everything in `dataset` except group lengths and the tags in `without`.

    `little_endian` is the byte order of the file, whose word-sized binary values are turned to little endian.
    `keep_bulk` stores a large binary value and answers its identifier.
    """
    attributes: Attributes = {}
    for tag in sorted(dataset.keys()):  # iterating the Dataset itself would convert every element
        if tag in without or (tag.element == 0 and tag.group != 2):
            continue
        attributes[f"{int(tag):08X}"] = _read_element(dataset, tag, little_endian, keep_bulk)
    return attributes


def _read_element(
    dataset: Dataset, tag: BaseTag, little_endian: bool, keep_bulk: Callable[[bytes], str]
) -> Element:
    item: DataElement | RawDataElement = dataset.get_item(tag)
    raw = item if isinstance(item, RawDataElement) else None
    if raw is not None and isinstance(raw.value, bytes):
        vr = raw.VR if raw.VR not in (None, "UN") else _dictionary_vr(tag)
        if vr in ("DS", "IS"):
            # Read as text: the spelling is kept, and a value such as "1A" is what the file says, not an
            # error.
            return {"vr": vr, "value": _split(raw.value.decode("ascii", "replace").rstrip("\0"))}
    try:
        element = dataset[tag]
        return _convert(element, little_endian, keep_bulk)
    except (ValueError, TypeError, NotImplementedError, struct.error, KeyError):
        if raw is None or not isinstance(raw.value, bytes):
            raise
        # The bytes do not fit the VR. They are kept as they are, as PS3.5 6.2.2 does for VRs that it does not
        # know.
        return _binary("UN", raw.value, keep_bulk)


def _dictionary_vr(tag: BaseTag) -> str:
    try:
        return dictionary_VR(tag)
    except KeyError:
        return "UN"


def _convert(element: DataElement, little_endian: bool, keep_bulk: Callable[[bytes], str]) -> Element:
    vr = _AMBIGUOUS_VRS.get(str(element.VR), str(element.VR))
    value = element.value
    if vr == "SQ":
        items = [
            read_attributes(item, little_endian=little_endian, keep_bulk=keep_bulk) for item in (value or ())
        ]
        return {"vr": vr, "value": items}
    if vr in BINARY_VRS:
        data = b"" if value is None else _to_bytes(value)
        if not little_endian and vr in _WORD_BYTES:
            data = _swapped(data, _WORD_BYTES[vr])
        return _binary(vr, data, keep_bulk)
    if value is None or (isinstance(value, (str, bytes)) and len(value) == 0):
        return {"vr": vr, "value": []}
    # A PersonName is iterable by its characters.
    single = isinstance(value, (str, bytes, PersonName)) or not hasattr(value, "__iter__")
    values = [value] if single else list(value)
    if vr == "AT":
        return {"vr": vr, "value": [f"{int(Tag(item)):08X}" for item in values]}
    if vr in NUMBER_FORMATS:
        number: Callable[[Any], Any] = float if vr in ("FL", "FD") else int
        return {"vr": vr, "value": [number(item) for item in values]}
    if vr in ("DS", "IS"):
        return {
            "vr": vr,
            "value": [str(getattr(item, "original_string", "" if item is None else item)) for item in values],
        }
    texts = [str(item) for item in values]
    return {"vr": vr, "value": [] if texts == [""] else texts}


def _to_bytes(value: Any) -> bytes:
    if isinstance(value, (bytes, bytearray)):
        return bytes(value)
    msg = f"expected bytes, got {type(value).__name__}"
    raise TypeError(msg)


def _swapped(data: bytes, size: int) -> bytes:
    whole = len(data) // size * size
    return np.frombuffer(data[:whole], dtype=f">u{size}").astype(f"<u{size}").tobytes() + data[whole:]


def _binary(vr: str, data: bytes, keep_bulk: Callable[[bytes], str]) -> Element:
    if len(data) > BULK_THRESHOLD_BYTES:
        return {"vr": vr, "value": [], "bulk": keep_bulk(data)}
    return {"vr": vr, "value": [base64.b64encode(data).decode("ascii")] if data else []}


def _split(text: str) -> list[str]:
    return text.split("\\") if text.strip() else []


def to_dataset(attributes: Attributes, *, get_bulk: Callable[[str], bytes]) -> Dataset:
    """The attributes as a pydicom Dataset in explicit VR little endian and UTF-8.

    Elements other than text are built from bytes, not through pydicom's value checks: what was stored is
    given back even where it does not conform.
    """
    dataset = Dataset()
    for key, element in sorted(attributes.items()):
        tag = BaseTag(int(key, 16))
        if element["vr"] == "SQ":
            items = [to_dataset(item, get_bulk=get_bulk) for item in element["value"]]
            dataset[tag] = DataElement(tag, "SQ", Sequence(items))
            continue
        if element["vr"] in _TEXT_VRS:
            text = "\\".join(element["value"])
            dataset[tag] = DataElement(tag, element["vr"], text, validation_mode=config.IGNORE)
            continue
        data = element_bytes(element, get_bulk=get_bulk)
        dataset[tag] = RawDataElement(tag, element["vr"], len(data), data, 0, False, True)
    return dataset


def element_bytes(element: Element, *, get_bulk: Callable[[str], bytes]) -> bytes:
    """The value field in explicit VR little endian, of even length."""
    vr, values = element["vr"], element["value"]
    if vr in BINARY_VRS:
        data = (
            get_bulk(element["bulk"]) if "bulk" in element else base64.b64decode(values[0] if values else "")
        )
        return data + b"\0" * (len(data) % 2)
    if vr == "AT":
        return b"".join(struct.pack("<HH", int(item[:4], 16), int(item[4:], 16)) for item in values)
    if vr in NUMBER_FORMATS:
        return struct.pack(f"<{len(values)}{NUMBER_FORMATS[vr]}", *values)
    data = "\\".join(values).encode("utf-8")
    return data + (b"\0" if vr == "UI" else b" ") * (len(data) % 2)


def is_ascii(attributes: Mapping[str, Element]) -> bool:
    """Whether every text in the attributes, nested ones too, is plain ASCII."""
    for element in attributes.values():
        for value in element["value"]:
            if isinstance(value, str) and not value.isascii():
                return False
            if isinstance(value, dict) and not is_ascii(value):
                return False
    return True


def first_text(attributes: Attributes, tag: str) -> str:
    """The first value of a text element without padding, "" where the element is missing or empty."""
    element = attributes.get(tag)
    if element is None or not element["value"]:
        return ""
    return str(element["value"][0]).strip(" \0")
