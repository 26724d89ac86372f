"""Runs a training pipeline and stays with it: steps, log lines, and the model package or the reason why
not.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from workbench.deployment import Deployment
from workbench.errors import TrainingFailed
from workbench.log_tail import PROCESSING_JOBS, TRAINING_JOBS, LogFollower, log_tail
from workbench.progress import Progress, silent
from workbench.training_curve import TrainingCurve, read_training_curve
from workbench.waiting import poll

PIPELINE_TIMEOUT_SECONDS = 24 * 3600.0
ENDED = frozenset({"Succeeded", "Failed", "Stopped"})


@dataclass(frozen=True, kw_only=True)
class PipelineStep:
    """One step of an execution, as it ended."""

    name: str
    status: str
    seconds: float
    reason: str


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """What the Evaluate step measured (evaluation.json)."""

    metrics: Mapping[str, float]
    """For example {"mean_dice": 0.93}."""
    split: str
    """The cases it was measured on: "test", "validation", or "train" if the manifest has no others."""

    def to_json(self) -> dict[str, object]:
        return {"metrics": dict(self.metrics), "split": self.split}


@dataclass(frozen=True, kw_only=True)
class TrainingResult:
    """A pipeline execution that registered a model package."""

    execution_arn: str
    training_job: str
    model_package_arn: str
    steps: tuple[PipelineStep, ...]
    curve: TrainingCurve
    evaluation: Evaluation | None
    """None if the model package names no evaluation."""

    def to_json(self) -> dict[str, object]:
        return {
            "executionArn": self.execution_arn,
            "trainingJob": self.training_job,
            "modelPackageArn": self.model_package_arn,
            "steps": [{"name": s.name, "status": s.status, "seconds": s.seconds} for s in self.steps],
            "evaluation": self.evaluation.to_json() if self.evaluation else None,
        }


def train(
    deployment: Deployment,
    manifest_uri: str,
    *,
    task: str | None = None,
    parameters: Mapping[str, str] | None = None,
    progress: Progress = silent,
    every_seconds: float = 2.0,
) -> TrainingResult:
    """Start the task's pipeline on a manifest and wait until it has registered a model package.

    Args:
        deployment: The environment's stacks.
        manifest_uri: S3 URI of a dataset manifest.
        task: The training task ("lung-segmentation"); None takes the only one.
        parameters: Further pipeline parameters: MinimumDice, InstanceType, MaxSteps.
        progress: Gets the steps as they change, and the lines that the containers print.
        every_seconds: Time between two looks.
    """
    deployed = deployment.task(task)
    sagemaker = deployment.session.client("sagemaker")
    values = {"ManifestUri": manifest_uri, **(parameters or {})}
    arn = str(
        sagemaker.start_pipeline_execution(
            PipelineName=deployed.pipeline,
            PipelineParameters=[{"Name": name, "Value": value} for name, value in values.items()],
            ClientRequestToken=uuid.uuid4().hex,
        )["PipelineExecutionArn"]
    )
    progress(f"pipeline execution {arn.rpartition('/')[2]} of {deployed.pipeline}")
    follower = _Follower(deployment, arn, progress)

    def ended() -> Mapping[str, Any] | None:
        # The status is read before the steps: what those say is then at least as new.
        execution: Mapping[str, Any] = sagemaker.describe_pipeline_execution(PipelineExecutionArn=arn)
        follower.look()
        return execution if execution["PipelineExecutionStatus"] in ENDED else None

    execution = poll(
        ended,
        every_seconds=every_seconds,
        timeout_seconds=PIPELINE_TIMEOUT_SECONDS,
        on_timeout=lambda: TrainingFailed(
            f"Pipeline execution {arn} has not ended after {PIPELINE_TIMEOUT_SECONDS / 3600:.0f} hours.",
            advice="It goes on in SageMaker; stop it with StopPipelineExecution.",
        ),
    )
    if execution["PipelineExecutionStatus"] != "Succeeded":
        raise _failed(deployment, execution, follower)
    package = follower.model_package_arn()
    if package is None:
        raise TrainingFailed(
            f"Pipeline execution {arn} succeeded without registering a model package.",
            advice="The pipeline's definition lacks a RegisterModel step; deploy the training stack again.",
        )
    return TrainingResult(
        execution_arn=arn,
        training_job=follower.training_job or "",
        model_package_arn=package,
        steps=follower.steps(),
        curve=read_training_curve(follower.lines),
        evaluation=_evaluation(deployment, package),
    )


@dataclass
class _Follower:
    """What has been seen of one execution so far."""

    deployment: Deployment
    execution_arn: str
    progress: Progress
    lines: list[str] = field(default_factory=list)
    raw: list[Mapping[str, Any]] = field(default_factory=list)
    training_job: str | None = None
    _told: dict[str, str] = field(default_factory=dict)
    _logs: dict[str, LogFollower] = field(default_factory=dict)

    def look(self) -> None:
        paginator = self.deployment.session.client("sagemaker").get_paginator("list_pipeline_execution_steps")
        pages = paginator.paginate(PipelineExecutionArn=self.execution_arn, SortOrder="Ascending")
        self.raw = [step for page in pages for step in page["PipelineExecutionSteps"]]
        for step in self.raw:
            name, status = str(step["StepName"]), str(step["StepStatus"])
            if self._told.get(name) != status:
                self._told[name] = status
                self.progress(f"{name}: {status}")
            job = job_of(step)
            if job is not None and name not in self._logs:
                group, stream = job
                self._logs[name] = LogFollower(self.deployment.session, group, stream)
                if group == TRAINING_JOBS:
                    self.training_job = stream
        for name, log in self._logs.items():
            for line in log.read():
                if log.group == TRAINING_JOBS:
                    self.lines.append(line)
                self.progress(f"{name} | {line}")

    def steps(self) -> tuple[PipelineStep, ...]:
        found = []
        for step in self.raw:
            begin, end = step.get("StartTime"), step.get("EndTime")
            found.append(
                PipelineStep(
                    name=str(step["StepName"]),
                    status=str(step["StepStatus"]),
                    seconds=(end - begin).total_seconds() if begin and end else 0.0,
                    reason=str(step.get("FailureReason", "")),
                )
            )
        return tuple(found)

    def model_package_arn(self) -> str | None:
        for step in self.raw:
            register = step.get("Metadata", {}).get("RegisterModel")
            if register:
                return str(register["Arn"])
        return None


def job_of(step: Mapping[str, Any]) -> tuple[str, str] | None:
    """Log group and stream prefix of the container job behind a step; None for a step without one."""
    metadata = step.get("Metadata", {})
    for kind, group in (("TrainingJob", TRAINING_JOBS), ("ProcessingJob", PROCESSING_JOBS)):
        arn = metadata.get(kind, {}).get("Arn")
        if arn:
            return group, str(arn).rpartition("/")[2]
    return None


def _failed(deployment: Deployment, execution: Mapping[str, Any], follower: _Follower) -> TrainingFailed:
    broken = [step for step in follower.raw if step["StepStatus"] == "Failed"]
    reasons = [f"{step['StepName']}: {step.get('FailureReason', 'no reason given')}" for step in broken]
    reason = "; ".join(reasons) or str(execution.get("FailureReason", execution["PipelineExecutionStatus"]))
    details: tuple[str, ...] = ()
    for step in broken:
        job = job_of(step)
        if job is not None:
            details = log_tail(deployment.session, group=job[0], stream_prefix=job[1])
    return TrainingFailed(
        f"The training pipeline did not succeed. {reason}",
        advice="Read the log tail. If the quality gate refused the model, give it more data or steps "
        "(--parameter MaxSteps=...), or lower --parameter MinimumDice=... knowingly.",
        details=details,
    )


def _evaluation(deployment: Deployment, package_arn: str) -> Evaluation | None:
    package = deployment.session.client("sagemaker").describe_model_package(ModelPackageName=package_arn)
    uri = package.get("ModelMetrics", {}).get("ModelQuality", {}).get("Statistics", {}).get("S3Uri")
    if not uri:
        return None
    document = deployment.session.read_json(str(uri))
    return Evaluation(
        metrics={str(name): float(value) for name, value in document.get("metrics", {}).items()},
        split=str(document.get("split", "")),
    )
