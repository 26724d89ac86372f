"""The DICOM JSON Model (PS3.18 annex F) of stored attributes."""

from __future__ import annotations

from typing import Any

from local.healthimaging.elements import BINARY_VRS, Attributes, Element

DicomJson = dict[str, dict[str, Any]]
_NAME_PARTS = ("Alphabetic", "Ideographic", "Phonetic")


def dicom_json(attributes: Attributes, *, bulk_uri: str) -> DicomJson:
    """Attributes by tag. Bulk data is referred to as `{bulk_uri}/{id}`."""
    return {tag: _element(element, bulk_uri) for tag, element in sorted(attributes.items())}


def _element(element: Element, bulk_uri: str) -> dict[str, Any]:
    vr, values = element["vr"], element["value"]
    shown: dict[str, Any] = {"vr": vr}
    if "bulk" in element:
        shown["BulkDataURI"] = f"{bulk_uri}/{element['bulk']}"
    elif vr == "SQ":
        shown["Value"] = [dicom_json(item, bulk_uri=bulk_uri) for item in values]
    elif vr in BINARY_VRS:
        if values:
            shown["InlineBinary"] = values[0]
    elif values:
        shown["Value"] = [_value(vr, value) for value in values]
    return shown


def _value(vr: str, value: Any) -> Any:
    """One value; null stands for an empty one within several (F.2.5)."""
    if vr == "PN":
        parts = zip(_NAME_PARTS, str(value).split("="), strict=False)
        return {name: part for name, part in parts if part} or None
    if vr in ("DS", "IS"):
        text = str(value).strip()
        if not text:
            return None
        try:
            return int(text) if vr == "IS" else float(text)
        except ValueError:
            return text  # F.2.3.1 allows the string where it is not a number
    if isinstance(value, str):
        return value.strip(" \0") or None
    return value
