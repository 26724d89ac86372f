"""ARNs, and the resources that every operation is authorised against.

Source: docs.aws.amazon.com/service-authorization/latest/reference/list_amazonsagemaker.html
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Params = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Names:
    """Makes and reads the ARNs of one account and region."""

    account_id: str
    region: str

    def arn(self, resource: str, name: str) -> str:
        """The ARN of a resource; endpoints and their configurations are in lower case."""
        shown = name.lower() if resource in ("endpoint", "endpoint-config") else name
        return f"arn:aws:sagemaker:{self.region}:{self.account_id}:{resource}/{shown}"

    def package(self, group: str, version: int | str) -> str:
        """A version in a model package group."""
        return self.arn("model-package", f"{group}/{version}")

    def execution(self, pipeline: str, identifier: str) -> str:
        """One execution of a pipeline."""
        return self.arn("pipeline", f"{pipeline}/execution/{identifier}")


def last(arn_or_name: str) -> str:
    """The name in an ARN, or the name itself: "arn:...:pipeline/a/execution/b" gives "a/execution/b"."""
    return arn_or_name.split(":")[-1].partition("/")[2] if arn_or_name.startswith("arn:") else arn_or_name


def resource_arns(
    names: Names, operation: str, params: Params, next_version: Callable[[str], int]
) -> Sequence[str]:
    """What a call of an operation is authorised against; "*" where AWS names no resource."""
    if operation in ("CreateModelPackage",):
        group = params.get("ModelPackageGroupName")
        if group:
            return [names.package(last(group), next_version(last(group)))]
        return [names.arn("model-package", params.get("ModelPackageName", "*"))]
    rule = _RESOURCES.get(operation)
    if rule is None:
        return ["*"]
    return [
        value if str(value).startswith("arn:") else names.arn(resource, str(value))
        for resource, member in rule
        if (value := params.get(member))
    ] or ["*"]


def _both(resource: str, member: str, *verbs: str) -> dict[str, Sequence[tuple[str, str]]]:
    return {verb: [(resource, member)] for verb in verbs}


_ENDPOINT = [("endpoint", "EndpointName"), ("endpoint-config", "EndpointConfigName")]
_RESOURCES: dict[str, Sequence[tuple[str, str]]] = {
    **_both("training-job", "TrainingJobName", "CreateTrainingJob", "DescribeTrainingJob", "StopTrainingJob"),
    **_both(
        "processing-job",
        "ProcessingJobName",
        "CreateProcessingJob",
        "DescribeProcessingJob",
        "StopProcessingJob",
    ),
    **_both(
        "transform-job", "TransformJobName", "CreateTransformJob", "DescribeTransformJob", "StopTransformJob"
    ),
    **_both("model", "ModelName", "CreateModel", "DescribeModel", "DeleteModel"),
    **_both(
        "endpoint-config",
        "EndpointConfigName",
        "CreateEndpointConfig",
        "DescribeEndpointConfig",
        "DeleteEndpointConfig",
    ),
    "CreateInferenceComponent": [
        ("inference-component", "InferenceComponentName"),
        ("endpoint", "EndpointName"),
    ],
    **_both(
        "inference-component",
        "InferenceComponentName",
        "DescribeInferenceComponent",
        "UpdateInferenceComponent",
        "UpdateInferenceComponentRuntimeConfig",
        "DeleteInferenceComponent",
    ),
    "CreateEndpoint": _ENDPOINT,
    "UpdateEndpoint": _ENDPOINT,
    **_both(
        "endpoint",
        "EndpointName",
        "DescribeEndpoint",
        "DeleteEndpoint",
        "InvokeEndpoint",
        "InvokeEndpointAsync",
    ),
    **_both(
        "model-package-group",
        "ModelPackageGroupName",
        "CreateModelPackageGroup",
        "DescribeModelPackageGroup",
        "DeleteModelPackageGroup",
    ),
    **_both("model-package", "ModelPackageName", "DescribeModelPackage", "DeleteModelPackage"),
    **_both("model-package", "ModelPackageArn", "UpdateModelPackage"),
    **_both(
        "pipeline",
        "PipelineName",
        "CreatePipeline",
        "UpdatePipeline",
        "DescribePipeline",
        "DeletePipeline",
        "StartPipelineExecution",
        "ListPipelineExecutions",
    ),
    **_both(
        "pipeline",
        "PipelineExecutionArn",
        "DescribePipelineExecution",
        "DescribePipelineDefinitionForExecution",
        "ListPipelineExecutionSteps",
        "ListPipelineParametersForExecution",
        "StopPipelineExecution",
        "RetryPipelineExecution",
    ),
    **_both("", "ResourceArn", "AddTags", "ListTags", "DeleteTags"),
}
"""Operation -> (resource type, member that holds its name or ARN)."""
