"""`python -m benchmarks [--only NAME]`: measure, show, and fail where a figure is not what is wanted."""

from __future__ import annotations

import argparse
import signal
import sys
from importlib import import_module

from rich.console import Console

from benchmarks.report import FOLDER, Report

BENCHMARKS = {
    "catalog": "benchmarks.catalog",
    "connector": "benchmarks.connector",
    "inference": "benchmarks.inference",
    "training": "benchmarks.training",
}
"""Module by name; each has `run(progress) -> Report`. Imported when it runs: one may need what another does
not.
"""


def main(arguments: list[str] | None = None) -> int:
    """Run the benchmarks one after the other; the exit code is 0 only if every check holds."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--only", choices=sorted(BENCHMARKS), help="one benchmark instead of all")
    only = parser.parse_args(arguments).only
    # As an exception, so that servers and clients that were started end with it.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    # Without a terminal rich assumes 80 columns, which breaks every line of a table.
    console = Console() if sys.stdout.isatty() else Console(width=160)
    ok = True
    for name in [only] if only else BENCHMARKS:
        console.print(f"[bold]{name}[/]")
        report: Report = import_module(BENCHMARKS[name]).run(lambda line: console.print(f"  {line}"))
        path = report.write(FOLDER)
        report.show(console)
        console.print(f"written to {path}\n")
        ok = ok and report.ok
    return 0 if ok else 1


if __name__ == "__main__":
    sys.exit(main())
