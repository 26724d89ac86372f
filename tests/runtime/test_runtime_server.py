"""The HTTP server and its worker, with a stand-in for the model that the test holds in its hand."""

from __future__ import annotations

import json
import logging
import queue
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest
from botocore.exceptions import ClientError, EndpointConnectionError
from fastapi.testclient import TestClient

from healthimaging.errors import GeometryError, ImageSetNotFoundError, ServiceError
from runtime.errors import NoMatchingSeriesError, SegmentationNotPrimaryError
from runtime.logs import JsonFormatter
from runtime.metrics import Metrics
from runtime.results.answer import ModelIdentity, Result, SegmentVolume, StoredSegmentation
from runtime.serving.request import ImageSetInput
from runtime.serving.server import MAXIMUM_BODY_BYTES, create_app
from runtime.serving.worker import Worker

STORE, SET = "d" * 32, "a" * 32
REQUEST = {"datastoreId": STORE, "imageSetId": SET}


def _result(request: ImageSetInput) -> Result:
    return Result(
        image_set_id=request.image_set_id,
        version_id=request.version_id or "1",
        segmentation=StoredSegmentation(
            series_instance_uid="2.25.1",
            sop_instance_uid="2.25.2",
            image_set_id="e" * 32,
            is_primary=True,
            s3_uri=None,
        ),
        segments=(SegmentVolume(label="lung", volume_ml=4012.5),),
        model=ModelIdentity(name="m", version="1", sha256="f" * 64),
        seconds={"network": 0.5},
    )


class _Model:
    """Loads and answers when the test says so, or fails as the test says."""

    def __init__(self) -> None:
        self.loaded = threading.Event()
        self.entered: queue.Queue[str] = queue.Queue()
        self.go_on = threading.Event()
        self.go_on.set()
        self.error: Exception | None = None
        self.failures: list[BaseException] = []

    def load(self) -> Callable[[ImageSetInput, float], Result]:
        assert self.loaded.wait(10)
        return self.segment

    def segment(self, request: ImageSetInput, waited: float) -> Result:
        self.entered.put(request.image_set_id)
        assert self.go_on.wait(10)
        if self.error is not None:
            raise self.error
        return _result(request)


@pytest.fixture
def model() -> Iterator[_Model]:
    model = _Model()
    yield model
    model.loaded.set()
    model.go_on.set()


@pytest.fixture
def client(model: _Model) -> TestClient:
    worker = Worker(load=model.load, queue_length=2, on_failure=model.failures.append)
    worker.start()
    return TestClient(create_app(worker, Metrics(endpoint="test")))


def _warm(client: TestClient, model: _Model) -> None:
    model.loaded.set()
    for _ in range(1000):
        if client.get("/ping").status_code == 200:
            return
        threading.Event().wait(0.005)
    pytest.fail("the server did not become ready")


def test_ping_tells_when_the_model_is_warm(client: TestClient, model: _Model) -> None:
    assert client.get("/ping").status_code == 503
    early = client.post("/invocations", json=REQUEST)
    assert (early.status_code, early.json()["error"]["type"]) == (503, "ModelLoadingError")
    assert int(early.headers["Retry-After"]) > 0
    _warm(client, model)
    assert client.get("/ping").content == b""


def test_a_model_that_does_not_load_is_reported_and_never_ready(model: _Model) -> None:
    def fail() -> Callable[[ImageSetInput, float], Result]:
        raise ValueError("broken")

    worker = Worker(load=fail, queue_length=1, on_failure=model.failures.append)
    worker.start()
    worker._thread.join(10)
    assert [str(failure) for failure in model.failures] == ["broken"]
    assert TestClient(create_app(worker, Metrics(endpoint="test"))).get("/ping").status_code == 503


def test_the_promised_answer(client: TestClient, model: _Model) -> None:
    _warm(client, model)
    answer = client.post("/invocations", json=REQUEST)
    assert answer.status_code == 200
    assert answer.json() == {
        "results": [
            {
                "imageSetId": SET,
                "versionId": "1",
                "segmentation": {
                    "seriesInstanceUid": "2.25.1",
                    "sopInstanceUid": "2.25.2",
                    "imageSetId": "e" * 32,
                    "isPrimary": True,
                    "s3Uri": None,
                },
                "segments": [{"label": "lung", "volumeMl": 4012.5}],
                "model": {"name": "m", "version": "1", "sha256": "f" * 64},
                "seconds": {"network": 0.5},
            }
        ]
    }


def test_several_inputs_are_answered_in_order(client: TestClient, model: _Model) -> None:
    _warm(client, model)
    inputs = [REQUEST | {"imageSetId": letter * 32} for letter in "xyz"]
    answer = client.post("/invocations", json={"inputs": inputs})
    assert [result["imageSetId"][0] for result in answer.json()["results"]] == ["x", "y", "z"]


