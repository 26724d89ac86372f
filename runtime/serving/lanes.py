"""Work that waits for the one thread that owns the models: a short queue for each model, served in turns."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from typing import Any

from runtime.errors import InferenceError, QueueFullError, StoppingError


class Job:
    """Something to do, and the answer that somebody waits for."""

    def __init__(
        self, work: Callable[[Job], Any], *, is_request: bool = True, patience: float | None = None
    ) -> None:
        """Prepare the job.

        Parameters
        ----------
        work
            Called with this job; what it returns or raises is the answer.
        is_request
            Whether it counts against the places of its lane. Loading and unloading a model do not.
        patience
            Seconds after which its caller no longer waits for it to be started; None = it waits.
        """
        self.work = work
        self.is_request = is_request
        self.answer: Future[Any] = Future()
        self._submitted = time.perf_counter()
        self._patience = patience
        self._is_abandoned = False

    @property
    def waited(self) -> float:
        """Seconds since the job was made."""
        return time.perf_counter() - self._submitted

    @property
    def is_expired(self) -> bool:
        return self._patience is not None and self.waited > self._patience

    @property
    def is_wanted(self) -> bool:
        """False when its caller has gone away or has been answered: work of several parts can end early."""
        return not (self._is_abandoned or self.answer.done())

    def abandon(self) -> None:
        """Say that its caller has gone away: it is not started, or ended at the next occasion."""
        self._is_abandoned = True
        self.answer.cancel()

    def begin(self) -> bool:
        """Say that it is worked on from now on; False when nobody waits for it any more."""
        return not self.answer.done() and self.answer.set_running_or_notify_cancel()

    def fail(self, error: Exception) -> None:
        # Its caller may leave at this moment, in another thread: then there is nobody to tell.
        with suppress(InvalidStateError):
            self.answer.set_exception(error)


class Lane:
    """The jobs of one model, first come, first served."""

    def __init__(self, *, capacity: int) -> None:
        """``capacity`` is how many requests may be accepted at once, the running one among them."""
        self.capacity = capacity
        self.waiting: deque[Job] = deque()


class FairQueue:
    """Lanes take turns, so that a model with many requests does not hold up the others. Safe for threads."""

    def __init__(self) -> None:
        self._condition = threading.Condition()
        self._turns: deque[Lane] = deque()
        self._running: tuple[Lane, Job] | None = None
        self._refusal: type[InferenceError] | None = None
        self._reason = ""

    def put(self, lane: Lane, job: Job) -> None:
        """Add a job to the end of its lane.

        Raises
        ------
        QueueFullError
            When the lane has accepted as many requests as it may.
        StoppingError, WorkerStoppedError
            When nothing is accepted any more.
        """
        with self._condition:
            if self._refusal is not None:
                raise self._refusal(self._reason)
            if job.is_request and (accepted := self._accepted(lane)) >= lane.capacity:
                msg = f"{accepted} requests are accepted already"
                raise QueueFullError(msg)
            lane.waiting.append(job)
            if lane not in self._turns:
                self._turns.append(lane)
            self._condition.notify_all()

    def take(self) -> Job | None:
        """Begin the next job that somebody wants; None when all is done and no more accepted."""
        with self._condition:
            while True:
                self._condition.wait_for(lambda: self._turns or self._refusal is not None)
                if not self._turns:
                    return None
                lane = self._turns.popleft()
                job = lane.waiting.popleft()
                if lane.waiting:
                    self._turns.append(lane)
                # Before another thread can answer it with an error: that would be no job to begin.
                if job.begin():
                    self._running = (lane, job)
                    return job

    def finish(self, job: Job, settle: Callable[[], None]) -> None:
        """End the running job: its place is free before its caller knows, whose next request may need it."""
        with self._condition:
            self._running = None
            if not job.answer.done():
                settle()
            self._condition.notify_all()

    def drain(self, *, seconds: float, reason: str) -> bool:
        """Accept nothing more, wait until every request is answered, and answer the rest with an error.

        Loading and unloading models ends with the error at once: nobody will invoke them here.

        Returns
        -------
        bool
            Whether every request was answered in time.
        """
        with self._condition:
            self._refuse(StoppingError, reason)
            for job in self._jobs():
                if not job.is_request:
                    job.fail(StoppingError(reason))
            in_time = self._condition.wait_for(lambda: not any(True for _ in self._requests()), seconds)
            self._fail_all(StoppingError, reason)
            return in_time

    def close(self, refusal: type[InferenceError], reason: str) -> None:
        """Accept nothing more, and answer everything that waits or runs with an error."""
        with self._condition:
            self._refuse(refusal, reason)
            self._fail_all(refusal, reason)

    def _refuse(self, refusal: type[InferenceError], reason: str) -> None:
        self._refusal, self._reason = refusal, reason
        self._condition.notify_all()

    def _fail_all(self, error: type[InferenceError], reason: str) -> None:
        for job in list(self._jobs()):
            job.fail(error(reason))
        for lane in self._turns:
            lane.waiting.clear()
        self._turns.clear()

    def _accepted(self, lane: Lane) -> int:
        running = self._running is not None and self._running[0] is lane and self._running[1].is_request
        return running + sum(job.is_request and job.is_wanted for job in lane.waiting)

    def _jobs(self) -> Iterator[Job]:
        if self._running is not None:
            yield self._running[1]
        for lane in self._turns:
            yield from lane.waiting

    def _requests(self) -> Iterator[Job]:
        return (job for job in self._jobs() if job.is_request and job.is_wanted)
