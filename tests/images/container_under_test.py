"""A container of a built image, started as SageMaker starts it: `docker run IMAGE ARGUMENT`, by buildah.

There is no engine behind it: the container's first process is a descendant of `buildah run`, in the image's
files (chroot) and in the network namespace of the tests.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

from local.containers.buildah import tool

START_SECONDS = 180


@dataclass(kw_only=True)
class ContainerUnderTest:
    """A running container: its first process gets signals, as `docker stop` sends them."""

    process: subprocess.Popen[bytes]
    command: list[str]
    log_file: Path
    url: str
    pings: list[int] = field(default_factory=list)
    seconds_to_first_answer: float = 0.0
    seconds_to_healthy: float = 0.0

    @property
    def log(self) -> str:
        return self.log_file.read_text(errors="replace")

    def ping(self) -> int:
        try:
            return httpx.get(f"{self.url}/ping", timeout=5, trust_env=False).status_code
        except httpx.TransportError:
            return 0

    def request(self, method: str, path: str, **options: Any) -> httpx.Response:
        return httpx.request(method, f"{self.url}{path}", timeout=120, trust_env=False, **options)

    def invoke(self, document: Any, **headers: str) -> httpx.Response:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return self.request("POST", "/invocations", json=document, headers=named)

    def wait_until_healthy(self) -> None:
        started = time.monotonic()
        while 200 not in self.pings:
            if self.process.poll() is not None or time.monotonic() - started > START_SECONDS:
                pytest.fail("the container did not become healthy:\n" + self.log[-3000:])
            self.pings.append(self.ping())
            if self.pings[-1] and not self.seconds_to_first_answer:
                self.seconds_to_first_answer = time.monotonic() - started
            time.sleep(0.05)
        self.seconds_to_healthy = time.monotonic() - started

    def terminate(self) -> None:
        """SIGTERM to the container's first process."""
        os.kill(self._first_process(), signal.SIGTERM)

    def wait(self, seconds: float) -> int:
        return self.process.wait(timeout=seconds)

    def _first_process(self) -> int:
        for pid in _descendants(self.process.pid):
            words = [word.decode() for word in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[:-1]]
            # The program with or without its folder, whoever started it.
            if words and [Path(words[0]).name, *words[1:]] == self.command:
                return pid
        raise AssertionError("the container has no first process:\n" + self.log[-3000:])


@dataclass(frozen=True, kw_only=True)
class ImageUnderTest:
    """A built image and the working container that its processes run in."""

    name: str
    container: str
    config: Mapping[str, Any]

    @contextmanager
    def started(
        self,
        *arguments: str,
        base: Path,
        port: int = 8080,
        environment: Mapping[str, str],
        read_only: Sequence[str] = (),
    ) -> Iterator[ContainerUnderTest]:
        """Start the entry point with `base` as /opt/ml, whose folders `read_only` cannot be written."""
        command = [*self.config["Entrypoint"], *arguments]
        volumes = [f"{base}:/opt/ml", *(f"{base / name}:/opt/ml/{name}:ro" for name in read_only)]
        log_file = base.with_name(f"{base.name}.log")
        with log_file.open("wb") as log:
            process = subprocess.Popen(
                [
                    *("buildah", "run", *tool.ISOLATION),
                    *(word for volume in volumes for word in ("--volume", volume)),
                    *(word for name, value in environment.items() for word in ("--env", f"{name}={value}")),
                    self.container,
                    "--",
                    *command,
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        container = ContainerUnderTest(
            process=process, command=command, log_file=log_file, url=f"http://127.0.0.1:{port}"
        )
        try:
            yield container
        finally:
            if process.poll() is None:
                for pid in reversed(_descendants(process.pid)):
                    os.kill(pid, signal.SIGKILL)
                process.wait(timeout=30)

    def run(self, *command: str) -> str:
        """What a command prints in the image."""
        return tool.call("run", *tool.ISOLATION, self.container, "--", *command)


def _descendants(pid: int) -> list[int]:
    """The processes below a process, parents before children."""
    found = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        for child in (task / "children").read_text().split():
            found += [int(child), *_descendants(int(child))]
    return found
