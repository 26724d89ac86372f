"""Runs the demo's steps one after the other: name, time, progress on the screen, and what went wrong."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from rich.console import Console
from rich.markup import escape
from rich.status import Status

from workbench.progress import Progress


@dataclass(frozen=True, kw_only=True)
class StepRecord:
    """One step that was begun."""

    name: str
    ok: bool
    started: float
    """Seconds after the first step's begin."""
    seconds: float


@dataclass
class Steps:
    """The steps so far; `run` is the frame around the work of one of them."""

    console: Console
    verbose: bool = False
    records: list[StepRecord] = field(default_factory=list)
    _begin: float | None = None

    @contextmanager
    def run(self, name: str) -> Iterator[Progress]:
        """Time a step; what it raises is recorded and passes through, so that the steps after it do not
        begin.
        """
        begin = time.monotonic()
        if self._begin is None:
            self._begin = begin
        ok = False
        # A terminal shows the newest line beside a spinner; a log file, or --verbose, shows all of them.
        lines = self.verbose or not self.console.is_terminal
        if lines:
            self.console.print(f"[bold]{escape(name)}[/]")
        status = None if lines else self.console.status(escape(name))
        if status:
            status.start()
        try:
            yield self._progress(name, status)
            ok = True
        finally:
            if status:
                status.stop()
            seconds = time.monotonic() - begin
            self.records.append(StepRecord(name=name, ok=ok, started=begin - self._begin, seconds=seconds))
            mark = "[green]✓[/]" if ok else "[red]✗[/]"
            self.console.print(f"{mark} {escape(name)} [dim]{seconds:.1f} s[/]", highlight=False)

    def _progress(self, name: str, status: Status | None) -> Progress:
        def show(line: str) -> None:
            if status is None:
                self.console.print(f"    [dim]{escape(line)}[/]", highlight=False, soft_wrap=True)
            else:
                room = max(20, self.console.width - len(name) - 8)
                status.update(f"{escape(name)}  [dim]{escape(line[:room])}[/]")

        return show
