"""Polls something that AWS does in the background, up to a deadline."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

Result = TypeVar("Result")


def poll(
    look: Callable[[], Result | None],
    *,
    every_seconds: float,
    timeout_seconds: float,
    on_timeout: Callable[[], Exception],
    sleep: Callable[[float], None] = time.sleep,
    clock: Callable[[], float] = time.monotonic,
) -> Result:
    """The first answer of `look` that is not None; raises what `on_timeout` makes once the time is over."""
    deadline = clock() + timeout_seconds
    while True:
        found = look()
        if found is not None:
            return found
        if clock() >= deadline:
            raise on_timeout()
        sleep(every_seconds)
