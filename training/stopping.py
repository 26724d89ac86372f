"""A wish to stop, which is granted at the next safe moment.

SageMaker sends SIGTERM when a job is stopped, reaches its time limit or loses its spot instance, and kills
120 s later. A handler that raises could tear a file or a step in two; this one only takes a note. The ranks
of a job, which get no signal of their own, look for a file instead.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping
from pathlib import Path
from types import FrameType

STOP_FILE = "TRAINING_STOP_FILE"
"""Environment variable: the file whose presence asks a rank to stop."""


class StoppedError(Exception):
    """The job was asked to stop and has come to a safe end."""


class StopRequest:
    """Whether the process was asked to stop.

    Args:
        file: Its presence asks too; None: only a signal does.
    """

    def __init__(self, *, file: Path | None = None) -> None:
        self._noted = False
        self._file = file

    @classmethod
    def of_process(cls, environ: Mapping[str, str] = os.environ) -> StopRequest:
        """The one of this process, which takes SIGTERM from now on."""
        file = environ.get(STOP_FILE)
        return cls(file=Path(file) if file else None).listen()

    @property
    def requested(self) -> bool:
        if not self._noted and self._file is not None:
            self._noted = self._file.exists()
        return self._noted

    def listen(self) -> StopRequest:
        """Takes SIGTERM from now on."""
        signal.signal(signal.SIGTERM, self._note)
        return self

    def _note(self, number: int, frame: FrameType | None) -> None:
        self._noted = True

    def check(self) -> None:
        """Call between two pieces of work that lose nothing.

        Raises:
            StoppedError: The process was asked to stop.
        """
        if self.requested:
            raise StoppedError
