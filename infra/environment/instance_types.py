"""Instance types in environment files: that SageMaker has them for what they are named for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

import botocore.session
from botocore.model import StringShape

from infra.instances import has_local_storage, has_nvidia_gpu

_ENDPOINT_SHAPES = {"batch": "TransformInstanceType"}


def instance_type_problems(
    *,
    studio: Mapping[str, Any],
    tasks: list[Mapping[str, Any]],
    endpoints: list[Mapping[str, Any]],
    inference_base: Any,
) -> Iterator[str]:
    """Every instance type that does not exist or does not fit."""
    named: list[tuple[str, Any, str]] = [
        ("studio.instance_type", studio.get("instance_type"), "AppInstanceType")
    ]
    for i, task in enumerate(tasks):
        where, others = f"training.tasks.{i}", task.get("other_instance_types")
        trains = [(f"{where}.instance_type", task.get("instance_type"))]
        if isinstance(others, list):
            trains += [(f"{where}.other_instance_types.{n}", other) for n, other in enumerate(others)]
        named += [(place, value, "TrainingInstanceType") for place, value in trains]
        evaluation = task.get("evaluation_instance_type")
        named.append((f"{where}.evaluation_instance_type", evaluation, "ProcessingInstanceType"))
        known = [value for _, value in trains if value in _instance_types("TrainingInstanceType")]
        if len({has_local_storage(value) for value in known}) > 1:
            yield f"{where}.other_instance_types: with and without local storage takes two tasks"
    for i, endpoint in enumerate(endpoints):
        where, mode = f"inference.endpoints.{i}.instance_type", endpoint.get("mode")
        shape = _ENDPOINT_SHAPES.get(str(mode), "ProductionVariantInstanceType")
        machine = endpoint.get("instance_type")
        named.append((where, machine, shape))
        if isinstance(machine, str) and machine in _instance_types(shape):
            if mode == "multi-model" and has_nvidia_gpu(machine):
                yield f"{where}: multi-model endpoints with our container run on CPU"
            if mode == "batch" and has_nvidia_gpu(machine) and "cu13" in str(inference_base):
                yield f"{where}: batch transform has no driver for CUDA 13 (images.inference_base), use CPU"
            models = endpoint.get("models")
            wants_gpu = isinstance(models, list) and any(
                isinstance(model, Mapping) and model.get("accelerators") for model in models
            )
            if mode == "inference-components" and wants_gpu and not has_nvidia_gpu(machine):
                yield f"{where}: a model wants accelerators, and {machine} has none"
    for place, value, shape in named:
        if isinstance(value, str) and value not in _instance_types(shape):
            yield f"{place}: SageMaker has no {shape} {value!r}"


@cache
def _instance_types(shape: str) -> frozenset[str]:
    """Instance types that SageMaker's API model knows. From botocore's data files: no call, no
    credentials.
    """
    found = botocore.session.get_session().get_service_model("sagemaker").shape_for(shape)
    return frozenset(found.enum if isinstance(found, StringShape) else ())
