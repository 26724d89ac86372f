"""The lines that a training prints, in the form that the job's metric definitions look for."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from training.data.sampling import StepLoader


def report(step: int, **metrics: float) -> None:
    """Prints metrics, one a line: `step=10 train_loss=0.31`."""
    for name, value in metrics.items():
        print(f"step={step} {name}={value:.6g}", flush=True)


@dataclass(kw_only=True)
class InputClock:
    """How much of the time of training is spent in waiting for data.

    Validation and checkpoints are not counted: in them nothing is waited for.
    """

    loader: StepLoader
    epoch_waited: float = 0.0
    """Seconds of waiting since the epoch began."""
    _seconds: float = 0.0
    _waited: float = 0.0
    _steps: int = 0
    _began: float = field(default_factory=time.perf_counter)

    def begin(self) -> None:
        """A step begins now; its first batch has been waited for already."""
        self._began = time.perf_counter() - self.loader.input_wait_seconds

    def end(self) -> None:
        """The step is done."""
        self._seconds += time.perf_counter() - self._began
        self._waited += self.loader.input_wait_seconds
        self.epoch_waited += self.loader.input_wait_seconds
        self.loader.input_wait_seconds = 0.0
        self._steps += 1

    def tell(self, step: int) -> None:
        """Prints share and seconds since the last time."""
        if self._steps and self._seconds > 0:
            share, seconds = self._waited / self._seconds, self._seconds / self._steps
            print(f"step={step} input_wait_share={share:.4f} seconds_per_step={seconds:.4f}", flush=True)
        self._seconds = self._waited = 0.0
        self._steps = 0
