"""The HTTP server and its worker, with a stand-in for the model that the test holds in its hand."""

from __future__ import annotations

import asyncio
import json
import logging
import queue
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest
from botocore.exceptions import ClientError, EndpointConnectionError
from fastapi.testclient import TestClient

from healthimaging.errors import GeometryError, ImageSetNotFoundError, ServiceError
from runtime.errors import (
    DeviceFailedError,
    NoMatchingSeriesError,
    QueueFullError,
    RequestAbandonedError,
    ResultNotPrimaryError,
    StoppingError,
    WorkerStoppedError,
)
from runtime.logs import JsonFormatter
from runtime.metrics import Metrics
from runtime.results.answer import ModelIdentity, Result, SegmentVolume, StoredSegmentation
from runtime.serving.bodies import MAXIMUM_BODY_BYTES
from runtime.serving.request import ImageSetInput
from runtime.serving.served_model import ServedModel, Service
from runtime.serving.server import create_app
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
        self.error: BaseException | None = None

    def load(self) -> Service:
        assert self.loaded.wait(10)
        return Service(model=ModelIdentity(name="m", version="1", sha256="f" * 64), segment=self.segment)

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
def worker() -> Worker:
    worker = Worker()
    worker.start()
    return worker


@pytest.fixture
def served(model: _Model, worker: Worker) -> ServedModel:
    return ServedModel(worker, load=model.load, queue_length=2)


@pytest.fixture
def client(served: ServedModel, worker: Worker) -> TestClient:
    return TestClient(create_app(served, worker, Metrics(endpoint="test")))


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


def test_a_model_that_does_not_load_is_reported_and_never_ready(worker: Worker) -> None:
    def fail() -> Service:
        raise ValueError("broken")

    served = ServedModel(worker, load=fail, queue_length=1)
    assert str(served.loaded.exception(10)) == "broken"
    client = TestClient(create_app(served, worker, Metrics(endpoint="test")))
    assert client.get("/ping").status_code == 503
    assert client.post("/invocations", json=REQUEST).json()["error"]["type"] == "ModelLoadingError"


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
                "classes": [],
                "reports": [],
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
        (ResultNotPrimaryError("hidden"), 409, "ResultNotPrimaryError"),
        (
            ServiceError("no", operation="GetImageSet", code="AccessDeniedException"),
            403,
            "AccessDeniedException",
        ),
        (_client_error("AccessDeniedException"), 403, "AccessDeniedException"),
        (_client_error("ThrottlingException"), 503, "ThrottlingException"),
        (EndpointConnectionError(endpoint_url="http://x"), 502, "EndpointConnectionError"),
        (RuntimeError("Doe^Jane"), 500, "InternalError"),
        (MemoryError(), 500, "MemoryExhaustedError"),
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


def _input(letter: str) -> ImageSetInput:
    return ImageSetInput(datastore_id=STORE, image_set_id=letter * 32)


@pytest.fixture
def warm(model: _Model, served: ServedModel) -> ServedModel:
    model.loaded.set()
    served.loaded.result(10)
    return served


def test_a_caller_that_went_away_is_skipped_and_frees_its_place(model: _Model, warm: ServedModel) -> None:
    model.go_on.clear()
    running = warm.submit([_input("1")])
    assert model.entered.get(timeout=10) == "1" * 32
    waiting = [warm.submit([_input(letter)]) for letter in "23"]
    with pytest.raises(QueueFullError):
        warm.submit([_input("4")])
    waiting[0].abandon()
    last = warm.submit([_input("4")])
    model.go_on.set()
    assert last.answer.result(10).results[0].image_set_id == "4" * 32
    assert running.answer.result().results[0].image_set_id == "1" * 32
    assert [model.entered.get(timeout=10) for _ in range(2)] == ["3" * 32, "4" * 32]


