"""Where alarms and budgets are announced."""

from __future__ import annotations

from collections.abc import Sequence

import aws_cdk as cdk
from aws_cdk import aws_iam as iam
from aws_cdk import aws_kms as kms
from aws_cdk import aws_sns as sns
from constructs import Construct

ANNOUNCING_SERVICES = ("budgets.amazonaws.com", "cloudwatch.amazonaws.com")
"""Services that publish. Not EventBridge: conditions do not work in policies of topics that it publishes to,
so every account's rules could (https://docs.aws.amazon.com/eventbridge/latest/userguide/eb-use-resource-based.html).
What is announced as an event goes to a queue, and the queue has an alarm.
"""


class AlarmTopic(Construct):
    """The topic of the environment, with the addresses of its file subscribed.

    It is in the stack `data`, so that every other stack's alarms can name it.
    """

    def __init__(self, scope: Construct, id: str, *, key: kms.IKey, emails: Sequence[str]) -> None:
        super().__init__(scope, id)
        self.topic = sns.Topic(self, "Topic", master_key=key, enforce_ssl=True)
        for name in ANNOUNCING_SERVICES:
            self.topic.add_to_resource_policy(
                iam.PolicyStatement(
                    sid=f"From{name.split('.')[0].title()}",
                    principals=[iam.ServicePrincipal(name)],
                    actions=["sns:Publish"],
                    resources=[self.topic.topic_arn],
                    conditions={"StringEquals": {"aws:SourceAccount": cdk.Stack.of(self).account}},
                )
            )
        for email in emails:
            sns.CfnSubscription(
                self,
                # Not a number: taking one address off the list must leave the others confirmed.
                f"Email-{email}",
                topic_arn=self.topic.topic_arn,
                protocol="email",
                endpoint=email,
            )
