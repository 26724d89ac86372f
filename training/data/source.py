"""The prepared cases of one side of a split."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence, Sized
from typing import Any

import monai
import torch

from healthimaging import Case, ImageSetRef
from training.data.cache import ItemCache
from training.data.cases import CaseReader
from training.data.preparation import Preparation
from training.stopping import StopRequest


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
            DataError: The case cannot be read.
            StoppedError: The job was asked to stop.
        """
        self.stop.check()
        case = self._cases[index]
        level = self._level_of(case)
        if self._cache is None:
            return self._prepare(case, level)
        return self._cache.item(self._key(case, level), lambda: self._prepare(case, level), stop=self.stop)

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
        return self.preparation.deterministic(self._reader.read(case, level=level))

    def _key(self, case: Case, level: int) -> str:
        """SHA-256 of all that a prepared item depends on."""
        parts = {
            "image": _pinned(case.image),
            "label": None if case.label is None else _pinned(case.label),
            "class": case.class_name,
            "level": level,
            "reader": self._reader.fingerprint,
            "preparation": self.preparation.fingerprint,
            "versions": [monai.__version__, torch.__version__],
        }
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _pinned(ref: ImageSetRef) -> list[str | None]:
    return [ref.datastore_id, ref.image_set_id, ref.version_id]
