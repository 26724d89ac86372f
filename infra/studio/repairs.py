"""What somebody needs who has things done that a function could not do: its dead letters.

Queues have the names that CloudFormation makes of the stack's name and the queue's id. Naming them so, and
not by the other stacks' exports, leaves those stacks free to replace them.
"""

from __future__ import annotations

import aws_cdk as cdk
from aws_cdk import aws_iam as iam

from infra.workload import allow

_PATHS = (("catalog", "Index"), ("inference", "Announce"), ("inference", "Events"))
"""Stack, and id of the construct with `Queue` and `DeadLetters` (infra/event_queue.py)."""


def queue_arns(stack: cdk.Stack, environment: str, kind: str) -> list[str]:
    """The queues `kind` of every path of events."""
    return [
        stack.format_arn(
            service="sqs",
            resource=f"monai-{environment}-{part}-{path}{kind}*",
            arn_format=cdk.ArnFormat.NO_RESOURCE_NAME,
        )
        for part, path in _PATHS
    ]


def repair(stack: cdk.Stack, environment: str) -> list[iam.PolicyStatement]:
    """Read dead letters, and send them to their queue again or throw them away. Nothing is taken from the
    queues themselves. The function's log, which may say more of why, is for who operates the functions.
    """
    return [
        allow(
            "sqs:ChangeMessageVisibility",
            "sqs:DeleteMessage",
            "sqs:ReceiveMessage",
            on=queue_arns(stack, environment, "DeadLetters"),
        ),
        allow("sqs:SendMessage", on=queue_arns(stack, environment, "Queue")),
    ]
