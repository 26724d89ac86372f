"""One thread that owns the model, and the bounded queue in front of it."""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field

from runtime.errors import ModelLoadingError, QueueFullError
from runtime.results.answer import Answer, Result
from runtime.serving.request import ImageSetInput

_LOG = logging.getLogger(__name__)

Segment = Callable[[ImageSetInput, float], Result]
"""Segments one image set; the number is the seconds that it waited in the queue."""


@dataclass(frozen=True, kw_only=True)
class _Job:
    inputs: tuple[ImageSetInput, ...]
    answer: Future[Answer] = field(default_factory=Future)
    submitted: float = field(default_factory=time.perf_counter)


class Worker:
    """Loads the model in its thread, then answers one request after the other.

    The network keeps every core (or the GPU) busy by itself: a second request at the same time would make
    both slower. Requests wait in a queue that refuses more than it holds, so a caller learns at once that
    the endpoint is behind.
    """

    def __init__(
        self, *, load: Callable[[], Segment], queue_length: int, on_failure: Callable[[BaseException], None]
    ) -> None:
        """Prepare the worker without starting it.

        Parameters
        ----------
        load
            Called in the worker's thread; returns when the model is warm.
        queue_length
            Requests that may wait behind the running one.
        on_failure
            Called with the exception when ``load`` fails; the worker then ends.
        """
        self._load = load
        self._on_failure = on_failure
        self._ready = threading.Event()
        self._lock = threading.Lock()
        self._queue: queue.SimpleQueue[_Job] = queue.SimpleQueue()
        self._accepted = 0
        self._capacity = queue_length + 1
        self._thread = threading.Thread(target=self._run, name="inference", daemon=True)

    def start(self) -> None:
        """Start loading."""
        self._thread.start()

    @property
    def is_ready(self) -> bool:
        """Whether the model is warm and its thread alive."""
        return self._ready.is_set() and self._thread.is_alive()

    def submit(self, inputs: Sequence[ImageSetInput]) -> Future[Answer]:
        """Queue one request; its image sets are answered together.

        Raises
        ------
        ModelLoadingError
            Before the model is warm.
        QueueFullError
            When as many requests wait as may.
        """
        if not self.is_ready:
            raise ModelLoadingError("the model is not warm yet")
        with self._lock:
            if self._accepted >= self._capacity:
                msg = f"{self._accepted - 1} requests are waiting already"
                raise QueueFullError(msg)
            self._accepted += 1
        job = _Job(inputs=tuple(inputs))
        self._queue.put(job)
        return job.answer

    def _run(self) -> None:
        try:
            segment = self._load()
        except BaseException as error:  # noqa: BLE001 - whatever it was, the process must report it and end
            self._on_failure(error)
            return
        self._ready.set()
        while True:
            self._handle(self._queue.get(), segment)

    def _handle(self, job: _Job, segment: Segment) -> None:
        # A caller that has gone away while it waited needs no answer; from here on it cannot cancel.
        wanted = job.answer.set_running_or_notify_cancel()
        answer: Answer | None = None
        failure: Exception | None = None
        if wanted:
            try:
                answer = self._answer(segment, job, time.perf_counter() - job.submitted)
            except Exception as error:  # noqa: BLE001 - reported to the caller; the next request must run
                failure = error
        # The place is free before the caller knows, so that its next request cannot find it taken.
        with self._lock:
            self._accepted -= 1
        if failure is not None:
            job.answer.set_exception(failure)
        elif answer is not None:
            job.answer.set_result(answer)

    @staticmethod
    def _answer(segment: Segment, job: _Job, waited: float) -> Answer:
        return Answer(
            results=tuple(
                segment(request, waited if position == 0 else 0.0)
                for position, request in enumerate(job.inputs)
            )
        )
