"""Roles: one for each workload, with managed policies in which every permission is written out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import aws_cdk as cdk
from aws_cdk import aws_iam as iam
from constructs import Construct


def allow(
    *actions: str, on: Sequence[str], when: Mapping[str, Mapping[str, Any]] | None = None
) -> iam.PolicyStatement:
    """Exactly these actions on exactly these ARNs."""
    return iam.PolicyStatement(actions=list(actions), resources=list(on), conditions=dict(when or {}))


def deny(
    *actions: str, on: Sequence[str], when: Mapping[str, Mapping[str, Any]] | None = None
) -> iam.PolicyStatement:
    """Never these actions, whatever another statement allows."""
    return iam.PolicyStatement(
        effect=iam.Effect.DENY, actions=list(actions), resources=list(on), conditions=dict(when or {})
    )


class Workload(Construct):
    """The role that one workload runs as.

    All that it may do is in one managed policy (no inline policies: they cannot be reviewed as objects of
    their own); who does more than fits into one has another for each topic. Constructs of the CDK that
    receive `role` cannot add to it: their grants are wider than what the workload does.
    """

    def __init__(
        self,
        scope: Construct,
        id: str,
        *,
        description: str,
        principal: iam.IPrincipal,
        statements: Sequence[iam.PolicyStatement],
        topics: Mapping[str, Sequence[iam.PolicyStatement]] | None = None,
        name: str | None = None,
    ) -> None:
        """
        Args:
            statements: What is in the policy that every role has.
            topics: What is in further ones, by topic. IAM takes 6,144 characters in a policy, and ten
                policies of a role (https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_iam-quotas.html).
                A topic without statements has no policy.
            name: Only for a role that another account's policies name (infra/promotion/neighbours.py).
        """
        super().__init__(scope, id)
        self._role = iam.Role(self, "Role", assumed_by=principal, description=description, role_name=name)
        self.policy = iam.ManagedPolicy(
            self, "Policy", description=description, roles=[self._role], statements=list(statements)
        )
        further = [
            iam.ManagedPolicy(
                self,
                f"PolicyOn{topic}",
                description=f"{description} On {topic.lower()}.",
                roles=[self._role],
                statements=list(of_topic),
            )
            for topic, of_topic in (topics or {}).items()
            if of_topic
        ]
        self.policies = (self.policy, *further)
        """What must be there before the role can do all of its work."""

    @property
    def role(self) -> iam.IRole:
        return self._role.without_policy_updates()

    @property
    def role_arn(self) -> str:
        return self._role.role_arn


def service(name: str, *, account: str, source_arn: str | None = None) -> iam.IPrincipal:
    """A service that may assume a role on behalf of this account only (the confused deputy problem).

    For services that say for whom they act. Lambda and Glue do not when they assume a role.
    """
    conditions: dict[str, Any] = {"StringEquals": {"aws:SourceAccount": account}}
    if source_arn:
        conditions["ArnEquals"] = {"aws:SourceArn": source_arn}
    return iam.ServicePrincipal(name, conditions=conditions)


def log_group_arns(stack: cdk.Stack, prefix: str) -> list[str]:
    """The log groups whose name starts with `prefix`, and their streams."""
    group = stack.format_arn(
        service="logs",
        resource="log-group",
        resource_name=prefix,
        arn_format=cdk.ArnFormat.COLON_RESOURCE_NAME,
    )
    return [f"{group}*"]
