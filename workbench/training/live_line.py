"""The last line of a terminal while a training runs: where it is, and how well it does."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.markup import escape

from workbench.progress import Progress
from workbench.training.curve import VALIDATION, read_points

TRAIN = "Train | "
"""What the lines of the training's container begin with, as the follower tells them."""


class LiveLine:
    """A listener to progress that keeps losses and scores of the training in one line.

    Lines with losses and scores change that line; all the others are passed on and scroll above it.
    """

    def __init__(self, told: Progress, *, total: int | None) -> None:
        """`told` gets the lines that are passed on; `total` is the number of steps, if it is known."""
        self._told = told
        self._total = total
        self._step = 0
        self._values: dict[str, float] = {}
        self.text = ""
        """What the line says now."""

    def __call__(self, line: str) -> None:
        """One line of progress."""
        points = list(read_points(line)) if line.startswith(TRAIN) else []
        if not points:
            if line.startswith("Evaluate"):
                self.text = "evaluating"
            self._told(line)
            return
        for point in points:
            self._step = max(self._step, point.step)
            self._values[point.name.removeprefix(VALIDATION).replace("_", " ")] = point.value
        of_total = f"/{self._total}" if self._total else ""
        values = "".join(f" · {name} {value:.4g}" for name, value in self._values.items())
        self.text = f"training · step {self._step}{of_total}{values}"


@contextmanager
def live_progress(
    console: Console, told: Progress, *, total: int | None, wanted: bool = True
) -> Iterator[Progress]:
    """A listener with a live line where `console` is a terminal and the line is `wanted`, else `told` itself:
    a pipe or a log gets every line.
    """
    if not (wanted and console.is_terminal):
        yield told
        return
    line = LiveLine(told, total=total)
    with console.status("starting") as status:

        def listen(text: str) -> None:
            line(text)
            if line.text:
                status.update(escape(line.text))

        yield listen
