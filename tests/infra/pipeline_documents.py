"""Definitions of SageMaker Pipelines: each step is a request that SageMaker's API accepts.

The grammar is that of https://aws-sagemaker-mlops.github.io/sagemaker-model-building-pipeline-definition-JSON-schema/;
requests are checked against botocore's model of the API, values of enumerations included.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

import botocore.session
from botocore.model import ListShape, MapShape, ServiceModel, Shape, StringShape, StructureShape
from botocore.validate import ParamValidator

Step = dict[str, Any]

_REQUESTS: dict[str, tuple[str, dict[str, str]]] = {
    "Training": ("CreateTrainingJob", {"TrainingJobName": "pipelines-abc-step"}),
    "Processing": ("CreateProcessingJob", {"ProcessingJobName": "pipelines-abc-step"}),
    "Transform": ("CreateTransformJob", {"TransformJobName": "pipelines-abc-step"}),
    "Model": ("CreateModel", {"ModelName": "pipelines-abc-step"}),
    "RegisterModel": ("CreateModelPackage", {}),
}
"""The request of a type of step, and what the service adds to it."""

_OF_CONTROL = {"Condition", "Fail"}

_COMPARISONS = {
    *("Equals", "GreaterThan", "GreaterThanOrEqualTo", "LessThan", "LessThanOrEqualTo"),
}

_EXAMPLES = {"String": "s3://models/manifests/a.json", "Integer": 1, "Float": 0.5, "Boolean": True}

_TYPES = {"String": str, "Integer": int, "Float": (int, float), "Boolean": bool}


@cache
def _sagemaker() -> ServiceModel:
    return botocore.session.get_session().get_service_model("sagemaker")


def pipeline(definition: Any) -> Iterator[str]:
    """Problems of a pipeline's definition."""
    unknown = set(definition) - {"Version", "Metadata", "Parameters", "Steps", "PipelineExperimentConfig"}
    if unknown or definition.get("Version") != "2020-12-01":
        yield f"version {definition.get('Version')}, keys {sorted(unknown)}"
    parameters = definition.get("Parameters", [])
    yield from _parameters(parameters)
    steps = list(steps_of(definition["Steps"]))
    names = [step["Name"] for step in steps]
    yield from (f"several steps are called {name}" for name in set(names) if names.count(name) > 1)
    known = {f"Parameters.{parameter['Name']}" for parameter in parameters}
    known |= {
        f"Execution.{name}" for name in ("PipelineExecutionId", "PipelineExecutionArn", "StartDateTime")
    }
    for step in steps:
        for reference in references(step):
            kind, name, *_ = reference.split(".")
            if reference not in known and not (kind == "Steps" and name in names):
                yield f"{step['Name']}: {reference} leads nowhere"
        yield from (
            f"{step['Name']} depends on {name}, which is no step"
            for name in step.get("DependsOn", [])
            if name not in names
        )
        yield from (f"{step['Name']}: {problem}" for problem in _step(step, parameters))


def steps_of(steps: list[Step]) -> Iterator[Step]:
    """All steps, those of branches included."""
    for step in steps:
        yield step
        for branch in ("IfSteps", "ElseSteps"):
            yield from steps_of(step["Arguments"].get(branch, []))


def references(value: Any) -> Iterator[str]:
    if isinstance(value, list):
        for item in value:
            yield from references(item)
    elif isinstance(value, dict):
        if set(value) == {"Get"}:
            yield value["Get"]
        for item in value.values():
            yield from references(item)


def _parameters(parameters: list[dict[str, Any]]) -> Iterator[str]:
    for parameter in parameters:
        name, type = parameter["Name"], parameter["Type"]
        values = [parameter["DefaultValue"]] if "DefaultValue" in parameter else []
        if type not in _TYPES:
            yield f"parameter {name} of type {type}"
            continue
        for value in [*values, *parameter.get("EnumValues", [])]:
            if not isinstance(value, _TYPES[type]) or (type != "Boolean" and isinstance(value, bool)):
                yield f"parameter {name}: {value!r} is no {type}"
        if values and parameter.get("EnumValues") and values[0] not in parameter["EnumValues"]:
            yield f"parameter {name}: {values[0]!r} is not one of its values"


