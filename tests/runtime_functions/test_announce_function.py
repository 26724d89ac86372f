"""The announce function over fake services: from SageMaker's notifications to events, identifiers only."""

from __future__ import annotations

import json
import logging
from io import BytesIO
from typing import Any

import pytest
from dispatch_documents import DATASTORE, IMAGE_SET, PATIENT, refusal

from infra.inference.announcements import EVENT_SOURCE
from runtime.functions.announce import handler

RUN = "0123456789abcdef" * 2
REQUEST = f"requests/dispatch/{DATASTORE}/{IMAGE_SET}/{RUN}.json"
NOTE = f"failures/noted/{RUN}.json"
ANSWER = {
    "results": [
        {
            "imageSetId": IMAGE_SET,
            "versionId": "2",
            "segmentation": {
                "seriesInstanceUid": "1.2.3.9",
                "sopInstanceUid": "1.2.3.9.1",
                "imageSetId": "5" * 32,
                "isPrimary": True,
                "s3Uri": None,
                "patientName": PATIENT,
            },
            "segments": [{"label": "left lung", "volumeMl": 2811.5}],
            "classes": [{"label": "sick", "probability": 0.93}],
            "reports": [
                {
                    "kind": "measurement-report",
                    "seriesInstanceUid": "1.2.3.8",
                    "sopInstanceUid": "1.2.3.8.1",
                    "imageSetId": "6" * 32,
                    "isPrimary": True,
                    "s3Uri": None,
                    "text": {"finding": PATIENT},
                }
            ],
            "model": {"name": "lung", "version": "1.0", "sha256": "ab", "notes": PATIENT},
            "seconds": {"network": 1.5},
        }
    ]
}


class Bucket:
    """S3's calls on the result bucket."""

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {
            REQUEST: json.dumps(
                {"datastoreId": DATASTORE, "imageSetId": IMAGE_SET, "versionId": "2", "note": {"a": PATIENT}}
            ).encode(),
            "responses/a.out": json.dumps(ANSWER).encode(),
            "failures/a-error.out": json.dumps(
                {"error": {"type": "NoMatchingSeriesError", "message": f"{PATIENT} has none"}}
            ).encode(),
        }

        self.missing = "NoSuchKey"
        """What is said of an object that is not there."""

    def get_object(self, **params: str) -> dict[str, Any]:
        assert params["Bucket"] == "results"
        if params["Key"] not in self.objects:
            raise refusal(self.missing, "GetObject")
        return {"Body": BytesIO(self.objects[params["Key"]])}

    def put_object(self, **params: Any) -> None:
        assert params["Bucket"] == "results"
        self.objects[params["Key"]] = params["Body"]

    def delete_object(self, **params: Any) -> None:
        assert params["Bucket"] == "results"
        self.objects.pop(params["Key"], None)


class Bus:
    """PutEvents."""

    def __init__(self) -> None:
        self.calls: list[list[dict[str, Any]]] = []
        self.refuses = False

    def put_events(self, **params: Any) -> dict[str, Any]:
        self.calls.append(params["Entries"])
        refused = {"ErrorCode": "ThrottlingException", "ErrorMessage": PATIENT}
        entries = [refused if self.refuses else {"EventId": "e"} for _ in params["Entries"]]
        return {"FailedEntryCount": len(entries) * self.refuses, "Entries": entries}

    def details(self, detail_type: str) -> list[dict[str, Any]]:
        entries = [entry for call in self.calls for entry in call]
        assert all(entry["Source"] == EVENT_SOURCE and entry["EventBusName"] == "bus" for entry in entries)
        return [json.loads(entry["Detail"]) for entry in entries if entry["DetailType"] == detail_type]

    @property
    def stored(self) -> list[dict[str, Any]]:
        return self.details("Inference Result Stored")

    @property
    def failed(self) -> list[dict[str, Any]]:
        return self.details("Inference Failed")


@pytest.fixture
def bucket() -> Bucket:
    return Bucket()


@pytest.fixture
def bus() -> Bus:
    return Bus()


@pytest.fixture(autouse=True)
def _services(monkeypatch: pytest.MonkeyPatch, bucket: Bucket, bus: Bus) -> None:
    for name, value in {
        "RESULT_BUCKET": "results",
        "NOTED_PREFIX": "failures/noted/",
        "DATASTORE_ID": DATASTORE,
        "EVENT_BUS": "bus",
    }.items():
        monkeypatch.setenv(name, value)
    clients = {"s3": bucket, "events": bus}
    monkeypatch.setattr(handler.boto3, "client", lambda name: clients[name])