def test_a_list_whose_caller_went_away_ends_with_the_image_set_at_hand(
    model: _Model, warm: ServedModel
) -> None:
    model.go_on.clear()
    job = warm.submit([_input("1"), _input("2")])
    model.entered.get(timeout=10)
    job.abandon()
    model.go_on.set()
    assert isinstance(job.answer.exception(10), RequestAbandonedError)
    assert warm.submit([_input("3")]).answer.result(10).results[0].image_set_id == "3" * 32
    assert model.entered.get(timeout=10) == "3" * 32, "the second of the list was not begun"


def test_a_request_that_waited_too_long_is_not_begun(client: TestClient, model: _Model) -> None:
    _warm(client, model)
    model.go_on.clear()
    with ThreadPoolExecutor(2) as pool:
        running = pool.submit(client.post, "/invocations", json=REQUEST)
        model.entered.get(timeout=10)
        late = pool.submit(
            client.post,
            "/invocations",
            json=REQUEST,
            headers={"X-Amzn-SageMaker-InvocationTimeoutSeconds": "0"},
        )
        threading.Event().wait(0.05)
        model.go_on.set()
        answer = late.result(10)
    assert running.result().status_code == 200
    assert (answer.status_code, answer.json()["error"]["type"]) == (503, "RequestExpiredError")
    assert model.entered.empty()


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt("Doe^Jane"), GeneratorExit()])
def test_code_that_ends_programs_ends_no_request_unanswered(
    client: TestClient, model: _Model, error: BaseException
) -> None:
    _warm(client, model)
    model.error = error
    answer = client.post("/invocations", json=REQUEST)
    assert (answer.status_code, answer.json()["error"]["type"]) == (500, "ModelInterruptedError")
    assert "Doe" not in answer.text
    assert client.get("/ping").status_code == 503, "SageMaker replaces the container"
    after = client.post("/invocations", json=REQUEST)
    assert (after.status_code, after.json()["error"]["type"]) == (503, "WorkerStoppedError")
    assert int(after.headers["Retry-After"]) > 0


class AcceleratorError(RuntimeError):
    """Has the name of torch's own."""


def _of_a_transform(cause: Exception) -> Exception:
    error = RuntimeError("applying transform")
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "kind", "ping"),
    [
        (AcceleratorError("device-side assert triggered"), "DeviceFailedError", 503),
        (RuntimeError("CUDA error: an illegal memory access was encountered"), "DeviceFailedError", 503),
        (RuntimeError("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED"), "DeviceFailedError", 503),
        (_of_a_transform(AcceleratorError("CUDA error: x")), "DeviceFailedError", 503),
        (RuntimeError("CUDA out of memory. Tried to allocate 20 GiB"), "MemoryExhaustedError", 200),
        (RuntimeError("CUDA error: out of memory"), "MemoryExhaustedError", 200),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED"), "MemoryExhaustedError", 200),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), "MemoryExhaustedError", 200),
        (_of_a_transform(MemoryError()), "MemoryExhaustedError", 200),
        (ValueError("a header says CUDA error"), "InternalError", 200),
    ],
)
def test_only_what_poisons_the_process_makes_it_unhealthy(
    client: TestClient, model: _Model, error: Exception, kind: str, ping: int
) -> None:
    _warm(client, model)
    model.error = error
    answer = client.post("/invocations", json=REQUEST)
    assert (answer.status_code, answer.json()["error"]["type"]) == (500, kind)
    assert client.get("/ping").status_code == ping
    model.error = None
    assert client.post("/invocations", json=REQUEST).status_code == (200 if ping == 200 else 503)


def test_what_waits_behind_a_poisoned_process_is_answered(model: _Model, warm: ServedModel) -> None:
    model.go_on.clear()
    model.error = AcceleratorError("CUDA error: unspecified launch failure")
    running = warm.submit([_input("1")])
    model.entered.get(timeout=10)
    waiting = warm.submit([_input("2")])
    model.go_on.set()
    assert isinstance(running.answer.exception(10), DeviceFailedError)
    assert isinstance(waiting.answer.exception(10), WorkerStoppedError)


