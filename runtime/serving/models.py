"""The models of a multi-model endpoint: loaded and unloaded as SageMaker says, within a budget of memory.

Contract: https://docs.aws.amazon.com/sagemaker/latest/dg/mms-container-apis.html
"""

from __future__ import annotations

import itertools
import logging
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from runtime.errors import (
    BundleError,
    InferenceError,
    InvalidRequestError,
    MemoryExhaustedError,
    ModelAlreadyLoadedError,
    ModelMemoryError,
    ModelNotLoadedError,
)
from runtime.serving.lanes import Job, Lane
from runtime.serving.memory import MIB, give_back, resident_bytes
from runtime.serving.request import ImageSetInput
from runtime.serving.served_model import ServedModel, Service
from runtime.serving.worker import Worker

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class LoadedModel:
    """A model as it is listed: ``url`` is the path that it was loaded from, as the caller gave it."""

    name: str
    url: str


@dataclass(frozen=True, kw_only=True)
class Page:
    """Some of the models, least recently used first; ``next`` is the token of the page behind it."""

    models: tuple[LoadedModel, ...]
    next: int | None


@dataclass(kw_only=True, eq=False)
class _Entry:
    listed: LoadedModel
    served: ServedModel | None = None
    cost: int = 0
    """Bytes; 0 until it is loaded."""
    used: int = 0
    """Rises with every use of any model."""
    settled: Future[None] = field(default_factory=Future)
    """Done when the model is loaded; has the exception when it cannot be."""


