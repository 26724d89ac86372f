"""Attributes of the metadata JSON as DICOM data elements.

The value representation (VR) comes from `DICOMVRs` where the document has it, else from the dictionary
(DICOM PS3.6). Null is an element without a value, which DICOM knows (type 2, PS3.5 section 7.4.3): it is
kept.

Neighbouring slices differ in few attributes, and making a pydicom element costs ten times what copying one
does: `ElementMaker` remembers the last element of each key. No two datasets share anything that can be
changed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from typing import Any, NamedTuple

from pydicom import DataElement, Dataset
from pydicom._dicom_dict import RepeatersDictionary
from pydicom.config import IGNORE
from pydicom.datadict import dictionary_VR, private_dictionary_VR, tag_for_keyword
from pydicom.multival import MultiValue
from pydicom.sequence import Sequence
from pydicom.tag import BaseTag

from healthimaging.dicom.character_sets import CHARACTER_SET, UNICODE, suits
from healthimaging.dicom.values import BINARY, HEXADECIMAL, NUMBERS, TEXT, TEXT_OF_A_CHARACTER_SET, converted
from healthimaging.errors import HealthImagingError, MetadataError

PIXEL_DATA_TAGS = frozenset({0x7FE00001, 0x7FE00002, 0x7FE00008, 0x7FE00009, 0x7FE00010})
"""Pixel data and its offset tables: null in the metadata, and the frames hold what they stand for."""

_REPEATING_GROUPS = {
    entry[4]: int(tag.replace("x", "0"), 16) for tag, entry in RepeatersDictionary.items() if entry[4]
}
"""Keyword -> tag in the first group of overlays (60xx) and curves (50xx); keywords name no group."""

_VRS = BINARY | NUMBERS.keys() | TEXT | {"AT", "SQ"}
_FLOAT_PIXEL_DATA = frozenset({0x7FE00008, 0x7FE00009})
_OVERLAY_DATA = 0x60003000
_PIXEL_DATA = BaseTag(0x7FE00010)

Elements = dict[BaseTag, DataElement]
BulkReader = Callable[[str], bytes]
"""Reads the value that a BulkDataURI of the metadata stands for."""


class _Seen(NamedTuple):
    """The last element of a key."""

    value: Any
    """As it stood in the document."""
    declared: Any
    """Its entry in DICOMVRs."""
    tag: BaseTag
    state: dict[str, Any]
    """Of the element; shares nothing that can be changed with any dataset but a list of values."""
    plural: bool
    """Whether the element holds such a list."""
    foreign: tuple[str, ...]
    """Its texts beyond ASCII."""


class ElementMaker:
    """Makes data elements of one level, or of the items of one sequence, for many datasets. Of one thread.

    Args:
        bulk: Reads values that the metadata only points to; None leaves them empty.
    """

    def __init__(self, *, bulk: BulkReader | None = None) -> None:
        self._bulk = bulk
        self._seen: dict[str, _Seen] = {}
        self._items: dict[str, ElementMaker] = {}

    def add(
        self,
        elements: Elements,
        values: Mapping[str, Any],
        vrs: Mapping[str, Any],
        *,
        sop_instance_uid: str,
        signed: bool,
        within_sequence: bool = False,
    ) -> list[str]:
        """Adds every attribute, except pixel data and the imported file's meta information.

        Args:
            elements: Is added to; elements of the same tags are replaced.
            values: Attributes by keyword or hexadecimal tag (`DICOM`).
            vrs: Value representations by the same keys (`DICOMVRs`).
            sop_instance_uid: For errors.
            signed: PixelRepresentation is 1; it decides the VR of attributes that are "US or SS".
            within_sequence: These are the attributes of an item.

        Returns:
            Texts beyond ASCII, for the choice of a character set.

        Raises:
            MetadataError: A key names no tag, or a value does not fit its VR. The message has the key, never
                the value.
            HealthImagingError: `bulk` could not read a value.
        """
        foreign: list[str] = []
        fresh: list[tuple[BaseTag, str]] = []
        private: list[BaseTag] = []
        remembered = self._seen
        for key, value in values.items():
            seen = remembered.get(key)
            if (
                seen is None
                or seen[0] != value
                or type(seen[0]) is not type(value)
                or seen[1] != vrs.get(key)
            ):
                fresh.append((tag_of(key, sop_instance_uid), key))
                continue
            _, _, tag, state, plural, texts = seen
            elements[tag] = _copy(state, plural)
            if texts:
                foreign += texts
            if tag & 0x10000:
                private.append(tag)
        # In order of tags, so that a private creator stands before the elements whose VR it decides.
        for tag, key in sorted(fresh):
            if tag >> 16 == 0x0002 or (not within_sequence and _is_pixel_data(tag, values[key])):
                continue
            foreign += self._make(
                elements, tag, key, values, vrs, sop_instance_uid=sop_instance_uid, signed=signed
            )
            if tag & 0x10000:
                private.append(tag)
        for tag in private:
            creator_tag = _creator_tag(tag)
            if creator_tag is not None and (creator := elements.get(creator_tag)) is not None:
                elements[tag].private_creator = creator.value
        return foreign

    def _make(
        self,
        elements: Elements,
        tag: BaseTag,
        key: str,
        values: Mapping[str, Any],
        vrs: Mapping[str, Any],
        *,
        sop_instance_uid: str,
        signed: bool,
    ) -> list[str]:
        value, declared = values[key], vrs.get(key)
        if isinstance(value, dict) and "BulkDataURI" in value:
            vr = _resolved(tag, _value_representation(tag, declared, None, elements), b"", values, signed)
            element = _checked(
                tag, vr, key, self._read_bulk(value, vr, key, sop_instance_uid), sop_instance_uid
            )
            elements[tag] = element
            return []
        vr = _value_representation(tag, declared, value, elements)
        if vr == "SQ":
            made, foreign = self._sequence(key, value, declared, vrs, sop_instance_uid, signed)
            elements[tag] = DataElement(tag, "SQ", made, validation_mode=IGNORE)
            return foreign
        resolved = _resolved(tag, vr, value, values, signed)
        element = elements[tag] = _checked(tag, resolved, key, value, sop_instance_uid)
        texts = _foreign(value) if resolved in TEXT_OF_A_CHARACTER_SET else ()
        # The VR of the others depends on more than the key and what DICOMVRs says.
        depends = vr != resolved or (declared is None and tag.is_private and not tag.is_private_creator)
        comparable = not isinstance(value, (list, dict)) or (
            isinstance(value, list) and (vr in NUMBERS or all(isinstance(item, str) for item in value))
        )
        # pydicom keeps a name's bytes once it is written: wrong in another dataset's character set.
        keeps_bytes = resolved == "PN" and bool(texts)
        if comparable and not depends and not keeps_bytes:
            plural = isinstance(element.value, MultiValue)
            state = dict(_copy(element.__dict__, plural).__dict__)
            self._seen[key] = _Seen(value, declared, tag, state, plural, texts)
        return list(texts)

    def _read_bulk(self, value: Mapping[str, Any], vr: str, key: str, sop_instance_uid: str) -> Any:
        if self._bulk is None:
            return None
        uri = value["BulkDataURI"]
        if not isinstance(uri, str) or vr not in BINARY:
            msg = f"Attribute {key} is bulk data without an address, or of VR {vr}, which is not binary"
            raise MetadataError(msg, sop_instance_uid=sop_instance_uid)
        try:
            return self._bulk(uri)
        except HealthImagingError as error:
            error.message = f"Attribute {key}: {error.message}"
            error.sop_instance_uid = error.sop_instance_uid or sop_instance_uid
            raise

    def _sequence(
        self,
        key: str,
        value: Any,
        declared: Any,
        vrs: Mapping[str, Any],
        sop_instance_uid: str,
        signed: bool,
    ) -> tuple[Sequence, list[str]]:
        items = value if isinstance(value, list) else [] if value is None else [value]
        maker = self._items.get(key)
        if maker is None:
            maker = self._items[key] = ElementMaker(bulk=self._bulk)
        datasets: list[Dataset] = []
        foreign: list[str] = []
        for index, item in enumerate(items):
            if item is not None and not isinstance(item, dict):
                msg = f"Attribute {key} does not fit its value representation SQ"
                raise MetadataError(msg, sop_instance_uid=sop_instance_uid)
            # Seen in the field: one flat table for all levels. A table per sequence or per item is read, too.
            own = declared[index] if isinstance(declared, list) and index < len(declared) else declared
            representation = (item or {}).get("PixelRepresentation")
            elements: Elements = {}
            texts = maker.add(
                elements,
                item or {},
                {**vrs, **own} if isinstance(own, dict) else vrs,
                sop_instance_uid=sop_instance_uid,
                signed=signed if representation is None else representation == 1,
                within_sequence=True,
            )
            if _PIXEL_DATA in elements and _is_encapsulated(elements[_PIXEL_DATA].value):
                msg = f"Attribute {key} holds compressed pixels, which an uncompressed file cannot"
                raise MetadataError(msg, sop_instance_uid=sop_instance_uid)
            # An item may have a character set of its own (PS3.3 section C.12.1.1.2).
            if CHARACTER_SET not in elements:
                foreign += texts
            elif not suits(elements[CHARACTER_SET].value, texts):
                elements[CHARACTER_SET] = DataElement(CHARACTER_SET, "CS", UNICODE)
            datasets.append(Dataset(elements))  # type: ignore[arg-type]  # takes raw elements, too
        return Sequence(datasets), foreign


def _is_pixel_data(tag: BaseTag, value: Any) -> bool:
    """Whether frames stand for this element. Real numbers as pixels have no frames: their value is here."""
    return tag in PIXEL_DATA_TAGS and (value is None or tag not in _FLOAT_PIXEL_DATA)


def tag_of(key: str, sop_instance_uid: str) -> BaseTag:
    """The tag that a key of the metadata names.

    Raises:
        MetadataError: It is neither a keyword nor a tag.
    """
    found = find_tag(key)
    if found is None:
        msg = f"Attribute {key} is neither a DICOM keyword nor a tag"
        raise MetadataError(msg, sop_instance_uid=sop_instance_uid)
    return found


@cache
def find_tag(key: str) -> BaseTag | None:
    """The tag of a keyword, or of eight hexadecimal digits; None when it is neither."""
    found = tag_for_keyword(key) or _REPEATING_GROUPS.get(key)
    if found is not None:
        return BaseTag(found)
    match = HEXADECIMAL.match(key)
    return None if match is None else BaseTag(int(match[1] + match[2], 16))


@cache
def _dictionary_vr(tag: BaseTag) -> str:
    try:
        return dictionary_VR(tag)
    except KeyError:
        return "UN"


@cache
def _creator_tag(tag: BaseTag) -> BaseTag | None:
    """Where the creator of a private element stands (DICOM PS3.5 section 7.8.1); None for others."""
    if not tag.is_private or tag.is_private_creator:
        return None
    return find_tag(f"{(tag & 0xFFFF0000) | (tag >> 8 & 0xFF):08X}")


def _value_representation(tag: BaseTag, declared: Any, value: Any, elements: Elements) -> str:
    """The VR, which may be a choice such as "US or SS".

    Items make a sequence whatever `DICOMVRs` says, and nothing else does: its table is flat, and a private
    tag may mean one thing in a dataset and another in an item.
    """
    items = value if isinstance(value, list) else [value]
    of_items = declared != "PN" and any(isinstance(item, dict) for item in items)
    if of_items and (tag.is_private or _dictionary_vr(tag) in ("SQ", "UN")):
        return "SQ"
    if isinstance(declared, str) and (declared != "SQ" or not tag.is_private or not isinstance(value, str)):
        return declared
    if isinstance(declared, (dict, list)):
        return "SQ"
    if tag.is_private_creator:
        return "LO"
    if not tag.is_private:
        return _dictionary_vr(tag)
    creator_tag = _creator_tag(tag)
    creator = elements.get(creator_tag) if creator_tag is not None else None
    try:
        return private_dictionary_VR(tag, str(creator.value)) if creator is not None else "UN"
    except KeyError:
        return "UN"


def _resolved(tag: BaseTag, vr: str, value: Any, values: Mapping[str, Any], signed: bool) -> str:
    """One VR of a choice (DICOM PS3.5 annex A and section 8.1.2, PS3.3 sections C.7.6.3.1 and C.10.9.1)."""
    if " or " not in vr:
        return vr
    if vr == "OB or OW":
        if tag & 0xFF00FFFF == _OVERLAY_DATA:
            return "OW"
        bits = values.get("BitsAllocated" if tag == _PIXEL_DATA else "WaveformBitsAllocated")
        return "OB" if bits in (1, 8) else "OW"
    first = value[0] if isinstance(value, list) and value else value
    if "OW" in vr and isinstance(first, (str, bytes)):
        return "OW"
    items = value if isinstance(value, list) else [value]
    numbers = [item for item in items if isinstance(item, (int, float))]
    if any(number < 0 for number in numbers):
        return "SS"
    return "SS" if signed and all(number < 2**15 for number in numbers) else "US"


def _checked(tag: BaseTag, vr: str, key: str, value: Any, sop_instance_uid: str) -> DataElement:
    try:
        if vr not in _VRS:
            raise ValueError
        # What was imported is given back: pydicom's warnings on values would quote patient data.
        return DataElement(tag, vr, converted(value, vr, find_tag), validation_mode=IGNORE)
    except (ValueError, TypeError, OverflowError, AttributeError):
        msg = f"Attribute {key} does not fit its value representation {vr}"
        # Without the cause: it would quote the value, which may be patient data.
        raise MetadataError(msg, sop_instance_uid=sop_instance_uid) from None


def _copy(state: dict[str, Any], plural: bool) -> DataElement:
    """An element of its own with what another one holds."""
    element = DataElement.__new__(DataElement)
    element.__dict__ = state.copy()
    if plural:
        values = MultiValue.__new__(MultiValue)
        values.__dict__.update(
            (name, list(held) if type(held) is list else held)
            for name, held in state["_value"].__dict__.items()
        )
        element.__dict__["_value"] = values
    return element


def _is_encapsulated(data: Any) -> bool:
    """Whether bytes are fragments: items, the first of them a table of offsets (DICOM PS3.5 section A.4)."""
    return (
        isinstance(data, bytes)
        and data[:4] == b"\xfe\xff\x00\xe0"
        and int.from_bytes(data[4:8], "little") % 4 == 0
        and data[8 + int.from_bytes(data[4:8], "little") :][:4] == b"\xfe\xff\x00\xe0"
    )


def _foreign(value: Any) -> tuple[str, ...]:
    """The texts of a value that are not plain ASCII."""
    if isinstance(value, str):
        return () if value.isascii() else (value,)
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        return tuple(text for item in value for text in _foreign(item))
    return ()
