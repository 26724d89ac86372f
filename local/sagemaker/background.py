"""Work that a call begins and does not wait for."""

from __future__ import annotations

import threading
from collections.abc import Callable


class BackgroundWork:
    """Threads that the end of the cloud waits for."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._lock = threading.Lock()
        self._threads: set[threading.Thread] = set()

    def start(self, work: Callable[[], None]) -> None:
        """Run `work` in a thread of its own."""

        def run() -> None:
            try:
                work()
            finally:
                with self._lock:
                    self._threads.discard(threading.current_thread())

        thread = threading.Thread(target=run, name=self._name, daemon=True)
        with self._lock:
            self._threads.add(thread)
        thread.start()

    def join(self, seconds: float) -> None:
        """Wait for what is being done, `seconds` for each thread."""
        with self._lock:
            threads = list(self._threads)
        for thread in threads:
            thread.join(seconds)
