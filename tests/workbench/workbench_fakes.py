"""A deployment without a cloud: canned stack outputs, and boto3 clients that answer from lists or
dictionaries.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

from botocore.exceptions import ClientError

from workbench.deployment import Deployment, StackOutputs
from workbench.environment import Environment, Task
from workbench.served import Mode, Served

TRANSFORM_JOB = {
    "ModelName": "batch-model",
    "TransformInput": {
        "ContentType": "application/json",
        "DataSource": {
            "S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": "s3://results/requests/batch/lung/"}
        },
    },
    "TransformOutput": {"S3OutputPath": "s3://results/responses/batch/lung/"},
}

SERVED = (
    Served(name="lung-segmentation", mode=Mode.ASYNCHRONOUS, tasks=("lung-segmentation",)),
    Served(name="lung-now", mode=Mode.REAL_TIME, tasks=("lung-segmentation",)),
    Served(name="shared", mode=Mode.INFERENCE_COMPONENTS, tasks=("liver", "lung-segmentation")),
    Served(name="zoo", mode=Mode.MULTI_MODEL, tasks=()),
    Served(name="lung-batch", mode=Mode.BATCH, tasks=("lung-segmentation",)),
)
"""An environment with one endpoint of each mode that differs for a caller."""

OUTPUTS = {
    "data": {
        "DatastoreId": "d" * 32,
        "InboxBucketName": "inbox",
        "ImportBucketName": "imports",
        "ModelBucketName": "models",
        "ResultBucketName": "results",
        "ImportRoleArn": "arn:aws:iam::000000000000:role/import",
    },
    "catalog": {
        "DatabaseName": "monai_test",
        "WorkgroupName": "monai-test",
        "IndexFunctionName": "index",
        "IndexQueueUrl": "index-queue",
        "IndexDeadLetterQueueUrl": "index-dead",
    },
    "training": {
        "LungSegmentationPipelineName": "lung-pipeline",
        "LungSegmentationModelPackageGroupName": "lung-models",
    },
    "inference": {
        "LungSegmentationEndpointName": "lung-endpoint",
        "LungNowEndpointName": "now-endpoint",
        "LungBatchModelName": "batch-model",
        "LungBatchTransformJob": json.dumps(TRANSFORM_JOB),
        "SharedEndpointName": "shared-endpoint",
        "SharedLungSegmentationComponentName": "shared-lung",
        "ZooEndpointName": "zoo-endpoint",
        "DispatchQueueUrl": "dispatch",
        "DispatchDeadLetterQueueUrl": "dispatch-dead",
        "DispatchLogGroupName": "dispatch-log",
    },
}


def error(code: str, message: str = "") -> ClientError:
    return ClientError({"Error": {"Code": code, "Message": message or code}}, "Operation")


class FakeSession:
    """Stands for workbench.session.Session."""

    def __init__(self, **clients: Any) -> None:
        self.clients = {name.replace("_", "-"): client for name, client in clients.items()}
        self.environment = Environment(
            name="test",
            account="000000000000",
            region="us-east-1",
            local=None,
            served=SERVED,
            tasks=(Task(name="lung-segmentation", bundle="ct_segmentation"),),
        )

    def client(self, service: str) -> Any:
        return self.clients[service]

    def waiting_client(self, service: str, *, answer_seconds: float) -> Any:
        assert answer_seconds > 60
        return self.clients[service]

    def read_json(self, uri: str) -> Any:
        bucket, _, key = uri.removeprefix("s3://").partition("/")
        return json.loads(self.clients["s3"].get_object(Bucket=bucket, Key=key)["Body"].read())


class FakeDeployment(Deployment):
    """The real class with canned outputs."""

    def stack(self, part: str) -> StackOutputs:
        return StackOutputs(stack=f"monai-test-{part}", environment="test", values=OUTPUTS[part])


def deployment(**clients: Any) -> FakeDeployment:
    session: Any = FakeSession(**clients)
    return FakeDeployment(session)


class FakeS3:
    """Objects by "bucket/key"; `late` names objects that are not there for so many looks."""

    def __init__(
        self, objects: Mapping[str, bytes] | None = None, late: Mapping[str, int] | None = None
    ) -> None:
        self.objects = dict(objects or {})
        self.late = dict(late or {})

    def get_object(self, *, Bucket: str, Key: str) -> dict[str, Any]:
        name = f"{Bucket}/{Key}"
        if self.late.get(name, 0) > 0:
            self.late[name] -= 1
            raise error("NoSuchKey")
        if name not in self.objects:
            raise error("NoSuchKey")
        return {"Body": io.BytesIO(self.objects[name])}

    def put_object(
        self, *, Bucket: str, Key: str, Body: bytes, IfNoneMatch: str | None = None, **_: Any
    ) -> None:
        if IfNoneMatch == "*" and f"{Bucket}/{Key}" in self.objects:
            raise error("PreconditionFailed")
        self.objects[f"{Bucket}/{Key}"] = Body

    def delete_object(self, *, Bucket: str, Key: str) -> None:
        del self.objects[f"{Bucket}/{Key}"]

    def get_paginator(self, name: str) -> FakePaginator:
        assert name == "list_objects_v2"

        def pages(*, Bucket: str, Prefix: str) -> list[dict[str, Any]]:
            found = [
                one.removeprefix(f"{Bucket}/") for one in self.objects if one.startswith(f"{Bucket}/{Prefix}")
            ]
            moment = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
            # S3 leaves `Contents` out of an empty page.
            return [{"Contents": [{"Key": key, "LastModified": moment}]} for key in found] or [{}]

        return FakePaginator(pages)

    def upload_file(self, path: str, bucket: str, key: str) -> None:
        with open(path, "rb") as file:
            self.objects[f"{bucket}/{key}"] = file.read()


class FakePaginator:
    def __init__(self, pages: Callable[..., list[dict[str, Any]]]) -> None:
        self.pages = pages

    def paginate(self, **request: Any) -> list[dict[str, Any]]:
        return self.pages(**request)


def ndjson(*lines: Mapping[str, Any]) -> bytes:
    return b"".join(json.dumps(line).encode() + b"\n" for line in lines)


class FakeLogs:
    """Log groups with the lines of their streams, two lines a page; a group that is not there answers as
    AWS does.
    """

    def __init__(self, groups: dict[str, list[str]], *, stream: str = "job-1/algo-1") -> None:
        self.groups = groups
        self.streams = {
            group: {stream: lines, "another-job/algo-1": ["of another job"]}
            for group, lines in groups.items()
        }

    def get_paginator(self, name: str) -> FakePaginator:
        assert name == "describe_log_streams"

        def pages(**request: Any) -> list[dict[str, Any]]:
            if request["logGroupName"] not in self.streams:
                raise error("ResourceNotFoundException")
            prefix = request.get("logStreamNamePrefix", "job-1")
            names = [name for name in self.streams[request["logGroupName"]] if name.startswith(prefix)]
            return [{"logStreams": [{"logStreamName": name} for name in names]}]

        return FakePaginator(pages)

    def get_log_events(self, **request: Any) -> dict[str, Any]:
        lines = self.streams[request["logGroupName"]][request["logStreamName"]]
        begin = int(request.get("nextToken", "0"))
        events = [{"timestamp": n, "message": line} for n, line in enumerate(lines)][begin : begin + 2]
        return {"events": events, "nextForwardToken": str(begin + len(events))}
