"""Approves a model package and puts it into service, through the stack that owns the endpoints.

One update of the stack puts it into everything that serves its task: endpoints that answer later or at once,
components, and models for batch jobs. CloudFormation does all of it or nothing, so that never two models of
one task are in service because a container did not start.

Or only approves it: a reviewer in SageMaker Studio may not update stacks (infra/studio/personas.py). Somebody
who may then puts the approved package into service.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from botocore.exceptions import ClientError

from arrival.waiting import poll
from workbench.deployment import Deployment, TrainingTask
from workbench.errors import DeploymentFailed, WorkbenchError
from workbench.log_tail import endpoint_log_group, log_tail
from workbench.progress import Progress, silent
from workbench.registry import PENDING, newest_packages, tasks_with_pending
from workbench.served import Mode, Served, pascal_case

UPDATE_TIMEOUT_SECONDS = 3600.0
SUCCEEDED = frozenset({"UPDATE_COMPLETE"})
ENDED = SUCCEEDED | {
    "UPDATE_ROLLBACK_COMPLETE",
    "UPDATE_ROLLBACK_FAILED",
    "UPDATE_FAILED",
    "ROLLBACK_COMPLETE",
    "ROLLBACK_FAILED",
}


@dataclass(frozen=True, kw_only=True)
class InService:
    """What serves the package now."""

    served: Served
    name: str
    """In SageMaker: of an endpoint, of a component of one, or of a model for batch jobs."""
    before: str
    """ARN of the package that it served before; empty: it was not there."""
    changed: bool
    """False if it already ran this package."""

    def to_json(self) -> dict[str, object]:
        return {
            "endpoint": self.served.name,
            "mode": str(self.served.mode),
            "name": self.name,
            "before": self.before or None,
            "changed": self.changed,
        }


@dataclass(frozen=True, kw_only=True)
class Approval:
    """A model package in service."""

    model_package_arn: str
    in_service: tuple[InService, ...]
    """In the order of the environment file; empty: nothing of the environment serves its task."""

    @property
    def changed(self) -> bool:
        """False if everything already ran this package."""
        return any(one.changed for one in self.in_service)

    @property
    def endpoint_name(self) -> str | None:
        """Of the asynchronous endpoint, the default for volumes; without one, of the first; None where
        nothing serves the task.
        """
        asynchronous = [one for one in self.in_service if one.served.mode is Mode.ASYNCHRONOUS]
        return next((one.name for one in (*asynchronous, *self.in_service)), None)

    def to_json(self) -> dict[str, object]:
        return {
            "modelPackageArn": self.model_package_arn,
            "endpointName": self.endpoint_name,
            "changed": self.changed,
            "inService": [one.to_json() for one in self.in_service],
        }


def approve(
    deployment: Deployment,
    *,
    model_package_arn: str | None = None,
    task: str | None = None,
    note: str = "Approved with monai-aws",
    progress: Progress = silent,
    every_seconds: float = 2.0,
) -> Approval:
    """Set a model package to Approved and update the inference stack to it, wherever its task is served.

    Args:
        deployment: The environment's stacks.
        model_package_arn: The package; None takes the newest of the task's group that waits for approval.
        task: The training task whose endpoints serve the package; None takes that of the package, or the
            only one.
        note: Recorded with the approval.
        progress: Gets the stack's events.
        every_seconds: Time between two looks at the stack.

    Raises:
        DeploymentFailed: Something that serves the task did not start with it. Everything serves what it
            served before; the package stays approved.
    """
    chosen = _task(deployment, model_package_arn=model_package_arn, task=task)
    serving = {
        served: name
        for served in deployment.session.environment.served
        for name in served.tasks
        if pascal_case(name) == chosen.identifier
    }
    package = _mark(deployment, chosen, model_package_arn=model_package_arn, note=note, progress=progress)
    if not serving:
        progress(f"nothing of environment {deployment.session.environment.name} serves {chosen.name}")
        return Approval(model_package_arn=package, in_service=())
    parameters = {served: served.package_parameter(name) for served, name in serving.items()}
    before = _update_stack(
        deployment,
        values=dict.fromkeys(parameters.values(), package),
        progress=progress,
        every_seconds=every_seconds,
    )
    outputs = deployment.stack("inference")
    return Approval(
        model_package_arn=package,
        in_service=tuple(
            InService(
                served=served,
                name=outputs[served.name_output(name)],
                before=before[parameters[served]],
                changed=before[parameters[served]] != package,
            )
            for served, name in serving.items()
        ),
    )


def mark_approved(
    deployment: Deployment,
    *,
    model_package_arn: str | None = None,
    task: str | None = None,
    note: str = "Approved with monai-aws",
    progress: Progress = silent,
) -> str:
    """Set a model package to Approved and return its ARN; the arguments are those of `approve`."""
    chosen = _task(deployment, model_package_arn=model_package_arn, task=task)
    return _mark(deployment, chosen, model_package_arn=model_package_arn, note=note, progress=progress)


def _task(deployment: Deployment, *, model_package_arn: str | None, task: str | None) -> TrainingTask:
    """The task that is meant: as it is named, that of the package, or the only one."""
    if model_package_arn is not None:
        found = deployment.task_of_package(model_package_arn)
        if task is not None and deployment.task(task) != found:
            raise WorkbenchError(
                f"{model_package_arn} is a package of {found.name}, not of {task}.",
                advice="Leave out --task: the package says what it is for.",
            )
        return found
    tasks = deployment.tasks
    if task is not None or len(tasks) < 2:
        return deployment.task(task)
    waiting = ", ".join(one.name for one in tasks_with_pending(deployment, tasks)) or "none of them"
    raise WorkbenchError(
        f"There are {len(tasks)} training tasks, and nothing says which one is meant.",
        advice=f"Say it with --task; a package waits for approval of: {waiting}.",
    )


def _mark(
    deployment: Deployment,
    task: TrainingTask,
    *,
    model_package_arn: str | None,
    note: str,
    progress: Progress,
) -> str:
    package = model_package_arn or _newest_pending(deployment, task)
    deployment.session.client("sagemaker").update_model_package(
        ModelPackageArn=package, ModelApprovalStatus="Approved", ApprovalDescription=note
    )
    progress(f"approved {package.rpartition(':')[2]}")
    return package


def _newest_pending(deployment: Deployment, task: TrainingTask) -> str:
    packages = newest_packages(deployment, task, limit=1, status=PENDING)
    if not packages:
        raise WorkbenchError(
            f"No model package of {task.model_package_group} waits for approval.",
            advice=f"Train one (monai-aws train {task.name} --data MANIFEST), or name a package with "
            "--model-package.",
        )
    return packages[0]


def _update_stack(
    deployment: Deployment, *, values: Mapping[str, str], progress: Progress, every_seconds: float
) -> Mapping[str, str]:
    """Give the stack's parameters these values, all the others as they are; their values before."""
    cloudformation = deployment.session.client("cloudformation")
    name = deployment.stack("inference").stack
    stack = cloudformation.describe_stacks(StackName=name)["Stacks"][0]
    known = {one["ParameterKey"]: str(one.get("ParameterValue", "")) for one in stack.get("Parameters", [])}
    missing = sorted(values.keys() - known.keys())
    if missing:
        raise WorkbenchError(
            f"Stack {name} has no parameter {' and no '.join(missing)}.",
            advice="The environment file names endpoints that are not deployed: deploy the stack again.",
        )
    events = _Events(cloudformation, name, progress)
    events.skip_past()
    try:
        cloudformation.update_stack(
            StackName=name,
            UsePreviousTemplate=True,
            Parameters=[
                {"ParameterKey": key, "ParameterValue": values[key]}
                if key in values
                else {"ParameterKey": key, "UsePreviousValue": True}
                for key in known
            ],
            Capabilities=["CAPABILITY_IAM", "CAPABILITY_NAMED_IAM"],
        )
    except ClientError as error:
        if "No updates are to be performed" in str(error.response["Error"]["Message"]):
            progress(f"{name} already has this model package")
            return known
        raise

    def ended() -> str | None:
        status = str(cloudformation.describe_stacks(StackName=name)["Stacks"][0]["StackStatus"])
        events.look()
        return status if status in ENDED else None

    status = poll(
        ended,
        every_seconds=every_seconds,
        timeout_seconds=UPDATE_TIMEOUT_SECONDS,
        on_timeout=lambda: DeploymentFailed(
            f"Stack {name} has not ended its update after {UPDATE_TIMEOUT_SECONDS / 60:.0f} minutes.",
            advice="It goes on in CloudFormation; look at the stack's events.",
        ),
    )
    if status not in SUCCEEDED:
        raise _failed(deployment, name, status, events)
    return known


