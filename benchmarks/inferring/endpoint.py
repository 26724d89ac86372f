"""The runtime's own server with a model, as a container of SageMaker's starts it, and requests to it."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import psutil

from benchmarks.inferring.stored_series import StoredVersion
from benchmarks.local_cloud import REPOSITORY, aws_environment, free_port

MODELS_PYTHON = REPOSITORY / ".venv-models" / "bin" / "python"
"""Of the environment that has what the image has."""
ARCHIVED_MODEL = Path("models", "archive", "model.ts")
"""Below a bundle's folder: what `make_model` writes for MONAI Deploy's own operator."""
LOG_NAME = "endpoint.log"
START_SECONDS = 120.0
STOP_SECONDS = 60.0
REQUEST_SECONDS = 120.0


@dataclass(frozen=True, kw_only=True)
class Answered:
    """One request as its caller saw it."""

    wall: float
    """Seconds from the request to the whole answer."""
    result: Mapping[str, Any]
    """The only entry of the answer's `results`."""

    @property
    def seconds(self) -> Mapping[str, float]:
        """What the answer says of its phases, without their sum."""
        return {name: float(value) for name, value in self.result["seconds"].items() if name != "total"}


@dataclass(frozen=True, kw_only=True)
class Endpoint:
    """A serving process whose model is warm."""

    port: int
    process: psutil.Process
    start_seconds: float
    """From the start of the process to the first 200 of `/ping`."""

    def invoke(self, version: StoredVersion) -> Answered:
        """Send one request; a new connection each time, as SageMaker's router may.

        Raises:
            RuntimeError: The answer is not 200.
        """
        body = json.dumps(version.request())
        with closing(HTTPConnection("127.0.0.1", self.port, timeout=REQUEST_SECONDS)) as connection:
            begin = time.perf_counter()
            connection.request("POST", "/invocations", body, {"Content-Type": "application/json"})
            response = connection.getresponse()
            answer = response.read()
            wall = time.perf_counter() - begin
        if response.status != 200:
            raise RuntimeError(f"The endpoint answered {response.status}: {answer[:500].decode()}")
        (result,) = json.loads(answer)["results"]
        return Answered(wall=wall, result=result)

    def resident(self) -> int:
        """Proportional set size of the process, bytes."""
        return int(self.process.memory_full_info().pss)


@contextmanager
def serving(model: Path, base: Path, *, endpoint_url: str) -> Iterator[Endpoint]:
    """Serve a bundle until the context ends.

    Args:
        model: Folder of the bundle.
        base: Empty folder that gets SageMaker's layout; the log is written there, too.
        endpoint_url: Of the cloud.
    """
    (base / "model").symlink_to(model)
    port = free_port()
    variables = aws_environment(endpoint_url) | {
        "PYTHONPATH": str(REPOSITORY),
        "SAGEMAKER_BASE_DIR": str(base),
        "SAGEMAKER_BIND_TO_PORT": str(port),
    }
    log = base / LOG_NAME
    begin = time.perf_counter()
    with log.open("wb") as output:
        server = subprocess.Popen(
            [MODELS_PYTHON, "-m", "runtime", "serve"],
            cwd=REPOSITORY,
            env=variables,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        )
    try:
        _wait_until_warm(server, port, log)
        yield Endpoint(
            port=port, process=psutil.Process(server.pid), start_seconds=time.perf_counter() - begin
        )
    finally:
        server.terminate()
        try:
            server.wait(timeout=STOP_SECONDS)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()


def make_model(folder: Path) -> Path:
    """The demo's bundle with weights (`benchmarks.inferring.make_model`), made in a new folder."""
    subprocess.run(
        [MODELS_PYTHON, "-W", "ignore", "-m", "benchmarks.inferring.make_model", folder],
        cwd=REPOSITORY,
        env=os.environ | {"PYTHONPATH": str(REPOSITORY)},
        check=True,
        capture_output=True,
    )
    return folder


def _wait_until_warm(server: subprocess.Popen[bytes], port: int, log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while not _warm(port):
        if server.poll() is not None or time.monotonic() > deadline:
            tail = log.read_text(errors="replace")[-2000:]
            raise RuntimeError(f"The server did not start:\n{tail}")
        time.sleep(0.1)


def _warm(port: int) -> bool:
    try:
        with closing(HTTPConnection("127.0.0.1", port, timeout=5)) as connection:
            connection.request("GET", "/ping")
            return connection.getresponse().status == 200
    except OSError:  # not listening yet
        return False
