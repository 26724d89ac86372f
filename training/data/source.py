"""The prepared cases of one side of a split."""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Callable, Iterator, Sequence, Sized
from contextlib import contextmanager
from importlib.metadata import version
from typing import Any

import torch

from healthimaging import Case, ImageSetRef
from training.data.cache import ItemCache
from training.data.cases import CaseReader
from training.data.preparation import Preparation
from training.errors import DataError, TrainingError
from training.export.digests import code_digest
from training.stopping import StoppedError, StopRequest

_PACKAGES = ("torch", "monai", "numpy", "imagecodecs")
"""Whose versions a prepared item may depend on."""


class CaseSource(Sized):
    """Cases that are read and prepared when they are asked for, each once where they can be kept.

    Threads may share it.

    Args:
        cases: In their order.
        reader: Where images and labels come from.
        preparation: What is done with them; `item` does its deterministic part.
        cache: Where prepared items are kept; None: nowhere, so that each is read again every time.
        level: How often images are halved in their plane; a function decides for each case, as
            `training.data.resolution.CaseLevels` does.
        stop: Looked at before a case is read.
    """

    def __init__(
        self,
        cases: Sequence[Case],
        reader: CaseReader,
        *,
        preparation: Preparation,
        cache: ItemCache | None,
        level: int | Callable[[Case], int] = 0,
        stop: StopRequest,
    ) -> None:
        self._cases = tuple(cases)
        self._reader = reader
        self.preparation = preparation
        self._cache = cache
        self._level = level
        self.stop = stop

    def __len__(self) -> int:
        return len(self._cases)

    def item(self, index: int) -> Any:
        """What the deterministic transforms make of a case. The caller owns it and may change it.

        Raises:
            DataError: The case cannot be read or prepared.
            StoppedError: The job was asked to stop.
        """
        self.stop.check()
        case = self._cases[index]
        level = self._level_of(case)
        if self._cache is None:
            return self._prepare(case, level)
        return self._cache.item(self._key(case, level), lambda: self._prepare(case, level), stop=self.stop)

    def open_drawing(self) -> Callable[[int, int], Any]:
        """For one thread: from the index of a case and the seed of its draws to what is trained on.

        What it gives raises as `item` does.
        """
        draw = self.preparation.open_random()

        def work(index: int, seed: int) -> Any:
            item = self.item(index)
            with _naming(self._cases[index]):
                return draw(item, seed)

        return work

    def keep(self, index: int) -> bool:
        """Sees to it that a case is kept, if nobody else is at it; False when nothing more can be kept.

        Raises:
            DataError: The case cannot be read.
            StoppedError: The job was asked to stop.
        """
        self.stop.check()
        if self._cache is None or not self._cache.takes_more:
            return False
        case = self._cases[index]
        level = self._level_of(case)
        self._cache.keep(self._key(case, level), lambda: self._prepare(case, level))
        return self._cache.takes_more

    def _level_of(self, case: Case) -> int:
        return self._level if isinstance(self._level, int) else self._level(case)

    def _prepare(self, case: Case, level: int) -> Any:
        self.stop.check()
        item = self._reader.read(case, level=level)
        with _naming(case):
            # Kept items come back on the CPU, and others are put into batches with them.
            return _on_cpu(self.preparation.deterministic(item))

    def _key(self, case: Case, level: int) -> str:
        """SHA-256 of all that a prepared item depends on."""
        parts = {
            "image": _pinned(case.image),
            "label": None if case.label is None else _pinned(case.label),
            "class": case.class_name,
            "level": level,
            "reader": self._reader.fingerprint,
            "preparation": self.preparation.fingerprint,
            "code": code_digest(),
            "versions": _versions(),
        }
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


@contextmanager
def _naming(case: Case) -> Iterator[None]:
    """Says whose case it was that the bundle's transforms failed with."""
    try:
        yield
    except (TrainingError, StoppedError, MemoryError):
        raise
    except Exception as error:
        cause: BaseException = error
        # MONAI wraps an error once for every chain that it comes through.
        while cause.__cause__ is not None:
            cause = cause.__cause__
        reason = " ".join(str(cause).split())[:300]
        msg = (
            f"Case of image set {case.image.image_set_id}: the bundle's transforms cannot be applied: "
            f"{type(cause).__name__}: {reason}"
        )
        raise DataError(msg) from error


def _on_cpu(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return value if value.device.type == "cpu" else value.cpu()
    if isinstance(value, dict):
        return {key: _on_cpu(one) for key, one in value.items()}
    return [_on_cpu(one) for one in value] if isinstance(value, list) else value


@functools.cache
def _versions() -> list[str]:
    return [version(name) for name in _PACKAGES]


def _pinned(ref: ImageSetRef) -> list[str | None]:
    return [ref.datastore_id, ref.image_set_id, ref.version_id]
