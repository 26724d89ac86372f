"""What the stacks of an environment made: their CloudFormation outputs, typed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from botocore.exceptions import ClientError

from workbench.errors import NotDeployed, WorkbenchError
from workbench.served import Mode, Served, pascal_case
from workbench.session import Session


@dataclass(frozen=True, kw_only=True)
class StackOutputs:
    """The outputs of one deployed stack."""

    stack: str
    environment: str
    values: Mapping[str, str]

    def __getitem__(self, key: str) -> str:
        if key not in self.values:
            raise NotDeployed(
                f"Stack {self.stack} has no output {key}.",
                advice=f"Bring the stack up to date: monai-aws deploy --env {self.environment}",
            )
        return self.values[key]


@dataclass(frozen=True)
class Deployment:
    """The stacks of one environment, looked up when a piece of work first needs them.

    Outputs are read anew for every stack and never kept between commands: a deployment may replace what
    they name.
    """

    session: Session

    def stack(self, part: str) -> StackOutputs:
        """Outputs of the stack `part` (data, catalog, training, inference); `NotDeployed` says how to get
        it.
        """
        environment = self.session.environment
        name = environment.stack_name(part)
        try:
            stacks = self.session.client("cloudformation").describe_stacks(StackName=name)["Stacks"]
        except ClientError as error:
            if error.response["Error"]["Code"] == "ValidationError":
                raise NotDeployed(
                    f"Stack {name} is not deployed in account {environment.account}, {environment.region}.",
                    advice=f"Deploy it first: monai-aws deploy --env {environment.name}",
                ) from error
            raise
        outputs = {output["OutputKey"]: output["OutputValue"] for output in stacks[0].get("Outputs", [])}
        return StackOutputs(stack=name, environment=environment.name, values=outputs)

    @property
    def tasks(self) -> tuple[TrainingTask, ...]:
        """Every training task that is deployed, by name."""
        training = self.stack("training")
        suffix = "PipelineName"
        identifiers = sorted(key.removesuffix(suffix) for key in training.values if key.endswith(suffix))
        return tuple(
            TrainingTask(
                identifier=identifier,
                name=self._name_of(identifier),
                pipeline=training[f"{identifier}PipelineName"],
                model_package_group=training[f"{identifier}ModelPackageGroupName"],
            )
            for identifier in identifiers
        )

    def task(self, name: str | None) -> TrainingTask:
        """The training task `name` ("lung-segmentation"), or the only one that is deployed."""
        known = self.tasks
        names = ", ".join(task.name for task in known) or "none"
        if name is None and len(known) == 1:
            return known[0]
        if name is None:
            raise WorkbenchError(
                f"There are {len(known)} deployed training tasks.",
                advice=f"Say which one with --task: {names}.",
            )
        for task in known:
            if task.identifier == pascal_case(name):
                return task
        raise NotDeployed(
            f"Stack {self.stack('training').stack} has no training task {name!r}.",
            advice=f"Deployed tasks: {names}. Tasks are named in the environment file.",
        )

    def task_of_package(self, model_package_arn: str) -> TrainingTask:
        """The task in whose group a model package is."""
        group = model_package_arn.partition(":model-package/")[2].rpartition("/")[0]
        for task in self.tasks:
            # SageMaker writes the group's name in small letters into the ARN.
            if task.model_package_group.lower() == group.lower():
                return task
        raise WorkbenchError(
            f"{model_package_arn} is a package of no training task of "
            f"environment {self.session.environment.name}.",
            advice=f"Its tasks register in: {', '.join(task.model_package_group for task in self.tasks)}.",
        )

    def _name_of(self, identifier: str) -> str:
        """As the environment file spells it; a task that it names no more keeps its identifier."""
        names = [one.name for one in self.session.environment.tasks if pascal_case(one.name) == identifier]
        return names[0] if names else identifier

    def served(self, name: str | None, *modes: Mode) -> Served:
        """The endpoint `name` of the environment file; without a name the first that has one of `modes`, in
        their order.

        Raises:
            WorkbenchError: There is none, or it has another mode.
        """
        known = self.session.environment.served
        if name is not None:
            candidates = [one for one in known if one.name == name]
        else:
            candidates = [one for mode in modes for one in known if one.mode is mode]
        if not candidates:
            what = repr(name) if name is not None else f"of mode {' or '.join(modes)}"
            raise WorkbenchError(
                f"Environment {self.session.environment.name} names no endpoint {what}.",
                advice=f"It names: {_listed(known)}. Choose one, or add yours to the environment file.",
            )
        if candidates[0].mode not in modes:
            raise WorkbenchError(
                f"Endpoint {name} has the mode {candidates[0].mode}, and this needs {' or '.join(modes)}.",
                advice=f"The environment names: {_listed(known)}.",
            )
        return candidates[0]


@dataclass(frozen=True, kw_only=True)
class TrainingTask:
    """One task of the environment file as it was deployed."""

    identifier: str
    """The name in PascalCase, as it begins the names of outputs and parameters: LungSegmentation."""
    name: str
    """As the environment file spells it: lung-segmentation."""
    pipeline: str
    model_package_group: str


def _listed(served: Iterable[Served]) -> str:
    return ", ".join(f"{one.name} ({one.mode})" for one in served) or "none"
