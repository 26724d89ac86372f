"""The customer-managed key under which the platform keeps everything that could describe a patient."""

from __future__ import annotations

import aws_cdk as cdk
from aws_cdk import aws_iam as iam
from aws_cdk import aws_kms as kms
from constructs import Construct


class PlatformKey(Construct):
    """One rotating key for an environment.

    The account's own IAM policies decide about principals of the account (the first statement, as in AWS's
    default key policy); the other statements let a service use the key for one purpose, only on behalf of
    this account.
    """

    def __init__(self, scope: Construct, id: str, *, removal_policy: cdk.RemovalPolicy) -> None:
        super().__init__(scope, id)
        stack = cdk.Stack.of(self)
        self.key = kms.Key(
            self,
            "Key",
            description="Medical images, their headers, models and results",
            enable_key_rotation=True,
            removal_policy=removal_policy,
        )
        self.key.add_to_resource_policy(encrypt_log_groups(stack))
        # As in https://docs.aws.amazon.com/healthimaging/latest/devguide/data-encryption.html. The example
        # there names this key and the data store, but a key policy cannot refer to its own key, and the data
        # store comes after it: so any key of this account, by the same context. That keeps no data store of
        # another account out: HealthImaging itself asks whether who makes one may use the key.
        self.key.add_to_resource_policy(
            iam.PolicyStatement(
                sid="EncryptDataStore",
                principals=[iam.ServicePrincipal("medical-imaging.amazonaws.com")],
                actions=["kms:Decrypt", "kms:GenerateDataKey", "kms:GenerateDataKeyWithoutPlaintext"],
                resources=["*"],
                conditions={
                    "ArnLike": {
                        "kms:EncryptionContext:kms-arn": stack.format_arn(
                            service="kms", resource="key", resource_name="*"
                        )
                    }
                },
            )
        )
        self.key.add_to_resource_policy(
            iam.PolicyStatement(
                sid="DeliverEventsToQueues",
                principals=[iam.ServicePrincipal("events.amazonaws.com")],
                actions=["kms:Decrypt", "kms:GenerateDataKey"],
                resources=["*"],
                conditions={"StringEquals": {"aws:SourceAccount": stack.account}},
            )
        )
        # From an encrypted topic to an encrypted queue
        # (https://docs.aws.amazon.com/sns/latest/dg/sns-enable-encryption-for-topic-sqs-queue-subscriptions.html).
        self.key.add_to_resource_policy(
            iam.PolicyStatement(
                sid="DeliverNotificationsToQueues",
                principals=[iam.ServicePrincipal("sns.amazonaws.com")],
                actions=["kms:Decrypt", "kms:GenerateDataKey"],
                resources=["*"],
                conditions={"StringEquals": {"aws:SourceAccount": stack.account}},
            )
        )
        # An alarm or budget encrypts what it publishes to the alarm topic
        # (https://docs.aws.amazon.com/sns/latest/dg/sns-key-management.html).
        for sid, name in {
            "AnnounceAlarms": "cloudwatch.amazonaws.com",
            "AnnounceBudgets": "budgets.amazonaws.com",
        }.items():
            self.key.add_to_resource_policy(
                iam.PolicyStatement(
                    sid=sid,
                    principals=[iam.ServicePrincipal(name)],
                    actions=["kms:Decrypt", "kms:GenerateDataKey"],
                    resources=["*"],
                    conditions={"StringEquals": {"aws:SourceAccount": stack.account}},
                )
            )


def encrypt_log_groups(stack: cdk.Stack) -> iam.PolicyStatement:
    """Statement of a key's policy: CloudWatch Logs may use the key for the log groups of this account and
    region (https://docs.aws.amazon.com/AmazonCloudWatch/latest/logs/encrypt-log-data-kms.html).
    """
    return iam.PolicyStatement(
        sid="EncryptLogGroups",
        principals=[iam.ServicePrincipal(f"logs.{stack.region}.amazonaws.com")],
        actions=[
            "kms:Decrypt",
            "kms:DescribeKey",
            "kms:Encrypt",
            "kms:GenerateDataKey",
            "kms:GenerateDataKeyWithoutPlaintext",
            "kms:ReEncryptFrom",
            "kms:ReEncryptTo",
        ],
        resources=["*"],
        conditions={
            "ArnLike": {
                "kms:EncryptionContext:aws:logs:arn": stack.format_arn(
                    service="logs",
                    resource="log-group",
                    resource_name="*",
                    arn_format=cdk.ArnFormat.COLON_RESOURCE_NAME,
                )
            }
        },
    )
