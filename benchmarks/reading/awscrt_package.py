"""The AWS Common Runtime, for the cost of its requests only, below build/bench/.

botocore changes its ways where it can import awscrt, so it is not in the environment.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from benchmarks.report import FOLDER, Progress

REQUIREMENTS = Path(__file__).resolve().parent.parent / "awscrt-requirements.txt"
PACKAGE = FOLDER / "awscrt-package"


def make_awscrt_importable(progress: Progress) -> None:
    """Installed once, and again when the pin changes. To be called after botocore was imported."""
    # Written last, so that an interrupted installation starts again.
    stamp = PACKAGE / "installed.txt"
    pins = REQUIREMENTS.read_text()
    if not stamp.is_file() or stamp.read_text() != pins:
        progress(f"installing awscrt into {PACKAGE}")
        install = ["-m", "pip", "install", "-qq", "--disable-pip-version-check", "--no-input", "--upgrade"]
        subprocess.run(
            [sys.executable, *install, "--target", PACKAGE, "--requirement", REQUIREMENTS], check=True
        )
        stamp.write_text(pins)
    sys.path.append(str(PACKAGE))
