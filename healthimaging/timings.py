"""Where the time of reading goes, and how far a read has come."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass


@dataclass(frozen=True, kw_only=True)
class Progress:
    """How far a read has come."""

    frames: int
    """Frames that have arrived, verified."""
    total: int
    """Frames that the read takes."""
    stored_bytes: int
    """Bytes of those that have arrived, as they are stored."""
    seconds: float
    """Since the read began."""


ProgressCallback = Callable[[Progress], None]
"""Is called in the reading thread after each frame; an exception that it raises ends the read."""


@dataclass(frozen=True, kw_only=True)
class Timings:
    """Sums over everything that was read; seconds of threads that work side by side are added up."""

    header_seconds: float = 0.0
    """Until the header was there: its requests, and parsing."""
    fetch_seconds: float = 0.0
    """Of threads that waited for frames from the service, attempts that failed included."""
    decode_seconds: float = 0.0
    """Of threads that decoded and verified frames."""
    retries: int = 0
    """Requests for frames beyond the first one each."""
    frames: int = 0
    stored_bytes: int = 0
    """Bytes of frames as they are stored."""
    decoded_bytes: int = 0
    """Bytes of frames as they are in memory."""


class Stopwatch:
    """Adds up the timings of reads, from any thread."""

    def __init__(self) -> None:
        self._sums: dict[str, float] = asdict(Timings())
        self._lock = threading.Lock()

    @property
    def timings(self) -> Timings:
        """The sums until now."""
        with self._lock:
            return Timings(**self._sums)  # type: ignore[arg-type]  # whole numbers stay whole

    def add(self, **parts: float) -> None:
        """Counts a part of a read: fields of `Timings`."""
        with self._lock:
            for name, value in parts.items():
                self._sums[name] += value


class Reporter:
    """Turns arrived frames into calls of a progress callback.

    Args:
        callback: None reports to nobody.
        total: Frames that are expected.
    """

    def __init__(self, callback: ProgressCallback | None, *, total: int) -> None:
        self._callback = callback
        self._total = total
        self._frames = self._stored_bytes = 0
        self._begin = time.monotonic()

    def arrived(self, stored_bytes: int) -> None:
        """One more frame."""
        self._frames += 1
        self._stored_bytes += stored_bytes
        if self._callback is not None:
            self._callback(
                Progress(
                    frames=self._frames,
                    total=self._total,
                    stored_bytes=self._stored_bytes,
                    seconds=time.monotonic() - self._begin,
                )
            )
