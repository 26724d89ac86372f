"""The log group of a function of this repository."""

from __future__ import annotations

import aws_cdk as cdk
from aws_cdk import aws_kms as kms
from aws_cdk import aws_logs as logs
from constructs import Construct

from infra.environment import Environment
from infra.retention import unless_creation_fails


def function_log(scope: Construct, *, environment: Environment, key: kms.IKey) -> logs.CfnLogGroup:
    """Make `Log` in `scope`: encrypted, for as long as the environment file says.

    Where data are kept, it outlives its stack: it says which image set went to which model and when.
    """
    group = logs.CfnLogGroup(
        scope, "Log", kms_key_id=key.key_arn, retention_in_days=environment.logs.retention_days
    )
    keep = cdk.RemovalPolicy.RETAIN if environment.protection.retain_data else cdk.RemovalPolicy.DESTROY
    group.apply_removal_policy(unless_creation_fails(keep))
    return group
