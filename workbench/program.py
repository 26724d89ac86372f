"""Runs another program with its lines passed on as they come, and keeps the tail for the error message."""

from __future__ import annotations

import subprocess
from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path

from workbench.errors import ProgramFailed
from workbench.progress import Progress

TAIL = 25
"""Lines kept for the message of a failure: enough for a traceback or CDK's last events."""


def run_program(
    command: Sequence[str | Path],
    *,
    what: str,
    advice: str,
    environment: Mapping[str, str],
    folder: Path,
    progress: Progress,
) -> None:
    """Run `command` in `folder` to its end; `ProgramFailed` carries the last lines of its output.

    It cannot ask anything: it has no standard input.
    """
    tail: deque[str] = deque(maxlen=TAIL)
    try:
        process = subprocess.Popen(
            [str(part) for part in command],
            cwd=folder,
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        )
    except OSError as error:
        raise ProgramFailed(f"{what} could not be started: {error}.", advice=advice) from error
    with process:
        assert process.stdout is not None, "stdout is a pipe"
        for raw in process.stdout:
            line = raw.rstrip()
            if line:
                tail.append(line)
                progress(line)
        code = process.wait()
    if code != 0:
        raise ProgramFailed(f"{what} ended with exit code {code}.", advice=advice, details=tuple(tail))


def run_attached(
    command: Sequence[str | Path], *, what: str, advice: str, environment: Mapping[str, str], folder: Path
) -> None:
    """Run `command` on the person's own terminal, where it may ask before it goes on."""
    try:
        code = subprocess.run(
            [str(part) for part in command], cwd=folder, env=dict(environment), check=False
        ).returncode
    except OSError as error:
        raise ProgramFailed(f"{what} could not be started: {error}.", advice=advice) from error
    if code != 0:
        raise ProgramFailed(f"{what} ended with exit code {code}.", advice=advice)
