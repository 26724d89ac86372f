"""One request on its way through the operators: what was asked, how long each phase took, the result."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from runtime.metrics import VolumeFigures
from runtime.results.answer import Result
from runtime.serving.request import ImageSetInput


@dataclass(kw_only=True)
class Exchange:
    """Made anew for each image set of a request and dropped with it: nothing else passes between operators
    but their messages, so nothing of one request can reach the next."""

    request: ImageSetInput
    result: Result | None = None
    failure: BaseException | None = None
    """What an operator raised; nothing after it has run (`runtime.operators.faults`)."""
    volume: VolumeFigures | None = None
    """Of the volume that was segmented; None while there is none, and where the archive has the result."""
    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Add the time spent in the context to the phase ``name``."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - start

    def move(self, seconds: float, *, of: str, to: str) -> None:
        """Count seconds of the phase ``of``, at most all of them, as those of the phase ``to``."""
        moved = min(seconds, self.seconds.get(of, 0.0))
        self.seconds[of] = self.seconds.get(of, 0.0) - moved
        self.seconds[to] = self.seconds.get(to, 0.0) + moved

    def timings(self) -> dict[str, float]:
        """Seconds a phase, rounded to milliseconds, with their sum as ``total``."""
        rounded = {name: round(value, 3) for name, value in self.seconds.items()}
        return {**rounded, "total": round(sum(self.seconds.values()), 3)}
