"""Which instances are imported together: those of one study, until nothing more of it comes for a while."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from arrival.importing.import_job import BYTES_PER_JOB, FILES_PER_JOB
from arrival.receiving.batch import Batch


@dataclass(kw_only=True)
class _Open:
    batch: Batch
    last: float
    files: int = 0
    size: int = 0
    writing: int = 0
    """Instances that are on their way to S3."""
    kept: set[str] = field(default_factory=set)


@dataclass(frozen=True, kw_only=True)
class Closed:
    """A batch into which nobody writes any more."""

    batch: Batch
    kept: frozenset[str] | None
    """Names of the instances that this process took into it; None: another process did."""
    last: float
    """When its last instance came: `time.monotonic()`."""


class Studies:
    """The open batches of this process. Used by the threads of all associations.

    A batch closes when its study has been quiet, or when it is as large as an import job may be; what comes
    later is another batch.
    """

    def __init__(
        self,
        *,
        receiver: str,
        quiet_seconds: float,
        files_per_batch: int = FILES_PER_JOB,
        bytes_per_batch: int = BYTES_PER_JOB,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._receiver = receiver
        self._quiet = quiet_seconds
        self._most_files, self._most_bytes = files_per_batch, bytes_per_batch
        self._clock = clock
        self._lock = threading.Lock()
        self._numbers = itertools.count(1)
        self._open: dict[str, _Open] = {}
        self._full: list[_Open] = []

    def _new_batch(self, study: str) -> Batch:
        return Batch(study=study, name=f"{self._receiver}.{next(self._numbers):06d}")

    @contextmanager
    def writing(self, study: str, *, size: int) -> Iterator[Batch]:
        """The batch for one more instance of a study, which does not close while it is written.

        Args:
            study: Its name in keys.
            size: Bytes that will be written.
        """
        with self._lock:
            current = self._open.get(study)
            if current is not None and (
                current.files >= self._most_files or current.size + size > self._most_bytes
            ):
                self._full.append(self._open.pop(study))
                current = None
            if current is None:
                current = self._open[study] = _Open(batch=self._new_batch(study), last=self._clock())
            current.files += 1
            current.size += size
            current.writing += 1
        try:
            yield current.batch
        finally:
            with self._lock:
                current.writing -= 1
                current.last = self._clock()

    def keep(self, batch: Batch, file: str) -> bool:
        """Remember that an instance is in S3. Within `writing` only.

        Returns:
            Whether it is new in the batch.
        """
        with self._lock:
            found = [one for one in (*self._open.values(), *self._full) if one.batch == batch]
            new = all(file not in one.kept for one in found)
            for one in found:
                one.kept.add(file)
        return new

    def closed(self) -> list[Closed]:
        """Close the batches whose time has come, and hand each over once."""
        now = self._clock()
        with self._lock:
            due = [
                name for name, one in self._open.items() if not one.writing and now - one.last >= self._quiet
            ]
            ready = [self._open.pop(name) for name in due]
            ready += [one for one in self._full if not one.writing]
            self._full = [one for one in self._full if one.writing]
        return [Closed(batch=one.batch, kept=frozenset(one.kept), last=one.last) for one in ready]

    @property
    def waiting(self) -> int:
        """Batches that are not closed yet."""
        with self._lock:
            return len(self._open) + len(self._full)
