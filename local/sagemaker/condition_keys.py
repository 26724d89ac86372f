"""What a request says of itself to IAM: the condition keys of SageMaker's actions.

A key that the request says nothing about is absent. Keys, and the actions that have them: Service
Authorization Reference, "Actions, resources, and condition keys for Amazon SageMaker".
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from local.service import ConditionKeys

Member = tuple[str, ...]
"""Where the value is in a request; "*" stands for every entry of a list."""

_JOB_NETWORK: dict[str, Member] = {
    "sagemaker:InterContainerTrafficEncryption": ("EnableInterContainerTrafficEncryption",),
    "sagemaker:NetworkIsolation": ("EnableNetworkIsolation",),
    "sagemaker:VpcSecurityGroupIds": ("VpcConfig", "SecurityGroupIds", "*"),
    "sagemaker:VpcSubnets": ("VpcConfig", "Subnets", "*"),
}
_MAX_RUNTIME: dict[str, Member] = {
    "sagemaker:MaxRuntimeInSeconds": ("StoppingCondition", "MaxRuntimeInSeconds"),
}
_KEYS: dict[str, tuple[tuple[str, Member], ...]] = {
    "CreateTrainingJob": (
        *(_JOB_NETWORK | _MAX_RUNTIME).items(),
        ("sagemaker:InstanceTypes", ("ResourceConfig", "InstanceType")),
        ("sagemaker:InstanceTypes", ("ResourceConfig", "InstanceGroups", "*", "InstanceType")),
        ("sagemaker:KeepAlivePeriod", ("ResourceConfig", "KeepAlivePeriodInSeconds")),
        ("sagemaker:OutputKmsKey", ("OutputDataConfig", "KmsKeyId")),
        ("sagemaker:VolumeKmsKey", ("ResourceConfig", "VolumeKmsKeyId")),
    ),
    "CreateProcessingJob": (
        *((key, ("NetworkConfig", *member)) for key, member in _JOB_NETWORK.items()),
        *_MAX_RUNTIME.items(),
        ("sagemaker:InstanceTypes", ("ProcessingResources", "ClusterConfig", "InstanceType")),
        ("sagemaker:OutputKmsKey", ("ProcessingOutputConfig", "KmsKeyId")),
        ("sagemaker:VolumeKmsKey", ("ProcessingResources", "ClusterConfig", "VolumeKmsKeyId")),
    ),
    "CreateTransformJob": (
        ("sagemaker:InstanceTypes", ("TransformResources", "InstanceType")),
        ("sagemaker:OutputKmsKey", ("TransformOutput", "KmsKeyId")),
        ("sagemaker:VolumeKmsKey", ("TransformResources", "VolumeKmsKeyId")),
    ),
    "CreateModel": tuple(
        (key, member)
        for key, member in _JOB_NETWORK.items()
        if key != "sagemaker:InterContainerTrafficEncryption"
    ),
    "CreateEndpointConfig": (
        ("sagemaker:InstanceTypes", ("ProductionVariants", "*", "InstanceType")),
        (
            "sagemaker:ServerlessMaxConcurrency",
            ("ProductionVariants", "*", "ServerlessConfig", "MaxConcurrency"),
        ),
        ("sagemaker:ServerlessMemorySize", ("ProductionVariants", "*", "ServerlessConfig", "MemorySizeInMB")),
        ("sagemaker:VolumeKmsKey", ("KmsKeyId",)),
    ),
    "CreateModelPackage": (("sagemaker:ModelApprovalStatus", ("ModelApprovalStatus",)),),
    "UpdateModelPackage": (("sagemaker:ModelApprovalStatus", ("ModelApprovalStatus",)),),
}


def condition_keys(operation: str, params: Mapping[str, Any]) -> ConditionKeys:
    """The keys of one request: SageMaker's own, and those of the tags that it gives."""
    found: dict[str, list[str]] = {}
    for key, member in _KEYS.get(operation, ()):
        values = [_text(value) for value in _values(params, member)]
        if values:
            found.setdefault(key, []).extend(values)
    keys: dict[str, str | list[str]] = {
        key: values if key in _LISTS else values[0] for key, values in found.items()
    }
    tags = params.get("Tags", []) if operation.startswith("Create") or operation == "AddTags" else []
    if tags:
        keys["aws:TagKeys"] = [tag["Key"] for tag in tags]
        keys |= {f"aws:RequestTag/{tag['Key']}": tag["Value"] for tag in tags}
    return keys


_LISTS = frozenset({"sagemaker:InstanceTypes", "sagemaker:VpcSecurityGroupIds", "sagemaker:VpcSubnets"})
"""Keys of several values, for ForAllValues and ForAnyValue."""


def _values(value: Any, member: Member) -> list[Any]:
    if value is None:
        return []
    if not member:
        return [value]
    if member[0] == "*":
        return [found for entry in value for found in _values(entry, member[1:])]
    return _values(value.get(member[0]), member[1:])


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
