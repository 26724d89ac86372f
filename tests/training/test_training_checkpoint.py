"""Checkpoints: whole or passed over."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
import torch

from training.errors import CheckpointError
from training.loop.checkpoint import Checkpoints


def saved(folder: Path, *steps: int) -> Checkpoints:
    checkpoints = Checkpoints(folder, fingerprint="a")
    for step in steps:
        checkpoints.save(step, {"network": {"weight": torch.full((1000,), float(step))}})
    return checkpoints


def test_the_newest_is_loaded_and_two_are_kept(tmp_path: Path) -> None:
    state = saved(tmp_path, 5, 10, 15).load_newest()
    assert state is not None
    assert state["step"] == 15
    assert sorted(file.name for file in tmp_path.iterdir()) == ["step-00000010.pt", "step-00000015.pt"]


def test_nothing_there_is_no_error(tmp_path: Path) -> None:
    assert Checkpoints(tmp_path / "new", fingerprint="a").load_newest() is None


@pytest.mark.parametrize("kept", [0, 1, 100, 3000])
def test_a_torn_newest_is_passed_over(tmp_path: Path, kept: int) -> None:
    checkpoints = saved(tmp_path, 5, 10)
    newest = tmp_path / "step-00000010.pt"
    newest.write_bytes(newest.read_bytes()[:kept])
    state = checkpoints.load_newest()
    assert state is not None
    assert state["step"] == 5


def test_only_torn_ones_are_an_error(tmp_path: Path) -> None:
    checkpoints = saved(tmp_path, 5)
    (tmp_path / "step-00000005.pt").write_bytes(b"torn")
    with pytest.raises(CheckpointError, match="damaged"):
        checkpoints.load_newest()


def test_another_trainings_are_refused(tmp_path: Path) -> None:
    saved(tmp_path, 5)
    with pytest.raises(CheckpointError, match="other data, bundle or hyperparameters"):
        Checkpoints(tmp_path, fingerprint="b").load_newest()


def test_a_write_that_was_cut_off_is_swept_away(tmp_path: Path) -> None:
    (tmp_path / "step-00000005.partial").write_bytes(b"half")
    assert saved(tmp_path).load_newest() is None
    saved(tmp_path, 6)
    assert [file.name for file in tmp_path.iterdir()] == ["step-00000006.pt"]


def test_a_full_disk_leaves_the_checkpoint_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    checkpoints = saved(tmp_path, 5)

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        assert checkpoints.save(10, {"network": {}}) is None
    assert "step-00000010.pt cannot be written (No space left on device)" in caplog.text
    assert [file.name for file in tmp_path.iterdir()] == ["step-00000005.pt"]
    state = checkpoints.load_newest()
    assert state is not None
    assert state["step"] == 5
    assert checkpoints.save(15, {"network": {}}) is not None
