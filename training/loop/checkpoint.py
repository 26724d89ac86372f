"""Checkpoints that are whole or not there, and resuming from the newest whole one.

SageMaker copies `/opt/ml/checkpoints` to S3 while the job runs and back when the job is restarted; the
instance may vanish between any two writes.
"""

from __future__ import annotations

import io
import logging
import os
from pathlib import Path
from typing import Any

import torch

from training.errors import CheckpointError

_LOG = logging.getLogger(__name__)

KEPT = 2
"""Checkpoints kept: the newest, and the one before in case the newest was damaged on its way."""


class Checkpoints:
    """The checkpoints of one training.

    Args:
        folder: Where they lie; made if it is not there.
        fingerprint: Identifies data, bundle and hyperparameters. A checkpoint of another training is refused.
    """

    def __init__(self, folder: Path, *, fingerprint: str) -> None:
        self._folder = folder
        self._fingerprint = fingerprint

    def save(self, step: int, state: dict[str, Any]) -> Path | None:
        """Saves the state after a step and drops the oldest checkpoints.

        A disk that refuses ends no training: the checkpoint before stays, and the log says so.

        Args:
            step: Steps done.
            state: Tensors, numbers, texts, and lists and dictionaries of them.

        Returns:
            The file; None when it could not be written.
        """
        name = f"step-{step:08d}.pt"
        try:
            file = self._write(name, {"step": step, **state})
        except OSError as error:
            _LOG.error(
                "checkpoint %s cannot be written (%s): training goes on, and would resume from the one "
                "before. Give the job a larger volume",
                name,
                error.strerror,
            )
            return None
        for old in self._newest_first()[KEPT:]:
            old.unlink()
        return file

    def load_newest(self) -> dict[str, Any] | None:
        """The newest whole checkpoint; None when there is none at all.

        Raises:
            CheckpointError: It belongs to another training, or there are checkpoints and all are damaged.
        """
        files = self._newest_first()
        for file in files:
            state = self._read(file)
            if state is not None:
                return state
        if files:
            msg = f"All {len(files)} checkpoints are damaged; remove them to train from the start"
            raise CheckpointError(msg)
        return None

    def _newest_first(self) -> list[Path]:
        return sorted(self._folder.glob("step-*.pt"), reverse=True)

    def _write(self, name: str, state: dict[str, Any]) -> Path:
        self._folder.mkdir(parents=True, exist_ok=True)
        for torn in self._folder.glob("*.partial"):
            torn.unlink()
        buffer = io.BytesIO()
        torch.save({"fingerprint": self._fingerprint, **state}, buffer)
        file = self._folder / name
        partial = file.with_suffix(".partial")
        try:
            with partial.open("wb") as stream:
                stream.write(buffer.getbuffer())
                stream.flush()
                os.fsync(stream.fileno())
            partial.replace(file)
        finally:
            partial.unlink(missing_ok=True)
        folder = os.open(self._folder, os.O_RDONLY)
        try:
            # Without it the new name may be lost though the data are not.
            os.fsync(folder)
        finally:
            os.close(folder)
        return file

    def _read(self, file: Path) -> dict[str, Any] | None:
        try:
            state: dict[str, Any] = torch.load(file, map_location="cpu", weights_only=True)
            theirs = state["fingerprint"]
        # What a torn file raises depends on where it is torn: RuntimeError, EOFError, UnpicklingError, ...
        except Exception as error:  # noqa: BLE001 - whatever it is, the file is unusable and the one before is not
            _LOG.warning("checkpoint %s is damaged (%s) and passed over", file.name, type(error).__name__)
            return None
        if theirs != self._fingerprint:
            msg = (
                f"Checkpoint {file.name} belongs to a training with other data, bundle or hyperparameters; "
                "give this job its own checkpoint location"
            )
            raise CheckpointError(msg)
        return state
