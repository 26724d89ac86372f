"""How the commands print: for a person, or as one JSON document with --json."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from workbench.errors import WorkbenchError
from workbench.progress import Progress, silent


def printable(text: str) -> str:
    r"""Text with control characters as \xNN: a file's name may hold a line of its own, or move the cursor."""
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in text)


@dataclass
class Output:
    """Results go to standard output, progress and errors to standard error: pipes see results only."""

    as_json: bool
    console: Console = field(default_factory=Console)
    errors: Console = field(default_factory=lambda: Console(stderr=True))

    @property
    def progress(self) -> Progress:
        """Lines of progress, dim; none with --json."""
        return silent if self.as_json else self._line

    def result(self, document: Mapping[str, object], lines: Iterable[str]) -> None:
        """`document` with --json, else `lines`."""
        if self.as_json:
            print(json.dumps(document, indent=2))
        else:
            for line in lines:
                self.console.print(line, highlight=False, soft_wrap=True, markup=False)

    def table(self, header: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
        """Rows for a person's eyes."""
        table = Table(box=None, pad_edge=False, header_style="bold")
        for name in header:
            table.add_column(escape(name), overflow="fold")
        for row in rows:
            table.add_row(*(escape(cell) for cell in row))
        self.console.print(table)

    def failure(self, error: WorkbenchError) -> None:
        """A failure: with --json a document on standard output, else the message, its details and what to
        do.
        """
        if self.as_json:
            print(json.dumps({"error": error.to_json()}, indent=2))
            return
        for line in error.details:
            self.errors.print(f"  [dim]{escape(line)}[/]", highlight=False, soft_wrap=True)
        self.errors.print(f"[bold red]Failed.[/] {escape(error.message)}", highlight=False, soft_wrap=True)
        if error.advice:
            self.errors.print(
                f"[bold]What to do next:[/] {escape(error.advice)}", highlight=False, soft_wrap=True
            )

    def _line(self, line: str) -> None:
        self.errors.print(f"[dim]{escape(line)}[/]", highlight=False, soft_wrap=True)
