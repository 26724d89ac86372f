"""A task's deployed pipeline as data: its parameters, what makes two trainings the same, and its conditions.

Read from SageMaker and not from the environment file: what is deployed is what runs.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from workbench.deployment import Deployment, TrainingTask
from workbench.errors import WorkbenchError

RUN = "Run"
"""The parameter that names a training's checkpoints."""

RUN_NAME = re.compile(r"[a-zA-Z0-9](-*[a-zA-Z0-9]){0,81}")
"""It is also the execution's display name (PipelineExecutionName in SageMaker's API)."""

LONGEST = 1024
"""Characters that SageMaker takes as the value of a parameter."""


def _finite(text: str) -> float:
    """A number; nothing is at least NaN, and anything at least minus infinity."""
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(text)
    return value


_READERS: Mapping[str, Callable[[str], object]] = {"Integer": int, "Float": _finite}
"""Types of parameters besides text."""


@dataclass(frozen=True, kw_only=True)
class Condition:
    """One condition on the evaluation: `path` is at least the parameter `parameter`."""

    path: str
    """In evaluation.json: metrics.mean_dice."""
    parameter: str


@dataclass(frozen=True, kw_only=True)
class Pipeline:
    """The definition of a pipeline."""

    name: str
    definition: Mapping[str, Any]

    def check(self, values: Mapping[str, str]) -> None:
        """Refuse parameters that the pipeline does not have, or whose values it would not take.

        Raises:
            WorkbenchError: All of them at once.
        """
        declared = self._declared
        problems = []
        for name, value in values.items():
            if name not in declared:
                problems.append(f"{name} is none of its parameters")
                continue
            if len(value) > LONGEST:
                problems.append(f"{name} has {len(value)} characters, more than {LONGEST}")
            if name == RUN and not RUN_NAME.fullmatch(value):
                problems.append(f"{name} is {value!r}, not letters, digits and hyphens in between")
            known = [str(one) for one in declared[name].get("EnumValues", ())]
            if known and value not in known:
                problems.append(f"{name} is {value!r}, not one of {', '.join(known)}")
            type_ = str(declared[name]["Type"])
            try:
                _READERS.get(type_, str)(value)
            except ValueError:
                problems.append(f"{name} is {value!r}, and it takes: {type_}")
        missing = [name for name, one in declared.items() if "DefaultValue" not in one and name not in values]
        problems += [f"{name} has no value" for name in missing]
        if problems:
            raise WorkbenchError(
                f"Pipeline {self.name} does not take these parameters: {'; '.join(problems)}.",
                advice=f"It has: {', '.join(declared)}. If one is missing there, deploy the stack again.",
            )

    def value(self, parameter: str, given: Mapping[str, str]) -> str:
        """The value of a parameter: as it was given, else its default; empty if it has none."""
        default = self._declared.get(parameter, {}).get("DefaultValue", "")
        return str(given.get(parameter, default))

    def has(self, parameter: str) -> bool:
        """Whether the deployed pipeline has this parameter."""
        return parameter in self._declared

    def run(self, values: Mapping[str, str]) -> str:
        """The name of a training: the same for the same image, hyperparameters, manifest and machine.

        So a training that was interrupted goes on from its checkpoints when somebody starts it again, and
        one that has been done is found again. What only judges the model (MinimumScore) does not count.
        """
        train = self._step("Train")["Arguments"]
        read = sorted({name for name in _parameters_in(train) if name != RUN})
        what = {
            "image": train["AlgorithmSpecification"]["TrainingImage"],
            "hyperparameters": train["HyperParameters"],
            "machines": train["ResourceConfig"].get("InstanceCount"),
            "parameters": {name: self.value(name, values) for name in read},
        }
        text = json.dumps(what, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def conditions(self) -> tuple[Condition, ...]:
        """What the evaluation has to reach before the model is registered."""
        found = []
        for step in self._steps:
            for one in step.get("Arguments", {}).get("Conditions", ()):
                path = one.get("LeftValue", {}).get("Std:JsonGet", {}).get("Path")
                names = list(_parameters_in(one.get("RightValue", {})))
                if one["Type"] == "GreaterThanOrEqualTo" and path and names:
                    found.append(Condition(path=str(path), parameter=names[0]))
        return tuple(found)

    def evaluation_folder(self, execution_id: str, values: Mapping[str, str]) -> str:
        """S3 URI of the folder into which an execution puts its evaluation, without a slash at its end."""
        outputs = self._step("Evaluate")["Arguments"]["ProcessingOutputConfig"]["Outputs"]
        uri = outputs[0]["S3Output"]["S3Uri"]
        return self._resolved(uri, execution_id, values).rstrip("/")

    @property
    def _declared(self) -> dict[str, Mapping[str, Any]]:
        return {str(one["Name"]): one for one in self.definition.get("Parameters", ())}

    @property
    def _steps(self) -> list[Mapping[str, Any]]:
        return list(self.definition.get("Steps", ()))

    def _step(self, name: str) -> Mapping[str, Any]:
        for step in self._steps:
            if step["Name"] == name:
                return step
        raise WorkbenchError(
            f"Pipeline {self.name} has no step {name}.",
            advice="It is not the one of infra/training: deploy the training stack again.",
        )

    def _resolved(self, value: Any, execution_id: str, given: Mapping[str, str]) -> str:
        if not isinstance(value, Mapping):
            return str(value)
        if "Std:Join" in value:
            join = value["Std:Join"]
            parts = [self._resolved(one, execution_id, given) for one in join["Values"]]
            return str(join["On"]).join(parts)
        reference = str(value.get("Get"))
        if reference == "Execution.PipelineExecutionId":
            return execution_id
        return self.value(reference.removeprefix("Parameters."), given)


def read_pipeline(deployment: Deployment, task: TrainingTask) -> Pipeline:
    """The task's pipeline as it is deployed."""
    answer = deployment.session.client("sagemaker").describe_pipeline(PipelineName=task.pipeline)
    return Pipeline(name=task.pipeline, definition=json.loads(answer["PipelineDefinition"]))


def _parameters_in(value: Any) -> Iterator[str]:
    """Names of the parameters that a part of the definition refers to."""
    if isinstance(value, Mapping):
        reference = value.get("Get")
        if isinstance(reference, str) and reference.startswith("Parameters."):
            yield reference.removeprefix("Parameters.")
        for one in value.values():
            yield from _parameters_in(one)
    elif isinstance(value, list):
        for one in value:
            yield from _parameters_in(one)
