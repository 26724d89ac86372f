"""Starts import jobs no faster than HealthImaging takes them.

StartDICOMImportJob is allowed once a second for the whole account, with bursts of two, and 100 jobs may run
at once (https://docs.aws.amazon.com/general/latest/gr/healthimaging-quotas.html). A client's own retries end
after some tries; whoever has uploaded gigabytes would rather wait.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TypeVar

from botocore.exceptions import ClientError

STARTS_PER_SECOND = 1.0
BURST = 2
PATIENCE_SECONDS = 1800.0
"""How long a start that is refused for its rate, or for the number of jobs that run, is asked for again."""
_LONGEST_PAUSE_SECONDS = 30.0
_REFUSALS = frozenset({"ThrottlingException", "ServiceQuotaExceededException", "TooManyRequestsException"})

Result = TypeVar("Result")


class StartPace:
    """One token bucket for all threads of a process, and patience where the bucket of the account is empty.

    Args:
        per_second: Starts a second on average.
        burst: How many may come at once.
        patience_seconds: After this time the service's refusal is raised.
        clock: Seconds that only grow.
        sleep: Waits; may raise, to end the waiting.
    """

    def __init__(
        self,
        *,
        per_second: float = STARTS_PER_SECOND,
        burst: int = BURST,
        patience_seconds: float = PATIENCE_SECONDS,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._interval = 1.0 / per_second
        self._slack = self._interval * (burst - 1)
        self._patience = patience_seconds
        self._clock = clock
        self._sleep = sleep
        self._lock = threading.Lock()
        self._free_at = clock() - self._slack

    def start(self, call: Callable[[], Result]) -> Result:
        """The answer of `call` (StartDICOMImportJob with a fixed client token), once it is allowed.

        Raises:
            ClientError: Another refusal, or still the same one after `patience_seconds`.
        """
        deadline = self._clock() + self._patience
        pause = self._interval
        while True:
            self._wait_for_turn()
            try:
                return call()
            except ClientError as error:
                refused = error.response["Error"].get("Code") in _REFUSALS
                if not refused or self._clock() + pause > deadline:
                    raise
            self._sleep(pause)
            pause = min(pause * 2, _LONGEST_PAUSE_SECONDS)

    def _wait_for_turn(self) -> None:
        with self._lock:
            now = self._clock()
            turn = max(self._free_at, now - self._slack)
            self._free_at = turn + self._interval
        if turn > now:
            self._sleep(turn - now)
