"""Events that were published but whose effects are not yet on disk.

A queue keeps its messages in memory until the next save. An event that a crash would lose with them is
written here first, and published again at the next start: at least once, as EventBridge promises.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any


class EventJournal:
    """A file of one event a line, in the order of their publication."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._lock = threading.Lock()
        self._lines: dict[int, str] = {}
        self._published: set[int] = set()
        self._number = 0

    @contextmanager
    def keeping(self, event: Mapping[str, Any]) -> Iterator[None]:
        """Keep an event, from before it is published inside this context until a save contains what it
        did."""
        line = json.dumps(event)
        with self._lock:
            self._number += 1
            number = self._number
            self._lines[number] = line
            with self._file.open("a") as file:
                file.write(line + "\n")
        try:
            yield
        except BaseException:
            # Who published it knows that it failed, and tries again or says that it is lost.
            with self._lock:
                self._forget(frozenset({number}))
            raise
        with self._lock:
            self._published.add(number)

    def covered(self) -> Callable[[], None]:
        """To be called when a snapshot is taken; the answer, when it is on disk: forgets what it contains."""
        with self._lock:
            contained = frozenset(self._published)

        def forget() -> None:
            if contained:
                with self._lock:
                    self._forget(contained)

        return forget

    def left_over(self) -> list[dict[str, Any]]:
        """The events of the last run that no save contains, to be published again.

        They stay in the file until a save contains what they did this time.
        """
        if not self._file.exists():
            return []
        lines = self._file.read_text().splitlines()
        return [event for event in map(_whole, lines) if event is not None]

    def _forget(self, numbers: frozenset[int]) -> None:
        self._published -= numbers
        for number in numbers:
            self._lines.pop(number, None)
        temporary = self._file.with_suffix(".tmp")
        temporary.write_text("".join(line + "\n" for line in self._lines.values()))
        temporary.replace(self._file)


def _whole(line: str) -> dict[str, Any] | None:
    """An event, or None where the crash cut the line short: then it was not published either."""
    try:
        event: dict[str, Any] = json.loads(line)
    except json.JSONDecodeError:
        return None
    return event
