"""Many models in one process: SageMaker's contract of multi-model endpoints, with stand-ins for models."""

from __future__ import annotations

import gc
import itertools
import json
import logging
import queue
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi.testclient import TestClient

from runtime.errors import BundleError
from runtime.logs import JsonFormatter
from runtime.metrics import METRICS, Metrics
from runtime.results.answer import ModelIdentity, Result
from runtime.serving.memory import MIB, SHARE, memory_limit, resident_bytes
from runtime.serving.models import Models
from runtime.serving.multi_model import create_multi_model_app
from runtime.serving.request import ImageSetInput
from runtime.serving.served_model import Service
from runtime.serving.worker import Worker

REQUEST = {"datastoreId": "d" * 32, "imageSetId": "a" * 32}
BUDGET_MIB = 100


class _Loader:
    """Loads folders as models: the file ``mebibytes`` says what the model takes, ``fails`` how it fails."""

    def __init__(self) -> None:
        self.order: queue.Queue[str] = queue.Queue()
        self.go_on = threading.Event()
        self.go_on.set()
        self.numbers = itertools.count(1)

    def load(self, folder: Path) -> Service:
        if (failure := folder / "fails").is_file():
            raise {"bundle": BundleError("no metadata"), "exit": SystemExit(1), "memory": MemoryError()}[
                failure.read_text()
            ]
        number = next(self.numbers)
        # Not zeros, whose pages the system would not give before they are written to.
        weights = bytearray(b"w") * (int((folder / "mebibytes").read_text()) * MIB)
        model = ModelIdentity(name=f"bundle {folder.parent.name}", version=str(number), sha256="f" * 64)

        def segment(request: ImageSetInput, waited: float) -> Result:
            assert weights[0]
            self.order.put(folder.parent.name)
            assert self.go_on.wait(10)
            return Result(
                image_set_id=request.image_set_id,
                version_id="1",
                segmentation=None,
                segments=(),
                model=model,
                seconds={"network": 0.5},
            )

        return Service(model=model, segment=segment)


@pytest.fixture
def loader() -> Iterator[_Loader]:
    loader = _Loader()
    yield loader
    loader.go_on.set()


@pytest.fixture(scope="module", autouse=True)
def _thaw() -> Iterator[None]:
    yield
    gc.unfreeze()


@pytest.fixture
def worker() -> Worker:
    worker = Worker()
    worker.start()
    return worker


@pytest.fixture
def waiting(worker: Worker) -> Callable[[], int]:
    """Counts what waits in the worker's queue."""
    return lambda: sum(len(lane.waiting) for lane in list(worker._queue._turns))


@pytest.fixture
def client(loader: _Loader, worker: Worker, tmp_path: Path) -> TestClient:
    models = Models(
        worker,
        load=loader.load,
        prepare=gc.freeze,
        directory=tmp_path / "models",
        budget_bytes=BUDGET_MIB * MIB,
        queue_length=2,
    )
    return TestClient(create_multi_model_app(models, worker, Metrics(endpoint="many", of_models=True)))


@pytest.fixture
def put(client: TestClient, tmp_path: Path) -> Callable[..., httpx.Response]:
    """Unpack a model as SageMaker does, and have it loaded."""

    def load(name: str, *, mebibytes: int = 1, fails: str | None = None, of: str | None = None) -> Any:
        folder = tmp_path / "models" / (of or name) / "model"
        folder.mkdir(parents=True, exist_ok=True)
        _write(folder / "mebibytes", str(mebibytes))
        if fails:
            _write(folder / "fails", fails)
        return client.post("/models", json={"model_name": name, "url": str(folder)})

    return load


def _write(file: Path, text: str) -> None:
    """Write whole or not at all: the loader may be reading it for another thread that put the same model."""
    part = file.with_name(f"{file.name}.{threading.get_ident()}")
    part.write_text(text)
    part.replace(file)


def _names(client: TestClient, **query: Any) -> list[str]:
    return [one["modelName"] for one in client.get("/models", params=query).json()["models"]]


def _kind(response: httpx.Response) -> tuple[int, str]:
    return response.status_code, response.json()["error"]["type"]


