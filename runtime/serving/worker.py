"""The one thread that owns every model."""

from __future__ import annotations

import functools
import logging
import threading
from collections.abc import Callable
from typing import Any

from runtime.errors import RequestExpiredError, WorkerStoppedError, report
from runtime.logs import places
from runtime.serving.lanes import FairQueue, Job, Lane
from runtime.serving.trust import judge

_LOG = logging.getLogger(__name__)

_STOPPED = "the container can no longer run models and is about to be replaced: send the request again"


class Worker:
    """Loads models, answers requests and unloads models, one after the other.

    A network keeps every core (or the GPU) busy by itself: a second request at the same time would make both
    slower. What a model costs in memory can be measured, too, while nothing else happens.

    The worker ends for good when the process cannot be trusted any more (`runtime.serving.trust`); everything
    that waits is then answered with an error, and `is_healthy` says that the container is to be replaced.
    """

    def __init__(self) -> None:
        self._queue = FairQueue()
        self._is_trusted = True
        self._is_stopping = False
        self._thread = threading.Thread(target=self._run, name="inference", daemon=True)

    def start(self) -> None:
        self._thread.start()

    @property
    def is_healthy(self) -> bool:
        """Whether requests are taken: not before `start`, after an untrusted failure, nor while stopping."""
        return self._is_trusted and not self._is_stopping and self._thread.is_alive()

    def put(
        self,
        lane: Lane,
        work: Callable[[Job], Any],
        *,
        is_request: bool = True,
        patience: float | None = None,
    ) -> Job:
        """Queue work in a lane; parameters and errors are those of `Job` and `FairQueue.put`."""
        job = Job(work, is_request=is_request, patience=patience)
        self._queue.put(lane, job)
        return job

    def drain(self, *, seconds: float) -> bool:
        """Answer what was accepted within the time, and refuse the rest; whether all was answered in time."""
        self._is_stopping = True
        return self._queue.drain(
            seconds=seconds, reason="the container is stopping: send the request again, another will answer"
        )

    def _run(self) -> None:
        try:
            while self._is_trusted and (job := self._queue.take()) is not None:
                self._do(job)
        except BaseException as error:  # noqa: BLE001 - our own fault: nobody may wait for a thread that is gone
            _LOG.critical(
                "the worker failed",
                extra={"fields": {"type": type(error).__name__, "places": places(error.__traceback__)}},
            )
        finally:
            self._is_trusted = False
            self._queue.close(WorkerStoppedError, _STOPPED)

    def _do(self, job: Job) -> None:
        settle: Callable[[], None]
        if job.is_expired:
            msg = "the request waited longer than its caller does (InvocationTimeoutSeconds)"
            settle = functools.partial(job.fail, RequestExpiredError(msg))
        else:
            settle = self._work(job)
        self._queue.finish(job, settle)

    def _work(self, job: Job) -> Callable[[], None]:
        try:
            return functools.partial(job.answer.set_result, job.work(job))
        except BaseException as error:  # noqa: BLE001 - reported to the caller; the next job must run
            verdict = judge(error)
            if not verdict.is_trusted:
                self._is_trusted = False
                description = report(verdict.error)
                _LOG.critical(
                    "the process cannot be trusted any more",
                    extra={
                        "fields": {
                            "type": description.type,
                            "detail": description.message,
                            "places": places(error.__traceback__),
                        }
                    },
                )
            return functools.partial(job.fail, verdict.error)
