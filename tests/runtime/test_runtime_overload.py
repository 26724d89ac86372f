"""More callers than can be served: each gets its own answer or a refusal that says when to come again."""

from __future__ import annotations

import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest
import uvicorn

from runtime.metrics import Metrics
from runtime.results.answer import ModelIdentity, Result, SegmentVolume
from runtime.serving.request import ImageSetInput
from runtime.serving.served_model import ServedModel, Service
from runtime.serving.server import create_app
from runtime.serving.worker import Worker

CLIENTS = 40
QUEUE = 4
STORE = "d" * 32


class _Model:
    """Answers with what only the asked image set can be answered with, and counts what it was asked."""

    def __init__(self) -> None:
        self.asked: Counter[str] = Counter()
        self.at_once = 0
        self.seconds = 0.002

    def load(self) -> Service:
        return Service(model=ModelIdentity(name="m", version="1", sha256="f" * 64), segment=self._segment)

    def _segment(self, request: ImageSetInput, waited: float) -> Result:
        self.at_once += 1
        assert self.at_once == 1
        time.sleep(self.seconds)
        self.asked[request.image_set_id] += 1
        self.at_once -= 1
        return Result(
            image_set_id=request.image_set_id,
            version_id=request.version_id or "1",
            segmentation=None,
            segments=(SegmentVolume(label="x", volume_ml=_volume(request.image_set_id)),),
            model=ModelIdentity(name="m", version="1", sha256="f" * 64),
            seconds={},
        )


def _volume(image_set_id: str) -> float:
    return float(int(image_set_id, 36) % 100_003)


@pytest.fixture
def model() -> _Model:
    return _Model()


@pytest.fixture
def worker() -> Worker:
    worker = Worker()
    worker.start()
    return worker


@pytest.fixture
def client(model: _Model, worker: Worker) -> Iterator[httpx.Client]:
    """Calls a server with sockets of its own."""
    served = ServedModel(worker, load=model.load, queue_length=QUEUE)
    served.loaded.result(10)
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        server = uvicorn.Server(
            uvicorn.Config(
                create_app(served, worker, Metrics(endpoint="test")), log_config=None, lifespan="off"
            )
        )
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
        thread.start()
        port = listening.getsockname()[1]
        limits = httpx.Limits(max_connections=CLIENTS)
        with httpx.Client(
            base_url=f"http://127.0.0.1:{port}", trust_env=False, timeout=30, limits=limits
        ) as http:
            while not server.started:
                time.sleep(0.005)
            yield http
        server.should_exit = True
        thread.join(10)


def _ask(client: httpx.Client, *image_sets: str) -> httpx.Response:
    inputs = [{"datastoreId": STORE, "imageSetId": one} for one in image_sets]
    return client.post("/invocations", json={"inputs": inputs})


def _is_right(answer: httpx.Response, *image_sets: str) -> bool:
    results = answer.json()["results"]
    found = [(one["imageSetId"], one["segments"][0]["volumeMl"]) for one in results]
    return found == [(one, _volume(one)) for one in image_sets]


def _refused(answer: httpx.Response, *kinds: str) -> bool:
    assert answer.status_code == 503, answer.text
    assert int(answer.headers["Retry-After"]) > 0
    return answer.json()["error"]["type"] in kinds


def test_forty_callers_at_once(client: httpx.Client, model: _Model) -> None:
    """Each has image sets of its own and comes again until it is answered."""

    def caller(number: int) -> Counter[int]:
        seen: Counter[int] = Counter()
        for turn in range(5):
            mine = [f"{number:02d}x{turn}x{part}".rjust(32, "0") for part in range(1 + number % 3)]
            while (answer := _ask(client, *mine)).status_code != 200:
                assert _refused(answer, "QueueFullError")
                seen[503] += 1
                time.sleep(0.01)
            assert _is_right(answer, *mine), "the answer is that of another request"
            seen[200] += 1
        return seen

    with ThreadPoolExecutor(CLIENTS) as pool:
        seen = sum(pool.map(caller, range(CLIENTS)), Counter())
    assert seen[200] == CLIENTS * 5
    assert seen[503] > 0, "the queue was full at times"
    assert set(model.asked.values()) == {1}, "what was refused was not worked on, what was accepted once"
    assert client.get("/ping").status_code == 200


def test_everything_accepted_is_answered_when_the_container_stops_under_load(
    client: httpx.Client, model: _Model, worker: Worker
) -> None:
    model.seconds = 0.05
    answered: list[str] = []

    def caller(number: int) -> str:
        mine = f"{number}".rjust(32, "0")
        while True:
            answer = _ask(client, mine)
            if answer.status_code == 200:
                assert _is_right(answer, mine)
                answered.append(mine)
                return "answered"
            if _refused(answer, "StoppingError"):
                return "sent elsewhere"
            time.sleep(0.01)

    with ThreadPoolExecutor(CLIENTS) as pool:
        callers = [pool.submit(caller, number) for number in range(CLIENTS)]
        while not model.asked:
            time.sleep(0.005)
        assert worker.drain(seconds=10)
        outcomes = Counter(one.result(30) for one in callers)
    assert outcomes["answered"] >= QUEUE, "those that had been accepted"
    assert outcomes["sent elsewhere"] > 0
    assert model.asked == Counter(answered), "no work was lost, and none done for nobody"


def test_callers_that_leave_are_not_worked_for(client: httpx.Client, model: _Model) -> None:
    model.seconds = 0.3

    def impatient(number: int) -> Any:
        with pytest.raises(httpx.ReadTimeout):
            client.post(
                "/invocations",
                json={"datastoreId": STORE, "imageSetId": f"{number}".rjust(32, "0")},
                timeout=0.1,
            )

    with ThreadPoolExecutor(3) as pool:
        running = pool.submit(_ask, client, "r".rjust(32, "0"))
        while not model.at_once:
            time.sleep(0.005)
        for done in [pool.submit(impatient, number) for number in range(2)]:
            done.result(10)
        model.seconds = 0.0
        assert running.result(10).status_code == 200
    last = "9" * 32
    assert _is_right(_ask(client, last), last)
    assert set(model.asked) == {"r".rjust(32, "0"), last}
