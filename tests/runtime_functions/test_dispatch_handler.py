"""The dispatch function over fake services: from events to requests, and what the log tells of it."""

from __future__ import annotations

import copy
import json
import logging
from typing import Any

import pytest
from dispatch_documents import (
    DATASTORE,
    DESCRIPTION,
    IMAGE_SET,
    PATIENT,
    Bucket,
    Datastore,
    Endpoints,
    document,
    route,
    segmentation,
)

from runtime.functions.dispatch import handler
from runtime.functions.dispatch.errors import RoutesError


@pytest.fixture
def datastore() -> Datastore:
    return Datastore()


@pytest.fixture
def bucket() -> Bucket:
    return Bucket()


@pytest.fixture
def endpoints(bucket: Bucket) -> Endpoints:
    return Endpoints(bucket)


@pytest.fixture(autouse=True)
def _services(
    monkeypatch: pytest.MonkeyPatch, datastore: Datastore, bucket: Bucket, endpoints: Endpoints
) -> None:
    monkeypatch.setenv("RESULT_BUCKET", "results")
    monkeypatch.setenv("REQUEST_PREFIX", "requests/dispatch/")
    monkeypatch.setenv("DISPATCH_ROUTES", json.dumps([route()]))
    monkeypatch.setenv("QUIET_SECONDS", "60")
    monkeypatch.setattr(handler, "connect", lambda: datastore)
    clients = {"s3": bucket, "sagemaker-runtime": endpoints}
    monkeypatch.setattr(handler.boto3, "client", lambda name: clients[name])


def message(message_id: str = "m", spelling: str = "imagesetId", **detail: Any) -> dict[str, Any]:
    event = {
        "source": "aws.medical-imaging",
        "detail-type": "Image Set Created",
        "detail": {"datastoreId": DATASTORE, spelling: IMAGE_SET, "imageSetVersion": "1", **detail},
    }
    return {"messageId": message_id, "body": json.dumps(event)}


def handle(*messages: dict[str, Any]) -> list[str]:
    answer = handler.handle({"Records": list(messages)}, None)
    return [failure["itemIdentifier"] for failure in answer["batchItemFailures"]]


@pytest.mark.parametrize("spelling", ["imagesetId", "imageSetId"])
def test_a_matching_image_set_is_sent(endpoints: Endpoints, spelling: str) -> None:
    assert handle(message(spelling=spelling)) == []
    assert endpoints.requests == [{"datastoreId": DATASTORE, "imageSetId": IMAGE_SET, "versionId": "1"}]


def test_the_same_event_twice_sends_once(endpoints: Endpoints, datastore: Datastore) -> None:
    assert handle(message("a"), message("b")) == []
    assert datastore.metadata_calls == 1
    assert handle(message("c")) == []
    assert len(endpoints.invocations) == 1


def test_the_latest_version_is_sent_whatever_the_event_says(
    endpoints: Endpoints, datastore: Datastore
) -> None:
    datastore.add_version(document(images=5))
    assert handle(message(imageSetVersion="1"), message(imageSetVersion="2")) == []
    assert [request["versionId"] for request in endpoints.requests] == ["2"]


def test_more_images_are_sent_again_and_a_corrected_name_is_not(
    endpoints: Endpoints, datastore: Datastore
) -> None:
    handle(message())
    renamed = copy.deepcopy(document())
    renamed["Patient"]["DICOM"]["PatientName"] = "Curie^Marie"
    datastore.add_version(renamed)
    handle(message())
    assert [request["versionId"] for request in endpoints.requests] == ["1"]
    datastore.add_version(document(images=4))
    handle(message())
    assert [request["versionId"] for request in endpoints.requests] == ["1", "3"]


def test_each_endpoint_gets_one_request(monkeypatch: pytest.MonkeyPatch, endpoints: Endpoints) -> None:
    routes = [
        route(),
        route(rule="again"),
        route(rule="liver", endpoint="monai-test-liver"),
        route(rule="brain", endpoint="monai-test-brain", modality=["MR"]),
        route(rule="planned", endpoint="monai-test-planned", model=""),
    ]
    monkeypatch.setenv("DISPATCH_ROUTES", json.dumps(routes))
    assert handle(message()) == []
    assert [one["EndpointName"] for one in endpoints.invocations] == ["monai-test-lung", "monai-test-liver"]


def test_one_endpoint_that_fails_does_not_keep_the_others_from_being_tried_again(
    monkeypatch: pytest.MonkeyPatch, endpoints: Endpoints, bucket: Bucket
) -> None:
    monkeypatch.setenv(
        "DISPATCH_ROUTES", json.dumps([route(), route(rule="liver", endpoint="monai-test-liver")])
    )
    original = endpoints.invoke_endpoint_async

    def invoke(**params: Any) -> dict[str, Any]:
        endpoints.fails = "ThrottlingException" if params["EndpointName"].endswith("liver") else None
        return original(**params)

    endpoints.invoke_endpoint_async = invoke  # type: ignore[method-assign]  # answers differently for once
    assert handle(message("m1")) == ["m1"]
    endpoints.invoke_endpoint_async = original  # type: ignore[method-assign]  # answers differently for once
    endpoints.fails = None
    bucket.age(600)
    assert handle(message("m1")) == []
    assert [one["EndpointName"] for one in endpoints.invocations] == ["monai-test-lung", "monai-test-liver"]