class Models:
    """Models by their names, which SageMaker chooses. Two names may have the same files. Safe for threads."""

    def __init__(
        self,
        worker: Worker,
        *,
        load: Callable[[Path], Service],
        prepare: Callable[[], None],
        directory: Path,
        budget_bytes: int,
        queue_length: int,
    ) -> None:
        """Begin with no model.

        Parameters
        ----------
        worker
            Its thread loads, runs and lets go of every model.
        load
            Returns the warm model of a bundle's directory.
        prepare
            Called first in the worker's thread, for what all models have in common.
        directory
            The folder that every model must be in.
        budget_bytes
            What all models may take together.
        queue_length
            Requests that may wait behind the running one, of each model.
        """
        self._worker = worker
        self._load = load
        worker.put(Lane(capacity=1), lambda job: prepare(), is_request=False)
        self._directory = directory
        self._budget = budget_bytes
        self._queue_length = queue_length
        self._lock = threading.Lock()
        self._entries: dict[str, _Entry] = {}
        self._uses = itertools.count(1)
        self._taken = 0
        """Bytes of all models in memory; the worker's thread alone changes it."""

    def load(self, *, name: str, url: str) -> Future[None]:
        """Load a model; the future is done when it is warm, or has the reason why it is not.

        Raises
        ------
        InvalidRequestError
            When ``url`` is not a folder below the models' own.
        ModelAlreadyLoadedError
            When the name is taken.
        """
        folder = self._folder(url)
        entry = _Entry(listed=LoadedModel(name=name, url=url))
        with self._lock:
            entry.used = next(self._uses)
            known = self._entries.setdefault(name, entry)
        if known is not entry:
            return _taken_already(known.settled)
        try:
            # Not under the lock: the queue has one of its own, under which it calls `_settle`.
            entry.served = ServedModel(
                self._worker,
                load=lambda: self._load_within_budget(entry, folder),
                queue_length=self._queue_length,
            )
        except InferenceError as error:
            self._forget(entry)
            entry.settled.set_exception(error)
            return entry.settled
        entry.served.loaded.add_done_callback(lambda done: self._settle(entry, done))
        return entry.settled

    def list(self, *, limit: int, after: int = 0) -> Page:
        """The loaded models, least recently used first.

        Parameters
        ----------
        limit
            How many at most.
        after
            ``next`` of the page before. A model that was used since comes again at the end; none is left out.
        """
        with self._lock:
            found = sorted(
                (entry for entry in self._entries.values() if _is_warm(entry) and entry.used > after),
                key=lambda entry: entry.used,
            )
        page = found[:limit]
        return Page(
            models=tuple(entry.listed for entry in page),
            next=page[-1].used if page and len(found) > limit else None,
        )

    def get(self, name: str) -> LoadedModel:
        """One loaded model.

        Raises
        ------
        ModelNotLoadedError
            When it is not loaded, or not yet.
        """
        return self._warm(name)[0].listed

    def find(self, name: str) -> NamedModel:
        """The model that requests can be sent to; sending one counts as a use.

        Raises
        ------
        ModelNotLoadedError
            When it is not loaded, or not yet.
        """
        entry, served = self._warm(name)
        return NamedModel(served, on_use=lambda: self._use(entry))

    def unload(self, name: str) -> Future[Any]:
        """Let go of a model; done when its requests are answered and its memory is free.

        From now on the name is not loaded, and can be loaded anew.

        Raises
        ------
        ModelNotLoadedError
            When it is not loaded, or not yet.
        """
        entry, served = self._warm(name)
        if not self._forget(entry):
            raise _not_loaded()
        return served.unload(lambda: self._release(entry))

    def _folder(self, url: str) -> Path:
        root = self._directory.resolve()
        try:
            folder = Path(url).resolve(strict=True)
        except (OSError, ValueError, RuntimeError) as error:
            raise InvalidRequestError("url: there is no such folder") from error
        if root not in folder.parents or not folder.is_dir():
            msg = f"url: is not a folder in {self._directory}"
            raise InvalidRequestError(msg)
        return folder

    def _warm(self, name: str) -> tuple[_Entry, ServedModel]:
        with self._lock:
            entry = self._entries.get(name)
        if entry is None or entry.served is None or not _is_warm(entry):
            raise _not_loaded()
        return entry, entry.served

    def _forget(self, entry: _Entry) -> bool:
        """Free the name; False when it is another's already."""
        with self._lock:
            mine = self._entries.get(entry.listed.name) is entry
            if mine:
                del self._entries[entry.listed.name]
        return mine

    def _use(self, entry: _Entry) -> None:
        with self._lock:
            entry.used = next(self._uses)

    def _load_within_budget(self, entry: _Entry, folder: Path) -> Service:
        """In the worker's thread, while nothing else runs: what memory grows by is this model."""
        give_back()
        before = resident_bytes()
        least = _largest_file(folder)
        self._check(least)
        try:
            service = self._load(folder)
        except (SystemExit, KeyboardInterrupt) as error:
            # Code that comes with one bundle may not end the process that serves the others.
            raise BundleError("the bundle's code tried to end the program") from error
        give_back()
        # Weights may be mapped or may fill pages that were free already: then the growth says too little.
        entry.cost = max(resident_bytes() - before, least)
        try:
            self._check(entry.cost)
        except ModelMemoryError:
            del service
            give_back()
            raise
        self._taken += entry.cost
        _LOG.info(
            "model is loaded",
            extra={
                "fields": {
                    "modelName": entry.listed.name,
                    "mebibytes": entry.cost // MIB,
                    "mebibytesOfAll": self._taken // MIB,
                    "budgetMebibytes": self._budget // MIB,
                }
            },
        )
        return service

    def _check(self, needed: int) -> None:
        if self._taken + needed <= self._budget:
            return
        if self._taken == 0:
            msg = (
                f"the model needs {_mebibytes(needed)} MiB and all models may have {self._budget // MIB}: "
                "use a larger instance, or set RUNTIME_MODEL_MEMORY_MIB"
            )
        else:
            msg = (
                f"the model needs {_mebibytes(needed)} MiB; other models have {_mebibytes(self._taken)} "
                f"of {self._budget // MIB}"
            )
        raise ModelMemoryError(msg)

    def _settle(self, entry: _Entry, loaded: Future[Any]) -> None:
        error = loaded.exception()
        if error is None:
            entry.settled.set_result(None)
            return
        self._forget(entry)
        if isinstance(error, MemoryExhaustedError):
            error = ModelMemoryError("the model could not be loaded for want of memory")
        entry.settled.set_exception(error)

    def _release(self, entry: _Entry) -> None:
        give_back()
        self._taken -= entry.cost
        _LOG.info(
            "model is unloaded",
            extra={
                "fields": {
                    "modelName": entry.listed.name,
                    "mebibytesOfAll": self._taken // MIB,
                    "mebibytesOfProcess": resident_bytes() // MIB,
                }
            },
        )


class NamedModel:
    """A model of many; each request counts as a use."""

    def __init__(self, served: ServedModel, *, on_use: Callable[[], None]) -> None:
        self._served = served
        self._on_use = on_use

    @property
    def name(self) -> str | None:
        return self._served.name

    def submit(self, inputs: Sequence[ImageSetInput], *, patience: float | None = None) -> Job:
        """As `ServedModel.submit`."""
        job = self._served.submit(inputs, patience=patience)
        self._on_use()
        return job


def _is_warm(entry: _Entry) -> bool:
    return entry.served is not None and entry.served.is_warm and entry.settled.done()


def _not_loaded() -> ModelNotLoadedError:
    return ModelNotLoadedError("no model of this name is loaded")


def _taken_already(settled: Future[None]) -> Future[None]:
    """Wait for whoever loads the model under this name: then it is loaded, or cannot be."""
    mine: Future[None] = Future()

    def answer(done: Future[None]) -> None:
        error = done.exception()
        mine.set_exception(error or ModelAlreadyLoadedError("a model of this name is loaded already"))

    settled.add_done_callback(answer)
    return mine


def _largest_file(folder: Path) -> int:
    return max((path.stat().st_size for path in folder.rglob("*") if path.is_file()), default=0)


def _mebibytes(count: int) -> int:
    return -(-count // MIB)
