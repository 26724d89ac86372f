"""The checkpoint folder of a host of a training job, on its way to S3."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path
from typing import Any

from local.sagemaker.jobs import guarded
from local.sagemaker.s3 import join, upload_file
from local.sagemaker.store import Document

_CHECKPOINT_SECONDS = 10.0


class Checkpoints:
    """Copies new and changed files of one host's checkpoint folder to S3 while the job runs.

    All hosts of a job copy to the same prefix, as on AWS: of two files of one name the later stays.
    """

    def __init__(self, client: Any, folder: Path, job: Document) -> None:
        self._client = client
        self._folder = folder
        self._uri: str = job["CheckpointConfig"]["S3Uri"]
        self._sent: dict[Path, tuple[int, int]] = {
            path: _state(path) for path in folder.rglob("*") if path.is_file()
        }
        self._next = time.monotonic() + _CHECKPOINT_SECONDS

    def now_and_then(self) -> None:
        """Upload if it is time to."""
        if time.monotonic() >= self._next:
            guarded("Checkpoint upload", self.upload)
            self._next = time.monotonic() + _CHECKPOINT_SECONDS

    def upload(self) -> None:
        """Upload what changed since the last time."""
        for path in sorted(self._folder.rglob("*")):
            if not path.is_file():
                continue
            # Training replaces and rotates its files: one that has just gone is not a checkpoint any more.
            with contextlib.suppress(FileNotFoundError):
                state = _state(path)
                if self._sent.get(path) != state:
                    upload_file(
                        self._client, path, join(self._uri, path.relative_to(self._folder).as_posix())
                    )
                    self._sent[path] = state


def _state(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_mtime_ns, status.st_size
