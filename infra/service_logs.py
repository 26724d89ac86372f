"""Log groups into which a service writes under a name that the service chooses."""

from __future__ import annotations

import aws_cdk as cdk
from aws_cdk import aws_kms as kms
from aws_cdk import aws_logs as logs
from constructs import Construct

from infra.retention import unless_creation_fails


class ServiceLogGroup(Construct):
    """A log group that SageMaker, Glue or Lambda would otherwise make itself: unencrypted, and kept forever.

    Made by the stack whose workloads write to it, so their roles need no permission to create groups.

    Names like `/aws/sagemaker/TrainingJobs` exist once per account and region and cannot be chosen. So an
    account and region has one environment; that is also what keeps an account's administrators of one
    environment away from the patients of another. Where the group is there already, because somebody ran a
    job in the account before, the stack fails with "already exists": import the group into the stack
    (`cdk import`), or export what is worth keeping of it and delete it.

    See https://docs.aws.amazon.com/sagemaker/latest/dg/logging-cloudwatch.html
    """

    def __init__(
        self,
        scope: Construct,
        id: str,
        *,
        name: str,
        key: kms.IKey,
        retention_days: int,
        removal_policy: cdk.RemovalPolicy,
    ) -> None:
        super().__init__(scope, id)
        self._group = logs.CfnLogGroup(
            self,
            "Group",
            log_group_name=name,
            kms_key_id=key.key_arn,
            retention_in_days=retention_days,
        )
        self._group.apply_removal_policy(unless_creation_fails(removal_policy))

    @property
    def name(self) -> str:
        return self._group.ref

    @property
    def arn(self) -> str:
        """The group with its streams (it ends with `:*`), as IAM wants it for writing to streams."""
        return self._group.attr_arn

    @property
    def resource(self) -> logs.CfnLogGroup:
        """What a resource that writes to the group depends on."""
        return self._group
