"""What of an image set could be sent to a model, and what makes it this image set and no other."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from typing import Any

from healthimaging.metadata import Attributes, ImageSetMetadata, InstanceRecord, SeriesRecord
from runtime.functions.dispatch.rules import Series

MANUFACTURER = "MONAI on AWS"
"""Manufacturer (0008,0070) of everything that the inference image stores."""

RESULT_MODALITIES = frozenset({"DOC", "KO", "PR", "SEG", "SR"})
"""Modalities of what is said about images: never an input, whatever a rule says."""

_RESULT_CLASSES = tuple(
    f"1.2.840.10008.5.1.4.1.1.{number}"
    for number in (
        "7",  # secondary capture: screenshots for readers, also those of scanners
        "11",  # presentation states
        "66",  # segmentations, registrations, raw data
        "88",  # structured reports, key object selections
        "104",  # encapsulated documents
        "481",  # radiotherapy objects
    )
)
"""SOP classes of the same (PS3.6, table A-1), each with those numbered below it."""


def candidate_series(metadata: ImageSetMetadata) -> Iterator[Series]:
    """The series of an image set that have images.

    This is what keeps a stored result from starting a run, and so from storing another result, without end:
    results are told by their modality, their SOP class, and the manufacturer that they carry.
    """
    for series in metadata.series.values():
        images = list(_images(series))
        if not images:
            continue
        whole = [instance.attributes.over(series.attributes) for instance in images]
        yield Series(
            series_instance_uid=series.series_instance_uid,
            modality=_first(whole, "Modality"),
            body_part=_first(whole, "BodyPartExamined"),
            description=_first(whole, "SeriesDescription"),
            images=sum(max(1, len(instance.frames)) for instance in images),
        )


def images_digest(metadata: ImageSetMetadata) -> str:
    """SHA-256 over all images with their headers, and over whose they are.

    Two versions of an image set have the same digest when a model would see the same in both, and the result
    belongs to the same study of the same patient. What changes other attributes of a patient or a study makes
    a version, too, and no other result: an operator who corrects a name, and HealthImaging itself where it
    keeps the image sets of a study consistent. Images that were filed under the wrong patient or study and
    are corrected need one: the old one names the wrong patient.
    """
    digest = hashlib.sha256()
    _add(digest, ["study", metadata.patient.text("PatientID"), metadata.study_instance_uid])
    for series_uid in sorted(metadata.series):
        series = metadata.series[series_uid]
        images = sorted(_images(series), key=lambda instance: instance.sop_instance_uid)
        if not images:
            continue
        _add(digest, ["series", series_uid, dict(series.attributes.values)])
        for image in images:
            frames = [
                # A frame that is stored again gets another id, and keeps its checksum.
                frame.frame_id if frame.checksum is None else frame.checksum
                for frame in image.frames
            ]
            _add(digest, ["image", image.sop_instance_uid, dict(image.attributes.values), frames])
    return digest.hexdigest()


def _images(series: SeriesRecord) -> Iterator[InstanceRecord]:
    for instance in series.instances.values():
        if not _is_result(instance.attributes.over(series.attributes)):
            yield instance


def _is_result(attributes: Attributes) -> bool:
    if (attributes.text("Modality") or "").upper() in RESULT_MODALITIES:
        return True
    if attributes.text("Manufacturer") == MANUFACTURER:
        return True
    sop_class = attributes.text("SOPClassUID") or ""
    return any(sop_class == known or sop_class.startswith(f"{known}.") for known in _RESULT_CLASSES)


def _first(whole: list[Attributes], keyword: str) -> str | None:
    """The value of the first image that has one."""
    return next((text for attributes in whole if (text := attributes.text(keyword))), None)


def _add(digest: Any, part: list[Any]) -> None:
    digest.update(json.dumps(part, sort_keys=True, separators=(",", ":")).encode())
    digest.update(b"\n")
