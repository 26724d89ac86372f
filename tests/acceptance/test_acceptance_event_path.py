"""A study arrives, and by itself a request reaches the endpoint: over the deployed rule, queue and function,
with their roles.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from answering_endpoint import register
from arrivals import arrival

from workbench.approve import approve
from workbench.deployment import Deployment, StackOutputs
from workbench.ingest import ImageSetSummary, ingest

SECONDS = 40
"""For what happens in two or three."""


@dataclass(frozen=True, kw_only=True)
class EventPath:
    """What a person would look at to see what became of an event."""

    deployment: Deployment

    def client(self, name: str) -> Any:
        return self.deployment.session.client(name)

    @property
    def outputs(self) -> StackOutputs:
        return self.deployment.stack("inference")

    @property
    def log(self) -> str:
        function = self.outputs["DispatchFunctionName"]
        configuration = self.client("lambda").get_function_configuration(FunctionName=function)
        group = configuration["LoggingConfig"]["LogGroup"]
        pages = self.client("logs").get_paginator("filter_log_events").paginate(logGroupName=group)
        return "\n".join(event["message"] for page in pages for event in page["events"])

    def send(self, image_set_id: str) -> None:
        """Deliver an event of an image set to the queue, as the rule does."""
        detail = {"datastoreId": self.deployment.stack("data")["DatastoreId"], "imagesetId": image_set_id}
        self.send_text(json.dumps({"detail-type": "Image Set Created", "detail": detail}))

    def send_text(self, body: str) -> None:
        self.client("sqs").send_message(QueueUrl=self.outputs["DispatchQueueUrl"], MessageBody=body)

    def told(self, text: str) -> None:
        """Wait until the function has logged `text`."""
        wait_for(lambda: text in self.log, lambda: f"{text!r} is not in the log:\n{self.log}")

    def requests(self, image_set_id: str) -> list[str]:
        """Keys of the requests about an image set."""
        datastore = self.deployment.stack("data")["DatastoreId"]
        prefix = f"requests/dispatch/{datastore}/{image_set_id}/"
        listed = self.client("s3").list_objects_v2(Bucket=self.bucket, Prefix=prefix)
        return [one["Key"] for one in listed.get("Contents", [])]

    @property
    def bucket(self) -> str:
        return self.deployment.stack("data")["ResultBucketName"]

    def answers(self, image_set_id: str) -> int:
        """Answers of the endpoint about an image set."""
        s3 = self.client("s3")
        found = s3.list_objects_v2(Bucket=self.bucket, Prefix="responses/").get("Contents", [])
        bodies = [s3.get_object(Bucket=self.bucket, Key=one["Key"])["Body"].read() for one in found]
        return sum(image_set_id.encode() in body for body in bodies)


def wait_for(check: Callable[[], bool], reason: Callable[[], str]) -> None:
    deadline = time.monotonic() + SECONDS
    while not check():
        assert time.monotonic() < deadline, reason()
        time.sleep(0.3)


@pytest.fixture(scope="module")
def path(deployment: Deployment) -> EventPath:
    return EventPath(deployment=deployment)


@pytest.fixture(scope="module")
def serving(path: EventPath) -> Iterator[str]:
    """The endpoint of the rule in service; its name. Afterwards there is none, as before."""
    approval = approve(path.deployment, model_package_arn=register(path.deployment))
    yield approval.endpoint_name
    cloudformation = path.client("cloudformation")
    stack = path.deployment.stack("inference").stack
    cloudformation.update_stack(
        StackName=stack,
        UsePreviousTemplate=True,
        Parameters=[{"ParameterKey": "LungSegmentationModelPackageArn", "ParameterValue": ""}],
        Capabilities=["CAPABILITY_IAM"],
    )
    cloudformation.get_waiter("stack_update_complete").wait(StackName=stack, WaiterConfig={"Delay": 1})


def arrive(path: EventPath, name: str, folder: Path, *, thick: int = 24) -> ImageSetSummary:
    report = ingest(path.deployment, arrival(name, folder, thick=thick).images)
    assert not report.failed
    (image_set,) = report.image_sets
    return image_set


def test_without_a_model_nothing_is_sent(path: EventPath, tmp_path: Path) -> None:
    image_set = arrive(path, "early", tmp_path)
    path.told(f"not dispatched: image set {image_set.image_set_id}, no endpoint is deployed")
    path.told("rule chest-ct: endpoint monai-local-lung-segmentation-m5-xlarge is not deployed")
    assert not path.requests(image_set.image_set_id)


def test_a_study_arrives_and_a_request_reaches_the_endpoint_once(
    path: EventPath, serving: str, tmp_path: Path
) -> None:
    image_set = arrive(path, "arriving", tmp_path)
    id = image_set.image_set_id
    path.told(
        f"dispatched: image set {id}, version {image_set.version_id}, rule chest-ct, endpoint {serving}"
    )
    (key,) = path.requests(id)
    found = path.client("s3").get_object(Bucket=path.bucket, Key=key)
    assert found["Metadata"]["state"] == "accepted"
    answer = found["Metadata"]["output"].removeprefix(f"s3://{path.bucket}/")
    wait_for(lambda: path.answers(id) == 1, lambda: f"no answer at {answer}")
    # The server answers with what it was asked.
    request = path.client("s3").get_object(Bucket=path.bucket, Key=answer)["Body"].read()
    assert json.loads(request) == {
        "datastoreId": path.deployment.stack("data")["DatastoreId"],
        "imageSetId": id,
        "versionId": str(image_set.version_id),
    }

    # The event comes again, and the same files do, which makes a new version.
    path.send(id)
    path.told(f"dispatched before: image set {id}, version {image_set.version_id}")
    again = arrive(path, "arriving", tmp_path)
    assert again.image_set_id == id
    assert again.version_id != image_set.version_id
    path.told(f"dispatched before: image set {id}, version {again.version_id}")
    assert path.requests(id) == [key]
    assert path.answers(id) == 1


def test_a_segmentation_and_a_localizer_start_nothing(path: EventPath, serving: str, tmp_path: Path) -> None:
    patient = arrival("unmatched", tmp_path, thick=12)
    report = ingest(path.deployment, [*patient.images, patient.label])
    assert len(report.image_sets) == 2
    for image_set in report.image_sets:
        path.told(f"not dispatched: image set {image_set.image_set_id}, no rule matches")
        assert not path.requests(image_set.image_set_id)


def test_an_image_set_that_is_gone_ends_quietly(path: EventPath, serving: str, tmp_path: Path) -> None:
    image_set = arrive(path, "deleted", tmp_path, thick=12)
    path.client("medical-imaging").delete_image_set(
        datastoreId=path.deployment.stack("data")["DatastoreId"], imageSetId=image_set.image_set_id
    )
    path.send(image_set.image_set_id)
    path.told(f"not dispatched: image set {image_set.image_set_id} is gone, or not primary")


def test_a_message_that_is_no_event_reaches_the_dead_letters(path: EventPath) -> None:
    sqs, queue = path.client("sqs"), path.outputs["DispatchQueueUrl"]
    dead = path.outputs["DispatchDeadLetterQueueUrl"]

    def attribute(url: str, name: str) -> str:
        return str(sqs.get_queue_attributes(QueueUrl=url, AttributeNames=[name])["Attributes"][name])

    usual = attribute(queue, "VisibilityTimeout")
    # Five attempts would take an hour.
    sqs.set_queue_attributes(QueueUrl=queue, Attributes={"VisibilityTimeout": "1"})
    try:
        path.send_text('{"detail": "nothing"}')
        wait_for(
            lambda: attribute(dead, "ApproximateNumberOfMessages") == "1",
            lambda: f"nothing is in the dead letters:\n{path.log}",
        )
    finally:
        sqs.set_queue_attributes(QueueUrl=queue, Attributes={"VisibilityTimeout": usual})
    (message,) = sqs.receive_message(QueueUrl=dead)["Messages"]
    assert message["Body"] == '{"detail": "nothing"}'
    sqs.delete_message(QueueUrl=dead, ReceiptHandle=message["ReceiptHandle"])
    path.told("MalformedEventError: The message is not an image set event")