def succeeded(**changed: Any) -> dict[str, Any]:
    return {
        "awsRegion": "us-east-1",
        "eventTime": "2026-01-02T03:04:05.678Z",
        "receivedTime": "2026-01-02T03:03:05.678Z",
        "invocationStatus": "Completed",
        "requestParameters": {
            "endpointName": "monai-test-lung",
            "contentType": "application/json",
            "inputLocation": f"s3://results/{REQUEST}",
        },
        "responseParameters": {
            "contentType": "application/json",
            "outputLocation": "s3://results/responses/a.out",
        },
        "inferenceId": RUN,
        "eventVersion": "1.0",
        "eventSource": "aws:sagemaker",
        "eventName": "InferenceResult",
        **changed,
    }


def failed(**changed: Any) -> dict[str, Any]:
    return succeeded(
        **{
            "invocationStatus": "Failed",
            "failureReason": f'ClientError: Received error (422) from model with message "{PATIENT}"',
            "responseParameters": {"outputLocation": "s3://results/failures/a-error.out"},
            **changed,
        }
    )


def handle(*documents: Any) -> list[str]:
    records = [
        {"messageId": str(number), "body": one if isinstance(one, str) else json.dumps(one)}
        for number, one in enumerate(documents)
    ]
    return [one["itemIdentifier"] for one in handler.handle({"Records": records}, None)["batchItemFailures"]]


def test_a_stored_result_is_announced_with_its_identifiers_alone(bus: Bus) -> None:
    assert handle(succeeded()) == []
    (detail,) = bus.stored
    assert len(detail.pop("id")) == 32
    assert detail == {
        "runId": RUN,
        "endpoint": "monai-test-lung",
        "datastoreId": DATASTORE,
        "imageSetId": IMAGE_SET,
        "versionId": "2",
        "segmentation": {
            "seriesInstanceUid": "1.2.3.9",
            "sopInstanceUid": "1.2.3.9.1",
            "imageSetId": "5" * 32,
            "isPrimary": True,
            "s3Uri": None,
        },
        "reports": [
            {
                "kind": "measurement-report",
                "seriesInstanceUid": "1.2.3.8",
                "sopInstanceUid": "1.2.3.8.1",
                "imageSetId": "6" * 32,
                "isPrimary": True,
                "s3Uri": None,
            }
        ],
        "model": {"name": "lung", "version": "1.0", "sha256": "ab"},
        "answer": "s3://results/responses/a.out",
    }


def test_a_failure_is_announced_and_noted_with_its_request(bus: Bus, bucket: Bucket) -> None:
    assert handle(failed()) == []
    (detail,) = bus.failed
    assert json.loads(bucket.objects[NOTE]) == detail
    assert len(detail.pop("id")) == 32
    assert detail == {
        "runId": RUN,
        "endpoint": "monai-test-lung",
        "imageSets": [{"datastoreId": DATASTORE, "imageSetId": IMAGE_SET, "versionId": "2"}],
        "error": {"type": "NoMatchingSeriesError"},
        "request": f"s3://results/{REQUEST}",
        "failure": "s3://results/failures/a-error.out",
    }


def test_a_note_goes_when_the_run_succeeds_after_all(bucket: Bucket) -> None:
    handle(failed())
    assert NOTE in bucket.objects
    handle(succeeded())
    assert NOTE not in bucket.objects


def test_the_same_notification_twice_has_the_same_id(bus: Bus) -> None:
    handle(succeeded(), failed(), succeeded(), failed())
    handle(succeeded(), failed())
    assert len(bus.stored) == len(bus.failed) == 3
    assert len({detail["id"] for detail in bus.stored}) == 1
    assert len({detail["id"] for detail in bus.failed}) == 1
    assert bus.stored[0]["id"] != bus.failed[0]["id"]


def test_another_failure_of_the_same_run_has_another_id(bus: Bus) -> None:
    handle(failed(), failed(eventTime="2026-01-02T04:04:05.678Z"))
    assert len({detail["id"] for detail in bus.failed}) == 2


def test_an_answer_of_many_results_is_announced_ten_at_a_time(bus: Bus, bucket: Bucket) -> None:
    (result,) = ANSWER["results"]
    many = [{**result, "imageSetId": f"{number:032d}", "segmentation": None} for number in range(23)]
    bucket.objects["responses/a.out"] = json.dumps({"results": many}).encode()
    assert handle(succeeded()) == []
    assert [len(call) for call in bus.calls] == [10, 10, 3]
    assert [detail["imageSetId"] for detail in bus.stored] == [one["imageSetId"] for one in many]
    assert len({detail["id"] for detail in bus.stored}) == 23
    assert {detail["segmentation"] for detail in bus.stored} == {None}


@pytest.mark.parametrize(
    ("request_body", "image_sets"),
    [
        (
            b'{"inputs": [{"imageSetId": "1"}, {"imageSetId": "2"}]}',
            [{"imageSetId": "1"}, {"imageSetId": "2"}],
        ),
        (b"[]", []),
        (b"{", []),
        (b'"text"', []),
        (b'{"inputs": 7}', []),
    ],
    ids=["several", "none", "no JSON", "text", "a number"],
)
def test_whatever_was_asked_a_failure_is_announced(
    bus: Bus, bucket: Bucket, request_body: bytes, image_sets: list[Any]
) -> None:
    bucket.objects[REQUEST] = request_body
    assert handle(failed()) == []
    assert [detail["imageSets"] for detail in bus.failed] == [image_sets]


