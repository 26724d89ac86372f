"""Values of a pipeline definition that SageMaker fills in when the pipeline runs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

Reference = Mapping[str, Any]
"""`{"Get": ...}` or `{"Std:Join": ...}`."""

EXECUTION_ID: Reference = {"Get": "Execution.PipelineExecutionId"}

_MARK = "\ue000"
"""A character for private use, which no text of a definition has."""


def parameter(name: str) -> Reference:
    """The value of a parameter of the execution."""
    return {"Get": f"Parameters.{name}"}


def of_step(step: str, path: str) -> Reference:
    """What became of a step, in the words of the API call that describes it."""
    return {"Get": f"Steps.{step}.{path}"}


def join(*values: str | Reference) -> dict[str, Any]:
    """The values as one string; joins within joins are made flat, which is easier to read in the console."""
    flat: list[Any] = []
    for value in values:
        inner = value.get("Std:Join") if isinstance(value, Mapping) else None
        flat.extend(inner["Values"] if inner else [value])
    return {"Std:Join": {"On": "", "Values": flat}}


def json_text(document: Any) -> dict[str, Any]:
    """A document as JSON text in which references stand for strings.

    SageMaker puts their values in as they are, so a reference must not have a value with quotes or
    backslashes.
    """
    found: list[Reference] = []

    def marked(value: Any) -> Any:
        if isinstance(value, Mapping):
            if set(value) in ({"Get"}, {"Std:Join"}):
                found.append(value)
                return f"{_MARK}{len(found) - 1}{_MARK}"
            return {key: marked(one) for key, one in value.items()}
        return [marked(one) for one in value] if isinstance(value, list) else value

    parts = json.dumps(marked(document), ensure_ascii=False).split(_MARK)
    return join(*(found[int(part)] if n % 2 else part for n, part in enumerate(parts)))
