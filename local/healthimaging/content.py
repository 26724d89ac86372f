"""Frames and bulk data as files named by their content.

A file is written before the database row that names it is committed, so a committed row always finds its
bytes; a crash in between leaves a file that no row names, and `sweep` removes it at the next start. Copies of
an image set share files.
"""

from __future__ import annotations

import hashlib
import os
import threading
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path


class ContentStore:
    """Bytes by the SHA-256 of what they are."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._incoming = folder / "incoming"
        self._incoming.mkdir(parents=True, exist_ok=True)
        self._held: Counter[str] = Counter()
        self._lock = threading.Lock()

    @contextmanager
    def holding(self) -> Iterator[Callable[[bytes], str]]:
        """Yields a function that stores bytes and answers their digest (hexadecimal SHA-256), for several
        threads.

        Until the block ends, which must be after the commit, nothing of it is removed: bytes that are stored
        already may belong to an image set that is being deleted at this moment.
        """
        mine: list[str] = []

        def put(data: bytes) -> str:
            digest = hashlib.sha256(data).hexdigest()
            with self._lock:
                self._held[digest] += 1
                mine.append(digest)
            self._write(digest, data)
            return digest

        try:
            yield put
        finally:
            with self._lock:
                self._held.subtract(mine)
                for digest in mine:
                    if self._held[digest] <= 0:
                        del self._held[digest]

    def _write(self, digest: str, data: bytes) -> None:
        path = self._path(digest)
        if path.exists():
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = self._incoming / f"{digest}.{os.getpid()}.{threading.get_ident()}"
        temporary.write_bytes(data)
        # The rename makes the file appear whole or not at all, also when the process is killed at this
        # moment.
        temporary.replace(path)

    def get(self, digest: str) -> bytes:
        """The bytes of a digest that a committed row names."""
        # Half the time of pathlib's way, for every frame that is read.
        with open(f"{self._folder}/{digest[:2]}/{digest}", "rb", buffering=0) as file:
            return file.read()

    def remove(self, digests: Collection[str]) -> None:
        """Remove files that no row names any more, but none that an import has just stored."""
        with self._lock:
            for digest in digests:
                if digest not in self._held:
                    self._path(digest).unlink(missing_ok=True)

    def sweep(self, named: Collection[str]) -> int:
        """Remove what an interrupted import left behind: every file outside `named`. Returns how many."""
        removed = 0
        for path in self._folder.glob("*/*"):
            if path.name not in named:
                path.unlink()
                removed += 1
        return removed

    def _path(self, digest: str) -> Path:
        return self._folder / digest[:2] / digest