@pytest.mark.parametrize(
    ("sent", "status", "kind"),
    [
        ({"content": b"{"}, 400, "InvalidRequestError"),
        ({"json": {}}, 400, "InvalidRequestError"),
        ({"content": b""}, 400, "InvalidRequestError"),
        ({"content": b"a,b", "headers": {"Content-Type": "text/csv"}}, 415, "UnsupportedMediaTypeError"),
        ({"content": b" " * (MAXIMUM_BODY_BYTES + 1)}, 413, "RequestTooLargeError"),
    ],
)
def test_bad_input_is_refused_and_the_next_request_answered(
    client: TestClient, model: _Model, sent: dict[str, Any], status: int, kind: str
) -> None:
    _warm(client, model)
    answer = client.post("/invocations", **sent)
    assert (answer.status_code, answer.json()["error"]["type"]) == (status, kind)
    assert client.post("/invocations", json=REQUEST).status_code == 200


def test_other_paths_and_methods(client: TestClient) -> None:
    assert client.get("/nothing").json()["error"]["type"] == "UnknownPathError"
    wrong = client.get("/invocations")
    assert (wrong.status_code, wrong.json()["error"]["type"]) == (405, "MethodNotAllowedError")
    assert client.get("/execution-parameters").json()["BatchStrategy"] == "SINGLE_RECORD"


def _client_error(code: str) -> ClientError:
    return ClientError({"Error": {"Code": code, "Message": "because"}}, "SearchImageSets")


@pytest.mark.parametrize(
    ("error", "status", "kind"),
    [
        (ImageSetNotFoundError("gone", image_set_id=SET), 404, "ImageSetNotFoundError"),
        (GeometryError("irregular", series_instance_uid="1.2"), 422, "GeometryError"),
        (NoMatchingSeriesError("none"), 422, "NoMatchingSeriesError"),
        (SegmentationNotPrimaryError("hidden"), 409, "SegmentationNotPrimaryError"),
        (
            ServiceError("no", operation="GetImageSet", code="AccessDeniedException"),
            403,
            "AccessDeniedException",
        ),
        (_client_error("AccessDeniedException"), 403, "AccessDeniedException"),
        (_client_error("ThrottlingException"), 503, "ThrottlingException"),
        (EndpointConnectionError(endpoint_url="http://x"), 502, "EndpointConnectionError"),
        (RuntimeError("Doe^Jane"), 500, "InternalError"),
        (MemoryError(), 500, "InternalError"),
    ],
)
def test_errors_are_typed_and_never_quote_the_unknown(
    client: TestClient,
    model: _Model,
    caplog: pytest.LogCaptureFixture,
    error: Exception,
    status: int,
    kind: str,
) -> None:
    _warm(client, model)
    model.error = error
    with caplog.at_level(logging.INFO, logger="runtime"):
        answer = client.post("/invocations", json=REQUEST)
    assert (answer.status_code, answer.json()["error"]["type"]) == (status, kind)
    lines = [json.loads(JsonFormatter().format(record)) for record in caplog.records]
    assert [(line["type"], line["imageSetIds"]) for line in lines if "type" in line] == [(kind, [SET])]
    assert "Doe" not in answer.text + json.dumps(lines)
    model.error = None
    assert client.post("/invocations", json=REQUEST).status_code == 200


def test_a_full_queue_refuses_and_loses_nothing(client: TestClient, model: _Model) -> None:
    _warm(client, model)
    model.go_on.clear()
    with ThreadPoolExecutor(8) as pool:
        running = pool.submit(client.post, "/invocations", json=REQUEST)
        model.entered.get(timeout=10)
        others = [pool.submit(client.post, "/invocations", json=REQUEST) for _ in range(6)]
        refused: list[httpx.Response] = []
        while len(refused) < 4:
            refused = [one.result() for one in others if one.done()]
            threading.Event().wait(0.01)
        assert client.get("/ping").status_code == 200
        model.go_on.set()
        answers = [one.result() for one in others] + [running.result()]
    assert sorted(answer.status_code for answer in answers) == [200] * 3 + [503] * 4
    assert {answer.json()["error"]["type"] for answer in refused} == {"QueueFullError"}
    assert all(int(answer.headers["Retry-After"]) > 0 for answer in refused)
    assert client.post("/invocations", json=REQUEST).status_code == 200


def test_a_caller_that_went_away_is_skipped(model: _Model) -> None:
    model.loaded.set()
    worker = Worker(load=model.load, queue_length=2, on_failure=model.failures.append)
    worker.start()
    while not worker.is_ready:
        threading.Event().wait(0.005)
    model.go_on.clear()
    first = ImageSetInput(datastore_id=STORE, image_set_id="1" * 32)
    running = worker.submit([first])
    model.entered.get(timeout=10)
    assert worker.submit([first.model_copy(update={"image_set_id": "2" * 32})]).cancel()
    assert not running.cancel()
    model.go_on.set()
    last = worker.submit([first.model_copy(update={"image_set_id": "3" * 32})])
    assert last.result(10).results[0].image_set_id == "3" * 32
    assert [model.entered.get(timeout=10)] == ["3" * 32]


def test_logs_withhold_what_other_libraries_say() -> None:
    record = logging.LogRecord("pydicom", logging.WARNING, __file__, 7, "bad value %r", ("Doe^Jane",), None)
    line = json.loads(JsonFormatter().format(record))
    assert "Doe" not in json.dumps(line)
    assert line["message"] == "withheld message at test_runtime_server:7"
