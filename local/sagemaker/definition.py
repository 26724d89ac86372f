"""A pipeline definition: read, and refused as a whole where this cloud could not run it.

Source of the schema: aws-sagemaker-mlops.github.io/sagemaker-model-building-pipeline-definition-JSON-schema
(version 2020-12-01). Arguments are checked against botocore's shape of the request that the step makes.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from local.sagemaker.arguments import check_arguments
from local.sagemaker.errors import unsupported, validation
from local.sagemaker.references import EXECUTION_VARIABLES, PropertyFile, references
from local.sagemaker.retry_policies import check_retry_policies
from local.sagemaker.step_cache import read_cache_config

VERSION = "2020-12-01"
OPERATIONS = {
    "Training": ("CreateTrainingJob", "TrainingJobName"),
    "Processing": ("CreateProcessingJob", "ProcessingJobName"),
    "RegisterModel": ("CreateModelPackage", None),
}
"""Step type -> the request that it makes, and the member that the pipeline itself fills in."""
STEP_TYPES = (*OPERATIONS, "Condition", "Fail")
COMPARISONS = ("Equals", "GreaterThan", "GreaterThanOrEqualTo", "LessThan", "LessThanOrEqualTo")
_TYPES: dict[str, tuple[type, ...]] = {
    "String": (str,),
    "Integer": (int,),
    "Float": (int, float),
    "Boolean": (bool,),
}
_STEP_MEMBERS = {
    "Name",
    "Type",
    "Arguments",
    "DependsOn",
    "DisplayName",
    "Description",
    "PropertyFiles",
    "CacheConfig",
    "RetryPolicies",
}
_TOP_MEMBERS = {"Version", "Metadata", "Parameters", "PipelineExperimentConfig", "Steps"}


@dataclass(frozen=True, kw_only=True)
class Step:
    """One step, with the steps of a condition's two branches."""

    name: str
    type: str
    arguments: Mapping[str, Any]
    depends_on: frozenset[str]
    """Every step that must have ended before: DependsOn, and those that the arguments refer to."""
    property_files: tuple[PropertyFile, ...] = ()
    if_steps: tuple[Step, ...] = ()
    else_steps: tuple[Step, ...] = ()
    display_name: str | None = None
    description: str | None = None
    cached: timedelta | None = None
    """How old an earlier run may be whose results are used again; None: the step always runs."""

    def with_branches(self) -> Iterator[Step]:
        """This step and all below it."""
        yield self
        for step in (*self.if_steps, *self.else_steps):
            yield from step.with_branches()


@dataclass(frozen=True, kw_only=True)
class Definition:
    """A checked definition."""

    parameters: tuple[Mapping[str, Any], ...]
    steps: tuple[Step, ...]

    def all_steps(self) -> Iterator[Step]:
        """Every step of every branch."""
        for step in self.steps:
            yield from step.with_branches()

    def values(self, given: Mapping[str, str]) -> dict[str, Any]:
        """The parameters of an execution, typed; `given` are strings, as StartPipelineExecution has them."""
        known = {parameter["Name"]: parameter for parameter in self.parameters}
        if unknown := sorted(set(given) - set(known)):
            raise validation(
                f"Unknown pipeline parameters: {', '.join(unknown)}; known are {', '.join(sorted(known))}."
            )
        values = {}
        for name, parameter in known.items():
            if name in given:
                values[name] = _typed(name, parameter["Type"], given[name])
            elif "DefaultValue" in parameter:
                values[name] = parameter["DefaultValue"]
            else:
                raise validation(f"Pipeline parameter {name!r} has no default value and must be given.")
            if "EnumValues" in parameter and values[name] not in parameter["EnumValues"]:
                raise validation(f"Pipeline parameter {name!r} must be one of {parameter['EnumValues']}.")
        return values


def read_definition(text: str) -> Definition:
    """Read and check a definition.

    Raises:
        ServiceError: ValidationException, with the step and what is wrong with it.
    """
    try:
        document = json.loads(text)
    except ValueError as error:
        raise validation(f"The pipeline definition is not JSON: {error}") from None
    if not isinstance(document, dict):
        raise validation("The pipeline definition must be a JSON object.")
    if document.get("Version") != VERSION:
        raise validation(f"Version must be {VERSION!r}, got {document.get('Version')!r}.")
    if unknown := sorted(set(document) - _TOP_MEMBERS):
        raise unsupported(f"{', '.join(unknown)} in a pipeline definition")
    parameters = tuple(_parameter(entry) for entry in document.get("Parameters", []))
    steps = tuple(_step(entry) for entry in document.get("Steps", []))
    if not steps:
        raise validation("A pipeline needs at least one step.")
    definition = Definition(parameters=parameters, steps=steps)
    _check_names(definition)
    _check_order(definition)
    return definition


def _parameter(entry: Mapping[str, Any]) -> Mapping[str, Any]:
    name, kind = entry.get("Name"), entry.get("Type")
    if not isinstance(name, str) or not name:
        raise validation("A pipeline parameter has no Name.")
    if kind not in _TYPES:
        raise validation(f"Parameter {name!r}: Type must be one of {', '.join(_TYPES)}, got {kind!r}.")
    for value in [entry[member] for member in ("DefaultValue",) if member in entry]:
        if not isinstance(value, _TYPES[kind]) or (isinstance(value, bool) and kind != "Boolean"):
            raise validation(f"Parameter {name!r}: DefaultValue {value!r} is not of type {kind}.")
    return entry