def test_the_contract_of_one_model(
    client: TestClient, put: Callable[..., httpx.Response], tmp_path: Path
) -> None:
    assert client.get("/ping").status_code == 200, "before any model: SageMaker loads only then"
    assert client.get("/models").json() == {"models": []}
    for method, path in (("get", "/models/m"), ("delete", "/models/m"), ("post", "/models/m/invoke")):
        assert _kind(getattr(client, method)(path)) == (404, "ModelNotLoadedError")
    document = {"modelName": "m", "modelUrl": str(tmp_path / "models/m/model")}
    assert put("m").json() == document
    assert _kind(put("m")) == (409, "ModelAlreadyLoadedError")
    assert client.get("/models/m").json() == document
    assert client.get("/models").json() == {"models": [document]}
    answer = client.post("/models/m/invoke", json=REQUEST)
    assert answer.json()["results"][0]["model"]["name"] == "bundle m"
    assert client.delete("/models/m").status_code == 200
    assert _kind(client.post("/models/m/invoke", json=REQUEST)) == (404, "ModelNotLoadedError")
    assert put("m").status_code == 200, "it can be loaded again"
    for path in ("/invocations", "/execution-parameters"):
        assert _kind(client.post(path, json=REQUEST)) == (404, "UnknownPathError")


def test_names_are_opaque(client: TestClient, put: Callable[..., httpx.Response]) -> None:
    names = ["a b", "über", "x/invoke", "f" * 1024]
    for name in names:
        assert put(name, of="shared").status_code == 200
    assert sorted(_names(client)) == sorted(names)
    for name in ("a%20b", "%C3%BCber", "x/invoke", "f" * 1024):
        assert client.get(f"/models/{name}").status_code == 200
        assert client.post(f"/models/{name}/invoke", json=REQUEST).status_code == 200
        assert client.delete(f"/models/{name}").status_code == 200
    assert _names(client) == []


def test_the_same_files_under_two_names_are_two_models(
    client: TestClient, put: Callable[..., httpx.Response]
) -> None:
    for name in ("one", "two"):
        assert put(name, of="shared").status_code == 200
    versions = [
        client.post(f"/models/{name}/invoke", json=REQUEST).json()["results"][0]["model"]["version"]
        for name in ("one", "two")
    ]
    assert versions == ["1", "2"]
    client.delete("/models/one")
    assert client.post("/models/two/invoke", json=REQUEST).status_code == 200


def test_pages_of_the_list_are_least_recently_used_first(
    client: TestClient, put: Callable[..., httpx.Response]
) -> None:
    for name in "abcde":
        put(name)
    client.post("/models/b/invoke", json=REQUEST)
    assert _names(client) == ["a", "c", "d", "e", "b"]
    first = client.get("/models", params={"limit": 2}).json()
    assert [one["modelName"] for one in first["models"]] == ["a", "c"]
    # What happens between two pages hides no model.
    client.post("/models/a/invoke", json=REQUEST)
    client.delete("/models/d")
    second = client.get("/models", params={"limit": 3, "next_page_token": first["nextPageToken"]}).json()
    assert [one["modelName"] for one in second["models"]] == ["e", "b", "a"]
    assert "nextPageToken" not in second
    client.get("/models/e")
    client.post("/models/e/invoke", content=b"{")
    assert _names(client) == ["c", "e", "b", "a"], "looking at a model is no use of it, nor is a bad request"


def test_a_full_memory_is_507_until_a_model_is_unloaded(
    client: TestClient, put: Callable[..., httpx.Response]
) -> None:
    assert put("a", mebibytes=45).status_code == 200
    assert put("b", mebibytes=45).status_code == 200
    before = resident_bytes()
    full = put("c", mebibytes=40)
    assert _kind(full) == (507, "ModelMemoryError")
    assert f"of {BUDGET_MIB}" in full.json()["error"]["message"]
    assert resident_bytes() < before + 20 * MIB, "the attempt leaves nothing behind"
    assert _names(client) == ["a", "b"]
    assert client.post("/models/a/invoke", json=REQUEST).status_code == 200
    # As SageMaker does: the least recently used one goes.
    assert client.delete(f"/models/{_names(client)[0]}").status_code == 200
    assert resident_bytes() < before - 35 * MIB, "memory is free when the answer is there"
    assert put("c", mebibytes=40).status_code == 200
    assert _names(client) == ["a", "c"]


