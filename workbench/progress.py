"""How a long piece of work says where it is: one line at a time, to whoever listens."""

from __future__ import annotations

from collections.abc import Callable

Progress = Callable[[str], None]
"""Receives one line, without patient attributes."""


def silent(_line: str) -> None:
    """The listener of calls from notebooks and of `--json`, which want the result only."""
