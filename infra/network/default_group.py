"""The default security group of the platform's own VPC, without rules."""

from __future__ import annotations

import aws_cdk as cdk
from aws_cdk import aws_iam as iam
from aws_cdk import aws_kms as kms
from aws_cdk import aws_lambda as lambda_
from aws_cdk import aws_logs as logs
from constructs import Construct

from infra.assets.function_code import ARCHITECTURE, RUNTIME, function_code
from infra.environment import Environment
from infra.function_log import function_log
from infra.workload import Workload, allow

_TIMEOUT = cdk.Duration.seconds(90)
"""Longer than the function can take to fail and say so, with all its rounds and attempts."""

_VERSION = 1
"""Raise it to have the function called again in every environment: CloudFormation asks only when a property
of the custom resource changes.
"""


class ClosedDefaultGroup(Construct):
    """Closes the group once the VPC is there.

    A function of this repository does it. The CDK's own way (`restrict_default_security_group`) would bring a
    function for Node that nobody here reads or tests.
    """

    def __init__(
        self, scope: Construct, id: str, *, group_id: str, key: kms.IKey, environment: Environment
    ) -> None:
        super().__init__(scope, id)
        log = function_log(self, environment=environment, key=key)
        workload = Workload(
            self,
            "Workload",
            description="Function that closes the default security group: look at it, remove its rules",
            principal=iam.ServicePrincipal("lambda.amazonaws.com"),
            statements=[
                # IAM knows no resources for what describes.
                allow("ec2:DescribeSecurityGroups", on=["*"]),
                allow(
                    "ec2:RevokeSecurityGroupEgress",
                    "ec2:RevokeSecurityGroupIngress",
                    on=[
                        cdk.Stack.of(self).format_arn(
                            service="ec2", resource="security-group", resource_name=group_id
                        )
                    ],
                ),
                allow("logs:CreateLogStream", "logs:PutLogEvents", on=[log.attr_arn]),
            ],
        )
        function = lambda_.Function(
            self,
            "Function",
            description="Removes every rule of the default security group",
            runtime=RUNTIME,
            architecture=ARCHITECTURE,
            code=function_code(folder="runtime/functions/close_default_group", packages=[]),
            handler="runtime.functions.close_default_group.handler.handle",
            role=workload.role,
            log_group=logs.LogGroup.from_log_group_arn(self, "FunctionLog", log.attr_arn),
            timeout=_TIMEOUT,
        )
        cdk.CustomResource(
            self,
            "Closed",
            resource_type="Custom::ClosedDefaultGroup",
            service_token=function.function_arn,
            # Lambda tries three times what fails without an answer; then the stack fails instead of waiting
            # for an hour.
            service_timeout=cdk.Duration.minutes(10),
            properties={"GroupId": group_id, "Version": _VERSION},
        ).node.add_dependency(workload.policy)