def _typed(name: str, kind: str, text: str) -> Any:
    try:
        if kind == "Integer":
            return int(text)
        if kind == "Float":
            return float(text)
    except ValueError:
        raise validation(f"Parameter {name!r}: {text!r} is not of type {kind}.") from None
    if kind == "Boolean":
        if text.lower() not in ("true", "false"):
            raise validation(f"Parameter {name!r}: {text!r} is not of type {kind}.")
        return text.lower() == "true"
    return text


def _step(entry: Mapping[str, Any]) -> Step:
    name, kind = entry.get("Name"), entry.get("Type")
    if not isinstance(name, str) or not name:
        raise validation("A pipeline step has no Name.")
    if kind not in STEP_TYPES:
        raise unsupported(f"Step {name!r}: the step type {kind!r} (supported are {', '.join(STEP_TYPES)})")
    if unknown := sorted(set(entry) - _STEP_MEMBERS):
        raise unsupported(f"Step {name!r}: {', '.join(unknown)}")
    cached = None
    if "CacheConfig" in entry:
        cached = read_cache_config(step=name, kind=kind, config=entry["CacheConfig"])
    if "RetryPolicies" in entry:
        check_retry_policies(step=name, kind=kind, policies=entry["RetryPolicies"])
    arguments = entry.get("Arguments")
    if not isinstance(arguments, dict):
        raise validation(f"Step {name!r} has no Arguments.")
    files = tuple(
        PropertyFile(
            step=name, name=item["PropertyFileName"], output=item["OutputName"], path=item["FilePath"]
        )
        for item in entry.get("PropertyFiles", [])
    )
    if files and kind != "Processing":
        raise validation(f"Step {name!r}: only a Processing step has PropertyFiles.")
    branches: dict[str, tuple[Step, ...]] = {}
    own: Any = arguments
    if kind == "Condition":
        branches = {
            "if_steps": tuple(_step(step) for step in arguments.get("IfSteps", [])),
            "else_steps": tuple(_step(step) for step in arguments.get("ElseSteps", [])),
        }
        if any(step.type == "Condition" for branch in branches.values() for step in branch):
            # build-and-manage-steps-types, "Condition step": nested condition steps are not supported.
            raise validation(f"Step {name!r}: a Condition step cannot be in the branch of another.")
        own = arguments.get("Conditions", [])
        _check_conditions(name, own)
    elif kind == "Fail":
        if set(arguments) - {"ErrorMessage"}:
            raise validation(f"Step {name!r}: a Fail step has only ErrorMessage.")
    else:
        operation, filled_in = OPERATIONS[kind]
        check_arguments(step=name, operation=operation, arguments=arguments, filled_in=filled_in)
    needed = {reference.step for reference in references(own) if reference.step is not None}
    return Step(
        name=name,
        type=kind,
        arguments=arguments,
        depends_on=frozenset(needed | set(entry.get("DependsOn", []))),
        property_files=files,
        display_name=entry.get("DisplayName"),
        description=entry.get("Description"),
        cached=cached,
        **branches,
    )


def _check_conditions(step: str, conditions: Any) -> None:
    if not isinstance(conditions, list) or not conditions:
        raise validation(f"Step {step!r}: a Condition step needs Conditions.")
    for condition in conditions:
        kind = condition.get("Type")
        if kind in COMPARISONS:
            wanted = {"LeftValue", "RightValue"}
        elif kind == "In":
            wanted = {"QueryValue", "Values"}
        elif kind == "Not":
            wanted = {"Expression"}
            _check_conditions(step, [condition.get("Expression", {})])
        elif kind == "Or":
            wanted = {"Conditions"}
            _check_conditions(step, condition.get("Conditions"))
        else:
            raise unsupported(
                f"Step {step!r}: the condition {kind!r} (supported are {', '.join(COMPARISONS)}, In, Not, Or)"
            )
        if set(condition) - {"Type"} != wanted:
            raise validation(f"Step {step!r}: the condition {kind} has {', '.join(sorted(wanted))}.")


def _check_names(definition: Definition) -> None:
    steps = {}
    for step in definition.all_steps():
        if step.name in steps:
            raise validation(f"Step names must be unique: {step.name!r}.")
        steps[step.name] = step
    parameters = {parameter["Name"] for parameter in definition.parameters}
    if len(parameters) != len(definition.parameters):
        raise validation("Parameter names must be unique.")
    for step in definition.all_steps():
        if missing := sorted(step.depends_on - set(steps)):
            raise validation(
                f"Step {step.name!r} depends on {', '.join(missing)}, which is no step of this pipeline."
            )
        for reference in references(step.arguments):
            if reference.parameter is not None and reference.parameter not in parameters:
                raise validation(
                    f"Step {step.name!r} refers to the parameter {reference.parameter!r}, "
                    "which is not declared."
                )
            if reference.execution is not None and reference.execution not in EXECUTION_VARIABLES:
                raise unsupported(f"Step {step.name!r}: Execution.{reference.execution}")
            if reference.property_file is not None and reference.step is not None:
                files = {file.name for file in steps[reference.step].property_files}
                if reference.property_file not in files:
                    raise validation(
                        f"Step {step.name!r} reads the property file {reference.property_file!r}, which step "
                        f"{reference.step!r} does not have."
                    )


def _check_order(definition: Definition) -> None:
    """Refuse circles: a step runs after all that it depends on, and after the condition that chose it."""
    needs: dict[str, set[str]] = {}
    for step in definition.all_steps():
        needs.setdefault(step.name, set()).update(step.depends_on)
        for below in (*step.if_steps, *step.else_steps):
            needs.setdefault(below.name, set()).add(step.name)
    while needs:
        ready = [name for name, wanted in needs.items() if not wanted & set(needs)]
        if not ready:
            raise validation(f"The steps {', '.join(sorted(needs))} depend on each other in a circle.")
        for name in ready:
            del needs[name]
