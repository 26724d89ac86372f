"""The ways in which an environment serves models: `[[inference.endpoints]]` of its file, as data."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Mode(StrEnum):
    """How a model is served, as the environment file spells it."""

    ASYNCHRONOUS = "asynchronous"
    REAL_TIME = "real-time"
    SERVERLESS = "serverless"
    INFERENCE_COMPONENTS = "inference-components"
    MULTI_MODEL = "multi-model"
    BATCH = "batch"

    @property
    def answers_at_once(self) -> bool:
        """Whether InvokeEndpoint is its call: the caller waits on the connection."""
        return self not in (Mode.ASYNCHRONOUS, Mode.BATCH)


@dataclass(frozen=True, kw_only=True)
class Served:
    """One endpoint, or one model for batch jobs.

    What the stack `inference` names after it begins with its name in PascalCase; the parts below follow
    `infra/inference`.
    """

    name: str
    """In the environment file: lung-segmentation."""
    mode: Mode
    tasks: tuple[str, ...]
    """The training tasks whose models it serves: several with inference components, none with multi-model,
    which serves archives that somebody put below its prefix.
    """

    @property
    def identifier(self) -> str:
        """The name in PascalCase: LungSegmentation."""
        return pascal_case(self.name)

    def package_parameter(self, task: str) -> str:
        """The stack's parameter with the model package of `task`."""
        return f"{self._of_model(task)}ModelPackageArn"

    def name_output(self, task: str) -> str:
        """The stack's output that names what serves `task`: an endpoint, a component of one, or a model."""
        match self.mode:
            case Mode.INFERENCE_COMPONENTS:
                return f"{self._of_model(task)}ComponentName"
            case Mode.BATCH:
                return f"{self.identifier}ModelName"
            case _:
                return self.endpoint_output

    @property
    def endpoint_output(self) -> str:
        """The stack's output with the endpoint's name in SageMaker."""
        return f"{self.identifier}EndpointName"

    @property
    def job_output(self) -> str:
        """The stack's output with the request that starts a batch job."""
        return f"{self.identifier}TransformJob"

    def _of_model(self, task: str) -> str:
        several = self.mode is Mode.INFERENCE_COMPONENTS
        return f"{self.identifier}{pascal_case(task)}" if several else self.identifier


def pascal_case(name: str) -> str:
    """ "lung-segmentation" -> "LungSegmentation", the form that CloudFormation's logical names need."""
    return "".join(word[:1].upper() + word[1:] for word in name.replace("_", "-").split("-"))
