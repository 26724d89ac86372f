"""The answer of an endpoint, as typed values and as the promised JSON document."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, is_dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True)
class StoredSegmentation:
    """Where the DICOM SEG of a result is.

    ``image_set_id`` is the image set of the SEG itself; ``s3_uri`` is None unless a copy to S3 is configured.
    """

    series_instance_uid: str
    sop_instance_uid: str
    image_set_id: str
    is_primary: bool
    s3_uri: str | None


@dataclass(frozen=True, kw_only=True)
class SegmentVolume:
    """Volume of one segment in millilitres, counted on the source's own grid."""

    label: str
    volume_ml: float


@dataclass(frozen=True, kw_only=True)
class ClassProbability:
    """Probability of one class, 0 to 1, as the stored report states it."""

    label: str
    probability: float


@dataclass(frozen=True, kw_only=True)
class StoredReport:
    """Where something is that was made beside a segmentation, or that a classification is.

    What is no DICOM object has an address in S3 alone; ``s3_uri`` of a DICOM object is None unless a copy to
    S3 is configured.
    """

    kind: str
    """As in `runtime.results.outputs`."""
    series_instance_uid: str | None
    sop_instance_uid: str | None
    image_set_id: str | None
    is_primary: bool | None
    s3_uri: str | None


@dataclass(frozen=True, kw_only=True)
class ModelIdentity:
    """Which model computed the result; ``sha256`` is that of the weights file."""

    name: str
    version: str
    sha256: str


@dataclass(frozen=True, kw_only=True)
class Result:
    """The result for one image set version; ``seconds`` maps a phase of the work to its wall time.

    A segmentation has no classes; a classification has no segmentation and no segments, and is the first of
    its reports.
    """

    image_set_id: str
    version_id: str
    segmentation: StoredSegmentation | None
    segments: tuple[SegmentVolume, ...]
    classes: tuple[ClassProbability, ...] = ()
    reports: tuple[StoredReport, ...] = ()
    model: ModelIdentity
    seconds: Mapping[str, float]


@dataclass(frozen=True, kw_only=True)
class Answer:
    """One result for each image set of the request, in its order."""

    results: tuple[Result, ...]


def to_document(value: Any) -> Any:
    """Turn answer values into JSON-ready ones; field names become camelCase, keys of mappings stay."""
    if is_dataclass(value) and not isinstance(value, type):
        return {_camel(field.name): to_document(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, Mapping):
        return {key: to_document(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return [to_document(item) for item in value]
    return value


def _camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(part.capitalize() for part in rest)
