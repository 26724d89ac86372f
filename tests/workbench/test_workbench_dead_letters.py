"""Dead letters against fakes: what is listed says no more than identifiers, and what is sent again is sent
once.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from workbench_fakes import FakePaginator, FakeS3, deployment, error

from workbench.dead_letters.letters import discard_dead_letters, list_dead_letters, replay_dead_letters
from workbench.errors import WorkbenchError

IMAGE_SET = "a" * 32
EVENT = json.dumps(
    {
        "detail-type": "Image Set Created",
        "detail": {"datastoreId": "d" * 32, "imagesetId": IMAGE_SET, "patientName": "Canary^Carl"},
    }
)
NOTE = {
    "id": "0" * 32,
    "runId": "run-1",
    "endpoint": "lung-endpoint",
    "imageSets": [{"datastoreId": "d" * 32, "imageSetId": IMAGE_SET, "versionId": "1"}],
    "error": {"type": "MissingSliceError"},
    "request": "s3://results/requests/1.json",
    "failure": "s3://results/failures/1.out",
}


class FakeQueues:
    """Queues by URL. A message that is handed out is hidden until it is put back."""

    def __init__(self, **queues: list[dict[str, Any]]) -> None:
        self.queues = {name.replace("_", "-"): list(messages) for name, messages in queues.items()}
        self.hidden: set[str] = set()
        self.calls: list[str] = []
        self.refuse_delete = False
        self.too_late: str | None = None
        """The messages' time is over when they are put back."""

    def receive_message(self, *, QueueUrl: str, MaxNumberOfMessages: int, **_: Any) -> dict[str, Any]:
        there = [one for one in self.queues.get(QueueUrl, []) if one["MessageId"] not in self.hidden]
        given = there[: min(2, MaxNumberOfMessages)]
        self.hidden.update(one["MessageId"] for one in given)
        return {"Messages": [{**one, "ReceiptHandle": one["MessageId"]} for one in given]} if given else {}

    def change_message_visibility(self, *, QueueUrl: str, ReceiptHandle: str, VisibilityTimeout: int) -> None:
        assert VisibilityTimeout == 0
        if self.too_late:
            raise error(self.too_late)
        self.hidden.remove(ReceiptHandle)

    def send_message(self, *, QueueUrl: str, MessageBody: str) -> None:
        self.calls.append("send")
        self.queues.setdefault(QueueUrl, []).append({"MessageId": "new", "Body": MessageBody})

    def delete_message(self, *, QueueUrl: str, ReceiptHandle: str) -> None:
        if self.refuse_delete:
            raise error("RequestThrottled")
        self.calls.append("delete")
        self.queues[QueueUrl] = [one for one in self.queues[QueueUrl] if one["MessageId"] != ReceiptHandle]


class FakeFunctionLogs:
    """One function's log; may be denied."""

    def __init__(self, *lines: str, denied: bool = False) -> None:
        self.lines, self.denied = lines, denied
        self.searches: list[dict[str, Any]] = []

    def get_paginator(self, name: str) -> FakePaginator:
        assert name == "filter_log_events"

        def pages(**request: Any) -> list[dict[str, Any]]:
            if self.denied:
                raise error("AccessDeniedException")
            assert request["logGroupName"] == "dispatch-log"
            self.searches.append(request)
            wanted = request["filterPattern"].strip('"')
            return [{"events": [{"message": line} for line in self.lines if wanted in line]}]

        return FakePaginator(pages)


class FakeRuntime:
    def __init__(self) -> None:
        self.asked: list[dict[str, Any]] = []
        self.gone: str | None = None

    def invoke_endpoint_async(self, **request: Any) -> dict[str, Any]:
        if request["EndpointName"] == self.gone:
            raise error("ValidationError", "Endpoint of account not found")
        self.asked.append(request)
        return {}


def message(identity: str, body: str = EVENT, *, minute: int = 0, **attributes: str) -> dict[str, Any]:
    sent = datetime(2026, 1, 2, 3, minute, tzinfo=UTC)
    return {
        "MessageId": identity,
        "Body": body,
        "Attributes": {"SentTimestamp": str(int(sent.timestamp() * 1000))},
        "MessageAttributes": {name: {"StringValue": value} for name, value in attributes.items()},
    }


class World:
    """Three dead letters of two functions, and a request that failed."""

    def __init__(self, logs: FakeFunctionLogs | None = None) -> None:
        self.sqs = FakeQueues(
            dispatch_dead=[
                message("message-1", minute=5),
                message("message-2", body="no event", minute=2),
                message("other-three", minute=1, ERROR_CODE="NO_PERMISSIONS"),
            ],
        )
        self.s3 = FakeS3({"results/failures/noted/run-1.json": json.dumps(NOTE).encode()})
        self.runtime = FakeRuntime()
        self.logs = logs or FakeFunctionLogs(
            f"[ERROR] dispatching failed: image set {IMAGE_SET} of data store d, MetadataError: not a blob\n",
            "[ERROR] dispatching failed: message message-2, MalformedEventError: no event",
        )
        self.deployment = deployment(
            sqs=self.sqs,
            s3=self.s3,
            sagemaker_runtime=self.runtime,
            logs=self.logs,
        )


def test_everything_is_listed_oldest_first_with_why_and_without_patients() -> None:
    world = World()
    letters = list_dead_letters(world.deployment)
    assert [one.id for one in letters] == ["other-three", "message-2", "run-1", "message-1"]
    assert [one.reason for one in letters] == [
        "EventBridge could not deliver it: NO_PERMISSIONS",
        "MalformedEventError: no event",
        "MissingSliceError",
        "MetadataError: not a blob",
    ]
    assert letters[3].about == {"datastoreId": "d" * 32, "imageSetId": IMAGE_SET}
    assert letters[1].about == {}
    assert letters[2].about["endpoint"] == "lung-endpoint"
    assert letters[3].to_json()["when"] == "2026-01-02T03:05:00+00:00"
    assert "Canary" not in json.dumps([one.to_json() for one in letters])
    assert not world.sqs.hidden, "looking takes nothing away"
    assert len(world.sqs.queues["dispatch-dead"]) == 3


