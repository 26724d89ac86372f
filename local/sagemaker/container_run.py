"""Containers at work: started, their output shipped, waited for until they end, are stopped or out of time.

The containers of one job belong together: the first that fails ends the others.
"""

from __future__ import annotations

import enum
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from local.containers.engine import Container, ContainerSpec
from local.containers.errors import ContainerError
from local.sagemaker.foundation import Foundation, RoleSession
from local.sagemaker.jobs import JobFailedError
from local.sagemaker.logs import LogShipper

STOP_GRACE_SECONDS = 120.0
"""API_StopTrainingJob: SIGTERM, "which delays job termination for 120 seconds"."""
PEER_GRACE_SECONDS = 10.0
"""From SIGTERM to SIGKILL for the hosts that are left when one has failed. AWS does not say how long it gives
them; they mostly wait for an answer of the one that is gone."""
_CLOSING_GRACE_SECONDS = 5.0


class Ended(enum.Enum):
    """Why a container is no longer there."""

    EXIT = "exit"
    STOPPED = "stopped"
    TIMEOUT = "timeout"
    SHUTDOWN = "shutdown"
    PEER = "another host failed"


@dataclass(frozen=True, kw_only=True)
class Result:
    """How a container ended."""

    ended: Ended
    exit_code: int

    @property
    def failed(self) -> bool:
        """Whether it ended by itself and not well."""
        return self.ended is Ended.EXIT and self.exit_code != 0


@dataclass(frozen=True, kw_only=True)
class LoggedContainer:
    """A container to start, and the log stream that takes its output."""

    spec: ContainerSpec
    log_stream: str


def run_container(
    foundation: Foundation,
    session: RoleSession,
    spec: ContainerSpec,
    *,
    log_group: str,
    log_stream: str,
    seconds: float,
    stop: threading.Event,
    meanwhile: Callable[[], None] | None = None,
) -> Result:
    """Start a container and wait for its end, a stop, the time limit or the end of the cloud.

    `meanwhile` is called about once a second while it runs.
    """
    (result,) = run_together(
        foundation,
        session,
        [LoggedContainer(spec=spec, log_stream=log_stream)],
        log_group=log_group,
        seconds=seconds,
        stop=stop,
        meanwhile=meanwhile,
    )
    return result


def run_together(
    foundation: Foundation,
    session: RoleSession,
    containers: Sequence[LoggedContainer],
    *,
    log_group: str,
    seconds: float,
    stop: threading.Event,
    on_line: Callable[[str], None] | None = None,
    meanwhile: Callable[[], None] | None = None,
) -> list[Result]:
    """Start containers at the same time and wait for all of them; how each ended, in their order.

    `on_line` gets every line of every container, from several threads. `meanwhile` is called about once a
    second while any of them runs.

    Raises:
        JobFailedError: one of them cannot be started; those that ran already are stopped.
    """
    shippers = [
        LogShipper(
            client=session.client("logs"),
            group=log_group,
            stream=container.log_stream,
            path=container.spec.output,
            on_line=on_line,
        )
        for container in containers
    ]
    started: list[Container] = []
    try:
        try:
            for container in containers:
                started.append(foundation.engine.start(container.spec))
            return _wait(foundation, started, seconds=seconds, stop=stop, meanwhile=meanwhile)
        except BaseException:
            _stop(started, grace=_CLOSING_GRACE_SECONDS)
            raise
    except ContainerError as error:
        raise JobFailedError(f"ClientError: {error}") from error
    finally:
        for shipper in shippers:
            shipper.close()


def _wait(
    foundation: Foundation,
    containers: Sequence[Container],
    *,
    seconds: float,
    stop: threading.Event,
    meanwhile: Callable[[], None] | None,
) -> list[Result]:
    deadline = time.monotonic() + seconds
    next_call = time.monotonic() + 1.0
    results: dict[int, Result] = {}
    while True:
        for index, container in enumerate(containers):
            if index not in results and (code := container.poll()) is not None:
                results[index] = Result(ended=Ended.EXIT, exit_code=code)
        running = [index for index in range(len(containers)) if index not in results]
        if not running:
            break
        if end := _end_of_all(foundation, results, stop=stop, deadline=deadline):
            ended, grace = end
            codes = _stop([containers[index] for index in running], grace=grace)
            for index, code in zip(running, codes, strict=True):
                results[index] = Result(ended=ended, exit_code=code)
            break
        if meanwhile is not None and time.monotonic() >= next_call:
            meanwhile()
            next_call = time.monotonic() + 1.0
        containers[running[0]].wait(0.1)
    return [results[index] for index in range(len(containers))]


def _end_of_all(
    foundation: Foundation, results: dict[int, Result], *, stop: threading.Event, deadline: float
) -> tuple[Ended, float] | None:
    """Why the containers that run must end now, and how long they have for it; None: they go on."""
    if foundation.closing.is_set():
        return Ended.SHUTDOWN, _CLOSING_GRACE_SECONDS
    if stop.is_set():
        return Ended.STOPPED, STOP_GRACE_SECONDS
    if any(result.failed for result in results.values()):
        return Ended.PEER, PEER_GRACE_SECONDS
    if time.monotonic() >= deadline:
        return Ended.TIMEOUT, STOP_GRACE_SECONDS
    return None


def _stop(containers: Sequence[Container], *, grace: float) -> list[int]:
    """Stop all at the same time, so that each has the whole of its grace; their exit codes."""
    if not containers:
        return []
    with ThreadPoolExecutor(max_workers=len(containers)) as pool:
        return list(pool.map(lambda container: container.stop(grace=grace), containers))
