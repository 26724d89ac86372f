"""A model that is served: its place in the worker's queue, and what it is once it is warm."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, Protocol

from runtime.errors import ModelLoadingError, RequestAbandonedError
from runtime.results.answer import Answer, ModelIdentity, Result
from runtime.serving.lanes import Job, Lane
from runtime.serving.request import ImageSetInput
from runtime.serving.worker import Worker

Segment = Callable[[ImageSetInput, float], Result]
"""Makes the result of one image set; the number is the seconds that it waited in the queue."""


@dataclass(frozen=True, kw_only=True)
class Service:
    """A warm model."""

    model: ModelIdentity
    segment: Segment


class Invocable(Protocol):
    """What requests can be sent to."""

    @property
    def name(self) -> str | None:
        """Name of the model's bundle; None before it is loaded."""

    def submit(self, inputs: Sequence[ImageSetInput], *, patience: float | None = None) -> Job:
        """Queue a request; the job's answer is an `Answer`."""


class ServedModel:
    """Is loaded by the worker, then answers one request after the other."""

    def __init__(self, worker: Worker, *, load: Callable[[], Service], queue_length: int) -> None:
        """Queue the loading.

        Parameters
        ----------
        worker
            Its thread calls ``load`` and everything that that returns.
        load
            Returns when the model is warm.
        queue_length
            Requests that may wait behind the running one.
        """
        self._worker = worker
        self._load = load
        self._lane = Lane(capacity=queue_length + 1)
        self._service: Service | None = None
        self.loaded: Future[Any] = worker.put(self._lane, self._become_warm, is_request=False).answer
        """Done when the model is warm; has the exception when it cannot be loaded."""

    @property
    def is_warm(self) -> bool:
        return self._service is not None

    @property
    def name(self) -> str | None:
        return None if self._service is None else self._service.model.name

    def submit(self, inputs: Sequence[ImageSetInput], *, patience: float | None = None) -> Job:
        """Queue one request; its image sets are answered together, as an `Answer`.

        Raises
        ------
        ModelLoadingError
            Before the model is warm.
        QueueFullError, StoppingError, WorkerStoppedError
            As `FairQueue.put`.
        """
        service = self._service
        if service is None:
            raise ModelLoadingError("the model is not warm yet")
        wanted = tuple(inputs)
        return self._worker.put(self._lane, lambda job: _answer(service, wanted, job), patience=patience)

    def unload(self, release: Callable[[], None]) -> Future[Any]:
        """Let go of the model behind the requests that were accepted, then call ``release`` in the worker."""

        def let_go(job: Job) -> None:
            self._service = None
            release()

        return self._worker.put(self._lane, let_go, is_request=False).answer

    def _become_warm(self, job: Job) -> None:
        self._service = self._load()


def _answer(service: Service, inputs: Sequence[ImageSetInput], job: Job) -> Answer:
    results: list[Result] = []
    for position, one in enumerate(inputs):
        if not job.is_wanted:
            raise RequestAbandonedError("nobody waits for the answer any more")
        results.append(service.segment(one, job.waited if position == 0 else 0.0))
    return Answer(results=tuple(results))
