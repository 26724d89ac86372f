"""Events that wait for a function: a queue, what could not be done beside it, and the rule or topic that
fills it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import aws_cdk as cdk
from aws_cdk import aws_events as events
from aws_cdk import aws_iam as iam
from aws_cdk import aws_kms as kms
from aws_cdk import aws_sns as sns
from aws_cdk import aws_sqs as sqs
from constructs import Construct

from infra.workload import allow

_ATTEMPTS = 5


@dataclass(frozen=True, kw_only=True)
class EventQueue:
    """A queue and its dead letters."""

    queue: sqs.Queue
    dead_letters: sqs.Queue
    """What the function could not do in five attempts, and what the rule or topic could not deliver."""

    @property
    def may_be_read(self) -> iam.PolicyStatement:
        """What Lambda needs of the function's role to read the queue."""
        return allow(
            "sqs:DeleteMessage",
            "sqs:GetQueueAttributes",
            "sqs:ReceiveMessage",
            on=[self.queue.queue_arn],
        )

    def receive(
        self,
        scope: Construct,
        id: str,
        *,
        description: str,
        event_pattern: Mapping[str, Any],
        bus_name: str | None = None,
    ) -> None:
        """Bring the events of a pattern to the queue, from the account's default bus or from another.

        Written on the lowest level: the rule's target as the CDK has it would change the key's policy, which
        is in another stack.
        """
        rule = events.CfnRule(
            scope,
            id,
            description=description,
            event_bus_name=bus_name,
            event_pattern=event_pattern,
            targets=[
                events.CfnRule.TargetProperty(
                    id="Queue",
                    arn=self.queue.queue_arn,
                    dead_letter_config=events.CfnRule.DeadLetterConfigProperty(
                        arn=self.dead_letters.queue_arn
                    ),
                )
            ],
        )
        self._take("FromRule", service="events.amazonaws.com", sources=[rule.attr_arn])

    def hear(self, scope: Construct, topics: Mapping[str, sns.ITopic]) -> None:
        """Bring what is published on topics to the queue, as it was published: without SNS's envelope.

        Args:
            scope: Where the subscriptions are made.
            topics: By the id of the subscription.
        """
        for id, topic in topics.items():
            sns.CfnSubscription(
                scope,
                id,
                topic_arn=topic.topic_arn,
                protocol="sqs",
                endpoint=self.queue.queue_arn,
                raw_message_delivery=True,
                redrive_policy={"deadLetterTargetArn": self.dead_letters.queue_arn},
            )
        arns = [topic.topic_arn for topic in topics.values()]
        self._take("FromTopics", service="sns.amazonaws.com", sources=arns)

    def _take(self, sid: str, *, service: str, sources: list[str]) -> None:
        for queue in (self.queue, self.dead_letters):
            queue.add_to_resource_policy(
                iam.PolicyStatement(
                    sid=sid,
                    principals=[iam.ServicePrincipal(service)],
                    actions=["sqs:SendMessage"],
                    resources=[queue.queue_arn],
                    conditions={"ArnEquals": {"aws:SourceArn": sources[0] if len(sources) == 1 else sources}},
                )
            )


def event_queue(
    scope: Construct, *, key: kms.IKey, timeout: cdk.Duration, delay: cdk.Duration | None = None
) -> EventQueue:
    """Make `Queue` and `DeadLetters` in `scope`, for a function with this time limit.

    Args:
        scope: Where they are made.
        key: They are encrypted with it.
        timeout: Of the function.
        delay: How long a message waits before the function gets it.
    """
    dead_letters = sqs.Queue(
        scope,
        "DeadLetters",
        encryption_master_key=key,
        enforce_ssl=True,
        retention_period=cdk.Duration.days(14),
    )
    queue = sqs.Queue(
        scope,
        "Queue",
        encryption_master_key=key,
        enforce_ssl=True,
        retention_period=cdk.Duration.days(4),
        delivery_delay=delay,
        # AWS advises six times the function's timeout, so that a throttled batch is not handed out twice.
        visibility_timeout=cdk.Duration.seconds(6 * timeout.to_seconds()),
        dead_letter_queue=sqs.DeadLetterQueue(queue=dead_letters, max_receive_count=_ATTEMPTS),
    )
    return EventQueue(queue=queue, dead_letters=dead_letters)
