"""Who may import whom: the packages of this repository, by what their modules say."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

MAY_IMPORT = {
    "healthimaging": set[str](),
    "arrival": {"healthimaging"},
    "runtime": {"healthimaging"},
    "training": {"healthimaging"},
    "workbench": {"healthimaging", "arrival"},
    "infra": set[str](),
    "local": {"healthimaging"},
}
"""Nobody imports `local`: it is started as a program, as a user would."""


def imported(source: str) -> Iterator[str]:
    """The first names of all modules that a module imports, those within functions included."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            yield node.module.partition(".")[0]


@pytest.mark.parametrize("package", sorted(MAY_IMPORT))
def test_a_package_imports_what_it_may(package: str) -> None:
    forbidden = set(MAY_IMPORT) - MAY_IMPORT[package] - {package}
    modules = list((ROOT / package).rglob("*.py"))
    assert modules
    wrong = {
        f"{module.relative_to(ROOT)}: {name}"
        for module in modules
        for name in imported(module.read_text(encoding="utf-8"))
        if name in forbidden
    }
    assert not wrong
