"""AHItoDICOMInterface in an environment of its own, below build/bench/."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from benchmarks.report import FOLDER, Progress

REQUIREMENTS = Path(__file__).resolve().parent.parent / "peer-requirements.txt"
ENVIRONMENT = FOLDER / "peer-environment"


def peer_python(progress: Progress) -> Path:
    """The interpreter of the environment; installed once, and again when the pins change."""
    python = ENVIRONMENT / "bin" / "python"
    # Written last, so that an interrupted installation starts again.
    stamp = ENVIRONMENT / "installed.txt"
    pins = REQUIREMENTS.read_text()
    if not stamp.is_file() or stamp.read_text() != pins:
        progress(f"installing AHItoDICOMInterface into {ENVIRONMENT}")
        subprocess.run([sys.executable, "-m", "venv", "--clear", ENVIRONMENT], check=True)
        install = ["-m", "pip", "install", "-qq", "--disable-pip-version-check", "--no-input"]
        subprocess.run([python, *install, "--requirement", REQUIREMENTS], check=True)
        stamp.write_text(pins)
    return python
