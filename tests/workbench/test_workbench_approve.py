"""Approval against fakes: one update puts a package wherever its task is served, or nowhere."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from workbench_fakes import FakeDeployment, FakeLogs, FakePaginator, deployment, error

from workbench.approve import approve, mark_approved
from workbench.deployment import StackOutputs
from workbench.errors import DeploymentFailed, WorkbenchError

PACKAGE = "arn:aws:sagemaker:us-east-1:000000000000:model-package/lung-models/3"
OLD = "arn:aws:sagemaker:us-east-1:000000000000:model-package/lung-models/2"
SERVING = {
    "LungSegmentationModelPackageArn": OLD,
    "LungNowModelPackageArn": "",
    "SharedLungSegmentationModelPackageArn": OLD,
    "LungBatchModelPackageArn": PACKAGE,
}
OTHERS = {"BootstrapVersion": "30", "SharedLiverModelPackageArn": "another", "ZooEnabled": "false"}


class FakeRegistry:
    """The registry with one package that waits for approval."""

    def __init__(self) -> None:
        self.approved: dict[str, Any] = {}
        self.pending: list[str] = [PACKAGE]

    def update_model_package(self, **request: Any) -> None:
        self.approved = request

    def list_model_packages(self, **_: Any) -> dict[str, Any]:
        return {"ModelPackageSummaryList": [{"ModelPackageArn": arn} for arn in self.pending]}


class FakeCloudFormation:
    """One stack that an update brings into `ends`, with `events` on the way."""

    def __init__(
        self,
        *,
        ends: str,
        events: list[dict[str, Any]],
        refuse: str | None = None,
        parameters: Mapping[str, str] = {**SERVING, **OTHERS},
    ) -> None:
        self.ends, self.events, self.refuse = ends, events, refuse
        self.status = "CREATE_COMPLETE"
        self.parameters = parameters
        self.update: dict[str, Any] = {}

    def describe_stacks(self, **_: Any) -> dict[str, Any]:
        parameters = [
            {"ParameterKey": key, "ParameterValue": value} for key, value in self.parameters.items()
        ]
        return {"Stacks": [{"StackStatus": self.status, "Parameters": parameters}]}

    def update_stack(self, **request: Any) -> None:
        if self.refuse:
            raise error("ValidationError", self.refuse)
        assert not self.update, "one update for all"
        self.update = request
        self.status = self.ends

    def describe_stack_resource(self, **_: Any) -> dict[str, Any]:
        return {"StackResourceDetail": {"PhysicalResourceId": "lung-9"}}

    def get_paginator(self, name: str) -> FakePaginator:
        assert name == "describe_stack_events"
        old = {"EventId": "old", "ResourceStatus": "CREATE_FAILED", "ResourceStatusReason": "long ago"}
        events = [old, *(self.events if self.update else [])]
        return FakePaginator(lambda **_: [{"StackEvents": events[::-1]}])


def event(number: int, status: str, **more: str) -> dict[str, Any]:
    """A stack event at millisecond `number`, the clock of FakeLogs."""
    at = datetime.fromtimestamp(number / 1000, UTC)
    return {
        "EventId": str(number),
        "Timestamp": at,
        "ResourceStatus": status,
        "LogicalResourceId": "Endpoint",
        **more,
    }


def test_one_update_puts_the_package_wherever_its_task_is_served() -> None:
    registry = FakeRegistry()
    cloudformation = FakeCloudFormation(ends="UPDATE_COMPLETE", events=[event(1, "UPDATE_IN_PROGRESS")])
    lines: list[str] = []
    result = approve(
        deployment(sagemaker=registry, cloudformation=cloudformation),
        progress=lines.append,
        every_seconds=0.0,
    )
    assert registry.approved["ModelApprovalStatus"] == "Approved"
    assert cloudformation.update["UsePreviousTemplate"] is True
    given = {one["ParameterKey"]: one for one in cloudformation.update["Parameters"]}
    assert given.keys() == SERVING.keys() | OTHERS.keys()
    assert all(given[key]["ParameterValue"] == PACKAGE for key in SERVING)
    assert all(given[key] == {"ParameterKey": key, "UsePreviousValue": True} for key in OTHERS)
    assert result.changed
    assert result.endpoint_name == "lung-endpoint"
    assert [(one.served.name, one.name, one.before, one.changed) for one in result.in_service] == [
        ("lung-segmentation", "lung-endpoint", OLD, True),
        ("lung-now", "now-endpoint", "", True),
        ("shared", "shared-lung", OLD, True),
        ("lung-batch", "batch-model", PACKAGE, False),
    ]
    assert "UPDATE_IN_PROGRESS Endpoint" in lines
    assert not any("long ago" in line for line in lines)


def test_the_same_package_again_changes_nothing() -> None:
    cloudformation = FakeCloudFormation(
        ends="",
        events=[],
        refuse="No updates are to be performed.",
        parameters=dict.fromkeys(SERVING, PACKAGE),
    )
    result = approve(
        deployment(sagemaker=FakeRegistry(), cloudformation=cloudformation), model_package_arn=PACKAGE
    )
    assert not result.changed
    assert len(result.in_service) == 4


def test_an_endpoint_that_is_not_deployed_yet_is_named() -> None:
    behind = {key: value for key, value in SERVING.items() if not key.startswith("LungNow")}
    cloudformation = FakeCloudFormation(ends="UPDATE_COMPLETE", events=[], parameters=behind)
    with pytest.raises(WorkbenchError, match="no parameter LungNowModelPackageArn") as caught:
        approve(deployment(sagemaker=FakeRegistry(), cloudformation=cloudformation))
    assert "deploy the stack again" in caught.value.advice
    assert not cloudformation.update


def test_a_reviewer_approves_without_touching_a_stack() -> None:
    registry = FakeRegistry()
    lines: list[str] = []
    package = mark_approved(
        deployment(sagemaker=registry, cloudformation=None), note="seen", progress=lines.append
    )
    assert package == PACKAGE
    assert registry.approved["ModelApprovalStatus"] == "Approved"
    assert registry.approved["ApprovalDescription"] == "seen"
    assert len(lines) == 1


class TwoTasks(FakeDeployment):
    """A second task, which nothing serves."""

    def stack(self, part: str) -> StackOutputs:
        found = super().stack(part)
        second = {"BrainPipelineName": "brain-pipeline", "BrainModelPackageGroupName": "brain-models"}
        return replace(found, values={**found.values, **second}) if part == "training" else found


def two_tasks(registry: FakeRegistry, cloudformation: FakeCloudFormation | None = None) -> TwoTasks:
    return TwoTasks(deployment(sagemaker=registry, cloudformation=cloudformation).session)


def test_a_package_says_itself_which_task_it_is_for() -> None:
    cloudformation = FakeCloudFormation(ends="UPDATE_COMPLETE", events=[])
    result = approve(two_tasks(FakeRegistry(), cloudformation), model_package_arn=PACKAGE, every_seconds=0.0)
    assert len(result.in_service) == 4
    with pytest.raises(WorkbenchError, match=r"of lung-segmentation, not of [Bb]rain"):
        approve(two_tasks(FakeRegistry()), model_package_arn=PACKAGE, task="brain")
    with pytest.raises(WorkbenchError, match="of no training task"):
        approve(two_tasks(FakeRegistry()), model_package_arn=PACKAGE.replace("lung", "liver"))


def test_of_several_tasks_those_with_a_waiting_package_are_named() -> None:
    with pytest.raises(WorkbenchError, match="2 training tasks") as caught:
        approve(two_tasks(FakeRegistry()))
    assert "Brain, lung-segmentation" in caught.value.advice


def test_a_model_that_nothing_serves_is_approved_all_the_same() -> None:
    registry = FakeRegistry()
    lines: list[str] = []
    result = approve(two_tasks(registry), task="brain", progress=lines.append)
    assert registry.approved["ModelApprovalStatus"] == "Approved"
    assert (result.in_service, result.endpoint_name, result.changed) == ((), None, False)
    assert any("nothing of environment test serves Brain" in line for line in lines)


def test_nothing_to_approve_is_said() -> None:
    registry = FakeRegistry()
    registry.pending = []
    with pytest.raises(WorkbenchError, match="waits for approval"):
        approve(deployment(sagemaker=registry, cloudformation=None))


@pytest.mark.parametrize("identity", ["arn:aws:sagemaker:us-east-1:000000000000:endpoint/lung-9", ""])
def test_failed_endpoint_shows_the_reason_and_its_log_tail(identity: str) -> None:
    endpoint: Mapping[str, str] = {
        "ResourceType": "AWS::SageMaker::Endpoint",
        "PhysicalResourceId": identity,
        "StackName": "monai-test-inference",
        "ResourceStatusReason": "container did not answer /ping",
    }
    cloudformation = FakeCloudFormation(
        ends="UPDATE_ROLLBACK_COMPLETE", events=[event(1, "CREATE_FAILED", **endpoint)]
    )
    lines = ["of the container before", "ImportError: no module named monai"]
    logs = FakeLogs({"/aws/sagemaker/Endpoints/lung-9": lines})
    with pytest.raises(DeploymentFailed, match="did not answer /ping") as caught:
        approve(
            deployment(sagemaker=FakeRegistry(), cloudformation=cloudformation, logs=logs),
            every_seconds=0.0,
        )
    assert any("no module named monai" in line for line in caught.value.details)
    assert not any("container before" in line for line in caught.value.details)
    assert "everything serves the previous model" in caught.value.advice


def test_a_way_back_that_failed_is_no_promise_of_the_previous_model() -> None:
    cloudformation = FakeCloudFormation(
        ends="UPDATE_ROLLBACK_FAILED", events=[event(1, "UPDATE_FAILED", ResourceStatusReason="no capacity")]
    )
    with pytest.raises(DeploymentFailed, match="no capacity") as caught:
        approve(
            deployment(sagemaker=FakeRegistry(), cloudformation=cloudformation, logs=FakeLogs({})),
            every_seconds=0.0,
        )
    assert "continue-update-rollback" in caught.value.advice
