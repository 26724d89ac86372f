"""Trains: starts a pipeline and stays with it until a model package is registered, or the reason why not is
known.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from botocore.exceptions import ClientError

from arrival.waiting import poll
from workbench.deployment import Deployment
from workbench.errors import TrainingFailed, WorkbenchError
from workbench.log_tail import log_tail
from workbench.progress import Progress, silent
from workbench.training.curve import TrainingCurve, read_training_curve
from workbench.training.evaluation import FILE, Evaluation, evaluation_of
from workbench.training.execution import ENDED, Follower, PipelineStep, execution_parameters, job_of
from workbench.training.pipeline import read_pipeline
from workbench.training.refusal import Refusal, refusal
from workbench.training.request import TrainingRequest, start_training

PIPELINE_TIMEOUT_SECONDS = 28 * 24 * 3600.0
"""SageMaker's own limit for a training job."""


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
    model_card: str = ""
    """Status of the package's model card ("Draft"); empty if it has none."""

    def to_json(self) -> dict[str, object]:
        return {
            "executionArn": self.execution_arn,
            "trainingJob": self.training_job,
            "modelPackageArn": self.model_package_arn,
            "steps": [step.to_json() for step in self.steps],
            "evaluation": self.evaluation.to_json() if self.evaluation else None,
            "modelCard": self.model_card or None,
        }


def train(
    deployment: Deployment,
    request: TrainingRequest,
    *,
    progress: Progress = silent,
    every_seconds: float = 2.0,
) -> TrainingResult:
    """Start a training and wait until it has registered a model package.

    Args:
        deployment: The environment's stacks.
        request: What to train, and from what.
        progress: Gets the steps as they change, and the lines that the containers print.
        every_seconds: Time between two looks.

    Raises:
        WorkbenchError: The request is wrong in itself; nothing was started.
        TrainingFailed: It ended without a package, with the reason and the last lines.
    """
    started = start_training(deployment, request, progress=progress)
    return follow_training(
        deployment,
        started.execution_arn,
        parameters=started.parameters,
        progress=progress,
        every_seconds=every_seconds,
    )


def follow_training(
    deployment: Deployment,
    execution_arn: str,
    *,
    parameters: Mapping[str, str] | None = None,
    progress: Progress = silent,
    every_seconds: float = 2.0,
) -> TrainingResult:
    """Stay with an execution, whoever started it, until it has registered a model package.

    Args:
        deployment: The environment's stacks.
        execution_arn: The execution.
        parameters: What it was started with; None asks SageMaker if they are needed.
        progress: Gets the steps as they change, and the lines that the containers print.
        every_seconds: Time between two looks.

    Raises:
        TrainingFailed: It ended without a package, with the reason and the last lines.
    """
    sagemaker = deployment.session.client("sagemaker")
    follower = Follower(deployment, execution_arn, progress)

    def ended() -> Mapping[str, Any] | None:
        # The status is read before the steps: what those say is then at least as new.
        execution: Mapping[str, Any] = sagemaker.describe_pipeline_execution(
            PipelineExecutionArn=execution_arn
        )
        follower.look()
        return execution if execution["PipelineExecutionStatus"] in ENDED else None

    execution = poll(
        ended,
        every_seconds=every_seconds,
        timeout_seconds=PIPELINE_TIMEOUT_SECONDS,
        on_timeout=lambda: TrainingFailed(
            f"Pipeline execution {execution_arn} has not ended after "
            f"{PIPELINE_TIMEOUT_SECONDS / 86400:.0f} days.",
            advice=f"Stop it: monai-aws train --stop {execution_arn}",
        ),
    )
    status = execution["PipelineExecutionStatus"]
    if status == "Stopped":
        raise TrainingFailed(
            f"Pipeline execution {execution_arn} was stopped.",
            advice="The same command again goes on from its last checkpoint.",
        )
    if status != "Succeeded":
        raise _failed(deployment, execution, follower, parameters)
    arn = follower.model_package_arn()
    if arn is None:
        raise TrainingFailed(
            f"Pipeline execution {execution_arn} succeeded without registering a model package.",
            advice="The pipeline's definition lacks a RegisterModel step; deploy the training stack again.",
        )
    package = sagemaker.describe_model_package(ModelPackageName=arn)
    return TrainingResult(
        execution_arn=execution_arn,
        training_job=follower.training_job or "",
        model_package_arn=arn,
        steps=follower.steps(),
        curve=read_training_curve(follower.lines),
        evaluation=evaluation_of(deployment.session, package),
        model_card=str(package.get("ModelCard", {}).get("ModelCardStatus", "")),
    )


def stop_training(deployment: Deployment, execution_arn: str) -> None:
    """Stop an execution; its containers write a checkpoint first, and the same training goes on from it."""
    deployment.session.client("sagemaker").stop_pipeline_execution(
        PipelineExecutionArn=execution_arn, ClientRequestToken=uuid.uuid4().hex
    )


def _failed(
    deployment: Deployment,
    execution: Mapping[str, Any],
    follower: Follower,
    parameters: Mapping[str, str] | None,
) -> TrainingFailed:
    broken = [step for step in follower.raw if step["StepStatus"] == "Failed"]
    reasons = [f"{step['StepName']}: {step.get('FailureReason', 'no reason given')}" for step in broken]
    reason = "; ".join(reasons) or str(execution.get("FailureReason", execution["PipelineExecutionStatus"]))
    jobs = [job for step in broken if (job := job_of(step)) is not None]
    if jobs:
        group, stream = jobs[-1]
        return TrainingFailed(
            f"The training pipeline did not succeed. {reason}",
            advice="The last lines of the container name the cause. After it is gone, the same command goes "
            "on from the last checkpoint.",
            details=log_tail(deployment.session, group=group, stream_prefix=stream),
        )
    found = _refusal(deployment, follower, parameters)
    if found is not None:
        return TrainingFailed(
            f"The model was not registered: {'; '.join(found.reasons)}.",
            advice=". ".join(found.advice) + ".",
            details=[reason],
        )
    return TrainingFailed(
        f"The training pipeline did not succeed. {reason}",
        advice="The step that failed names the cause; its execution in SageMaker Studio has the rest.",
    )


def _refusal(
    deployment: Deployment, follower: Follower, parameters: Mapping[str, str] | None
) -> Refusal | None:
    """What the evaluation says against the model; None if there is none, or none that can be read."""
    name, _, execution_id = follower.execution_arn.partition(":pipeline/")[2].partition("/execution/")
    tasks = [task for task in deployment.tasks if task.pipeline.lower() == name.lower()]
    if not tasks:
        return None
    try:
        values = parameters or execution_parameters(deployment, follower.execution_arn)
        pipeline = read_pipeline(deployment, tasks[0])
        folder = pipeline.evaluation_folder(execution_id, values)
        return refusal(pipeline, deployment.session.read_json(f"{folder}/{FILE}"), values)
    except (ClientError, WorkbenchError) as error:
        # The pipeline's own reason is at hand; that its evaluation cannot be read must not replace it.
        follower.progress(f"the evaluation could not be read: {error}")
        return None
