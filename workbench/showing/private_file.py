"""Writes a file that its owner alone may read."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

TOLD = "It holds images of a patient: the file is readable for you alone (mode 0600). Keep it that way."
"""What a person is told who has such a file written."""


def write_private(path: Path, data: bytes) -> None:
    """Write a file with mode 0600, whole or not at all; the folder is made where it is missing.

    A file that was there, with whatever mode, is replaced: nobody who has it open reads the new one.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")  # mode 0600
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
