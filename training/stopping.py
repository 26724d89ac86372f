"""SIGTERM as a wish that is granted at the next safe moment.

SageMaker sends SIGTERM when a job is stopped, reaches its time limit or loses its spot instance, and kills
120 s later. A handler that raises could tear a file or a step in two; this one only takes a note.
"""

from __future__ import annotations

import signal
from types import FrameType


class StoppedError(Exception):
    """The job was asked to stop and has come to a safe end."""


class StopRequest:
    """Whether the process was asked to stop."""

    def __init__(self) -> None:
        self.requested = False

    def listen(self) -> StopRequest:
        """Takes SIGTERM from now on."""
        signal.signal(signal.SIGTERM, self._note)
        return self

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.requested = True

    def check(self) -> None:
        """Call between two pieces of work that lose nothing.

        Raises:
            StoppedError: The process was asked to stop.
        """
        if self.requested:
            raise StoppedError
