"""How an environment tells the next one of an approved model package: rule, role, the other's event bus."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from aws_cdk import aws_events as events
from constructs import Construct

from infra.environment import Environment
from infra.promotion.names import candidate_bus_name
from infra.workload import Workload, allow, service


def approved_packages(groups: Sequence[str]) -> dict[str, Any]:
    """Event pattern: a package of one of the groups is approved
    (https://docs.aws.amazon.com/sagemaker/latest/dg/automating-sagemaker-with-eventbridge.html).
    """
    return {
        "source": ["aws.sagemaker"],
        "detail-type": ["SageMaker Model Package State Change"],
        "detail": {"ModelPackageGroupName": list(groups), "ModelApprovalStatus": ["Approved"]},
    }


class Announcement(Construct):
    """Sends approvals to the environment `after`, and nothing else."""

    def __init__(
        self,
        scope: Construct,
        id: str,
        *,
        environment: Environment,
        after: Environment,
        groups: Sequence[str],
    ) -> None:
        super().__init__(scope, id)
        name = candidate_bus_name(after.name)
        bus = f"arn:aws:events:{after.aws.region}:{after.aws.account}:event-bus/{name}"
        sender = Workload(
            self,
            "Sender",
            description=f"EventBridge: put approvals of {environment.name} on the event bus of {after.name}",
            principal=service("events.amazonaws.com", account=environment.aws.account),
            statements=[allow("events:PutEvents", on=[bus])],
        )
        rule = events.CfnRule(
            self,
            "Approved",
            description=f"Model packages that become candidates in {after.name}",
            event_pattern=approved_packages(groups),
            targets=[events.CfnRule.TargetProperty(id="Next", arn=bus, role_arn=sender.role_arn)],
        )
        rule.node.add_dependency(sender.policy)
