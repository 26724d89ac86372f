"""Training against fakes: progress, results, and failures with their reasons and log tails."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from training_world import (
    EVALUATION_KEY,
    EXECUTION,
    MANIFEST_URI,
    PACKAGE,
    TRAIN,
    FakePipeline,
    evaluation,
    manifest,
    step,
    succeeded,
)
from workbench_fakes import FakeLogs, FakeS3, deployment

from workbench.errors import TrainingFailed
from workbench.log_tail import TRAINING_JOBS, LogFollower
from workbench.training.curve import read_training_curve
from workbench.training.evaluation import read_evaluation
from workbench.training.evaluation_files import download_evaluation
from workbench.training.execution import execution_arn
from workbench.training.live_line import LiveLine, live_progress
from workbench.training.request import TrainingRequest
from workbench.training.train import TrainingResult, follow_training, stop_training, train

REQUEST = TrainingRequest(bundle="lung-segmentation", data=MANIFEST_URI, steps=7)


def bucket(document: dict[str, Any] | None = None, **more: bytes) -> FakeS3:
    return FakeS3(
        {
            "models/manifests/a.json": manifest("train", "test", "test"),
            EVALUATION_KEY: json.dumps(document or evaluation()).encode(),
            **more,
        }
    )


def run(
    sagemaker: FakePipeline,
    *,
    logs: FakeLogs | None = None,
    s3: FakeS3 | None = None,
    lines: list[str] | None = None,
) -> TrainingResult:
    return train(
        deployment(sagemaker=sagemaker, logs=logs or FakeLogs({}), s3=s3 or bucket()),
        REQUEST,
        progress=(lines if lines is not None else []).append,
        every_seconds=0.0,
    )


def test_training_follows_steps_and_lines_to_the_package() -> None:
    sagemaker = FakePipeline(succeeded())
    logs = FakeLogs({TRAINING_JOBS: ["step=10 train_loss=0.5", "step=10 val_mean_dice=0.8"]})
    lines: list[str] = []
    result = run(sagemaker, logs=logs, lines=lines)
    assert result.model_package_arn == PACKAGE
    assert result.training_job == "job-1"
    assert result.model_card == "Draft"
    assert result.curve.train_loss == ((10, 0.5),)
    measured = result.evaluation
    assert measured is not None
    assert (measured.split, measured.held_out, measured.patients) == ("test", True, 2)
    assert measured.lines() == [
        "mean_dice 0.9300, 95% interval 0.900 to 0.950 on 2 patients, held out (test)",
        "mean_hausdorff95_mm not defined on 2 patients, held out (test)",
    ]
    assert measured.improvement == 0.02
    assert result.steps[0].seconds == 30.0
    assert lines.count("Train | step=10 train_loss=0.5") == 1
    assert lines.count("Train: Succeeded") == 1
    assert sagemaker.parameters["MaxSteps"] == "7"


def test_a_training_that_was_there_is_said_to_be_and_its_lines_are_not_told_again() -> None:
    source = EXECUTION.replace("abc", "before")
    stages = succeeded()
    stages[-1][1][0]["CacheHitResult"] = {"SourcePipelineExecutionArn": source}
    logs = FakeLogs({TRAINING_JOBS: ["step=10 train_loss=0.5"]})
    lines: list[str] = []
    result = run(FakePipeline([("Executing", []), stages[-1]]), logs=logs, lines=lines)
    assert result.steps[0].cached_from == source
    assert result.curve.train_loss == ((10, 0.5),), "the curve is the one of the training that ran"
    assert "Train: Succeeded, the same as in execution before, not run again" in lines
    assert not any("train_loss" in line for line in lines)


def test_failed_training_says_why_with_the_log_tail() -> None:
    failed = step("Train", "Failed", FailureReason="AlgorithmError: loss is not finite", **TRAIN)
    logs = FakeLogs({TRAINING_JOBS: ["Traceback", "ValueError: loss is nan"]})
    with pytest.raises(TrainingFailed, match="loss is not finite") as caught:
        run(FakePipeline([("Executing", []), ("Failed", [failed])]), logs=logs)
    assert caught.value.details == ("Traceback", "ValueError: loss is nan")


REJECTED = [("Executing", []), ("Failed", [step("Reject", "Failed", FailureReason="not registered")])]


@pytest.mark.parametrize(
    ("measured", "reasons", "advice"),
    [
        ({"metrics": {"mean_dice": 0.2}}, ["mean_dice is 0.2, and MinimumScore asks for 0.85"], "--steps"),
        (
            {"gate": {"heldOut": 0, "improvement": -0.1}},
            ["gate.heldOut is 0", "gate.improvement is -0.1, and MinimumImprovement asks for 0.0"],
            "--test-patient",
        ),
        ({"metrics": {"mean_dice": None}}, ["metrics.mean_dice is not defined"], "--minimum-score"),
        (
            {
                "gate": {"heldOut": 1, "improvement": -1e9},
                "baseline": {"modelPackageArn": "arn:x", "error": "its archive is damaged"},
            },
            ["could not be compared with the approved arn:x: its archive is damaged"],
            "reject that package",
        ),
    ],
)
def test_a_refused_model_is_told_each_condition_with_its_numbers(
    measured: dict[str, Any], reasons: list[str], advice: str
) -> None:
    with pytest.raises(TrainingFailed) as caught:
        run(FakePipeline(list(REJECTED)), s3=bucket(evaluation(**measured)))
    for reason in reasons:
        assert reason in caught.value.message
    assert advice in caught.value.advice
    assert caught.value.details == ("Reject: not registered",)


def test_a_refusal_whose_evaluation_is_gone_keeps_the_pipelines_words() -> None:
    s3 = bucket()
    del s3.objects[EVALUATION_KEY]
    with pytest.raises(TrainingFailed, match="Reject: not registered"):
        run(FakePipeline(list(REJECTED)), s3=s3)


def test_success_without_a_package_is_a_failure() -> None:
    with pytest.raises(TrainingFailed, match="without registering"):
        run(FakePipeline([("Executing", []), ("Succeeded", [step("Train", "Succeeded")])]))


def test_a_stopped_training_can_go_on() -> None:
    with pytest.raises(TrainingFailed, match="was stopped") as caught:
        run(FakePipeline([("Executing", []), ("Stopped", [])]))
    assert "last checkpoint" in caught.value.advice


def test_an_execution_is_followed_and_stopped_by_arn_or_id() -> None:
    sagemaker = FakePipeline(succeeded())
    world = deployment(sagemaker=sagemaker, logs=FakeLogs({}), s3=bucket())
    arn = execution_arn(world, "abc")
    assert arn == EXECUTION == execution_arn(world, EXECUTION)
    assert follow_training(world, arn, every_seconds=0.0).model_package_arn == PACKAGE
    assert not sagemaker.started, "following starts nothing"
    stop_training(world, arn)
    assert sagemaker.stopped == EXECUTION


def test_the_report_comes_with_what_it_shows(tmp_path: Path) -> None:
    folder = "models/evaluation/abc/"
    files = {
        f"{folder}report.html": b'<img src="pictures/worst-1.png"> <img src="pictures/../../etc.png">',
        f"{folder}pictures/worst-1.png": b"PNG",
        f"{folder}model-card.json": b"{}",
    }
    s3 = bucket(evaluation(pictures=[{"file": "pictures/worst-2.png"}]), **files)
    world = deployment(s3=s3)
    found = download_evaluation(world.session, read_evaluation({}, uri=f"s3://{EVALUATION_KEY}"), tmp_path)
    assert found.report == tmp_path / "report.html"
    assert found.model_card == tmp_path / "model-card.json"
    assert [one.name for one in found.pictures] == ["worst-1.png"], "worst-2 is named and not there"
    assert (tmp_path / "pictures" / "worst-1.png").read_bytes() == b"PNG"


def test_old_evaluations_are_read() -> None:
    old = read_evaluation({"split": "train", "metrics": {"mean_dice": 0.9}, "cases": [{}]})
    assert (old.metrics, old.split, old.held_out, old.intervals) == ({"mean_dice": 0.9}, "train", None, {})
    assert old.lines() == ["mean_dice 0.9000 on train cases"]


def test_log_lines_come_once_over_pages_and_of_one_job() -> None:
    logs = FakeLogs({"g": ["a", "b", "c"]})
    follower = LogFollower(deployment(logs=logs).session, "g", "job-1")
    assert follower.read() == ["a", "b", "c"]
    logs.groups["g"].append("d")
    assert follower.read() == ["d"]
    assert follower.read() == []


def test_curve_reads_only_its_lines() -> None:
    curve = read_training_curve(
        [
            "INFO step=1 train_loss=0.5",
            "step=2 train_loss=nan",
            "noise",
            "step=3 train_loss=x",
            "step=4 val_mean_dice=1e-1 val_auc=0.7",
            "step=5 input_wait_share=0.003 seconds_per_step=0.21",
            "step=1 train_loss=0.4",
        ]
    )
    assert curve.train_loss == ((1, 0.4),), "after an interruption the last value of a step counts"
    assert curve.validation == {"val_mean_dice": ((4, 0.1),), "val_auc": ((4, 0.7),)}


def test_the_live_line_says_where_the_training_is() -> None:
    told: list[str] = []
    line = LiveLine(told.append, total=140)
    for text in (
        "Train: Executing",
        "Train | step=10 train_loss=0.51234",
        "Train | a line of the container",
        "Train | step=50 val_mean_dice=0.8",
        "Train | step=20 train_loss=0.4",
    ):
        line(text)
    assert told == ["Train: Executing", "Train | a line of the container"]
    assert line.text == "training · step 50/140 · train loss 0.4 · mean dice 0.8"
    line("Evaluate: Executing")
    assert line.text == "evaluating"


@pytest.mark.parametrize(("terminal", "plain"), [(True, False), (False, True)])
def test_only_a_terminal_has_a_live_line(terminal: bool, plain: bool, tmp_path: Path) -> None:
    told: list[str] = []
    with (tmp_path / "screen").open("w") as screen:
        console = Console(file=screen, force_terminal=terminal)
        with live_progress(console, told.append, total=None) as progress:
            progress("Train | step=10 train_loss=0.5")
    assert bool(told) is plain
