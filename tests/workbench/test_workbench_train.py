"""Training against fakes: progress, results, and failures with their reasons and log tails."""

from __future__ import annotations

import json
from datetime import datetime, timedelta
from typing import Any

import pytest
from workbench_fakes import FakeLogs, FakePaginator, FakeS3, deployment

from workbench.errors import TrainingFailed, WorkbenchError
from workbench.log_tail import TRAINING_JOBS, LogFollower
from workbench.train import train
from workbench.training_curve import read_training_curve

EXECUTION = "arn:aws:sagemaker:us-east-1:000000000000:pipeline/lung-pipeline/execution/abc"
PACKAGE = "arn:aws:sagemaker:us-east-1:000000000000:model-package/lung-models/3"
JOB = "arn:aws:sagemaker:us-east-1:000000000000:training-job/job-1"
BEGIN = datetime(2026, 1, 2, 3, 4, 5)


class FakePipeline:
    """An execution that goes through `stages`, one per look."""

    def __init__(self, stages: list[tuple[str, list[dict[str, Any]]]]) -> None:
        self.stages = stages
        self.started: dict[str, Any] = {}

    def start_pipeline_execution(self, **request: Any) -> dict[str, Any]:
        self.started = request
        return {"PipelineExecutionArn": EXECUTION}

    def describe_pipeline_execution(self, **_: Any) -> dict[str, Any]:
        if len(self.stages) > 1:
            self.stages.pop(0)
        return {"PipelineExecutionStatus": self.stages[0][0], "FailureReason": "a step failed"}

    def describe_model_package(self, **_: Any) -> dict[str, Any]:
        return {"ModelMetrics": {"ModelQuality": {"Statistics": {"S3Uri": "s3://models/evaluation.json"}}}}

    def get_paginator(self, name: str) -> FakePaginator:
        assert name == "list_pipeline_execution_steps"
        return FakePaginator(lambda **_: [{"PipelineExecutionSteps": self.stages[0][1]}])


def step(name: str, status: str, **more: Any) -> dict[str, Any]:
    return {
        "StepName": name,
        "StepStatus": status,
        "StartTime": BEGIN,
        "EndTime": BEGIN + timedelta(seconds=30),
        **more,
    }


TRAIN = {"Metadata": {"TrainingJob": {"Arn": JOB}}}


def test_training_follows_steps_and_lines_to_the_package() -> None:
    sagemaker = FakePipeline(
        [
            ("Executing", []),
            ("Executing", [step("Train", "Executing", **TRAIN)]),
            (
                "Succeeded",
                [
                    step("Train", "Succeeded", **TRAIN),
                    step("Register", "Succeeded", Metadata={"RegisterModel": {"Arn": PACKAGE}}),
                ],
            ),
        ]
    )
    logs = FakeLogs({TRAINING_JOBS: ["step=10 train_loss=0.5", "step=10 val_mean_dice=0.8"]})
    evaluation = {"split": "test", "metrics": {"mean_dice": 0.93}}
    s3 = FakeS3({"models/evaluation.json": json.dumps(evaluation).encode()})
    lines: list[str] = []
    result = train(
        deployment(sagemaker=sagemaker, logs=logs, s3=s3),
        "s3://models/manifests/a.json",
        parameters={"MaxSteps": "7"},
        progress=lines.append,
        every_seconds=0.0,
    )
    assert result.model_package_arn == PACKAGE
    assert result.training_job == "job-1"
    assert result.curve.train_loss == ((10, 0.5),)
    assert result.evaluation is not None
    assert (result.evaluation.split, result.evaluation.metrics["mean_dice"]) == ("test", 0.93)
    assert result.steps[0].seconds == 30.0
    assert lines.count("Train | step=10 train_loss=0.5") == 1
    assert lines.count("Train: Succeeded") == 1
    parameters = {one["Name"]: one["Value"] for one in sagemaker.started["PipelineParameters"]}
    assert parameters == {"ManifestUri": "s3://models/manifests/a.json", "MaxSteps": "7"}


def test_failed_training_says_why_with_the_log_tail() -> None:
    failed = step("Train", "Failed", FailureReason="AlgorithmError: loss is not finite", **TRAIN)
    sagemaker = FakePipeline([("Executing", []), ("Failed", [failed])])
    logs = FakeLogs({TRAINING_JOBS: ["Traceback", "ValueError: loss is nan"]})
    with pytest.raises(TrainingFailed, match="loss is not finite") as caught:
        train(deployment(sagemaker=sagemaker, logs=logs), "s3://m", every_seconds=0.0)
    assert caught.value.details == ("Traceback", "ValueError: loss is nan")


def test_quality_gate_is_a_failure_with_its_own_words() -> None:
    reject = step("Reject", "Failed", FailureReason="mean Dice is 0.2, below the required 0.85")
    sagemaker = FakePipeline([("Executing", []), ("Failed", [reject])])
    with pytest.raises(TrainingFailed, match=r"0\.2, below the required 0\.85"):
        train(deployment(sagemaker=sagemaker, logs=FakeLogs({})), "s3://m", every_seconds=0.0)


def test_success_without_a_package_is_a_failure() -> None:
    sagemaker = FakePipeline([("Executing", []), ("Succeeded", [step("Train", "Succeeded")])])
    with pytest.raises(TrainingFailed, match="without registering"):
        train(deployment(sagemaker=sagemaker, logs=FakeLogs({})), "s3://m", every_seconds=0.0)


def test_unknown_task_names_the_known_ones() -> None:
    with pytest.raises(WorkbenchError) as caught:
        train(deployment(sagemaker=None), "s3://m", task="brain-tumour")
    assert "LungSegmentation" in caught.value.advice


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
            "step=4 val_mean_dice=1e-1",
        ]
    )
    assert curve.train_loss == ((1, 0.5),)
    assert curve.val_mean_dice == ((4, 0.1),)
