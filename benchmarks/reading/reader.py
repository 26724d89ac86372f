"""A client in a process of its own, asked to read image sets one after the other."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import psutil

from benchmarks.local_cloud import REPOSITORY, aws_environment

READ_SECONDS = 120.0
_SAMPLE_SECONDS = 0.005


@dataclass(frozen=True, kw_only=True)
class Stored:
    """Where an image set is."""

    datastore_id: str
    image_set_id: str


@dataclass(frozen=True, kw_only=True)
class Reading:
    """One read: what it took, and what came."""

    seconds: float
    cpu_seconds: float = 0.0
    """Of the program and its threads, not of its child processes."""
    digests: dict[str, str]
    """SHA-256 of the pixels by SOP Instance UID; empty when the read failed."""
    error: tuple[str, ...] = ()
    """Class of the exception and its bases, most special first."""
    instance: str | None = None
    """SOP Instance UID that the exception names."""


@dataclass(frozen=True, kw_only=True)
class Footprint:
    """The most that a client used while it read."""

    bytes_: int
    """Beyond what it used before: proportional set size of its whole process tree."""
    processes: int


class NoAnswerError(Exception):
    """The client did not come back."""


class Reader:
    """A running client."""

    def __init__(
        self, python: Path, module: str, *, endpoint_url: str, log: Path, arguments: Sequence[str] = ()
    ) -> None:
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as errors:
            self._process = subprocess.Popen(
                [python, "-m", module, *arguments],
                cwd=REPOSITORY,
                env=aws_environment(endpoint_url) | {"PYTHONPATH": str(REPOSITORY)},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                # A group of its own, so that what it started ends with it.
                start_new_session=True,
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End it and every process that it left."""
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def read(self, stored: Stored, *, kind: str = "datasets", timeout: float = READ_SECONDS) -> Reading:
        """Read an image set. Raises `NoAnswerError` when it takes too long or the program died."""
        job = {"kind": kind, "datastoreId": stored.datastore_id, "imageSetId": stored.image_set_id}
        questions, answers = self._process.stdin, self._process.stdout
        if questions is None or answers is None:
            raise AssertionError("both are pipes")
        questions.write(json.dumps(job).encode() + b"\n")
        questions.flush()
        # An answer is one write at the end of the read, so what is readable is whole.
        if not select.select([answers], [], [], timeout)[0]:
            raise NoAnswerError(f"no answer within {timeout:g} s")
        line = answers.readline()
        if not line:
            raise NoAnswerError("the program ended")
        answer: dict[str, Any] = json.loads(line)
        return Reading(
            seconds=answer["seconds"],
            cpu_seconds=answer.get("cpuSeconds", 0.0),
            digests=answer.get("digests", {}),
            error=tuple(answer.get("error", ())),
            instance=answer.get("instance"),
        )

    def footprint(self, stored: Stored, *, kind: str) -> Footprint:
        """Read while sampling the process tree. Sampling takes time of its own: this read is not timed."""
        tree = psutil.Process(self._process.pid)
        before, _ = _used(tree)
        most, processes = before, 1
        done = threading.Event()

        def sample() -> None:
            nonlocal most, processes
            while not done.wait(_SAMPLE_SECONDS):
                used, count = _used(tree)
                most, processes = max(most, used), max(processes, count)

        sampler = threading.Thread(target=sample)
        sampler.start()
        try:
            self.read(stored, kind=kind)
        finally:
            done.set()
            sampler.join()
        return Footprint(bytes_=most - before, processes=processes)


def _used(tree: psutil.Process) -> tuple[int, int]:
    used = count = 0
    for process in (tree, *tree.children(recursive=True)):
        try:
            used += process.memory_full_info().pss
        except psutil.Error:
            continue  # it ended between being listed and being asked
        count += 1
    return used, count
