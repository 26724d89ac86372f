"""The image set metadata that GetImageSetMetadata returns (devguide: "Getting image set metadata"; schema
version 1.1).

Keys are the dictionary's keywords, or eight hexadecimal digits where there is none (private attributes, whose
VRs are listed in DICOMVRs). Attributes with a value multiplicity other than 1 are lists; DS and IS stay the
strings of the file; an empty attribute is null; bytes are base64.
"""

from __future__ import annotations

import gzip
import json
from typing import Any

from pydicom.datadict import dictionary_keyword, dictionary_VM, dictionary_VR

from local.healthimaging.documents import Document, InstanceEntry
from local.healthimaging.elements import Attributes, Element


def metadata_json(document: Document, *, datastore_id: str, image_set_id: str) -> dict[str, Any]:
    """The metadata of one version as HealthImaging writes it."""
    return {
        "SchemaVersion": "1.1",
        "DatastoreID": datastore_id,
        "ImageSetID": image_set_id,
        "Patient": {"DICOM": _level(document["patient"])},
        "Study": {
            "DICOM": _level(document["study"]),
            "Series": {
                series_uid: {
                    "DICOM": _level(series["attributes"]),
                    "Instances": {uid: _instance(entry) for uid, entry in series["instances"].items()},
                }
                for series_uid, series in document["series"].items()
            },
        },
    }


def metadata_blob(document: Document, *, datastore_id: str, image_set_id: str) -> bytes:
    """The same, as the gzip stream that goes over the wire."""
    text = json.dumps(metadata_json(document, datastore_id=datastore_id, image_set_id=image_set_id))
    return gzip.compress(text.encode("utf-8"), compresslevel=3)


def keyword_of(tag: str) -> str:
    """The keyword of a tag, or the tag itself where the dictionary has none."""
    try:
        return dictionary_keyword(int(tag, 16)) or tag
    except KeyError:
        return tag


def _level(attributes: Attributes) -> dict[str, Any]:
    return dict(sorted(_named(attributes).items()))


def _named(attributes: Attributes) -> dict[str, Any]:
    return {keyword_of(tag): _value(tag, element) for tag, element in sorted(attributes.items())}


def _value(tag: str, element: Element) -> Any:
    if "bulk" in element:
        return {"BulkDataURI": f"bulkdata/{element['bulk']}"}
    values = element["value"]
    if element["vr"] == "SQ":
        return [_named(item) for item in values]
    if not values:
        return None
    return values if len(values) > 1 or _is_multiple(tag) else values[0]


def _is_multiple(tag: str) -> bool:
    try:
        return dictionary_VM(int(tag, 16)) != "1"
    except KeyError:
        return False


def _instance(entry: InstanceEntry) -> dict[str, Any]:
    shown: dict[str, Any] = {
        "DICOM": {**_named(entry["file_meta"]), **_named(entry["attributes"])},
        "DICOMVRs": _vrs(entry["attributes"]),
    }
    if entry["stored_transfer_syntax"]:
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


def _vrs(attributes: Attributes) -> dict[str, str]:
    """VRs that a reader cannot take from the dictionary: private attributes, and choices such as "US or
    SS"."""
    found: dict[str, str] = {}
    for tag, element in attributes.items():
        try:
            known = dictionary_VR(int(tag, 16))
        except KeyError:
            known = ""
        if known != element["vr"]:
            found[keyword_of(tag)] = element["vr"]
        if element["vr"] == "SQ":
            for item in element["value"]:
                found.update(_vrs(item))
    return found
