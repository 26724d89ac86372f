"""The `train` command as SageMaker starts it, on phantoms."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from monai.bundle import ConfigParser
from training_jobs import PROGRAM, Finished, run_main
from training_phantoms import SMALL, environment, lay_out_training

from healthimaging.manifest import Split

LOSS = re.compile(r"train_loss=([0-9.eE+-]+)")
DICE = re.compile(r"val_mean_dice=([0-9.eE+-]+)")


def test_training_succeeds(trained: Finished) -> None:
    assert trained.exit_code == 0, trained.output
    assert not (trained.base / "output" / "failure").exists()


def test_metrics_are_printed_as_the_metric_definitions_expect(trained: Finished) -> None:
    losses = [float(value) for value in LOSS.findall(trained.output)]
    dices = [float(value) for value in DICE.findall(trained.output)]
    assert len(losses) == 2, trained.output
    assert len(dices) == 2, trained.output
    assert losses[1] < losses[0]
    assert all(0 <= value <= 1 for value in dices)
    assert "step=12 val_mean_dice=" in trained.output


def test_the_model_folder_is_a_bundle(trained: Finished) -> None:
    model = trained.base / "model"
    for name in ("metadata.json", "train.json", "evaluate.json", "inference.json"):
        json.loads((model / "configs" / name).read_text())
    provenance = json.loads((model / "provenance.json").read_text())
    manifest = trained.base / "input" / "data" / "manifest" / "phantoms.json"
    assert provenance["manifestSha256"] == hashlib.sha256(manifest.read_bytes()).hexdigest()
    assert provenance["cases"] == {"train": 2, "validation": 1}
    assert provenance["steps"] == 12
    assert provenance["packages"]["monai"]
    for name, digest in provenance["weights"].items():
        assert hashlib.sha256((model / "models" / name).read_bytes()).hexdigest() == digest


def test_torchscript_answers_as_the_network(trained: Finished) -> None:
    model = trained.base / "model"
    parser = ConfigParser()
    parser.read_config(str(model / "configs" / "inference.json"))
    network = parser.get_parsed_content("network_def")
    network.load_state_dict(torch.load(model / "models" / "model.pt", weights_only=True))
    load: Callable[..., Any] = torch.jit.load  # torch leaves it without types
    script = load(str(model / "models" / "model.ts"))
    patch = torch.rand((2, 1, 64, 64, 48))
    with torch.no_grad():
        torch.testing.assert_close(script(patch), network.eval()(patch), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("splits", "labelled", "reason"),
    [
        ({"train": ["chest-1", "gone-2", "gone-3"]}, True, r"2 of 3 cases cannot be used.*gone-2.*gone-3"),
        ({"train": ["chest-1"]}, False, r"image set chest-1: It has no label"),
        ({"test": ["chest-1"]}, True, r"no case in its training split"),
        ({"train": ["nan-1"]}, True, r"DivergenceError: The loss is nan at step 1"),
    ],
)
def test_unusable_data_fail_with_a_reason(
    tmp_path: Path, splits: dict[Split, list[str]], labelled: bool, reason: str
) -> None:
    lay_out_training(tmp_path, splits, labelled=labelled, max_steps=4)
    assert run_main("train", tmp_path) == 1
    failure = (tmp_path / "output" / "failure").read_text()
    assert re.search(reason, failure)
    assert len(failure) <= 1024
    assert not (tmp_path / "model" / "models").exists()


def test_a_manifest_that_is_none_fails_with_a_reason(tmp_path: Path) -> None:
    lay_out_training(tmp_path, {"train": ["chest-1"]}, max_steps=4)
    (tmp_path / "input" / "data" / "manifest" / "phantoms.json").write_text('{"cases": []}')
    assert run_main("train", tmp_path) == 1
    assert "Manifest phantoms.json" in (tmp_path / "output" / "failure").read_text()


def test_sigterm_leaves_a_checkpoint_that_is_continued_to_the_same_weights(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", logger="training")
    splits: dict[Split, list[str]] = {"train": ["chest-1", "chest-2", "chest-3"]}
    stopped, whole = tmp_path / "stopped", tmp_path / "whole"
    for base in (stopped, whole):
        lay_out_training(base, splits, max_steps=8, checkpoint_every=2)
    process = subprocess.Popen(
        [sys.executable, str(PROGRAM), "train"],
        env=environment(stopped),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert process.stdout is not None
    for line in process.stdout:
        if "checkpoint step-00000002.pt" in line:
            process.send_signal(signal.SIGTERM)
            break
    rest = process.stdout.read()
    assert process.wait(timeout=60) == 0, rest
    assert "stopped on request" in rest
    assert not (stopped / "model" / "models").exists()
    assert not (stopped / "output" / "failure").exists()
    checkpoint = max((stopped / "checkpoints").glob("step-*.pt"))
    step = torch.load(checkpoint, weights_only=True)["step"]
    assert 2 <= step < 8

    assert run_main("train", stopped) == 0
    assert f"resumed after step {step}" in caplog.text
    resumed = capsys.readouterr().out
    assert run_main("train", whole) == 0
    uninterrupted = capsys.readouterr().out
    ours, theirs = (
        torch.load(base / "model" / "models" / "model.pt", weights_only=True) for base in (stopped, whole)
    )
    for name, weights in theirs.items():
        torch.testing.assert_close(ours[name], weights, rtol=0, atol=0)
    assert LOSS.findall(resumed)[-1] == LOSS.findall(uninterrupted)[-1]


THREE: dict[Split, list[str]] = {"train": ["chest-1", "chest-2", "chest-3"], "validation": ["chest-4"]}
"""An epoch of three steps."""

HALVED_EVERY_EPOCH: dict[str, object] = {
    "lr_scheduler": {
        "_target_": "torch.optim.lr_scheduler.StepLR",
        "optimizer": "@optimizer",
        "step_size": 1,
        "gamma": 0.5,
    },
    "train#handlers": [
        {"_target_": "LrScheduleHandler", "lr_scheduler": "@lr_scheduler", "print_lr": False},
    ],
}


@pytest.mark.parametrize("schedule", ["steps", "epochs"])
@pytest.mark.parametrize("every", [3, 4])
def test_a_resumed_training_ends_as_an_undisturbed_one(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
    every: int,
    schedule: str,
) -> None:
    """From a checkpoint at the end of an epoch and from one within; the newest is torn."""
    caplog.set_level("INFO", logger="training")
    overrides = {**SMALL, **(HALVED_EVERY_EPOCH if schedule == "epochs" else {})}
    whole, resumed = tmp_path / "whole", tmp_path / "resumed"
    settings = {"max_steps": 9, "checkpoint_every": every, "validate_every": every, "patience": 5}
    for base in (whole, resumed):
        lay_out_training(base, THREE, overrides=overrides, **settings)
    assert run_main("train", whole) == 0
    undisturbed = capsys.readouterr().out
    shutil.copytree(whole / "checkpoints", resumed / "checkpoints")
    before, newest = sorted((resumed / "checkpoints").glob("step-*.pt"))
    newest.write_bytes(newest.read_bytes()[:2000])
    assert run_main("train", resumed) == 0
    assert f"{newest.name} is damaged" in caplog.text
    assert f"resumed after step {int(before.stem.partition('-')[2])}" in caplog.text
    lines = capsys.readouterr().out
    # The checkpoint was written before the validation of its step, which is made up for.
    assert lines.startswith(f"step={int(before.stem.partition('-')[2])} val_mean_dice=")
    assert lines.partition("\n")[0] in undisturbed
    for pattern in (LOSS, DICE):
        assert pattern.findall(lines)[-1] == pattern.findall(undisturbed)[-1]
    ours, theirs = (torch.load(base / "checkpoints" / newest.name) for base in (resumed, whole))
    assert ours["optimizer"]["param_groups"] == theirs["optimizer"]["param_groups"]
    assert ours["best"]["step"] == theirs["best"]["step"]
    for name, weights in theirs["network"].items():
        torch.testing.assert_close(ours["network"][name], weights, rtol=0, atol=0)
    if schedule == "epochs":
        # Three epochs, each with its half.
        assert theirs["optimizer"]["param_groups"][0]["lr"] == pytest.approx(0.005 / 8)


def test_a_killed_training_is_continued_to_the_same_weights(tmp_path: Path) -> None:
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    for base in (killed, whole):
        lay_out_training(base, THREE, overrides=SMALL, max_steps=40, checkpoint_every=2)
    with subprocess.Popen(
        [sys.executable, str(PROGRAM), "train"],
        env=environment(killed),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if "checkpoint step-00000004.pt" in line:
                break
        process.kill()
    assert not (killed / "model" / "models").exists()
    for base in (killed, whole):
        assert run_main("train", base) == 0
    ours, theirs = (
        torch.load(base / "model" / "models" / "model.pt", weights_only=True) for base in (killed, whole)
    )
    for name, weights in theirs.items():
        torch.testing.assert_close(ours[name], weights, rtol=0, atol=0)


def test_training_ends_when_nothing_gets_better(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", logger="training")
    standing = {**SMALL, "learning_rate": 1e-12}
    lay_out_training(tmp_path, THREE, overrides=standing, max_steps=9, validate_every=1, patience=2)
    assert run_main("train", tmp_path) == 0
    assert "no better validation for 2 times" in caplog.text
    provenance = json.loads((tmp_path / "model" / "provenance.json").read_text())
    assert provenance["steps"] == 3
    assert provenance["stepOfWeights"] == 1


def test_one_patient_is_trained_on_and_not_validated(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    lay_out_training(tmp_path, {"train": ["chest-1"]}, overrides=SMALL, max_epochs=3, deterministic="true")
    try:
        assert run_main("train", tmp_path) == 0
    finally:
        torch.use_deterministic_algorithms(False)
    assert "the manifest has no validation case" in caplog.text
    printed = capsys.readouterr().out
    assert "step=3 train_loss=" in printed
    assert "val_mean_dice" not in printed
    assert "step=3 input_wait_share=" in printed
    assert len(re.findall(r"^epoch=\d seconds=\S+ input_wait_seconds=\S+$", printed, re.MULTILINE)) == 3


def test_another_trainings_checkpoint_is_refused(trained: Finished, tmp_path: Path) -> None:
    lay_out_training(tmp_path, {"train": ["chest-1"]}, max_steps=12)
    (tmp_path / "checkpoints").symlink_to(trained.base / "checkpoints")
    assert run_main("train", tmp_path) == 1
    assert "belongs to a training with other data" in (tmp_path / "output" / "failure").read_text()


def test_a_wrong_call_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_main("serve", tmp_path) == 2
    assert "usage" in capsys.readouterr().err
