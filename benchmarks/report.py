"""What a benchmark found: rows that were measured, and checks of what they promise."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

FOLDER = Path(__file__).resolve().parent.parent / "build" / "bench"
"""Everything that benchmarks write."""

Value = str | int | float | bool | None
Progress = Callable[[str], None]
"""Receives one line that says what is measured now."""


@dataclass(frozen=True, kw_only=True)
class Check:
    """One figure or outcome that is promised."""

    name: str
    wanted: str
    got: Value
    ok: bool


@dataclass(kw_only=True)
class Report:
    """Rows and checks of one benchmark, with the machine that they were taken on."""

    name: str
    tables: dict[str, list[dict[str, Value]]] = field(default_factory=dict)
    """Rows by the title of the table that they stand in."""
    checks: list[Check] = field(default_factory=list)
    machine: dict[str, Value] = field(default_factory=lambda: machine())
    """As it was before the benchmark: its load then is other people's."""

    @property
    def ok(self) -> bool:
        """Whether every check holds. A benchmark without checks promises nothing and fails."""
        return bool(self.checks) and all(check.ok for check in self.checks)

    def row(self, table: str, **columns: Value) -> None:
        """Add a row; a table's columns are those of its rows, in the order in which they first come."""
        self.tables.setdefault(table, []).append(columns)

    def at_least(self, name: str, got: float, wanted: float) -> None:
        """Check that a figure reaches another."""
        self.check(name, wanted=f">= {wanted:g}", got=round(got, 2), ok=got >= wanted)

    def at_most(self, name: str, got: float, wanted: float) -> None:
        """Check that a figure does not exceed another."""
        self.check(name, wanted=f"<= {wanted:g}", got=round(got, 2), ok=got <= wanted)

    def check(self, name: str, *, wanted: str, got: Value, ok: bool) -> None:
        """Add a check."""
        self.checks.append(Check(name=name, wanted=wanted, got=got, ok=ok))

    def write(self, folder: Path) -> Path:
        """Write `<name>.json`; a reader never sees half of it."""
        document = {
            "machine": self.machine,
            "rows": [{"table": title, **row} for title, rows in self.tables.items() for row in rows],
            "checks": [asdict(check) for check in self.checks],
        }
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{self.name}.json"
        new = path.with_suffix(".new")
        new.write_text(json.dumps(document, indent=2) + "\n")
        return new.replace(path)

    def show(self, console: Console) -> None:
        """Print the machine, every table, and the checks last."""
        console.print(", ".join(f"{name} {value}" for name, value in self.machine.items()), markup=False)
        for title, rows in self.tables.items():
            columns = list(dict.fromkeys(column for row in rows for column in row))
            table = _table(title, columns)
            for row in rows:
                table.add_row(*(_cell(row.get(column)) for column in columns))
            console.print(table)
        table = _table("checks", ["check", "wanted", "got", "ok"])
        for check in self.checks:
            mark = "[green]yes[/]" if check.ok else "[bold red]no[/]"
            table.add_row(escape(check.name), escape(check.wanted), _cell(check.got), mark)
        console.print(table)


def machine() -> dict[str, Value]:
    """What figures depend on: processor, cores that this process may use, interpreter, and the load."""
    return {
        "processor": _processor(),
        "cores": cores(),
        "python": platform.python_version(),
        "system": platform.platform(),
        "loadAverage": round(os.getloadavg()[0], 2),
    }


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0))


def _processor() -> str:
    """The processor's name; `platform` does not know it on Linux."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.machine())


def _table(title: str, columns: list[str]) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold", box=None, header_style="dim")
    for column in columns:
        table.add_column(escape(column))
    return table


def _cell(value: Value) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"
    return escape(str(value))
