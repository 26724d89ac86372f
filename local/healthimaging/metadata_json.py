"""The image set metadata that GetImageSetMetadata returns (devguide: "Getting image set metadata"; schema
version 1.1).

Keys are the dictionary's keywords, or eight hexadecimal digits where there is none (private attributes, whose
VRs are listed in DICOMVRs). Attributes with a value multiplicity other than 1 are lists; DS and IS stay the
strings of the file; an empty attribute is null, and so are pixel data, which the frames stand for; bytes are
base64, or the address of bulk data.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

from pydicom.datadict import dictionary_keyword, dictionary_VM, dictionary_VR, repeater_has_tag

from local.healthimaging.documents import Document, InstanceEntry
from local.healthimaging.elements import Attributes, Element, first_text
from local.healthimaging.levels import STUDY_UID


def metadata_json(document: Document, *, datastore_id: str, image_set_id: str) -> dict[str, Any]:
    """The metadata of one version as HealthImaging writes it."""
    study_uid = first_text(document["study"], STUDY_UID)
    every_series: dict[str, Any] = {}
    for series_uid, series in document["series"].items():
        # Bulk data of a level is reached through any of its instances.
        place = f"/datastore/{datastore_id}/studies/{study_uid}/series/{series_uid}/instances"
        written = {
            uid: _Writer(f"{place}/{uid}/bulkdata/{{}}?imageSetId={image_set_id}")
            for uid in series["instances"]
        }
        of_levels = next(iter(written.values()))
        every_series[series_uid] = {
            "DICOM": of_levels.level(series["attributes"]),
            "Instances": {uid: written[uid].instance(entry) for uid, entry in series["instances"].items()},
        }
    return {
        "SchemaVersion": "1.1",
        "DatastoreID": datastore_id,
        "ImageSetID": image_set_id,
        "Patient": {"DICOM": of_levels.level(document["patient"])},
        "Study": {"DICOM": of_levels.level(document["study"]), "Series": every_series},
    }


def metadata_blob(document: Document, *, datastore_id: str, image_set_id: str) -> bytes:
    """The same, as the gzip stream that goes over the wire."""
    text = json.dumps(metadata_json(document, datastore_id=datastore_id, image_set_id=image_set_id))
    return gzip.compress(text.encode("utf-8"), compresslevel=3)


@cache
def key_of(tag: str) -> str:
    """The keyword of a tag; the tag itself where the dictionary has none, or one for many groups.

    Overlays (60xx) and curves (50xx) of several groups share their keywords (PS3.5 7.6).
    """
    number = int(tag, 16)
    try:
        return tag if repeater_has_tag(number) else dictionary_keyword(number) or tag
    except KeyError:
        return tag


@dataclass(frozen=True)
class _Writer:
    """Writes attributes; `bulk_uri` is the address of a bulk data value with {} for its identifier."""

    bulk_uri: str

    def level(self, attributes: Attributes) -> dict[str, Any]:
        return dict(sorted(self.named(attributes).items()))

    def named(self, attributes: Attributes) -> dict[str, Any]:
        return {key_of(tag): self.value(tag, element) for tag, element in sorted(attributes.items())}

    def value(self, tag: str, element: Element) -> Any:
        if "bulk" in element:
            return {"BulkDataURI": self.bulk_uri.format(element["bulk"])}
        values = element["value"]
        if element["vr"] == "SQ":
            return [self.named(item) for item in values]
        if not values:
            return None
        return values if len(values) > 1 or _is_multiple(tag) else values[0]

    def instance(self, entry: InstanceEntry) -> dict[str, Any]:
        shown: dict[str, Any] = {
            "DICOM": {**self.named(entry["file_meta"]), **self.named(entry["attributes"])},
            "DICOMVRs": _vrs(entry["attributes"]),
        }
        if entry["stored_transfer_syntax"]:
            shown["DICOM"]["PixelData"] = None
            shown["StoredTransferSyntaxUID"] = entry["stored_transfer_syntax"]
            shown["ChecksumType"] = entry["checksum_type"]
        shown["ImageFrames"] = [
            {
                "ID": frame["id"],
                "PixelDataChecksumFromBaseToFullResolution": [
                    {"Width": frame["width"], "Height": frame["height"], "Checksum": frame["checksum"]}
                ],
                "MinPixelValue": frame["minimum"],
                "MaxPixelValue": frame["maximum"],
                "FrameSizeInBytes": frame["size"],
            }
            for frame in entry["frames"]
        ]
        return shown


@cache
def _is_multiple(tag: str) -> bool:
    try:
        return dictionary_VM(int(tag, 16)) != "1"
    except KeyError:
        return False


def _vrs(attributes: Attributes) -> dict[str, Any]:
    """VRs that a reader cannot take from the dictionary: private attributes, choices such as "US or SS".

    One flat table for an instance and the items of its sequences. An attribute that has one VR here and
    another in an item stands in a table of each item, under the sequence's key.
    """
    found: dict[str, set[str]] = {}
    for tag, element in _every(attributes):
        found.setdefault(key_of(tag), set()).add(element["vr"])
    several = {key for key, vrs in found.items() if len(vrs) > 1}
    flat: dict[str, Any] = {}
    for tag, element in _every(attributes):
        key = key_of(tag)
        if key not in several and _dictionary_vr(tag) != element["vr"]:
            flat[key] = element["vr"]
    return {**flat, **_own_vrs(attributes, several)}


def _every(attributes: Attributes) -> Iterator[tuple[str, Element]]:
    for tag, element in attributes.items():
        yield tag, element
        if element["vr"] == "SQ":
            for item in element["value"]:
                yield from _every(item)


def _own_vrs(attributes: Attributes, keys: Collection[str]) -> dict[str, Any]:
    table: dict[str, Any] = {}
    for tag, element in attributes.items():
        if (key := key_of(tag)) in keys:
            table[key] = element["vr"]
        if element["vr"] == "SQ":
            tables = [_own_vrs(item, keys) for item in element["value"]]
            if any(tables):
                table[key] = tables
    return table


@cache
def _dictionary_vr(tag: str) -> str:
    try:
        return dictionary_VR(int(tag, 16))
    except KeyError:
        return ""
