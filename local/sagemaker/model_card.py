"""The model card of a model package: its content must be JSON of SageMaker's schema for package cards.

Source: docs.aws.amazon.com/sagemaker/latest/dg/model-registry-details.html, "Model package model card
schema". Where that schema puts a limit where JSON Schema ignores it (`maxContains` without `contains`,
`maxItems` of an element), what it means is checked.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import jsonschema

from local.sagemaker.errors import validation


def check_model_card(card: Mapping[str, Any]) -> None:
    """Refuse a ModelCard whose content, if it has one, the schema does not allow.

    Raises:
        ServiceError: ValidationException; the message names the place in the content.
    """
    if "ModelCardContent" not in card:
        return
    try:
        content = json.loads(card["ModelCardContent"])
    except ValueError as error:
        raise validation(f"ModelCardContent is not JSON: {error}") from None
    if wrong := jsonschema.exceptions.best_match(_VALIDATOR.iter_errors(content)):
        raise validation(f"ModelCardContent does not follow its schema at {wrong.json_path}: {wrong.message}")


def _record(properties: Mapping[str, Any], *required: str) -> dict[str, Any]:
    return {
        "type": "object",
        "additionalProperties": False,
        "required": list(required),
        "properties": dict(properties),
    }


def _text(longest: int = 2048) -> dict[str, Any]:
    return {"type": "string", "maxLength": longest}


def _choice(*values: str) -> dict[str, Any]:
    return {"type": "string", "enum": list(values)}


def _list(items: Mapping[str, Any], *, least: int = 0, most: int | None = None) -> dict[str, Any]:
    limit = {} if most is None else {"maxItems": most}
    return {"type": "array", "items": dict(items), "minItems": least, **limit}


def _map(values: Mapping[str, Any]) -> dict[str, Any]:
    return {"type": "object", "additionalProperties": dict(values)}


def _metric(kinds: tuple[str, ...], value: Mapping[str, Any], x_axis: Any, y_axis: Any) -> dict[str, Any]:
    members = {"name": _NAME, "notes": _text(1024), "type": _choice(*kinds), "value": dict(value)}
    return _record({**members, "x_axis_name": x_axis, "y_axis_name": y_axis}, "name", "type", "value")


_NUMBER = {"type": "number"}
_NAME = {"type": "string", "minLength": 1, "pattern": ".{1,255}"}
_SHORT_NAME = {"type": "string", "minLength": 1, "pattern": ".{1,63}"}
_AXIS = _text(63)
_AXES = _list(_AXIS)
_SIMPLE_VALUE = {"anyOf": [_NUMBER, _text(63), {"type": "boolean"}]}
_EVALUATION_METRIC = {
    "anyOf": [
        _metric(("number", "string", "boolean"), _SIMPLE_VALUE, _AXIS, _AXIS),
        _metric(("linear_graph",), _list(_list(_NUMBER, least=2, most=2), least=1), _AXIS, _AXIS),
        _metric(("bar_chart",), _list(_NUMBER, least=1), _AXES, _AXIS),
        _metric(
            ("matrix",), _list(_list(_NUMBER, least=1, most=20), least=1, most=20), x_axis=_AXES, y_axis=_AXES
        ),
    ]
}
_TRAINING_METRICS = _list(
    _record({"name": _NAME, "notes": _text(1024), "value": _NUMBER}, "name", "value"), most=50
)
_HYPER_PARAMETERS = _list(_record({"name": _NAME, "value": _NAME}, "name", "value"), most=100)
_TRAINING_JOB = _record(
    {
        "training_arn": _text(1024),
        "training_datasets": _list(_text(1024), most=15),
        "training_environment": _record({"container_image": _list(_text(1024), most=15)}),
        "training_metrics": _TRAINING_METRICS,
        "user_provided_training_metrics": _TRAINING_METRICS,
        "hyper_parameters": _HYPER_PARAMETERS,
        "user_provided_hyper_parameters": _HYPER_PARAMETERS,
    }
)
_OBJECTIVE = _record(
    {
        "function": _record(
            {"function": _choice("Maximize", "Minimize"), "facet": _text(63), "condition": _text(63)}
        ),
        "notes": _text(1024),
    }
)
_METRIC_GROUP = {
    "type": "object",
    "required": ["name", "metric_data"],
    "properties": {"name": _SHORT_NAME, "metric_data": _list(_EVALUATION_METRIC)},
}
_EVALUATION = _record(
    {
        "name": _SHORT_NAME,
        "evaluation_observation": _text(2096),
        "evaluation_job_arn": _text(256),
        "datasets": _list(_text(1024), most=10),
        "metadata": _map(_text(1024)),
        "metric_groups": _list(_METRIC_GROUP),
    },
    "name",
)
_CARD = _record(
    {
        "model_overview": _record(
            {"model_creator": _text(1024), "model_artifact": _list(_text(1024), most=15)}
        ),
        "intended_uses": _record(
            {
                "purpose_of_model": _text(),
                "intended_uses": _text(),
                "factors_affecting_model_efficiency": _text(),
                "risk_rating": _choice("High", "Medium", "Low", "Unknown"),
                "explanations_for_risk_rating": _text(),
            }
        ),
        "business_details": _record(
            {
                "business_problem": _text(),
                "business_stakeholders": _text(),
                "line_of_business": _text(),
            }
        ),
        "training_details": _record(
            {
                "objective_function": _OBJECTIVE,
                "training_observations": _text(1024),
                "training_job_details": _TRAINING_JOB,
            }
        ),
        "evaluation_details": _list(_EVALUATION),
        "additional_information": _record(
            {
                "ethical_considerations": _text(),
                "caveats_and_recommendations": _text(),
                "custom_details": _map(_text(1024)),
            }
        ),
    }
)
_VALIDATOR: Any = jsonschema.Draft7Validator(_CARD)
