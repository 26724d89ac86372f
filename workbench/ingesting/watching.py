"""How an ingest says where it is."""

from __future__ import annotations

import threading
import time
from typing import Protocol

from workbench.progress import Progress

_LINES_EVERY_SECONDS = 5.0


class Watcher(Protocol):
    """Is told what happens, from several threads."""

    def line(self, text: str) -> None:
        """Something that happens once."""

    def read(self, files: int, bytes_: int) -> None:
        """So many more files were read."""

    def to_send(self, files: int, bytes_: int) -> None:
        """So much more is to be uploaded."""

    def sent(self, files: int, bytes_: int) -> None:
        """So much more has been uploaded."""


class Lines:
    """Plain lines, for logs and notebooks: what happens once, and where it is every few seconds."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._lock = threading.Lock()
        self._read = self._sent = self._sent_bytes = self._all = 0
        self._next = time.monotonic() + _LINES_EVERY_SECONDS

    def line(self, text: str) -> None:
        self._progress(text)

    def read(self, files: int, bytes_: int) -> None:
        self._read += files
        self._now_and_then(f"{self._read} files read")

    def to_send(self, files: int, bytes_: int) -> None:
        self._all += files
        self._progress(f"uploading {files} files, {bytes_ / 1e6:.1f} MB")

    def sent(self, files: int, bytes_: int) -> None:
        with self._lock:
            self._sent += files
            self._sent_bytes += bytes_
            line = f"{self._sent} of {self._all} files uploaded, {self._sent_bytes / 1e6:.1f} MB"
        self._now_and_then(line)

    def _now_and_then(self, line: str) -> None:
        with self._lock:
            now = time.monotonic()
            if now < self._next:
                return
            self._next = now + _LINES_EVERY_SECONDS
        self._progress(line)
