"""What one version of an image set says, as it is stored: levels, instances and their frames.

Patient, study and series attributes are kept once. An instance whose value differs from its level's keeps its
own beside it, so that no file's statement is lost; the instance's value wins where both exist.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from typing import Any, TypedDict, cast

from local.healthimaging.elements import Attributes, first_text
from local.healthimaging.levels import (
    ACCESSION_NUMBER,
    PATIENT_ID,
    SERIES_NUMBER,
    STUDY_DATE,
    STUDY_ID,
    STUDY_TIME,
    STUDY_UID,
    level_of,
)


class FrameEntry(TypedDict):
    """One frame: its identifier and what is known of its pixels (see `pixels.NewFrame`)."""

    id: str
    checksum: int
    width: int
    height: int
    minimum: int | None
    maximum: int | None
    size: int


class InstanceEntry(TypedDict):
    """One SOP instance. `stored_transfer_syntax` and `checksum_type` are "" without pixel data."""

    attributes: Attributes
    file_meta: Attributes
    stored_transfer_syntax: str
    checksum_type: str
    decodable: bool
    frames: list[FrameEntry]
    warnings: list[int]


class SeriesEntry(TypedDict):
    """One series."""

    attributes: Attributes
    instances: dict[str, InstanceEntry]


class Document(TypedDict):
    """One version of an image set."""

    patient: Attributes
    study: Attributes
    series: dict[str, SeriesEntry]


def empty_document() -> Document:
    """A document to which instances are added."""
    return {"patient": {}, "study": {}, "series": {}}


def pack(document: Document) -> bytes:
    """The stored form: gzip of JSON."""
    return gzip.compress(json.dumps(document, separators=(",", ":")).encode("utf-8"), compresslevel=1)


def unpack(data: bytes) -> Document:
    """The document of a stored form."""
    return cast(Document, json.loads(gzip.decompress(data)))


def add_instance(
    document: Document,
    *,
    series_uid: str,
    sop_instance_uid: str,
    attributes: Attributes,
    instance: InstanceEntry,
) -> None:
    """Add an instance with all its `attributes`, each to its level; one of the same UID is replaced."""
    series = document["series"].get(series_uid)
    if series is None:
        series = document["series"][series_uid] = {"attributes": {}, "instances": {}}
    fresh_series = not series["instances"]
    fresh_study = fresh_series and len(document["series"]) == 1
    own: Attributes = {}
    for tag, element in attributes.items():
        level = level_of(tag)
        if level is None:
            own[tag] = element
            continue
        holder = series["attributes"] if level == "series" else document[level]
        if fresh_series if level == "series" else fresh_study:
            holder.setdefault(tag, element)
        if holder.get(tag) != element:
            own[tag] = element
    series["instances"][sop_instance_uid] = {**instance, "attributes": own}


def instances(document: Document) -> Iterator[tuple[str, str, InstanceEntry]]:
    """(series UID, SOP instance UID, instance) of all instances."""
    for series_uid, series in document["series"].items():
        for sop_instance_uid, instance in series["instances"].items():
            yield series_uid, sop_instance_uid, instance


def count_instances(document: Document) -> int:
    """Number of SOP instances in the image set."""
    return sum(len(series["instances"]) for series in document["series"].values())


def effective_attributes(document: Document, series_uid: str, sop_instance_uid: str) -> Attributes:
    """All attributes of one instance, its own and those of its levels."""
    series = document["series"][series_uid]
    return {
        **document["patient"],
        **document["study"],
        **series["attributes"],
        **series["instances"][sop_instance_uid]["attributes"],
    }


class Identity(TypedDict):
    """The attributes by which instances are grouped into image sets (devguide: understanding image sets)."""

    patient_id: str
    study_uid: str
    study_date: str
    study_id: str
    accession_number: str
    series_uid: str
    series_number: str


def identity_of(attributes: Attributes, series_uid: str) -> Identity:
    """The grouping attributes of an instance, or of an image set's levels."""
    return {
        "patient_id": first_text(attributes, PATIENT_ID),
        "study_uid": first_text(attributes, STUDY_UID),
        "study_date": first_text(attributes, STUDY_DATE),
        "study_id": first_text(attributes, STUDY_ID),
        "accession_number": first_text(attributes, ACCESSION_NUMBER),
        "series_uid": series_uid,
        "series_number": first_text(attributes, SERIES_NUMBER),
    }


def document_identity(document: Document) -> Identity:
    """The grouping attributes of an image set, by its first series."""
    series_uid, series = next(iter(document["series"].items()))
    return identity_of({**document["patient"], **document["study"], **series["attributes"]}, series_uid)


def study_moment(document: Document) -> str:
    """Study date and time as one sortable string, "" without a date."""
    date = first_text(document["study"], STUDY_DATE)
    return f"{date} {first_text(document['study'], STUDY_TIME)}".strip() if date else ""


_TEXT_TAGS = {
    "DICOMPatientId": ("00100020", 512),
    "DICOMPatientName": ("00100010", 512),
    "DICOMPatientBirthDate": ("00100030", 36),
    "DICOMPatientSex": ("00100040", 16),
    "DICOMStudyInstanceUID": ("0020000D", 512),
    "DICOMStudyId": ("00200010", 512),
    "DICOMStudyDescription": ("00081030", 512),
    "DICOMAccessionNumber": ("00080050", 512),
    "DICOMSeriesInstanceUID": ("0020000E", 512),
    "DICOMSeriesModality": ("00080060", 32),
    "DICOMSeriesBodyPart": ("00180015", 128),
    "DICOMStudyDate": ("00080020", 36),
    "DICOMStudyTime": ("00080030", 56),
}


def dicom_tags(document: Document) -> dict[str, Any]:
    """The DICOMTags of a search result; the counts are of this image set."""
    series = next(iter(document["series"].values()))
    levels = {**document["patient"], **document["study"], **series["attributes"]}
    tags: dict[str, Any] = {}
    for name, (tag, limit) in _TEXT_TAGS.items():
        if text := first_text(levels, tag):
            tags[name] = text[:limit]
    number = first_text(levels, SERIES_NUMBER)
    if number.lstrip("+-").isdigit():
        tags["DICOMSeriesNumber"] = int(number)
    tags["DICOMNumberOfStudyRelatedSeries"] = len(document["series"])
    tags["DICOMNumberOfStudyRelatedInstances"] = count_instances(document)
    return tags
