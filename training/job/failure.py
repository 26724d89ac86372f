"""How a job says why it failed."""

from __future__ import annotations

import traceback
from pathlib import Path

from training.errors import TrainingError

FAILURE_CHARACTERS = 1024
"""SageMaker keeps this much of a failure text."""


def describe_failure(error: BaseException) -> str:
    """A text for the job's failure reason, at most `FAILURE_CHARACTERS` long.

    Our own errors say what is wrong. Any other error gets the place where it was raised, since its text
    alone ("KeyError: 'x'") helps nobody; a text too long keeps its beginning.
    """
    text = f"{type(error).__name__}: {error}"
    if not isinstance(error, TrainingError):
        steps = traceback.extract_tb(error.__traceback__)[-4:]
        text += " | at " + " < ".join(f"{Path(s.filename).name}:{s.lineno} {s.name}" for s in reversed(steps))
    return text if len(text) <= FAILURE_CHARACTERS else text[: FAILURE_CHARACTERS - 3] + "..."


def write_failure(text: str, *, file: Path) -> None:
    """Writes `/opt/ml/output/failure` (training) or `/opt/ml/output/message` (processing).

    The first one to write is right: when one of several ranks fails, the others fail by its absence.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    try:
        with file.open("x", encoding="utf-8") as stream:
            stream.write(text)
    except FileExistsError:
        return
