"""The pipelines of a synthesized environment as SageMaker would read and run them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from infra_assembly import Assembly

EXAMPLE = {
    "ManifestUri": "s3://models/manifests/a.json",
    "Run": "run1",
    "MaxSteps": 12,
    "MinimumScore": 0.9,
}
"""Parameters of an execution."""

_BECAME = {
    "ModelArtifacts.S3ModelArtifacts": "s3://models/training/job/output/model.tar.gz",
    "TrainingJobArn": "arn:aws:sagemaker:us-east-1:111122223333:training-job/pipelines-execution1-train",
    "TrainingJobName": "pipelines-execution1-train",
    "ProcessingJobArn": "arn:aws:sagemaker:us-east-1:111122223333:processing-job/pipelines-execution1-eval",
}
"""What becomes of the steps of an execution."""


def definitions_of(assembly: Assembly) -> dict[str, dict[str, Any]]:
    """The definition of each task's pipeline."""
    found = {}
    for _, pipeline in assembly.resources("AWS::SageMaker::Pipeline"):
        properties = pipeline["Properties"]
        body = properties["PipelineDefinition"]["PipelineDefinitionBody"]
        text = "".join(part if isinstance(part, str) else stand_in(part) for part in body["Fn::Join"][1])
        task = properties["PipelineName"].removeprefix(f"monai-{assembly.environment}-")
        found[task] = json.loads(text)
    return found


def stand_in(intrinsic: Mapping[str, Any]) -> str:
    """A value of the right form for a reference that only CloudFormation resolves."""
    text = json.dumps(intrinsic)
    for role in ("Trainer", "Evaluator"):
        if f"{role}Role" in text:
            return f"arn:aws:iam::111122223333:role/{role}"
    if "Subnet" in text:
        return "subnet-0123456789abcdef0"
    if "Workloads" in text:
        return "sg-0123456789abcdef0"
    if "Key" in text:
        return "arn:aws:kms:us-east-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab"
    return "amazonaws.com" if "URLSuffix" in text else "models"


def all_steps(steps: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Steps with those of their branches."""
    for step in steps:
        yield step
        for branch in ("IfSteps", "ElseSteps"):
            yield from all_steps(step["Arguments"].get(branch, []))


def steps_by_name(definition: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    return {step["Name"]: step for step in all_steps(definition["Steps"])}


def defaults(definition: Mapping[str, Any]) -> dict[str, Any]:
    return {p["Name"]: p["DefaultValue"] for p in definition["Parameters"] if "DefaultValue" in p}


def resolved(value: Any, parameters: Mapping[str, Any]) -> Any:
    """The value as the service fills it in when the pipeline runs."""
    if isinstance(value, list):
        return [resolved(item, parameters) for item in value]
    if not isinstance(value, dict):
        return value
    if set(value) == {"Get"}:
        kind, _, name = value["Get"].partition(".")
        if kind == "Execution":
            return "execution1"
        return parameters[name] if kind == "Parameters" else _BECAME[name.partition(".")[2]]
    if set(value) == {"Std:Join"}:
        join = value["Std:Join"]
        return join["On"].join(str(resolved(item, parameters)) for item in join["Values"])
    return {key: resolved(item, parameters) for key, item in value.items()}


def runner_conditions(assembly: Assembly, logical_name: str, action: str) -> dict[str, Any]:
    """The conditions under which the role of a task's pipeline may do `action`."""
    (found,) = [
        statement["Condition"]
        for name, policy in assembly.resources("AWS::IAM::ManagedPolicy")
        if name.startswith(f"training/{logical_name}Runner")
        for statement in policy["Properties"]["PolicyDocument"]["Statement"]
        if action in statement["Action"]
    ]
    conditions: dict[str, Any] = found
    return conditions