def test_a_model_that_no_unloading_makes_room_for_says_so(put: Callable[..., httpx.Response]) -> None:
    alone = put("giant", mebibytes=BUDGET_MIB + 20)
    assert _kind(alone) == (507, "ModelMemoryError")
    assert "RUNTIME_MODEL_MEMORY_MIB" in alone.json()["error"]["message"]


@pytest.mark.parametrize(
    ("fails", "status", "kind"),
    [
        ("bundle", 422, "BundleError"),
        ("exit", 422, "BundleError"),
        ("memory", 507, "ModelMemoryError"),
    ],
)
def test_a_model_that_cannot_be_loaded_hurts_no_other(
    client: TestClient, put: Callable[..., httpx.Response], fails: str, status: int, kind: str
) -> None:
    put("good")
    assert _kind(put("bad", fails=fails)) == (status, kind)
    assert _kind(client.post("/models/bad/invoke", json=REQUEST)) == (404, "ModelNotLoadedError")
    assert client.post("/models/good/invoke", json=REQUEST).status_code == 200
    assert (_names(client), client.get("/ping").status_code) == (["good"], 200)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"null",
        b"{",
        b"[" * 100_000,
        json.dumps({"model_name": "m"}).encode(),
        json.dumps({"url": "/opt/ml/models/m/model"}).encode(),
        json.dumps({"model_name": "", "url": "/opt/ml/models/m/model"}).encode(),
        json.dumps({"model_name": 7, "url": "/opt/ml/models/m/model"}).encode(),
        json.dumps({"model_name": "m", "url": "s3://secret-bucket/m"}).encode(),
        json.dumps({"model_name": "m", "url": "/secret/nothing"}).encode(),
        json.dumps({"model_name": "m", "url": "/etc"}).encode(),
        json.dumps({"model_name": "m", "url": "a\0b"}).encode(),
        json.dumps({"model_name": "m", "url": "{models}"}).encode(),
        json.dumps({"model_name": "m", "url": "{models}/../secret"}).encode(),
        json.dumps({"model_name": "m", "url": "{models}/link"}).encode(),
        json.dumps({"model_name": "m", "url": "{models}/file"}).encode(),
    ],
)
def test_requests_to_load_that_are_refused(client: TestClient, tmp_path: Path, body: bytes) -> None:
    models = tmp_path / "models"
    for folder in (models, tmp_path / "secret"):
        folder.mkdir()
    (models / "link").symlink_to(tmp_path / "secret")
    (models / "file").write_text("")
    answer = client.post("/models", content=body.replace(b"{models}", str(models).encode()))
    assert _kind(answer) == (400, "InvalidRequestError")
    assert "secret" not in answer.text, "values are not repeated"


@pytest.mark.parametrize("query", ["limit=0", "limit=x", "limit=101", "next_page_token=x", "limit=-1"])
def test_pages_that_do_not_exist(client: TestClient, query: str) -> None:
    assert _kind(client.get(f"/models?{query}")) == (400, "InvalidRequestError")


def test_models_take_turns_and_each_has_a_queue_of_its_own(
    client: TestClient, put: Callable[..., httpx.Response], loader: _Loader, waiting: Callable[[], int]
) -> None:
    put("busy")
    put("quiet")
    loader.go_on.clear()
    with ThreadPoolExecutor(8) as pool:

        def send(name: str) -> Any:
            return pool.submit(client.post, f"/models/{name}/invoke", json=REQUEST)

        running = [send("busy")]
        assert loader.order.get(timeout=10) == "busy"
        running += [send("busy"), send("busy")]
        while waiting() < 2:
            threading.Event().wait(0.005)
        assert _kind(send("busy").result(10)) == (503, "QueueFullError")
        running.append(send("quiet"))
        while waiting() < 3:
            threading.Event().wait(0.005)
        loader.go_on.set()
        assert [one.result(10).status_code for one in running] == [200] * 4
    assert [loader.order.get(timeout=10) for _ in range(3)] == ["busy", "quiet", "busy"]


