"""References in a definition ({"Get": ...}, Std:Join, Std:JsonGet): found when read, resolved when run."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from local.sagemaker.errors import validation
from local.sagemaker.paths import PathError, look_up

EXECUTION_VARIABLES = (
    "PipelineArn",
    "PipelineName",
    "PipelineExecutionArn",
    "PipelineExecutionId",
    "StartDateTime",
    "CurrentDateTime",
)
_GET = re.compile(
    r"^(?:Parameters\.(?P<parameter>[\w-]+)|Execution\.(?P<execution>\w+)|"
    r"Steps\.(?P<step>[\w-]+)\.(?:PropertyFiles\.(?P<file>[\w-]+)|(?P<path>.+)))$"
)


@dataclass(frozen=True, kw_only=True)
class PropertyFile:
    """A JSON file in an output of a Processing step, which later steps read values from."""

    step: str
    name: str
    output: str
    path: str


@dataclass(frozen=True, kw_only=True)
class Reference:
    """What one {"Get": ...} names."""

    parameter: str | None = None
    execution: str | None = None
    step: str | None = None
    path: str | None = None
    property_file: str | None = None


def parse(text: Any) -> Reference:
    """Read the text of a Get."""
    match = _GET.match(text) if isinstance(text, str) else None
    if match is None:
        raise validation(f"{text!r} is not a reference (Parameters.X, Steps.X.Y, Execution.X).")
    return Reference(
        parameter=match["parameter"],
        execution=match["execution"],
        step=match["step"],
        path=match["path"],
        property_file=match["file"],
    )


def is_reference(value: Any) -> bool:
    """Whether a JSON value stands for another value."""
    return (
        isinstance(value, dict)
        and len(value) == 1
        and next(iter(value)) in ("Get", "Std:Join", "Std:JsonGet")
    )


def references(value: Any) -> Iterator[Reference]:
    """Every Get in a JSON value."""
    if isinstance(value, dict):
        if set(value) == {"Get"}:
            yield parse(value["Get"])
            return
        for entry in value.values():
            yield from references(entry)
    elif isinstance(value, list):
        for entry in value:
            yield from references(entry)


@dataclass(frozen=True, kw_only=True)
class Resolver:
    """Puts values in the place of references while an execution runs."""

    parameters: Mapping[str, Any]
    execution: Callable[[str], Any]
    """Value of an Execution variable."""
    results: Mapping[str, Mapping[str, Any]]
    """Step -> what Describe answered when it ended."""
    read_property_file: Callable[[str, str], Any]
    """(step, property file) -> its JSON, from S3 with the pipeline's role."""
    read_json: Callable[[str], Any]
    """S3 URI -> its JSON, with the pipeline's role."""

    def resolve(self, value: Any) -> Any:
        """A JSON value without references.

        Raises:
            PathError: a path leads nowhere.
        """
        if isinstance(value, list):
            return [self.resolve(entry) for entry in value]
        if not isinstance(value, dict):
            return value
        if set(value) == {"Get"}:
            return self._get(parse(value["Get"]))
        if set(value) == {"Std:Join"}:
            join = value["Std:Join"]
            return str(join["On"]).join(_text(self.resolve(entry)) for entry in join["Values"])
        if set(value) == {"Std:JsonGet"}:
            return self._json_get(value["Std:JsonGet"])
        return {name: self.resolve(entry) for name, entry in value.items()}

    def _get(self, reference: Reference) -> Any:
        if reference.parameter is not None:
            return self.parameters[reference.parameter]
        if reference.execution is not None:
            return self.execution(reference.execution)
        if reference.step is None or reference.path is None or reference.step not in self.results:
            raise PathError(f"step {reference.step!r} has not run")
        return look_up(self.results[reference.step], reference.path)

    def _json_get(self, arguments: Mapping[str, Any]) -> Any:
        path = self.resolve(arguments["Path"])
        if "S3Uri" in arguments:
            return look_up(self.read_json(self.resolve(arguments["S3Uri"])), path)
        reference = parse(arguments["PropertyFile"]["Get"])
        if reference.step is None or reference.property_file is None:
            raise PathError(f"{arguments['PropertyFile']} is not a property file")
        return look_up(self.read_property_file(reference.step, reference.property_file), path)


def _text(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return json.dumps(value)  # as JSON writes them
    return str(value)
