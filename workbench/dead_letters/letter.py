"""A dead letter: one thing that could not be done, and how to have it done after all."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol


@dataclass(frozen=True, kw_only=True)
class DeadLetter:
    """One thing that could not be done."""

    id: str
    place: str
    """What could not do it: index, dispatch, announce, or request."""
    when: datetime
    """When it was first asked for, or for a request when it failed."""
    about: Mapping[str, str]
    """Identifiers: datastoreId, imageSetId, endpoint, ..."""
    reason: str
    """The kind of error, where one is known."""
    replay: str
    """What sending it again does, for a person."""

    def to_json(self) -> dict[str, object]:
        return {
            "id": self.id,
            "place": self.place,
            "when": self.when.isoformat(timespec="seconds"),
            "about": dict(self.about),
            "reason": self.reason,
            "replay": self.replay,
        }


@dataclass(frozen=True, kw_only=True)
class Held:
    """A dead letter in hand: what may be done with it while its place is open."""

    letter: DeadLetter
    replay: Callable[[], None]
    """Ask for it again, once."""
    discard: Callable[[], None]
    """Nobody will ever ask for it again."""


class Place(Protocol):
    """Where dead letters lie."""

    def open(self) -> AbstractContextManager[list[Held]]:
        """All of its letters. At the end of the block the place has back what was left in it."""
        ...
