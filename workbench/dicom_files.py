"""Finds the files of an export and says which of them claim to be DICOM.

HealthImaging takes DICOM Part 10 files: 128 bytes of preamble, then "DICM" (PS3.10 section 7.1). A file
without that prefix is either something that exports carry along (a README, a viewer, a DICOMDIR) or a
damaged image. The first kind is skipped and listed; the second kind is a failure, since a study that
silently lacks a slice is worse than an import that stops.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from workbench.errors import WorkbenchError

PREAMBLE = 128
IMAGE_SUFFIXES = frozenset({"", ".dcm", ".dicom", ".dic", ".ima"})
"""Suffixes under which PACS and viewers write images; a UID as the name ends in a number, see NUMBER."""
NUMBER = re.compile(r"\.\d+$")
COMPANIONS = frozenset({"DICOMDIR", "LICENSE", "README", "LOCKFILE", "VERSION"})
"""Names without a suffix that are not images. A DICOMDIR is DICOM, yet an index and not an instance (PS3.10
8.6).
"""


@dataclass(frozen=True, kw_only=True)
class Export:
    """The files below the given paths, each with the path that a person would recognise."""

    dicom: tuple[Path, ...]
    damaged: tuple[Path, ...]
    """Named like images, but without the DICM prefix."""
    skipped: tuple[Path, ...]


def find_files(paths: Iterable[Path]) -> Export:
    """Walk `paths` (files or folders) in a stable order; hidden files and folders are skipped."""
    dicom: list[Path] = []
    damaged: list[Path] = []
    skipped: list[Path] = []
    for path in _walk(paths):
        name = path.name.upper()
        if name in COMPANIONS or path.name.startswith("."):
            skipped.append(path)
        elif has_dicom_prefix(path):
            dicom.append(path)
        elif path.suffix.lower() in IMAGE_SUFFIXES or NUMBER.search(path.name):
            damaged.append(path)
        else:
            skipped.append(path)
    return Export(dicom=tuple(dicom), damaged=tuple(damaged), skipped=tuple(skipped))


def has_dicom_prefix(path: Path) -> bool:
    """True if the file begins as PS3.10 says: preamble, then "DICM"."""
    with path.open("rb") as file:
        head = file.read(PREAMBLE + 4)
    return head[PREAMBLE:] == b"DICM"


def _walk(paths: Iterable[Path]) -> Iterable[Path]:
    seen: set[Path] = set()
    for path in paths:
        if not path.exists():
            raise WorkbenchError(
                f"{path} does not exist.", advice="Give a DICOM file or a folder with DICOM files."
            )
        for file in [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file()):
            identity = file.resolve()
            if identity not in seen:
                seen.add(identity)
                yield file
