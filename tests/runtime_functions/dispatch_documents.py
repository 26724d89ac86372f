"""Image sets and services that the tests of the dispatch function share."""

from __future__ import annotations

import copy
import gzip
import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from io import BytesIO
from typing import Any

from botocore.exceptions import ClientError

DATASTORE = "d" * 32
IMAGE_SET = "1" * 32
CT = "1.2.840.10008.5.1.4.1.1.2"
SEGMENTATION = "1.2.840.10008.5.1.4.1.1.66.4"
PATIENT = "Roentgen^Anna"
DESCRIPTION = "Thorax of Anna"


def instance(number: int, **attributes: Any) -> dict[str, Any]:
    return {
        "DICOM": {
            "SOPClassUID": CT,
            "SOPInstanceUID": f"1.2.3.4.{number}",
            "ImagePositionPatient": ["0", "0", str(number)],
            **attributes,
        },
        "ImageFrames": [
            {"ID": f"f{number}", "PixelDataChecksumFromBaseToFullResolution": [{"Checksum": number}]}
        ],
    }


def document(*, images: int = 3, series: dict[str, Any] | None = None, **attributes: Any) -> dict[str, Any]:
    """Metadata of an image set of one series. `attributes` are of every instance."""
    return {
        "SchemaVersion": "1.1",
        "DatastoreID": DATASTORE,
        "ImageSetID": IMAGE_SET,
        "Patient": {"DICOM": {"PatientID": "P1", "PatientName": PATIENT}},
        "Study": {
            "DICOM": {"StudyInstanceUID": "1.2.3", "StudyDescription": DESCRIPTION},
            "Series": {
                "1.2.3.4": {
                    "DICOM": {
                        "SeriesInstanceUID": "1.2.3.4",
                        "Modality": "CT",
                        "BodyPartExamined": "CHEST",
                        "SeriesDescription": DESCRIPTION,
                        "Manufacturer": "Scanner",
                        **(series or {}),
                    },
                    "Instances": {f"1.2.3.4.{k}": instance(k, **attributes) for k in range(1, images + 1)},
                }
            },
        },
    }


def segmentation() -> dict[str, Any]:
    """What the inference image stores."""
    return document(
        images=1,
        series={"Modality": "SEG", "Manufacturer": "MONAI on AWS"},
        SOPClassUID=SEGMENTATION,
    )


def route(**changed: Any) -> dict[str, Any]:
    return {
        "rule": "chest-ct",
        "endpoint": "monai-test-lung",
        "model": "arn:aws:sagemaker:us-east-1:111122223333:model-package/lung/1",
        "modality": ["CT"],
        "bodyPart": [],
        "seriesDescription": None,
        "minimumInstances": 2,
        **changed,
    }


def refusal(code: str, operation: str) -> ClientError:
    return ClientError({"Error": {"Code": code, "Message": PATIENT}}, operation)


class Datastore:
    """The two calls of HealthImaging that the function makes, over documents by version."""

    def __init__(self) -> None:
        self.versions: dict[str, dict[str, Any]] = {"1": document()}
        self.properties: dict[str, Any] = {"imageSetState": "ACTIVE", "isPrimary": True}
        self.changed = datetime.now(UTC) - timedelta(hours=1)
        """When the latest version was made."""
        self.fails: str | None = None
        self.metadata_calls = 0

    def add_version(self, changed: dict[str, Any]) -> None:
        self.versions[str(len(self.versions) + 1)] = copy.deepcopy(changed)

    def get_image_set(self, **params: str) -> dict[str, Any]:
        if self.fails:
            raise refusal(self.fails, "GetImageSet")
        if params != {"datastoreId": DATASTORE, "imageSetId": IMAGE_SET}:
            raise refusal("ResourceNotFoundException", "GetImageSet")
        latest = max(self.versions, key=int)
        return {"versionId": latest, "updatedAt": self.changed, **self.properties}

    def get_image_set_metadata(self, **params: str) -> dict[str, Any]:
        self.metadata_calls += 1
        if params["versionId"] not in self.versions:
            raise refusal("ResourceNotFoundException", "GetImageSetMetadata")
        text = json.dumps(self.versions[params["versionId"]]).encode()
        return {"imageSetMetadataBlob": BytesIO(gzip.compress(text))}


class Bucket:
    """S3's two calls, with conditional writes."""

    def __init__(self) -> None:
        self.objects: dict[str, dict[str, Any]] = {}
        self.before_put: Any = None
        self._puts = 0

    def put_object(self, **params: Any) -> None:
        assert params["Bucket"] == "results"
        if self.before_put is not None:
            self.before_put(params)
        if params.get("IfNoneMatch") == "*" and params["Key"] in self.objects:
            raise refusal("PreconditionFailed", "PutObject")
        if params.get("IfMatch", self._tag(params["Key"])) != self._tag(params["Key"]):
            raise refusal("PreconditionFailed", "PutObject")
        self._puts += 1
        # Encrypted objects have tags that say nothing of their content.
        tag = f'"{self._puts}"'
        self.objects[params["Key"]] = {**params, "ETag": tag, "LastModified": datetime.now(UTC)}

    def _tag(self, key: str) -> str | None:
        return self.objects[key]["ETag"] if key in self.objects else None

    def get_paginator(self, operation: str) -> Bucket:
        assert operation == "list_objects_v2"
        return self

    def paginate(self, **params: str) -> Iterator[dict[str, Any]]:
        """Pages of one object, and an empty one."""
        assert params["Bucket"] == "results"
        for key in sorted(self.objects):
            if key.startswith(params["Prefix"]):
                yield {"Contents": [{"Key": key}]}
        yield {}

    def get_object(self, **params: str) -> dict[str, Any]:
        return {"Body": BytesIO(self.objects[params["Key"]]["Body"])}

    def under(self, prefix: str) -> list[str]:
        """Names of the objects below a prefix."""
        return sorted(key.removeprefix(prefix) for key in self.objects if key.startswith(prefix))

    def head_object(self, **params: Any) -> dict[str, Any]:
        return self.objects[params["Key"]]

    def age(self, seconds: float) -> None:
        """Make every object so much older."""
        for found in self.objects.values():
            found["LastModified"] -= timedelta(seconds=seconds)


class Endpoints:
    """SageMaker's one call."""

    def __init__(self, bucket: Bucket) -> None:
        self._bucket = bucket
        self.invocations: list[dict[str, Any]] = []
        self.requests: list[dict[str, Any]] = []
        self.fails: str | None = None

    def invoke_endpoint_async(self, **params: Any) -> dict[str, Any]:
        if self.fails:
            raise refusal(self.fails, "InvokeEndpointAsync")
        key = params["InputLocation"].removeprefix("s3://results/")
        self.requests.append(json.loads(self._bucket.objects[key]["Body"]))
        self.invocations.append(params)
        return {"InferenceId": params["InferenceId"], "OutputLocation": "s3://results/responses/a.out"}
