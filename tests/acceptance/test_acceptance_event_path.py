"""A study arrives, and by itself a request reaches the endpoint, and the bus hears of the result: over the
deployed rules, queues, topics and functions, with their roles.
"""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from answering_endpoint import register
from arrivals import arrival, results_of

from workbench.approve import approve
from workbench.deployment import Deployment, StackOutputs
from workbench.ingest import ImageSetSummary, Options, ingest

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
    def datastore(self) -> str:
        return self.deployment.stack("data")["DatastoreId"]

    @property
    def log(self) -> str:
        """Of the dispatch function."""
        return self.log_of("DispatchFunctionName")

    def log_of(self, output: str) -> str:
        function = self.outputs[output]
        configuration = self.client("lambda").get_function_configuration(FunctionName=function)
        group = configuration["LoggingConfig"]["LogGroup"]
        pages = self.client("logs").get_paginator("filter_log_events").paginate(logGroupName=group)
        return "\n".join(event["message"] for page in pages for event in page["events"])

    def send(self, image_set_id: str) -> None:
        """Deliver an event of an image set to the queue, as the rule does."""
        detail = {"datastoreId": self.datastore, "imagesetId": image_set_id}
        self.send_text(json.dumps({"detail-type": "Image Set Created", "detail": detail}))

    def rule(self, logical: str) -> str:
        """Name of a rule of the stack."""
        stack = self.deployment.stack("inference").stack
        found = self.client("cloudformation").describe_stack_resources(StackName=stack)["StackResources"]
        (rule,) = [
            one["PhysicalResourceId"]
            for one in found
            if one["ResourceType"] == "AWS::Events::Rule" and one["LogicalResourceId"].startswith(logical)
        ]
        return str(rule).rpartition("|")[2]

    def reconcile(self) -> dict[str, Any]:
        """Start the reconcile function as its schedule does; what it answers."""
        rule = self.client("events").describe_rule(Name=self.rule("ReconcileSchedule"))
        assert rule["ScheduleExpression"] == "rate(60 minutes)"
        event = {
            "version": "0",
            "id": str(uuid.uuid4()),
            "detail-type": "Scheduled Event",
            "source": "aws.events",
            "account": self.deployment.session.environment.account,
            "time": "2026-01-02T03:04:05Z",
            "region": self.deployment.session.environment.region,
            "resources": [rule["Arn"]],
            "detail": {},
        }
        answer = self.client("lambda").invoke(
            FunctionName=self.outputs["ReconcileFunctionName"], Payload=json.dumps(event).encode()
        )
        payload: dict[str, Any] = json.loads(answer["Payload"].read())
        assert "FunctionError" not in answer, payload
        return payload

    def send_text(self, body: str) -> None:
        self.client("sqs").send_message(QueueUrl=self.outputs["DispatchQueueUrl"], MessageBody=body)

    def told(self, text: str) -> None:
        """Wait until the function has logged `text`."""
        wait_for(lambda: text in self.log, lambda: f"{text!r} is not in the log:\n{self.log}")

    def requests(self, image_set_id: str) -> list[str]:
        """Keys of the requests about an image set."""
        return self.keys(f"requests/dispatch/{self.datastore}/{image_set_id}/")

    def decided(self, image_set_id: str) -> list[str]:
        """Versions of an image set that are decided about."""
        prefix = f"requests/dispatch/decided/{self.datastore}/{image_set_id}/"
        return [key.removeprefix(prefix) for key in self.keys(prefix)]

    def keys(self, prefix: str) -> list[str]:
        listed = self.client("s3").list_objects_v2(Bucket=self.bucket, Prefix=prefix)
        return [one["Key"] for one in listed.get("Contents", [])]

    def delay(self, seconds: int) -> None:
        """Make the queue wait so long."""
        self.client("sqs").set_queue_attributes(
            QueueUrl=self.outputs["DispatchQueueUrl"], Attributes={"DelaySeconds": str(seconds)}
        )

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
def path(deployment: Deployment) -> Iterator[EventPath]:
    """The path without its quiet period, which one test is about and the others need not wait for."""
    path = EventPath(deployment=deployment)
    url = path.outputs["DispatchQueueUrl"]
    found = path.client("sqs").get_queue_attributes(QueueUrl=url, AttributeNames=["DelaySeconds"])
    quiet = int(found["Attributes"]["DelaySeconds"])
    assert quiet > 0
    path.delay(0)
    yield path
    path.delay(quiet)