def test_unloading_waits_for_the_requests_of_the_model(
    client: TestClient, put: Callable[..., httpx.Response], loader: _Loader, waiting: Callable[[], int]
) -> None:
    put("m")
    loader.go_on.clear()
    with ThreadPoolExecutor(4) as pool:
        running = [pool.submit(client.post, "/models/m/invoke", json=REQUEST) for _ in range(2)]
        while waiting() < 1:
            threading.Event().wait(0.005)
        gone = pool.submit(client.delete, "/models/m")
        while client.get("/models/m").status_code == 200:
            threading.Event().wait(0.005)
        assert _kind(client.post("/models/m/invoke", json=REQUEST)) == (404, "ModelNotLoadedError")
        assert not gone.done()
        again = pool.submit(put, "m")
        loader.go_on.set()
        assert [one.result(10).status_code for one in running] == [200, 200]
        assert gone.result(10).status_code == 200
        assert again.result(10).status_code == 200
    assert client.post("/models/m/invoke", json=REQUEST).json()["results"][0]["model"]["version"] == "2"


def test_loading_twice_at_once_loads_once(
    client: TestClient, put: Callable[..., httpx.Response], loader: _Loader, waiting: Callable[[], int]
) -> None:
    put("other")
    loader.go_on.clear()
    with ThreadPoolExecutor(4) as pool:
        running = pool.submit(client.post, "/models/other/invoke", json=REQUEST)
        loader.order.get(timeout=10)
        both = [pool.submit(put, "m") for _ in range(2)]
        bad = [pool.submit(put, "bad", fails="bundle") for _ in range(2)]
        while waiting() < 2:
            threading.Event().wait(0.005)
        loader.go_on.set()
        assert sorted(one.result(10).status_code for one in both) == [200, 409]
        assert [one.result(10).status_code for one in bad] == [422, 422]
        assert running.result().status_code == 200
    assert next(loader.numbers) == 3, "one and the other"


def test_draining_ends_loading_at_once_and_answers_requests(
    client: TestClient,
    put: Callable[..., httpx.Response],
    loader: _Loader,
    worker: Worker,
    waiting: Callable[[], int],
) -> None:
    put("m")
    loader.go_on.clear()
    with ThreadPoolExecutor(4) as pool:
        running = pool.submit(client.post, "/models/m/invoke", json=REQUEST)
        loader.order.get(timeout=10)
        late = pool.submit(put, "late")
        while waiting() < 1:
            threading.Event().wait(0.005)
        drained = pool.submit(worker.drain, seconds=10)
        assert _kind(late.result(10)) == (503, "StoppingError")
        assert client.get("/ping").status_code == 503
        loader.go_on.set()
        assert running.result(10).status_code == 200
        assert drained.result(10)


def test_requests_are_measured_for_each_model(
    client: TestClient, put: Callable[..., httpx.Response], caplog: pytest.LogCaptureFixture
) -> None:
    put("m")
    with caplog.at_level(logging.INFO, logger="runtime"):
        client.post("/models/m/invoke", json=REQUEST)
        client.post("/models/m/invoke", content=b"{")
        client.post("/models/nowhere/invoke", json=REQUEST)
    lines = [json.loads(JsonFormatter().format(record)) for record in caplog.records]
    documents = [line for line in lines if "_aws" in line and "Requests" in line]
    assert [(one["Errors"], one.get("Model")) for one in documents] == [
        (0, "bundle m"),
        (1, "bundle m"),
        (1, None),
    ]
    for document in documents:
        (directive,) = document["_aws"]["CloudWatchMetrics"]
        for dimensions in directive["Dimensions"]:
            assert all(document[name] for name in dimensions)
            assert all(tuple(dimensions) in METRICS[one["Name"]].dimensions for one in directive["Metrics"])
        assert ["Endpoint"] in directive["Dimensions"], "alarms look at the endpoint as a whole"
    assert [line["modelName"] for line in lines if line["message"] == "answered"] == ["m"]


def test_the_budget_is_a_share_of_what_the_container_may_use(tmp_path: Path) -> None:
    machine = memory_limit(limits=())
    limited, unlimited = tmp_path / "memory.max", tmp_path / "memory.limit_in_bytes"
    limited.write_text("2147483648\n")
    unlimited.write_text("9223372036854771712\n")
    assert memory_limit(limits=(limited,)) == 2**31
    assert memory_limit(limits=(unlimited, tmp_path / "nothing")) == machine
    limited.write_text("max\n")
    assert memory_limit(limits=(limited,)) == machine
    assert 0 < SHARE < 1