def test_a_worker_that_dies_leaves_nobody_waiting(
    model: _Model, warm: ServedModel, worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    model.go_on.clear()
    jobs = [warm.submit([_input(letter)]) for letter in "12"]
    model.entered.get(timeout=10)

    def broken(*_: Any) -> None:
        raise RuntimeError("a defect of ours")

    monkeypatch.setattr(worker, "_work", broken)
    model.go_on.set()
    assert jobs[0].answer.result(10).results
    assert isinstance(jobs[1].answer.exception(10), WorkerStoppedError)
    assert not worker.is_healthy


def test_draining_answers_what_was_accepted_and_refuses_the_rest(
    client: TestClient, model: _Model, warm: ServedModel, worker: Worker
) -> None:
    model.go_on.clear()
    jobs = [warm.submit([_input(letter)]) for letter in "123"]
    model.entered.get(timeout=10)
    with ThreadPoolExecutor(1) as pool:
        drained = pool.submit(worker.drain, seconds=10)
        while client.get("/ping").status_code == 200:
            threading.Event().wait(0.005)
        refused = client.post("/invocations", json=REQUEST)
        assert (refused.status_code, refused.json()["error"]["type"]) == (503, "StoppingError")
        assert int(refused.headers["Retry-After"]) > 0
        model.go_on.set()
        assert drained.result(10)
    assert [job.answer.result().results[0].image_set_id[0] for job in jobs] == ["1", "2", "3"]


def test_what_cannot_be_drained_in_time_is_told_so(model: _Model, warm: ServedModel, worker: Worker) -> None:
    model.go_on.clear()
    jobs = [warm.submit([_input(letter)]) for letter in "123"]
    model.entered.get(timeout=10)
    assert not worker.drain(seconds=0.05)
    assert {type(job.answer.exception(0)) for job in jobs} == {StoppingError}
    model.go_on.set()
    worker._thread.join(10)
    assert model.entered.empty(), "what waited was not begun"


@pytest.mark.parametrize(
    ("accept", "status"),
    [
        ("", 200),
        ("application/json", 200),
        ("*/*", 200),
        ("text/csv, application/*;q=0.5", 200),
        ("Application/JSON; charset=utf-8", 200),
        ("text/csv", 406),
        ("application/json;q=0, text/csv", 406),
        ("application/json; q=0.000", 406),
    ],
)
def test_who_cannot_read_the_answer_is_told_before_the_work(
    client: TestClient, model: _Model, accept: str, status: int
) -> None:
    _warm(client, model)
    answer = client.post("/invocations", json=REQUEST, headers={"Accept": accept})
    assert answer.status_code == status
    assert model.entered.qsize() == (status == 200)
    assert status == 200 or answer.json()["error"]["type"] == "NotAcceptableError"


def test_a_body_that_does_not_arrive_keeps_nobody(
    client: TestClient, model: _Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    _warm(client, model)
    monkeypatch.setattr("runtime.serving.bodies.BODY_SECONDS", 0.05)

    async def request() -> list[dict[str, Any]]:
        sent: list[dict[str, Any]] = []
        scope = {
            "type": "http",
            "method": "POST",
            "path": "/invocations",
            "headers": [(b"content-type", b"application/json")],
            "query_string": b"",
        }

        async def send(message: Any) -> None:
            sent.append(message)

        await client.app(scope, asyncio.Event().wait, send)
        return sent

    start, body = asyncio.run(request())
    assert start["status"] == 408
    assert json.loads(body["body"])["error"]["type"] == "BodyTimeoutError"


def test_logs_withhold_what_other_libraries_say() -> None:
    record = logging.LogRecord("pydicom", logging.WARNING, __file__, 7, "bad value %r", ("Doe^Jane",), None)
    line = json.loads(JsonFormatter().format(record))
    assert "Doe" not in json.dumps(line)
    assert line["message"] == "withheld message at test_runtime_server:7"
