"""Arguments of pipeline steps against botocore's request shapes, with references in place of values."""

from __future__ import annotations

import functools
from typing import Any

import botocore.loaders
import botocore.model
import botocore.validate

from local.sagemaker.errors import validation
from local.sagemaker.references import is_reference


def check_arguments(*, step: str, operation: str, arguments: dict[str, Any], filled_in: str | None) -> None:
    """Refuse arguments that the step's request would not take; the pipeline adds the member `filled_in`."""
    shape = _input_shape(operation)
    if filled_in is not None and filled_in in arguments:
        raise validation(f"Step {step!r}: {filled_in} is chosen by the pipeline, not given.")
    sample = _sample(arguments, shape)
    if filled_in is not None:
        sample[filled_in] = "x"
    report = botocore.validate.ParamValidator().validate(sample, shape)
    if report.has_errors():
        raise validation(f"Step {step!r}: {operation}: {report.generate_report()}")


def coerce(value: Any, operation: str) -> Any:
    """Numbers in the place of strings become strings: an Integer parameter may stand for a hyperparameter."""
    return _coerce(value, _input_shape(operation))


@functools.cache
def _model() -> botocore.model.ServiceModel:
    return botocore.model.ServiceModel(
        botocore.loaders.Loader().load_service_model("sagemaker", "service-2"), "sagemaker"
    )


def _input_shape(operation: str) -> Any:
    """The request's shape. `Any`: which attributes a shape of botocore has depends on its kind."""
    return _model().operation_model(operation).input_shape


def _sample(value: Any, shape: Any) -> Any:
    """The arguments with a fitting value in the place of every reference."""
    if is_reference(value):
        return _placeholder(shape)
    if shape.type_name == "structure" and isinstance(value, dict):
        # A member that the shape does not have stays as it is: the validator reports it.
        return {
            name: _sample(entry, shape.members[name]) if name in shape.members else entry
            for name, entry in value.items()
        }
    if shape.type_name == "map" and isinstance(value, dict):
        return {name: _sample(entry, shape.value) for name, entry in value.items()}
    if shape.type_name == "list" and isinstance(value, list):
        return [_sample(entry, shape.member) for entry in value]
    return value


def _placeholder(shape: Any) -> Any:
    least = shape.metadata.get("min", 0)
    if shape.type_name == "string":
        return "x" * max(1, least)
    if shape.type_name in ("integer", "long"):
        return max(1, least)
    if shape.type_name in ("float", "double"):
        return float(least)
    if shape.type_name == "boolean":
        return True
    if shape.type_name == "list":
        return [_placeholder(shape.member)] * max(1, least)
    if shape.type_name == "map":
        return {}
    raise validation(f"A reference cannot stand for the structure {shape.name}.")


def _coerce(value: Any, shape: Any) -> Any:
    if shape.type_name == "structure" and isinstance(value, dict):
        return {
            name: _coerce(entry, shape.members[name]) if name in shape.members else entry
            for name, entry in value.items()
        }
    if shape.type_name == "map" and isinstance(value, dict):
        return {name: _coerce(entry, shape.value) for name, entry in value.items()}
    if shape.type_name == "list" and isinstance(value, list):
        return [_coerce(entry, shape.member) for entry in value]
    if shape.type_name == "string" and isinstance(value, int | float) and not isinstance(value, bool):
        return str(value)
    return value
