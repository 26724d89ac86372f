"""AHItoDICOMInterface for the environment that has PyTorch, MONAI and the App SDK, below build/bench/.

Beside the environment and not in it: this project does not use it. Everything else that the workshop's way
needs is there in the releases that the runtime runs with, so that the difference is not one of releases.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

from benchmarks.report import FOLDER, Progress

REQUIREMENTS = Path(__file__).resolve().parent.parent / "workshop-requirements.txt"
PACKAGE = FOLDER / "workshop-package"


def workshop_package(python: Path, progress: Progress) -> Path:
    """The folder; installed once, and again when the pins change."""
    # Written last, so that an interrupted installation starts again.
    stamp = PACKAGE / "installed.txt"
    pins = REQUIREMENTS.read_text()
    if not stamp.is_file() or stamp.read_text() != pins:
        progress(f"installing AHItoDICOMInterface into {PACKAGE}")
        install = ["-m", "pip", "install", "-qq", "--disable-pip-version-check", "--no-input", "--upgrade"]
        subprocess.run(
            [python, *install, "--no-deps", "--target", PACKAGE, "--requirement", REQUIREMENTS], check=True
        )
        stamp.write_text(pins)
    return PACKAGE