def _step(step: Step, parameters: list[dict[str, Any]]) -> Iterator[str]:
    type = step["Type"]
    if type in _REQUESTS:
        operation, added = _REQUESTS[type]
        shape = _sagemaker().operation_model(operation).input_shape
        assert shape is not None
        problems = dict.fromkeys(
            problem
            for values in _choices(parameters)
            for problem in _request(_filled(step["Arguments"], values) | added, shape)
        )
        yield from problems
        if type in ("Training", "Processing", "Transform"):
            yield from _protected(step["Arguments"])
    elif type == "Condition":
        for condition in step["Arguments"]["Conditions"]:
            if condition["Type"] not in _COMPARISONS or not {"LeftValue", "RightValue"} <= set(condition):
                yield f"{condition['Type']} compares nothing"
        if not step["Arguments"].get("IfSteps"):
            yield "nothing follows"
    elif type not in _OF_CONTROL:
        yield f"steps of type {type} are not known here"
    yield from _cache(step)
    allowed = {"Name", "Type", "Arguments", "DependsOn", "PropertyFiles", "CacheConfig", "RetryPolicies"}
    unknown = set(step) - allowed - {"DisplayName", "Description"}
    if unknown:
        yield f"keys {sorted(unknown)}"


def _cache(step: Step) -> Iterator[str]:
    """https://docs.aws.amazon.com/sagemaker/latest/dg/pipelines-caching-enabling.html"""
    config = step.get("CacheConfig")
    if config is None:
        return
    if step["Type"] not in ("Training", "Processing", "Transform"):
        yield f"a step of type {step['Type']} has nothing to keep (CacheConfig)"
    if set(config) != {"Enabled", "ExpireAfter"} or not isinstance(config["Enabled"], bool):
        yield f"CacheConfig {config}"
    elif not re.fullmatch(r"P(\d+[YMWD])*(T(\d+[HM])+)?", config["ExpireAfter"]):
        yield f"CacheConfig: {config['ExpireAfter']!r} is no duration"


def _protected(arguments: dict[str, Any]) -> Iterator[str]:
    """What must be in every job that sees images: HIPAA 164.312(a)(2)(iv) and (e)(1)."""
    network = arguments.get("NetworkConfig", arguments)
    if not network.get("VpcConfig", {}).get("Subnets"):
        yield "the job is outside the VPC (VpcConfig)"
    if network.get("EnableInterContainerTrafficEncryption") is not True:
        yield "its machines talk in the clear (EnableInterContainerTrafficEncryption)"
    output = arguments.get("OutputDataConfig") or arguments.get("ProcessingOutputConfig") or {}
    if not (output or arguments.get("TransformOutput", {})).get("KmsKeyId"):
        yield "its output has no customer managed key (KmsKeyId)"


def _choices(parameters: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Values of the parameters: each that is allowed, or the default, or an example."""
    options = [
        [
            (parameter["Name"], value)
            for value in parameter.get("EnumValues")
            or [parameter.get("DefaultValue", _EXAMPLES.get(parameter["Type"]))]
        ]
        for parameter in parameters
    ]
    for chosen in itertools.product(*options):
        yield dict(chosen)


def _filled(value: Any, parameters: Mapping[str, Any]) -> Any:
    """The value as the service fills it in when the pipeline runs."""
    if isinstance(value, list):
        return [_filled(item, parameters) for item in value]
    if not isinstance(value, dict):
        return value
    if set(value) == {"Get"}:
        kind, _, name = value["Get"].partition(".")
        return parameters.get(name) if kind == "Parameters" else "s3://models/training/a/model.tar.gz"
    if set(value) == {"Std:Join"}:
        join = value["Std:Join"]
        return join["On"].join(str(_filled(item, parameters)) for item in join["Values"])
    return {key: _filled(item, parameters) for key, item in value.items()}


def _request(request: dict[str, Any], shape: Shape) -> Iterator[str]:
    report = ParamValidator().validate(request, shape)
    if report.has_errors():
        yield report.generate_report()
    else:
        yield from _values(request, shape, "")


def _values(value: Any, shape: Shape, path: str) -> Iterator[str]:
    """What botocore leaves to the service: enumerations, and how long a text or list may be."""
    if isinstance(shape, StructureShape):
        for key, item in value.items():
            yield from _values(item, shape.members[key], f"{path}.{key}")
    elif isinstance(shape, ListShape):
        yield from _size(len(value), shape, path)
        for item in value:
            yield from _values(item, shape.member, f"{path}[]")
    elif isinstance(shape, MapShape):
        yield from _size(len(value), shape, path)
        for key, item in value.items():
            yield from _values(item, shape.value, f"{path}.{key}")
    elif isinstance(shape, StringShape):
        yield from _size(len(value), shape, path)
        if shape.enum and value not in shape.enum:
            yield f"{path}: {value!r} is none of the values of {shape.name}"


def _size(size: int, shape: Shape, path: str) -> Iterator[str]:
    limit = shape.metadata.get("max")
    if limit is not None and size > limit:
        yield f"{path}: {size} long, {limit} at most"