@dataclass(frozen=True, kw_only=True)
class Mailbox:
    """A listener on the account's bus."""

    path: EventPath
    url: str

    def details(self, detail_type: str, run_id: str) -> list[dict[str, Any]]:
        """What has been said of a run. Messages stay, for whoever looks for another run."""
        messages = self.path.client("sqs").receive_message(
            QueueUrl=self.url, MaxNumberOfMessages=10, VisibilityTimeout=0
        )
        bodies = [json.loads(message["Body"]) for message in messages.get("Messages", [])]
        assert all(body["source"] == "monai.inference" for body in bodies)
        return [
            body["detail"]
            for body in bodies
            if body["detail-type"] == detail_type and body["detail"]["runId"] == run_id
        ]

    def wait(self, detail_type: str, run_id: str) -> dict[str, Any]:
        wait_for(
            lambda: bool(self.details(detail_type, run_id)),
            lambda: f"no {detail_type!r} of {run_id}:\n{self.path.log_of('AnnounceFunctionName')}",
        )
        return self.details(detail_type, run_id)[0]


@pytest.fixture
def mailbox(path: EventPath) -> Iterator[Mailbox]:
    sqs, events, name = path.client("sqs"), path.client("events"), f"listener-{uuid.uuid4().hex[:8]}"
    url = sqs.create_queue(QueueName=name)["QueueUrl"]
    arn = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    rule = events.put_rule(Name=name, EventPattern=json.dumps({"source": ["monai.inference"]}))["RuleArn"]
    policy = {
        "Version": "2012-10-17",
        "Statement": [
            {
                "Effect": "Allow",
                "Principal": {"Service": "events.amazonaws.com"},
                "Action": "sqs:SendMessage",
                "Resource": arn,
                "Condition": {"ArnEquals": {"aws:SourceArn": rule}},
            }
        ],
    }
    sqs.set_queue_attributes(QueueUrl=url, Attributes={"Policy": json.dumps(policy)})
    events.put_targets(Rule=name, Targets=[{"Id": "queue", "Arn": arn}])
    yield Mailbox(path=path, url=url)
    events.remove_targets(Rule=name, Ids=["queue"])
    events.delete_rule(Name=name)
    sqs.delete_queue(QueueUrl=url)


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
    # The same files again are imported again, as HealthImaging itself would: as a new version.
    report = ingest(path.deployment, arrival(name, folder, thick=thick).images, options=Options(again=True))
    assert not report.failed
    (image_set,) = report.image_sets
    return image_set


def test_without_a_model_nothing_is_sent(path: EventPath, tmp_path: Path) -> None:
    image_set = arrive(path, "early", tmp_path)
    path.told(f"not dispatched: image set {image_set.image_set_id}, no endpoint is deployed")
    path.told("rule chest-ct: endpoint monai-local-lung-segmentation-m5-xlarge is not deployed")
    assert not path.requests(image_set.image_set_id)