@dataclass
class _Events:
    """The events of one stack update, each told once."""

    cloudformation: Any
    stack: str
    progress: Progress
    seen: set[str] = field(default_factory=set)
    failures: list[Mapping[str, Any]] = field(default_factory=list)
    began: datetime | None = None
    """When this update's first event was; what an endpoint's container printed before is not about it."""

    def skip_past(self) -> None:
        """Events of earlier operations are not this update's."""
        self.seen.update(str(event["EventId"]) for event in self._read())

    def look(self) -> None:
        for event in self._read():
            identity = str(event["EventId"])
            if identity in self.seen:
                continue
            self.seen.add(identity)
            self.began = self.began or event["Timestamp"]
            status = str(event.get("ResourceStatus", ""))
            reason = str(event.get("ResourceStatusReason", ""))
            self.progress(f"{status} {event.get('LogicalResourceId', '')} {reason}".rstrip())
            if status.endswith("FAILED"):
                self.failures.append(event)

    def _read(self) -> list[Mapping[str, Any]]:
        paginator = self.cloudformation.get_paginator("describe_stack_events")
        found = [event for page in paginator.paginate(StackName=self.stack) for event in page["StackEvents"]]
        found.reverse()  # CloudFormation answers newest first
        return found


def _failed(deployment: Deployment, name: str, status: str, events: _Events) -> DeploymentFailed:
    # The first failure is the cause, the others are cancellations that follow from it.
    reasons = [
        f"{event.get('LogicalResourceId', '')} ({event.get('ResourceType', '')}): "
        f"{event.get('ResourceStatusReason', 'no reason given')}"
        for event in events.failures
    ]
    details: list[str] = reasons[1:]
    for event in events.failures:
        endpoint = _endpoint_name(events.cloudformation, event)
        if endpoint:
            tail = log_tail(deployment.session, group=endpoint_log_group(endpoint), since=events.began)
            details += [f"last lines of endpoint {endpoint}:", *(f"  {line}" for line in tail)]
    # In this state the way back failed, too: what serves what has to be looked up.
    if status == "UPDATE_ROLLBACK_FAILED":
        advice = (
            "The way back failed as well: correct what the events name, then continue it "
            "(aws cloudformation continue-update-rollback), and look at each endpoint."
        )
    else:
        advice = (
            "The endpoint's container says why it did not start; everything serves the previous model. "
            "Correct the image or the model, train again and approve that package."
        )
    return DeploymentFailed(
        f"Stack {name} ended in {status}. {reasons[0] if reasons else 'It gives no reason.'}",
        advice=advice,
        details=details,
    )


def _endpoint_name(cloudformation: Any, event: Mapping[str, Any]) -> str | None:
    """The endpoint that an event is about; None if it is about another resource, or one that was never
    made.
    """
    if event.get("ResourceType") != "AWS::SageMaker::Endpoint":
        return None
    identity = str(event.get("PhysicalResourceId") or "")
    if not identity:
        # The event of a failed update may leave out what the stack knows.
        resource = cloudformation.describe_stack_resource(
            StackName=event["StackName"], LogicalResourceId=event["LogicalResourceId"]
        )["StackResourceDetail"]
        identity = str(resource.get("PhysicalResourceId") or "")
    return identity.rpartition("/")[2] or None
