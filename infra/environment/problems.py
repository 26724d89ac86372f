"""What is wrong with a file, all of it at once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import ValidationError

from infra.repository import ROOT


class EnvironmentFileError(Exception):
    """An environment file that cannot be used. `problems` lists all that is wrong with it."""

    def __init__(self, *, path: Path, problems: list[str]) -> None:
        self.path = path
        self.problems = problems
        try:
            shown = path.relative_to(ROOT)
        except ValueError:
            shown = path
        super().__init__("\n".join([f"{shown}: {len(problems)} problem(s)", *(f"  - {p}" for p in problems)]))


def described(error: ValidationError) -> list[str]:
    """Each problem with the place where it is."""
    return [_problem(detail) for detail in error.errors()]


def _problem(detail: Any) -> str:
    # Of an endpoint, pydantic's place also names the mode by which it chose the class: no key of the file.
    parts = [str(part) for part in detail["loc"]]
    if parts[:2] == ["inference", "endpoints"] and len(parts) > 3:
        del parts[3]
    where = ".".join(parts)
    if detail["type"] == "extra_forbidden":
        return f"{where}: unknown key"
    if detail["type"] in ("missing", "union_tag_not_found"):
        return f"{where}: missing" if detail["type"] == "missing" else f"{where}.mode: missing"
    if detail["type"] == "union_tag_invalid":
        return f"{where}.mode: {detail['msg']}"
    return f"{where}: {detail['msg']} (got {detail['input']!r})"
