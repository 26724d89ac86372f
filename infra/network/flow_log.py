"""The flow log: who talked to whom in the network."""

from __future__ import annotations

import aws_cdk as cdk
from aws_cdk import aws_ec2 as ec2
from aws_cdk import aws_kms as kms
from aws_cdk import aws_logs as logs
from constructs import Construct

from infra.workload import Workload, allow, service


class FlowLog(Construct):
    """Every connection in the VPC, accepted or rejected, in an encrypted log group."""

    def __init__(
        self,
        scope: Construct,
        id: str,
        *,
        vpc_id: str,
        key: kms.IKey,
        retention_days: int,
        removal_policy: cdk.RemovalPolicy,
    ) -> None:
        super().__init__(scope, id)
        stack = cdk.Stack.of(self)
        group = logs.CfnLogGroup(self, "Group", kms_key_id=key.key_arn, retention_in_days=retention_days)
        group.apply_removal_policy(removal_policy)
        writer = Workload(
            self,
            "Writer",
            description="VPC flow logs: write to their log group",
            principal=service(
                "vpc-flow-logs.amazonaws.com",
                account=stack.account,
                source_arn=stack.format_arn(service="ec2", resource="vpc-flow-log", resource_name="*"),
            ),
            statements=[
                allow(
                    "logs:CreateLogStream",
                    "logs:DescribeLogStreams",
                    "logs:PutLogEvents",
                    on=[group.attr_arn],
                ),
            ],
        )
        log = ec2.CfnFlowLog(
            self,
            "Log",
            resource_id=vpc_id,
            resource_type="VPC",
            traffic_type="ALL",
            log_destination_type="cloud-watch-logs",
            log_group_name=group.ref,
            deliver_logs_permission_arn=writer.role_arn,
            max_aggregation_interval=60,
        )
        log.node.add_dependency(writer.policy)
