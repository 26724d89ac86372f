"""When a request is tried again, how long to wait before, and how many may be under way meanwhile."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from healthimaging.frames.connections import Cancellation

ATTEMPTS = 8
"""Attempts at a request, the first included."""

RETRY_SECONDS = 60.0
"""No attempt begins later than this after the first. With the timeouts of one attempt added, it is the
longest that a request can take.
"""

_FIRST_WAIT = 0.05
_LONGEST_WAIT = 5.0

Result = TypeVar("Result")


class RequestFailedError(Exception):
    """One attempt failed.

    Attributes:
        code: The service's error code, or the name of the transport error.
        transient: Whether another attempt may succeed.
        throttled: Whether the service asks for fewer requests.
        retry_after: Seconds that the service asks to wait; None when it does not say.
    """

    def __init__(
        self, code: str, *, transient: bool, throttled: bool = False, retry_after: float | None = None
    ) -> None:
        super().__init__(code)
        self.code = code
        self.transient = transient
        self.throttled = throttled
        self.retry_after = retry_after


class Pace:
    """How many requests of a client may be under way at once.

    As TCP does it: halved when the service throttles, one more for every round of successes, so that many
    threads settle at what the service allows instead of failing together again and again.

    Args:
        limit: The most that is ever allowed.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._allowed = float(limit)
        self._under_way = 0
        self._changed = threading.Condition()
        self._halved = float("-inf")

    @property
    def allowed(self) -> int:
        """Requests that may be under way now."""
        return max(1, int(self._allowed))

    @contextmanager
    def request(self) -> Iterator[None]:
        """Holds one of the places; waits until one is free."""
        with self._changed:
            while self._under_way >= self.allowed:
                self._changed.wait()
            self._under_way += 1
        try:
            yield
        finally:
            with self._changed:
                self._under_way -= 1
                self._changed.notify()

    def succeeded(self) -> None:
        """The service answered."""
        if self._allowed < self._limit:
            with self._changed:
                self._allowed = min(self._limit, self._allowed + 1 / self._allowed)
                self._changed.notify()

    def throttled(self) -> None:
        """The service asked for fewer requests. Answers to requests of one burst count once."""
        with self._changed:
            now = time.monotonic()
            if now - self._halved > _FIRST_WAIT:
                self._halved = now
                self._allowed = max(1.0, self._allowed / 2)


def retrying(
    attempt: Callable[[], Result],
    *,
    pace: Pace,
    until: Cancellation,
    attempts: int = ATTEMPTS,
    seconds: float = RETRY_SECONDS,
) -> Result:
    """Calls `attempt` until it succeeds or there is no sense in another try.

    Args:
        attempt: One attempt; raises RequestFailedError.
        pace: Of the client that sends it.
        until: Ends the waiting, and with it the attempts.
        attempts: The most attempts.
        seconds: No attempt begins later than this after the first.

    Raises:
        RequestFailedError: The last attempt's.
    """
    begin = time.monotonic()
    for number in range(1, attempts + 1):
        try:
            with pace.request():
                if until.is_set():  # while it waited for its place
                    raise RequestFailedError("Cancelled", transient=False)
                answer = attempt()
        except RequestFailedError as failure:
            if failure.throttled:
                pace.throttled()
            wait = _wait(number, failure.retry_after)
            late = time.monotonic() - begin + wait > seconds
            if not failure.transient or number == attempts or late or until.wait(wait):
                raise
        else:
            pace.succeeded()
            return answer
    raise AssertionError("the last attempt returns or raises")


def _wait(attempt: int, retry_after: float | None) -> float:
    """Seconds before the next attempt."""
    longest = min(_LONGEST_WAIT, _FIRST_WAIT * 2**attempt)
    # Full jitter: workers that were refused together must not come back together.
    wait = random.uniform(0, longest)  # noqa: S311 - jitter, not a secret
    return wait if retry_after is None else max(wait, retry_after)
