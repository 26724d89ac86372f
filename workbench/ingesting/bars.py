"""Where an ingest is, as bars on a terminal: rate, and the time that is left."""

from __future__ import annotations

import threading
from types import TracebackType

from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)


class Bars:
    """A watcher that draws; to be used as a context."""

    def __init__(self, console: Console) -> None:
        self._reading = Progress(
            SpinnerColumn(),
            TextColumn("read {task.completed} files, {task.fields[megabytes]:.1f} MB"),
            TimeElapsedColumn(),
            console=console,
            transient=True,
        )
        self._sending = Progress(
            TextColumn("uploading"),
            BarColumn(),
            TextColumn("{task.fields[files]} files"),
            DownloadColumn(),
            TransferSpeedColumn(),
            TimeRemainingColumn(),
            console=console,
            transient=True,
        )
        self._console = console
        self._lock = threading.Lock()
        self._bytes = self._files = self._all = 0
        self._reader = self._reading.add_task("", total=None, megabytes=0.0)
        self._sender = self._sending.add_task("", total=0, files="0/0")

    def __enter__(self) -> Bars:
        self._reading.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._reading.stop()
        self._sending.stop()

    def line(self, text: str) -> None:
        self._console.print(f"[dim]{escape(text)}[/]", highlight=False, soft_wrap=True)

    def read(self, files: int, bytes_: int) -> None:
        self._bytes += bytes_
        self._reading.update(self._reader, advance=files, megabytes=self._bytes / 1e6)

    def to_send(self, files: int, bytes_: int) -> None:
        self._reading.stop()
        self._sending.start()
        with self._lock:
            self._all += files
        task = self._sending.tasks[0]
        self._sending.update(self._sender, total=(task.total or 0) + bytes_, files=self._count)

    def sent(self, files: int, bytes_: int) -> None:
        with self._lock:
            self._files += files
        self._sending.update(self._sender, advance=bytes_, files=self._count)

    @property
    def _count(self) -> str:
        return f"{self._files}/{self._all}"
