"""What an endpoint answers, whatever its mode: results stored in the archive, or why there are none."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from healthimaging.reference import ImageSetRef
from workbench.errors import PredictionFailed


@dataclass(frozen=True, kw_only=True)
class StoredSegmentation:
    """The DICOM SEG that the endpoint stored beside the image."""

    series_instance_uid: str
    sop_instance_uid: str
    image_set_id: str
    is_primary: bool
    s3_uri: str | None

    def to_json(self) -> dict[str, object]:
        return {
            "seriesInstanceUid": self.series_instance_uid,
            "sopInstanceUid": self.sop_instance_uid,
            "imageSetId": self.image_set_id,
            "isPrimary": self.is_primary,
            "s3Uri": self.s3_uri,
        }


@dataclass(frozen=True, kw_only=True)
class StoredReport:
    """What the endpoint stored besides: a structured report, a snapshot for readers, a NIfTI file."""

    kind: str
    """measurement-report, classification-report, snapshot, nifti."""
    series_instance_uid: str | None
    sop_instance_uid: str | None
    image_set_id: str | None
    is_primary: bool | None
    """All None for what is not DICOM and lies in S3 only."""
    s3_uri: str | None

    def to_json(self) -> dict[str, object]:
        return {
            "kind": self.kind,
            "seriesInstanceUid": self.series_instance_uid,
            "sopInstanceUid": self.sop_instance_uid,
            "imageSetId": self.image_set_id,
            "isPrimary": self.is_primary,
            "s3Uri": self.s3_uri,
        }


@dataclass(frozen=True, kw_only=True)
class PredictedSegment:
    """One segment of a segmentation."""

    label: str
    volume_ml: float


@dataclass(frozen=True, kw_only=True)
class PredictedClass:
    """One class of a classification."""

    label: str
    probability: float


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """The endpoint's answer for one image set."""

    image_set_id: str
    version_id: str
    stored_segmentation: StoredSegmentation | None
    """None for a classification."""
    segments: tuple[PredictedSegment, ...]
    classes: tuple[PredictedClass, ...] = ()
    """Empty for a segmentation."""
    reports: tuple[StoredReport, ...] = ()
    model: Mapping[str, str]
    """name, version, sha256 of the model."""
    seconds: Mapping[str, float]
    """Where the endpoint's time went, by part."""

    @property
    def segmentation(self) -> StoredSegmentation:
        """The stored segmentation, where the model is one that segments.

        Raises:
            PredictionFailed: The model classifies.
        """
        if self.stored_segmentation is None:
            raise PredictionFailed(
                f"Model {self.model.get('name')} classifies: it stored no segmentation of image set "
                f"{self.image_set_id}.",
                advice="Its classes and its report are in the answer.",
            )
        return self.stored_segmentation

    @property
    def non_primary(self) -> tuple[str, ...]:
        """Image sets of stored results that conflict with their study: DICOMweb does not show them."""
        stored: list[StoredSegmentation | StoredReport] = list(self.reports)
        if self.stored_segmentation is not None:
            stored.insert(0, self.stored_segmentation)
        return tuple(str(one.image_set_id) for one in stored if one.is_primary is False)

    def to_json(self) -> dict[str, object]:
        stored = self.stored_segmentation
        return {
            "imageSetId": self.image_set_id,
            "versionId": self.version_id,
            "segmentation": None if stored is None else stored.to_json(),
            "segments": [{"label": one.label, "volumeMl": one.volume_ml} for one in self.segments],
            "classes": [{"label": one.label, "probability": one.probability} for one in self.classes],
            "reports": [one.to_json() for one in self.reports],
            "model": dict(self.model),
            "seconds": dict(self.seconds),
        }


def request_body(image: ImageSetRef) -> bytes:
    """The request for one image set, in the promised form."""
    return json.dumps(
        {
            "datastoreId": image.datastore_id,
            "imageSetId": image.image_set_id,
            "versionId": image.version_id,
        }
    ).encode()


def read_body(body: bytes) -> Prediction:
    """The answer to a request for one image set, as it came."""
    try:
        document = json.loads(body)
    except ValueError as error:
        raise _other_form(error) from error
    return read_answer(document)


def read_answer(document: Mapping[str, Any]) -> Prediction:
    """The first (and for one input only) result of an endpoint's answer.

    `classes` and `reports` may be missing: models that were approved earlier run in the container that they
    were evaluated with, which may be older than these.
    """
    try:
        result = document["results"][0]
        return Prediction(
            image_set_id=str(result["imageSetId"]),
            version_id=str(result["versionId"]),
            stored_segmentation=_segmentation(result["segmentation"]),
            segments=tuple(
                PredictedSegment(label=str(one["label"]), volume_ml=float(one["volumeMl"]))
                for one in result["segments"]
            ),
            classes=tuple(
                PredictedClass(label=str(one["label"]), probability=float(one["probability"]))
                for one in result.get("classes", ())
            ),
            reports=tuple(
                StoredReport(
                    kind=str(one["kind"]),
                    series_instance_uid=one.get("seriesInstanceUid"),
                    sop_instance_uid=one.get("sopInstanceUid"),
                    image_set_id=one.get("imageSetId"),
                    is_primary=one.get("isPrimary"),
                    s3_uri=one.get("s3Uri"),
                )
                for one in result.get("reports", ())
            ),
            model={str(name): str(value) for name, value in result["model"].items()},
            seconds={str(name): float(value) for name, value in result["seconds"].items()},
        )
    except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
        raise _other_form(error) from error


def _segmentation(stored: Mapping[str, Any] | None) -> StoredSegmentation | None:
    if stored is None:
        return None
    return StoredSegmentation(
        series_instance_uid=str(stored["seriesInstanceUid"]),
        sop_instance_uid=str(stored["sopInstanceUid"]),
        image_set_id=str(stored["imageSetId"]),
        is_primary=bool(stored["isPrimary"]),
        s3_uri=stored.get("s3Uri"),
    )


def _other_form(error: Exception) -> PredictionFailed:
    return PredictionFailed(
        f"The endpoint's answer is not in the promised form: {type(error).__name__}: {error}.",
        advice="Endpoint and workbench are of different versions: deploy the inference stack again.",
    )


def failure_message(body: bytes) -> str:
    """The message of an error answer: {"error": {"type", "message"}}, alone or within SageMaker's failure
    text.
    """
    text = body.decode("utf-8", errors="replace")
    try:
        error = json.loads(text)["error"]
        return f"{error['type']}: {error['message']}"
    except (json.JSONDecodeError, KeyError, TypeError):
        return text[:2000]
