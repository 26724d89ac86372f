"""Asks an asynchronous endpoint for a segmentation, and waits for the answer or the reason why there is
none.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from botocore.exceptions import ClientError

from healthimaging.reference import ImageSetRef
from workbench.deployment import Deployment, pascal_case
from workbench.errors import PredictionFailed
from workbench.import_report import split_s3_uri
from workbench.log_tail import endpoint_log_group, log_tail
from workbench.progress import Progress, silent
from workbench.waiting import poll

PREDICTION_TIMEOUT_SECONDS = 3600.0
"""SageMaker's own limit for one asynchronous invocation."""


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
class PredictedSegment:
    """One segment of it."""

    label: str
    volume_ml: float


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """The endpoint's answer for one image set."""

    image_set_id: str
    version_id: str
    segmentation: StoredSegmentation
    segments: tuple[PredictedSegment, ...]
    model: Mapping[str, str]
    """name, version, sha256 of the model."""
    seconds: Mapping[str, float]
    """Where the endpoint's time went, by part."""

    def to_json(self) -> dict[str, object]:
        return {
            "imageSetId": self.image_set_id,
            "versionId": self.version_id,
            "segmentation": self.segmentation.to_json(),
            "segments": [{"label": one.label, "volumeMl": one.volume_ml} for one in self.segments],
            "model": dict(self.model),
            "seconds": dict(self.seconds),
        }


def predict(
    deployment: Deployment,
    image: ImageSetRef,
    *,
    endpoint: str = "lung-segmentation",
    progress: Progress = silent,
    every_seconds: float = 1.0,
    timeout_seconds: float = PREDICTION_TIMEOUT_SECONDS,
) -> Prediction:
    """Send `image` to the endpoint that the environment file names `endpoint`, and wait for its answer."""
    endpoint_name = deployment.stack("inference")[f"{pascal_case(endpoint)}EndpointName"]
    results = deployment.stack("data")["ResultBucketName"]
    s3 = deployment.session.client("s3")
    inference_id = uuid.uuid4().hex
    key = f"requests/{inference_id}.json"
    request = {
        "datastoreId": image.datastore_id,
        "imageSetId": image.image_set_id,
        "versionId": image.version_id,
    }
    s3.put_object(Bucket=results, Key=key, Body=json.dumps(request).encode(), ContentType="application/json")
    accepted = deployment.session.client("sagemaker-runtime").invoke_endpoint_async(
        EndpointName=endpoint_name,
        InputLocation=f"s3://{results}/{key}",
        ContentType="application/json",
        Accept="application/json",
        InferenceId=inference_id,
    )
    progress(f"request {inference_id} to {endpoint_name}")
    output, failure = str(accepted["OutputLocation"]), accepted.get("FailureLocation")

    def answered() -> tuple[bool, bytes] | None:
        body = _object(s3, output)
        if body is not None:
            return True, body
        body = _object(s3, str(failure)) if failure else None
        return None if body is None else (False, body)

    ok, body = poll(
        answered,
        every_seconds=every_seconds,
        timeout_seconds=timeout_seconds,
        on_timeout=lambda: PredictionFailed(
            f"Endpoint {endpoint_name} has not answered request {inference_id} within "
            f"{timeout_seconds:.0f} s.",
            advice=f"Look at its log group {endpoint_log_group(endpoint_name)}; the answer may still "
            f"come to {output}.",
            details=log_tail(deployment.session, group=endpoint_log_group(endpoint_name)),
        ),
    )
    if not ok:
        raise PredictionFailed(
            f"Endpoint {endpoint_name} could not do request {inference_id}: {failure_message(body)}",
            advice="Read the endpoint's log tail; the request is unchanged in S3 and can be sent again.",
            details=log_tail(deployment.session, group=endpoint_log_group(endpoint_name)),
        )
    return read_answer(json.loads(body))


def read_answer(document: Mapping[str, Any]) -> Prediction:
    """The first (and for one input only) result of an endpoint's answer."""
    try:
        result = document["results"][0]
        stored = result["segmentation"]
        return Prediction(
            image_set_id=str(result["imageSetId"]),
            version_id=str(result["versionId"]),
            segmentation=StoredSegmentation(
                series_instance_uid=str(stored["seriesInstanceUid"]),
                sop_instance_uid=str(stored["sopInstanceUid"]),
                image_set_id=str(stored["imageSetId"]),
                is_primary=bool(stored["isPrimary"]),
                s3_uri=stored.get("s3Uri"),
            ),
            segments=tuple(
                PredictedSegment(label=str(one["label"]), volume_ml=float(one["volumeMl"]))
                for one in result["segments"]
            ),
            model={str(name): str(value) for name, value in result["model"].items()},
            seconds={str(name): float(value) for name, value in result["seconds"].items()},
        )
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise PredictionFailed(
            f"The endpoint's answer is not in the promised form: {type(error).__name__}: {error}.",
            advice="Endpoint and workbench are of different versions: deploy the inference stack again.",
        ) from error


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


def _object(s3: Any, uri: str) -> bytes | None:
    bucket, key = split_s3_uri(uri)
    try:
        return bytes(s3.get_object(Bucket=bucket, Key=key)["Body"].read())
    except ClientError as error:
        if error.response["Error"]["Code"] in {"NoSuchKey", "404"}:
            return None
        raise
