"""Changes to a document from the JSON of UpdateImageSetMetadata (devguide: "Updating image set metadata").

The JSON has the shape of the metadata: Patient.DICOM, Study.DICOM, Study.Series.{uid}.DICOM and
Study.Series.{uid}.Instances.{uid}.DICOM. Removing names attributes with any value, and names a series or an
instance with nothing below it to remove all of it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pydicom import config
from pydicom.datadict import dictionary_VM, dictionary_VR, tag_for_keyword
from pydicom.tag import Tag
from pydicom.valuerep import validate_value

from local.healthimaging.documents import Document, SeriesEntry
from local.healthimaging.elements import BINARY_VRS, NUMBER_FORMATS, Attributes, Element
from local.healthimaging.errors import invalid, not_found
from local.healthimaging.levels import SERIES_UID, SOP_INSTANCE_UID, STUDY_ID, STUDY_UID, Level, level_of

_NEED_FORCE = frozenset({STUDY_UID, SERIES_UID, SOP_INSTANCE_UID, STUDY_ID})
_IDENTIFIERS = frozenset({STUDY_UID, SERIES_UID, SOP_INSTANCE_UID})
_NEVER = frozenset({"7FE00010", "7FE00008", "7FE00009"})


@dataclass(frozen=True, kw_only=True)
class Rules:
    """What an update may do: `force` lifts the constraints; a primary image set keeps its place in the
    hierarchy."""

    force: bool
    primary: bool
    whole_study: bool


def parse_change(data: bytes, name: str) -> dict[str, Any]:
    """The JSON object of `updatableAttributes` or `removableAttributes`. Raises ValidationException."""
    try:
        change = json.loads(data)
    except ValueError as error:
        raise invalid(f"{name} is not JSON.") from error
    if not isinstance(change, dict):
        raise invalid(f"{name} is not a JSON object.")
    unknown = set(change) - {"SchemaVersion", "Patient", "Study", "DatastoreID", "ImageSetID"}
    if unknown or {"DatastoreID", "ImageSetID"} & set(change):
        raise invalid(f"{name} may hold SchemaVersion, Patient and Study, it holds {sorted(change)}.")
    return change


@dataclass(frozen=True, kw_only=True)
class _Part:
    """One DICOM object of the change and the attributes that it changes."""

    level: Level | None
    change: Mapping[str, Any]
    target: Attributes


def apply_update(document: Document, change: Mapping[str, Any], rules: Rules) -> None:
    """Insert and replace attributes."""
    for part in _parts(document, change):
        for key, value in part.change.items():
            tag = _allowed_tag(key, part.level, rules)
            element = _element(tag, value, part.target.get(tag), rules)
            part.target[tag] = element
            if part.level is not None:
                _drop_own_values(document, part, tag)
    _follow_identifiers(document)


def apply_removal(document: Document, change: Mapping[str, Any], rules: Rules) -> None:
    """Remove attributes, instances and series."""
    for part in _parts(document, change):
        for key in part.change:
            tag = _allowed_tag(key, part.level, rules)
            if tag in _IDENTIFIERS:
                raise invalid(f"{key} cannot be removed.")
            part.target.pop(tag, None)
            if part.level is not None:
                _drop_own_values(document, part, tag)
    for series_uid, named in change.get("Study", {}).get("Series", {}).items():
        if not named:
            del document["series"][series_uid]
            continue
        for sop_instance_uid, instance in named.get("Instances", {}).items():
            if not instance:
                del document["series"][series_uid]["instances"][sop_instance_uid]
    for series_uid in [uid for uid, series in document["series"].items() if not series["instances"]]:
        del document["series"][series_uid]
    if not document["series"]:
        raise invalid("An image set cannot lose all its instances; delete the image set.")


def _parts(document: Document, change: Mapping[str, Any]) -> Iterator[_Part]:
    yield _Part(level="patient", change=_dicom(change.get("Patient", {})), target=document["patient"])
    study = change.get("Study", {})
    yield _Part(level="study", change=_dicom(study), target=document["study"])
    for series_uid, named in study.get("Series", {}).items():
        series = _series(document, series_uid)
        yield _Part(level="series", change=_dicom(named), target=series["attributes"])
        for sop_instance_uid, instance in named.get("Instances", {}).items():
            entry = series["instances"].get(sop_instance_uid)
            if entry is None:
                raise not_found(f"SOP instance {sop_instance_uid}")
            yield _Part(level=None, change=_dicom(instance), target=entry["attributes"])


def _dicom(named: Any) -> Mapping[str, Any]:
    found = named.get("DICOM", {}) if isinstance(named, dict) else None
    if not isinstance(found, dict):
        raise invalid("Each level of a change is an object with the member DICOM.")
    return found


def _series(document: Document, series_uid: str) -> SeriesEntry:
    series = document["series"].get(series_uid)
    if series is None:
        raise not_found(f"Series {series_uid}")
    return series


def _allowed_tag(key: str, level: Level | None, rules: Rules) -> str:
    number = tag_for_keyword(key)
    if number is None:
        if len(key) != 8 or not all(character in "0123456789abcdefABCDEF" for character in key):
            raise invalid(f"{key} is not a DICOM attribute.")
        number = int(key, 16)
    tag = f"{number:08X}"
    if tag in _NEVER or tag.startswith("0002"):
        raise invalid(f"{key} cannot be changed.")
    if Tag(number).is_private:
        if level is not None:
            raise invalid(f"Private attribute {key} can only be changed in an instance.")
        if not rules.force:
            raise invalid(f"Private attribute {key} can only be changed with force.")
    elif level_of(tag) != level:
        raise invalid(f"{key} is not an attribute of the level {level or 'instance'}.")
    if tag in _IDENTIFIERS and rules.primary:
        raise invalid(f"{key} of a primary image set cannot be changed.")
    if tag in _NEED_FORCE and not rules.force and not rules.whole_study:
        raise invalid(f"{key} can only be changed with force.")
    if rules.primary and level == "series":
        raise invalid("Series attributes of a primary image set cannot be changed.")
    if rules.primary and level == "patient" and not rules.whole_study:
        raise invalid(
            "Patient attributes of a primary image set can only be changed with includeStudyImageSets."
        )
    return tag


def _element(tag: str, value: Any, present: Element | None, rules: Rules) -> Element:
    known = _known(tag)
    vr = present["vr"] if present is not None else (known[0].split(" or ")[0] if known else "LO")
    if vr == "SQ":
        if not rules.force:
            raise invalid(f"Sequence {tag} can only be changed with force.")
        if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
            raise invalid(f"Sequence {tag} is a list of objects.")
        return {"vr": vr, "value": [_item(item, rules) for item in value]}
    values = value if isinstance(value, list) else [] if value is None else [value]
    multiple = known is not None and known[1] != "1"
    if (multiple or len(values) > 1) and not rules.force:
        raise invalid(f"Attribute {tag} with several values can only be changed with force.")
    converted = [_converted(tag, vr, item) for item in values]
    if not rules.force and vr not in BINARY_VRS and vr not in NUMBER_FORMATS and vr != "AT":
        for item in converted:
            try:
                validate_value(vr, item, config.RAISE)
            except ValueError as error:
                raise invalid(f"The value of attribute {tag} does not conform to its VR {vr}.") from error
    return {"vr": vr, "value": converted}


def _item(item: Mapping[str, Any], rules: Rules) -> Attributes:
    attributes: Attributes = {}
    for key, value in item.items():
        number = tag_for_keyword(key)
        tag = f"{number:08X}" if number is not None else key.upper()
        attributes[tag] = _element(tag, value, None, rules)
    return attributes


def _known(tag: str) -> tuple[str, str] | None:
    try:
        return dictionary_VR(int(tag, 16)), dictionary_VM(int(tag, 16))
    except (KeyError, ValueError):
        return None


def _converted(tag: str, vr: str, value: Any) -> Any:
    try:
        if vr in ("FL", "FD"):
            return float(value)
        if vr in NUMBER_FORMATS:
            return int(value)
    except (TypeError, ValueError) as error:
        raise invalid(f"The value of attribute {tag} is not a number, as its VR {vr} demands.") from error
    if not isinstance(value, (str, int, float)) or isinstance(value, bool):
        raise invalid(f"The value of attribute {tag} is not text.")
    return str(value)


def _drop_own_values(document: Document, part: _Part, tag: str) -> None:
    """An instance's deviating value gives way to the level's new one."""
    for series in document["series"].values():
        if part.level == "series" and series["attributes"] is not part.target:
            continue
        for entry in series["instances"].values():
            entry["attributes"].pop(tag, None)


def _follow_identifiers(document: Document) -> None:
    """Series and instances are stored by their UIDs, which an update may have changed."""
    by_series: dict[str, SeriesEntry] = {}
    for series_uid, series in document["series"].items():
        instances = series["instances"]
        series["instances"] = {
            _uid(entry["attributes"], SOP_INSTANCE_UID, uid): entry for uid, entry in instances.items()
        }
        by_series[_uid(series["attributes"], SERIES_UID, series_uid)] = series
        if len(series["instances"]) != len(instances):
            raise invalid("Two instances cannot have the same SOPInstanceUID.")
    if len(by_series) != len(document["series"]):
        raise invalid("Two series cannot have the same SeriesInstanceUID.")
    document["series"] = by_series


def _uid(attributes: Attributes, tag: str, otherwise: str) -> str:
    element = attributes.get(tag)
    return str(element["value"][0]) if element is not None and element["value"] else otherwise