@pytest.mark.parametrize(
    ("changed", "failure", "type"),
    [
        ({}, b"<html>", "ClientError"),
        ({}, b"[]", "ClientError"),
        ({}, json.dumps({"error": {"type": f"{PATIENT} 1"}}).encode(), "ClientError"),
        ({"responseParameters": {}}, b"", "ClientError"),
        ({"responseParameters": None, "failureReason": PATIENT}, b"", "Unknown"),
        ({"failureReason": None}, b"{}", "Unknown"),
    ],
)
def test_the_type_of_a_failure_is_a_name_and_never_a_text(
    bus: Bus, bucket: Bucket, changed: dict[str, Any], failure: bytes, type: str
) -> None:
    bucket.objects["failures/a-error.out"] = failure
    assert handle(failed(**changed)) == []
    assert [detail["error"]["type"] for detail in bus.failed] == [type]


def test_a_request_that_came_with_the_invocation_has_no_location(bus: Bus) -> None:
    parameters = {"endpointName": "monai-test-lung"}
    assert handle(failed(requestParameters=parameters), succeeded(requestParameters=parameters)) == []
    assert bus.failed[0]["request"] is None
    assert bus.failed[0]["imageSets"] == []
    assert bus.stored[0]["datastoreId"] == DATASTORE


@pytest.mark.parametrize("code", ["AccessDenied", "NoSuchKey"])
def test_a_run_whose_request_never_reached_the_container_is_announced(
    bus: Bus, bucket: Bucket, code: str
) -> None:
    """Expired in the queue, or its request was gone: there is nothing to read. Without the right to list, S3
    calls that AccessDenied.
    """
    bucket.objects.clear()
    bucket.missing = code
    assert handle(failed()) == []
    (detail,) = bus.failed
    assert (detail["imageSets"], detail["error"]) == ([], {"type": "ClientError"})
    assert detail["request"] == f"s3://results/{REQUEST}"
    assert NOTE in bucket.objects


def test_a_failure_waits_for_s3(bus: Bus, bucket: Bucket) -> None:
    bucket.objects.clear()
    bucket.missing = "SlowDown"
    assert handle(failed()) == ["0"]
    assert not bus.calls


def test_an_inference_id_cannot_lead_to_another_object(bucket: Bucket) -> None:
    before = set(bucket.objects)
    handle(failed(inferenceId="../../models/x"))
    assert set(bucket.objects) - before == {"failures/noted/..%2F..%2Fmodels%2Fx.json"}


@pytest.mark.parametrize(
    "body",
    [
        "",
        "null",
        "[]",
        "{}",
        json.dumps(succeeded(inferenceId=None)),
        json.dumps(succeeded(inferenceId="a b")),
        json.dumps(succeeded(invocationStatus="Running")),
        json.dumps(succeeded(requestParameters={})),
        json.dumps(succeeded(responseParameters={})),
        json.dumps(succeeded(responseParameters={"outputLocation": "s3://elsewhere/a.out"})),
        json.dumps(succeeded(responseParameters={"outputLocation": "s3://results/responses/gone.out"})),
    ],
)
def test_what_cannot_be_announced_reaches_the_dead_letters(bus: Bus, body: str) -> None:
    assert handle(body, succeeded()) == ["0"]
    assert len(bus.stored) == 1


@pytest.mark.parametrize("answer", [b"{", b"[]", b'{"results": 7}', b'{"results": [{}]}'])
def test_an_answer_that_is_not_as_promised_fails_by_name(
    bus: Bus, bucket: Bucket, answer: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    bucket.objects["responses/a.out"] = answer
    assert handle(succeeded()) == ["0"]
    assert not bus.calls
    assert f"run {RUN}, AnswerError" in caplog.text


def test_events_that_the_bus_refuses_come_again(bus: Bus, caplog: pytest.LogCaptureFixture) -> None:
    bus.refuses = True
    assert handle(succeeded(), failed()) == ["0", "1"]
    assert "NotPutError: PutEvents: ThrottlingException" in caplog.text


def test_neither_logs_nor_events_have_patient_data(
    bus: Bus, bucket: Bucket, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG):
        assert handle(succeeded(), failed()) == []
        bus.refuses = True
        handle(succeeded(), failed(), PATIENT)
    assert PATIENT not in json.dumps(bus.calls)
    assert PATIENT not in bucket.objects[NOTE].decode()
    assert "volumeMl" not in json.dumps(bus.calls)
    assert "probability" not in json.dumps(bus.calls)
    assert PATIENT not in caplog.text
