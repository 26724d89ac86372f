"""Executions of the pipeline of `sagemaker_pipeline_steps`: started, waited for, looked at."""

from __future__ import annotations

import json
import uuid
from typing import Any

from sagemaker_workbench import Workbench, wait_for


def start(bench: Workbench, pipeline: str, dice: float, **parameters: str) -> str:
    """Start an execution whose model will have this Dice; its ARN."""
    uri = bench.put(f"manifests/{uuid.uuid4().hex}/m.json", json.dumps({"dice": dice}))
    values = {"ManifestUri": uri, **parameters}
    return str(
        bench.sagemaker.start_pipeline_execution(
            PipelineName=pipeline,
            ClientRequestToken=uuid.uuid4().hex,
            PipelineParameters=[{"Name": name, "Value": value} for name, value in values.items()],
        )["PipelineExecutionArn"]
    )


def finished(bench: Workbench, arn: str) -> dict[str, Any]:
    """Wait for the end of an execution and describe it."""

    def check() -> Any:
        execution = bench.sagemaker.describe_pipeline_execution(PipelineExecutionArn=arn)
        return execution if execution["PipelineExecutionStatus"] not in ("Executing", "Stopping") else None

    return dict(wait_for(check))


def steps(bench: Workbench, arn: str) -> dict[str, dict[str, Any]]:
    """The steps of an execution by name, in the order in which they began."""
    listed = bench.sagemaker.list_pipeline_execution_steps(PipelineExecutionArn=arn, SortOrder="Ascending")
    return {step["StepName"]: step for step in listed["PipelineExecutionSteps"]}


def job_of(step: dict[str, Any]) -> str:
    """The name of the job that a listed step ran, or took its results from."""
    (metadata,) = step["Metadata"].values()
    return str(metadata["Arn"].rsplit("/", 1)[-1])


def make_pipeline(bench: Workbench, name: str, definition: dict[str, Any], role: str) -> str:
    """A pipeline of its own; its name."""
    full = f"{bench.name}-{name}"
    bench.sagemaker.create_pipeline(
        PipelineName=full,
        PipelineDefinition=json.dumps(definition),
        ClientRequestToken=uuid.uuid4().hex,
        RoleArn=role,
    )
    return full