# What starts nothing --------------------------------------------------------------------------------


def test_a_stored_segmentation_starts_nothing(endpoints: Endpoints, datastore: Datastore) -> None:
    datastore.versions["1"] = segmentation()
    assert handle(message()) == []
    assert not endpoints.invocations


def test_not_even_by_a_rule_that_asks_for_it(
    monkeypatch: pytest.MonkeyPatch, endpoints: Endpoints, datastore: Datastore
) -> None:
    monkeypatch.setenv("DISPATCH_ROUTES", json.dumps([route(modality=["SEG", "CT"], minimumInstances=1)]))
    datastore.versions["1"] = segmentation()
    assert handle(message()) == []
    assert not endpoints.invocations


def test_a_result_does_not_bring_its_image_back(endpoints: Endpoints, datastore: Datastore) -> None:
    """Even if storing a segmentation made a new version of the image set that it segments."""
    handle(message())
    for _ in range(3):
        datastore.add_version(document())
        assert handle(message()) == []
    assert len(endpoints.invocations) == 1


@pytest.mark.parametrize(
    "properties",
    [
        {"imageSetState": "DELETED"},
        {"imageSetWorkflowStatus": "DELETED"},
        {"isPrimary": False},
    ],
)
def test_image_sets_that_are_gone_or_in_conflict(
    endpoints: Endpoints, datastore: Datastore, properties: dict[str, Any]
) -> None:
    datastore.properties |= properties
    assert handle(message()) == []
    assert datastore.metadata_calls == 0
    assert not endpoints.invocations


def test_an_image_set_that_is_not_found(endpoints: Endpoints, datastore: Datastore) -> None:
    datastore.fails = "ResourceNotFoundException"
    assert handle(message()) == []
    assert not endpoints.invocations


def test_an_image_set_that_goes_between_two_calls(endpoints: Endpoints, datastore: Datastore) -> None:
    datastore.properties["versionId"] = "7"
    assert handle(message()) == []
    assert not endpoints.invocations


def test_without_a_deployed_endpoint_no_header_is_read(
    monkeypatch: pytest.MonkeyPatch, datastore: Datastore, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("DISPATCH_ROUTES", json.dumps([route(model="")]))
    with caplog.at_level(logging.INFO):
        assert handle(message()) == []
    assert datastore.metadata_calls == 0
    assert "rule chest-ct: endpoint monai-test-lung is not deployed" in caplog.text


# Failures -------------------------------------------------------------------------------------------


def test_only_failed_messages_are_delivered_again(endpoints: Endpoints) -> None:
    assert handle({"messageId": "bad", "body": "{"}, message("good")) == ["bad"]
    assert len(endpoints.invocations) == 1


@pytest.mark.parametrize(
    "body",
    [
        "",
        "[]",
        "null",
        '{"detail": []}',
        '{"detail": {}}',
        json.dumps({"detail": {"imageSetId": IMAGE_SET}}),
        json.dumps({"detail": {"imageSetId": 1, "datastoreId": DATASTORE}}),
        json.dumps({"detail": {"imageSetId": "../" + "1" * 29, "datastoreId": DATASTORE}}),
        json.dumps({"detail": {"imageSetId": IMAGE_SET, "datastoreId": DATASTORE + "/"}}),
    ],
)
def test_malformed_messages_fail_and_so_reach_the_dead_letter_queue(body: str, bucket: Bucket) -> None:
    assert handle({"messageId": "m", "body": body}) == ["m"]
    assert not bucket.objects


@pytest.mark.parametrize("code", ["ThrottlingException", "AccessDeniedException"])
def test_refusals_are_tried_again_and_named_in_the_log(
    datastore: Datastore, caplog: pytest.LogCaptureFixture, code: str
) -> None:
    datastore.fails = code
    with caplog.at_level(logging.INFO):
        assert handle(message("m9")) == ["m9"]
    assert f"GetImageSet: {code}" in caplog.text
    assert IMAGE_SET in caplog.text
    assert PATIENT not in caplog.text


def test_damaged_metadata_fails_by_name(datastore: Datastore, caplog: pytest.LogCaptureFixture) -> None:
    datastore.versions["1"]["Study"] = 7
    with caplog.at_level(logging.INFO):
        assert handle(message("m")) == ["m"]
    assert "MetadataError" in caplog.text


def test_routes_that_cannot_be_read_fail_the_whole_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DISPATCH_ROUTES", "[")
    with pytest.raises(RoutesError):
        handle(message())


@pytest.mark.parametrize("description", [DESCRIPTION, None])
def test_logs_have_no_patient_data(
    monkeypatch: pytest.MonkeyPatch,
    datastore: Datastore,
    caplog: pytest.LogCaptureFixture,
    description: str | None,
) -> None:
    monkeypatch.setenv("DISPATCH_ROUTES", json.dumps([route(seriesDescription=description)]))
    with caplog.at_level(logging.DEBUG):
        assert handle(message()) == []
        datastore.versions["1"] = document(images=1)
        assert handle(message()) == []
    assert "dispatched: image set" in caplog.text
    assert "no rule matches" in caplog.text
    for secret in (PATIENT, "Anna", "P1", DESCRIPTION):
        assert secret not in caplog.text
