"""A deployment without a cloud: canned stack outputs, and boto3 clients that answer from lists or
dictionaries.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Mapping
from typing import Any

from botocore.exceptions import ClientError

from workbench.deployment import Deployment, StackOutputs
from workbench.environment import Environment

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
        "IndexDeadLetterQueueUrl": "http://queue/dead",
    },
    "training": {
        "LungSegmentationPipelineName": "lung-pipeline",
        "LungSegmentationModelPackageGroupName": "lung-models",
    },
    "inference": {"LungSegmentationEndpointName": "lung-endpoint"},
}


def error(code: str, message: str = "") -> ClientError:
    return ClientError({"Error": {"Code": code, "Message": message or code}}, "Operation")


class FakeSession:
    """Stands for workbench.session.Session."""

    def __init__(self, **clients: Any) -> None:
        self.clients = {name.replace("_", "-"): client for name, client in clients.items()}
        self.environment = Environment(name="test", account="000000000000", region="us-east-1", local=None)

    def client(self, service: str) -> Any:
        return self.clients[service]

    def read_json(self, uri: str) -> Any:
        return json.loads(self.clients["s3"].objects[uri.removeprefix("s3://")])


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

    def put_object(self, *, Bucket: str, Key: str, Body: bytes, **_: Any) -> None:
        self.objects[f"{Bucket}/{Key}"] = Body

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
