"""SHA-256 of files, and of the code that trains."""

from __future__ import annotations

import functools
import hashlib
from pathlib import Path

_ROOT = Path(__file__).parents[2]
PACKAGES = ("training", "healthimaging")
"""Whose code decides what a training makes of its data."""


def file_digest(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


@functools.cache
def code_digest() -> str:
    """SHA-256 over every Python file of this image's own packages, by name and content: the code's
    version.
    """
    sha256 = hashlib.sha256()
    for package in PACKAGES:
        for file in sorted((_ROOT / package).rglob("*.py")):
            sha256.update(f"{file.relative_to(_ROOT).as_posix()}\0{file_digest(file)}\n".encode())
    return sha256.hexdigest()
