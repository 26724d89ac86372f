"""A training loop in a process of its own: what its steps waited, and the memory that it took."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.inferring.endpoint import MODELS_PYTHON
from benchmarks.local_cloud import REPOSITORY, aws_environment
from benchmarks.report import cores

ANSWER_SECONDS = 240.0
_SAMPLE_SECONDS = 0.02


@dataclass(frozen=True, kw_only=True)
class Trained:
    """A training that is over."""

    waits: Sequence[float]
    """Seconds that each step waited for its input."""
    seconds: float
    """Of all steps."""
    first_step_seconds: float
    """From the program's start to the first volume: imports, headers, the first read."""
    digests: Sequence[str]
    """SHA-256 of each volume, sorted."""
    peak_memory: int
    """Bytes beyond what the process had before its first step, without pages of files: those are the kernel's
    to take back."""
    cache_bytes: int

    def epoch(self, number: int, *, steps: int) -> Sequence[float]:
        """The waits of an epoch, counted from 1."""
        return self.waits[(number - 1) * steps : number * steps]


def run_trainer(
    module: str, arguments: Sequence[str], *, endpoint_url: str, log: Path, cache: Path | None = None
) -> Trained:
    """Run one of the programs of this folder.

    Args:
        module: Its name.
        arguments: Its arguments.
        endpoint_url: Of the cloud, with or without latency.
        log: What it prints besides its answers is added there.
        cache: Where it keeps prepared items; looked at afterwards.

    Raises:
        RuntimeError: It ended or hung.
    """
    variables = aws_environment(endpoint_url) | {
        "PYTHONPATH": str(REPOSITORY),
        # As in the image: libraries' own threads must not compete with those that read ahead.
        "OMP_NUM_THREADS": str(cores()),
        "OMP_WAIT_POLICY": "PASSIVE",
    }
    begin = time.perf_counter()
    with log.open("ab") as errors:
        process = subprocess.Popen(
            [MODELS_PYTHON, "-W", "ignore", "-m", module, *arguments],
            cwd=REPOSITORY,
            env=variables,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            start_new_session=True,
        )
    try:
        _answer(process, log)
        set_up_seconds = time.perf_counter() - begin
        with _Memory(process.pid) as memory:
            steps = _answer(process, log, go=True)
        last = _answer(process, log, go=True)
        return Trained(
            waits=steps["waits"],
            seconds=steps["seconds"],
            first_step_seconds=set_up_seconds + steps["waits"][0],
            digests=last["digests"],
            peak_memory=memory.peak - memory.before,
            cache_bytes=_size(cache) if cache else 0,
        )
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _answer(process: subprocess.Popen[bytes], log: Path, *, go: bool = False) -> dict[str, Any]:
    """The next line, after telling the program to go on."""
    if process.stdin is None or process.stdout is None:
        raise AssertionError("both are pipes")
    if go:
        process.stdin.write(b"\n")
        process.stdin.flush()
    # An answer is one short write, so what is readable is a whole line.
    readable = select.select([process.stdout], [], [], ANSWER_SECONDS)[0]
    line = process.stdout.readline() if readable else b""
    if not line:
        raise RuntimeError(f"The program gave no answer:\n{log.read_text(errors='replace')[-2000:]}")
    answer: dict[str, Any] = json.loads(line)
    return answer


class _Memory:
    """Samples a process's anonymous memory until the context ends."""

    def __init__(self, pid: int) -> None:
        self._rollup = Path(f"/proc/{pid}/smaps_rollup")
        self._done = threading.Event()
        self._sampler = threading.Thread(target=self._sample)
        self.before = self.peak = self._now()

    def __enter__(self) -> _Memory:
        self._sampler.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._sampler.join()

    def _sample(self) -> None:
        while not self._done.wait(_SAMPLE_SECONDS):
            try:
                self.peak = max(self.peak, self._now())
            except OSError:  # it ended; whoever waits for its answer says so
                return

    def _now(self) -> int:
        for line in self._rollup.read_text().splitlines():
            if line.startswith("Pss_Anon:"):
                return 1024 * int(line.split()[1])
        raise RuntimeError(f"{self._rollup} does not tell anonymous memory apart; Linux 5.5 and later does")


def _size(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
