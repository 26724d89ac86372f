"""Work that threads do ahead of the one who needs its results, in a known order."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from training.stopping import StopRequest

_LOOK_EVERY_SECONDS = 0.2
"""How often a waiting consumer looks whether the job was asked to stop."""


@dataclass(frozen=True, kw_only=True)
class _Outcome:
    value: Any = None
    error: BaseException | None = None


class Prefetch:
    """Results of numbered pieces of work, made by threads and handed out one number after the other.

    Args:
        open_work: Called once in each thread; what it gives does the piece of a number there.
        threads: How many work, and so how many pieces are under way at most.
        ahead: How many pieces beyond the next one to be taken may be begun.
        stop: Looked at while a result is waited for.
        idle: Does a piece of work that nobody waits for and says whether there may be another. Called while
            no piece can be begun, and never by the last free thread, which stays ready for the others.
        count: Numbers end before it; None: never.
    """

    def __init__(
        self,
        *,
        open_work: Callable[[], Callable[[int], Any]],
        threads: int,
        ahead: int,
        stop: StopRequest,
        idle: Callable[[], bool] | None = None,
        count: int | None = None,
    ) -> None:
        self._open_work = open_work
        self._ahead = max(ahead, 1)
        self._stop = stop
        self._idle = idle
        self._count = count
        self._changed = threading.Condition()
        self._results: dict[int, _Outcome] = {}
        self._generation = 0
        self._begun = 0
        self._wanted = 0
        self._idling = 0
        self._broken: BaseException | None = None
        self._closed = False
        self._threads = [
            threading.Thread(target=self._run, name=f"prefetch-{number}", daemon=True)
            for number in range(threads)
        ]

    def start(self, first: int = 0) -> None:
        """Makes `first` the next number to be taken; what was made for others is forgotten."""
        with self._changed:
            if self._closed:
                msg = "The prefetch is closed"
                raise RuntimeError(msg)
            self._generation += 1
            self._results.clear()
            self._begun = self._wanted = first
            self._changed.notify_all()
        for thread in self._threads:
            if thread.ident is None:
                thread.start()

    def take(self) -> Any:
        """The result of the next number.

        Raises:
            StoppedError: The job was asked to stop while the result was waited for.
            BaseException: Whatever the work raised.
        """
        with self._changed:
            while self._wanted not in self._results:
                if self._broken is not None:
                    raise self._broken
                if self._closed:
                    msg = "The prefetch is closed"
                    raise RuntimeError(msg)
                self._stop.check()
                self._changed.wait(_LOOK_EVERY_SECONDS)
            outcome = self._results.pop(self._wanted)
            self._wanted += 1
            self._changed.notify_all()
        if outcome.error is not None:
            raise outcome.error
        return outcome.value

    def close(self) -> None:
        """Ends the threads: each finishes the piece that it is at, and none is left when this returns."""
        with self._changed:
            self._closed = True
            self._results.clear()
            self._changed.notify_all()
        for thread in self._threads:
            if thread.ident is not None:
                thread.join()

    def _run(self) -> None:
        try:
            work = self._open_work()
            while self._one(work):
                pass
        # Not only what the work expects: the consumer must hear of everything, or it waits for ever.
        except BaseException as error:  # noqa: BLE001 - raised again in the consumer's thread
            with self._changed:
                self._broken = error
                self._changed.notify_all()

    def _one(self, work: Callable[[int], Any]) -> bool:
        """Does one piece; False when the prefetch was closed."""
        with self._changed:
            while not (self._closed or self._may_begin() or self._may_idle()):
                self._changed.wait()
            if self._closed:
                return False
            idle = None if self._may_begin() else self._idle
            number, generation = self._begun, self._generation
            if idle is None:
                self._begun += 1
            else:
                self._idling += 1
        if idle is not None:
            self._do_idle(idle)
            return True
        try:
            outcome = _Outcome(value=work(number))
        except BaseException as error:  # noqa: BLE001 - raised again in the consumer's thread
            outcome = _Outcome(error=error)
        with self._changed:
            if generation == self._generation and not self._closed:
                self._results[number] = outcome
                self._changed.notify_all()
        return True

    def _do_idle(self, idle: Callable[[], bool]) -> None:
        more = False
        try:
            more = idle()
        finally:
            with self._changed:
                self._idling -= 1
                if not more:
                    self._idle = None
                self._changed.notify_all()

    def _may_begin(self) -> bool:
        return self._begun < self._wanted + self._ahead and (self._count is None or self._begun < self._count)

    def _may_idle(self) -> bool:
        return self._idle is not None and self._idling < len(self._threads) - 1