def test_who_may_not_read_logs_may_still_list() -> None:
    letters = list_dead_letters(World(FakeFunctionLogs(denied=True)).deployment)
    assert letters[3].reason == "see the log of the dispatch function, dispatch-log"


def test_a_named_letter_goes_back_once_and_the_others_stay() -> None:
    world = World()
    lines: list[str] = []
    [sent] = replay_dead_letters(world.deployment, ["message-1"], progress=lines.append)
    assert sent.id == "message-1"
    assert [one["Body"] for one in world.sqs.queues["dispatch"]] == [EVENT]
    assert [one["MessageId"] for one in world.sqs.queues["dispatch-dead"]] == ["message-2", "other-three"]
    assert world.sqs.calls == ["send", "delete"], "a crash in between leaves it twice, and never not at all"
    assert world.sqs.hidden == {"message-1"}, "the others can be seen again"
    assert not world.runtime.asked
    assert lines == ["message-1 sent again"]


def test_a_letter_that_cannot_be_taken_away_is_still_there() -> None:
    world = World()
    world.sqs.refuse_delete = True
    with pytest.raises(Exception, match="RequestThrottled"):
        replay_dead_letters(world.deployment, ["message-1"])
    assert len(world.sqs.queues["dispatch-dead"]) == 3
    assert not world.sqs.hidden


def test_all_of_them_go_back_and_requests_are_asked_again() -> None:
    world = World()
    assert len(replay_dead_letters(world.deployment, None)) == 4
    assert len(world.sqs.queues["dispatch"]) == 3
    assert world.sqs.queues["dispatch-dead"] == []
    [asked] = world.runtime.asked
    assert (asked["EndpointName"], asked["InputLocation"], asked["InferenceId"]) == (
        "lung-endpoint",
        "s3://results/requests/1.json",
        "run-1",
    )
    assert asked["InvocationTimeoutSeconds"] == 3600
    assert "results/failures/noted/run-1.json" in world.s3.objects, "it goes when the request succeeds"


@pytest.mark.parametrize("cause", ["no request", "no endpoint"])
def test_a_letter_that_can_never_be_sent_does_not_keep_the_others(cause: str) -> None:
    world = World()
    if cause == "no request":
        note = json.dumps({**NOTE, "request": None}).encode()
        world.s3.objects["results/failures/noted/run-1.json"] = note
    else:
        world.runtime.gone = "lung-endpoint"
    with pytest.raises(WorkbenchError, match=r"^3 sent again\..*run-1"):
        replay_dead_letters(world.deployment, None)
    assert len(world.sqs.queues["dispatch"]) == 3
    assert world.sqs.queues["dispatch-dead"] == []


def test_the_log_is_searched_once_however_many_letters_there_are() -> None:
    """Five searches a second are all that CloudWatch answers, and each letter is hidden for two minutes."""
    world = World()
    world.sqs.queues["dispatch-dead"] += [message(f"more-{number}", minute=9) for number in range(200)]
    letters = list_dead_letters(world.deployment)
    assert {one.reason for one in letters if one.id.startswith("more-")} == {"MetadataError: not a blob"}
    (search,) = world.logs.searches
    assert search["startTime"] == datetime(2026, 1, 2, 3, 0, tzinfo=UTC).timestamp() * 1000
    assert not world.sqs.hidden


@pytest.mark.parametrize("code", ["InvalidParameterValue", "AWS.SimpleQueueService.MessageNotInflight"])
def test_letters_whose_time_was_over_are_listed_all_the_same(code: str) -> None:
    world = World()
    world.sqs.too_late = code
    assert len(list_dead_letters(world.deployment)) == 4
    world.sqs.hidden.clear()
    world.sqs.too_late = "AccessDenied"
    with pytest.raises(Exception, match="AccessDenied"):
        list_dead_letters(world.deployment)


def test_letters_are_thrown_away_for_good() -> None:
    world = World()
    discard_dead_letters(world.deployment, ["run-1", "message-2"])
    assert not world.s3.objects
    assert [one.id for one in list_dead_letters(world.deployment)] == ["other-three", "message-1"]
    assert "dispatch" not in world.sqs.queues
    assert not world.runtime.asked


@pytest.mark.parametrize(("name", "found"), [("message", "2 dead letters"), ("othe", "no"), ("x" * 9, "no")])
def test_a_name_that_is_not_one_letter_sends_nothing(name: str, found: str) -> None:
    world = World()
    with pytest.raises(WorkbenchError, match=f"names {found}"):
        replay_dead_letters(world.deployment, ["other-three", name])
    assert "dispatch" not in world.sqs.queues
    assert not world.sqs.hidden


def test_the_beginning_of_an_id_is_enough() -> None:
    [sent] = replay_dead_letters(World().deployment, ["other-"])
    assert sent.id == "other-three"


def test_a_request_that_came_with_its_invocation_cannot_be_asked_again() -> None:
    world = World()
    world.s3.objects["results/failures/noted/run-1.json"] = json.dumps({**NOTE, "request": None}).encode()
    with pytest.raises(WorkbenchError, match="brought its request") as caught:
        replay_dead_letters(world.deployment, ["run-1"])
    assert "monai-aws predict" in caught.value.advice