def test_a_study_arrives_and_a_request_reaches_the_endpoint_once(
    path: EventPath, serving: str, mailbox: Mailbox, tmp_path: Path
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
    said = path.client("s3").get_object(Bucket=path.bucket, Key=answer)["Body"].read()
    wanted = {"datastoreId": path.datastore, "imageSetId": id, "versionId": str(image_set.version_id)}
    assert json.loads(said)["asked"] == wanted
    run_id = key.rpartition("/")[2].removesuffix(".json")
    told = mailbox.wait("Inference Result Stored", run_id)
    assert {name: told[name] for name in wanted} == wanted
    assert told["endpoint"] == serving
    assert told["segmentation"]["sopInstanceUid"] == "1.2.3.4"
    assert told["answer"] == f"s3://{path.bucket}/{answer}"
    assert "segments" not in told

    # The event comes again, and the same files do, which makes a new version.
    path.send(id)
    path.told(f"dispatched before: image set {id}, version {image_set.version_id}")
    again = arrive(path, "arriving", tmp_path)
    assert again.image_set_id == id
    assert again.version_id != image_set.version_id
    path.told(f"dispatched before: image set {id}, version {again.version_id}")
    assert path.requests(id) == [key]
    assert path.answers(id) == 1
    assert path.decided(id) == [str(image_set.version_id), str(again.version_id)]


@contextmanager
def quiet_period(path: EventPath, *, seconds: int) -> Iterator[None]:
    """The deployed queue with another period, long enough for two imports on a busy machine; and the function
    with one that does not end, so that nothing depends on when it comes to an event.
    """
    functions, name = path.client("lambda"), path.outputs["DispatchFunctionName"]
    variables = functions.get_function_configuration(FunctionName=name)["Environment"]["Variables"]

    def tell(value: str) -> None:
        functions.update_function_configuration(
            FunctionName=name, Environment={"Variables": {**variables, "QUIET_SECONDS": value}}
        )
        functions.get_waiter("function_updated_v2").wait(FunctionName=name, WaiterConfig={"Delay": 1})

    tell("3600")
    path.delay(seconds)
    try:
        yield
    finally:
        path.delay(0)
        tell(variables["QUIET_SECONDS"])


def test_two_parts_of_a_series_are_one_run_on_the_whole(
    path: EventPath, serving: str, tmp_path: Path
) -> None:
    images = arrival("in-parts", tmp_path, thick=48).images
    with quiet_period(path, seconds=10):
        # Each part has as many images as the rule asks for.
        (first,) = ingest(path.deployment, images[:24]).image_sets
        (second,) = ingest(path.deployment, images[24:]).image_sets
        id = second.image_set_id
        assert first.image_set_id == id
        assert first.version_id != second.version_id
        path.told(f"passed over: image set {id}, version {first.version_id}, is growing")
        path.told(f"dispatched: image set {id}, version {second.version_id}, rule chest-ct")
    (key,) = path.requests(id)
    request = path.client("s3").get_object(Bucket=path.bucket, Key=key)["Body"].read()
    assert json.loads(request)["versionId"] == str(second.version_id)
    assert path.decided(id) == [str(second.version_id)]
    wait_for(lambda: path.answers(id) == 1, lambda: "no answer")


def test_what_no_event_brought_is_found(path: EventPath, serving: str, tmp_path: Path) -> None:
    rule = path.rule("EventsImagesArrived")
    path.client("events").disable_rule(Name=rule)
    try:
        id = arrive(path, "missed", tmp_path).image_set_id
    finally:
        path.client("events").enable_rule(Name=rule)
    time.sleep(1)
    assert not path.requests(id)

    # Not before the quiet period has passed.
    wait_for(lambda: path.reconcile()["missed"] == 1, lambda: path.log_of("ReconcileFunctionName"))
    assert len(path.requests(id)) == 1
    assert f"dispatched: image set {id}" in path.log_of("ReconcileFunctionName")
    assert path.reconcile() == {"undecided": 0, "missed": 0, "failed": 0, "complete": True}
    function = path.outputs["ReconcileFunctionName"]
    (metric,) = path.client("cloudwatch").list_metrics(Namespace="MONAI/Events")["Metrics"]
    assert metric["MetricName"] == "MissedRuns"
    assert metric["Dimensions"] == [{"Name": "FunctionName", "Value": function}]


def test_a_failure_is_announced_and_noted_until_it_succeeds(
    path: EventPath, serving: str, mailbox: Mailbox
) -> None:
    run_id = f"run-{uuid.uuid4().hex[:8]}"
    key, note = f"requests/{run_id}.json", f"failures/noted/{run_id}.json"

    def ask(image_set_id: str) -> None:
        asked = {"datastoreId": path.datastore, "imageSetId": image_set_id, "versionId": "1"}
        path.client("s3").put_object(Bucket=path.bucket, Key=key, Body=json.dumps(asked).encode())
        path.client("sagemaker-runtime").invoke_endpoint_async(
            EndpointName=serving,
            InputLocation=f"s3://{path.bucket}/{key}",
            InferenceId=run_id,
            ContentType="application/json",
        )

    ask("0" * 32)
    told = mailbox.wait("Inference Failed", run_id)
    assert told["error"] == {"type": "ImageSetNotFoundError"}
    assert told["imageSets"] == [{"datastoreId": path.datastore, "imageSetId": "0" * 32, "versionId": "1"}]
    assert told["request"] == f"s3://{path.bucket}/{key}"
    noted = path.client("s3").get_object(Bucket=path.bucket, Key=note)["Body"].read()
    assert json.loads(noted) == told

    ask("1" * 32)
    mailbox.wait("Inference Result Stored", run_id)
    wait_for(lambda: not path.keys(note), lambda: "the note is still there")


def test_results_of_every_kind_start_nothing(path: EventPath, serving: str, tmp_path: Path) -> None:
    """Of the study of images that did start a run, and with the modality and the number of images that the
    rule asks for where the kind can have them.
    """
    patient = arrival("with-results", tmp_path, thick=24)
    (images,) = ingest(path.deployment, patient.images).image_sets
    path.told(f"dispatched: image set {images.image_set_id}, version {images.version_id}")
    kinds = results_of(patient, tmp_path)
    assert set(kinds) == {"SEG", "SR", "secondary capture", "PDF"}
    report = ingest(path.deployment, kinds.values())
    assert not report.failed
    assert len(report.image_sets) == len(kinds)
    for image_set in report.image_sets:
        path.told(f"not dispatched: image set {image_set.image_set_id}, no rule matches")
        assert not path.requests(image_set.image_set_id)
    assert len(path.requests(images.image_set_id)) == 1


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
