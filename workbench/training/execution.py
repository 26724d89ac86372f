"""Follows a pipeline execution: its steps as they change, what its containers print, and its end."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from workbench.deployment import Deployment
from workbench.log_tail import PROCESSING_JOBS, TRAINING_JOBS, LogFollower
from workbench.progress import Progress

ENDED = frozenset({"Succeeded", "Failed", "Stopped"})


@dataclass(frozen=True, kw_only=True)
class PipelineStep:
    """One step of an execution, as it ended."""

    name: str
    status: str
    seconds: float
    reason: str
    cached_from: str = ""
    """ARN of the execution whose result it took over; empty: it ran."""

    def to_json(self) -> dict[str, object]:
        return {
            "name": self.name,
            "status": self.status,
            "seconds": self.seconds,
            "cachedFrom": self.cached_from or None,
        }


@dataclass
class Follower:
    """What has been seen of one execution so far; each thing is told once."""

    deployment: Deployment
    execution_arn: str
    progress: Progress
    lines: list[str] = field(default_factory=list)
    """What the training printed."""
    raw: list[Mapping[str, Any]] = field(default_factory=list)
    """The steps as SageMaker describes them."""
    training_job: str | None = None
    _told: dict[str, str] = field(default_factory=dict)
    _logs: dict[str, LogFollower] = field(default_factory=dict)

    def look(self) -> None:
        """Ask for news."""
        paginator = self.deployment.session.client("sagemaker").get_paginator("list_pipeline_execution_steps")
        pages = paginator.paginate(PipelineExecutionArn=self.execution_arn, SortOrder="Ascending")
        self.raw = [step for page in pages for step in page["PipelineExecutionSteps"]]
        cached = set()
        for step in self.raw:
            name, status = str(step["StepName"]), str(step["StepStatus"])
            source = cached_from(step)
            if source:
                cached.add(name)
            if self._told.get(name) != status:
                self._told[name] = status
                again = f", the same as in execution {source.rpartition('/')[2]}, not run again"
                self.progress(f"{name}: {status}{again if source else ''}")
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
                # Of a step that did not run, the curve is wanted and not the talk.
                if name not in cached:
                    self.progress(f"{name} | {line}")

    def steps(self) -> tuple[PipelineStep, ...]:
        """The steps so far, in the order in which they began."""
        found = []
        for step in self.raw:
            begin, end = step.get("StartTime"), step.get("EndTime")
            found.append(
                PipelineStep(
                    name=str(step["StepName"]),
                    status=str(step["StepStatus"]),
                    seconds=(end - begin).total_seconds() if begin and end else 0.0,
                    reason=str(step.get("FailureReason", "")),
                    cached_from=cached_from(step),
                )
            )
        return tuple(found)

    def model_package_arn(self) -> str | None:
        """The package that the execution registered."""
        for step in self.raw:
            register = step.get("Metadata", {}).get("RegisterModel")
            if register:
                return str(register["Arn"])
        return None


def cached_from(step: Mapping[str, Any]) -> str:
    """ARN of the execution whose result a step took over, or nothing."""
    return str(step.get("CacheHitResult", {}).get("SourcePipelineExecutionArn", ""))


def job_of(step: Mapping[str, Any]) -> tuple[str, str] | None:
    """Log group and stream prefix of the container job behind a step; None for a step without one."""
    metadata = step.get("Metadata", {})
    for kind, group in (("TrainingJob", TRAINING_JOBS), ("ProcessingJob", PROCESSING_JOBS)):
        arn = metadata.get(kind, {}).get("Arn")
        if arn:
            return group, str(arn).rpartition("/")[2]
    return None


def execution_arn(deployment: Deployment, execution: str, *, task: str | None = None) -> str:
    """The ARN of an execution that is named by ARN, or by its id in the pipeline of a task."""
    if execution.startswith("arn:"):
        return execution
    environment = deployment.session.environment
    # Of the partitions of AWS the one that the stacks are in is in the ARN of each of their resources.
    partition = deployment.stack("data")["ImportRoleArn"].split(":")[1]
    pipeline = deployment.task(task).pipeline
    return (
        f"arn:{partition}:sagemaker:{environment.region}:{environment.account}:"
        f"pipeline/{pipeline}/execution/{execution}"
    )


def execution_parameters(deployment: Deployment, execution_arn: str) -> Mapping[str, str]:
    """The parameters that an execution was started with."""
    pages = (
        deployment.session.client("sagemaker")
        .get_paginator("list_pipeline_parameters_for_execution")
        .paginate(PipelineExecutionArn=execution_arn)
    )
    return {one["Name"]: one["Value"] for page in pages for one in page["PipelineParameters"]}
