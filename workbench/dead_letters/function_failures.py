"""What a function's log says of why it could not do something.

Read once for all dead letters of a queue: CloudWatch Logs answers five searches a second
(https://docs.aws.amazon.com/AmazonCloudWatch/latest/logs/cloudwatch_limits_cwl.html), and messages are hidden
from everybody else while they are explained.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from botocore.exceptions import ClientError

from workbench.deployment import Deployment
from workbench.failures import ACCESS_DENIED

_FAILED = " failed: "
"""As runtime/functions/batches/batch.py writes it: "dispatching failed: image set 0123, SomeError: why"."""


@dataclass(frozen=True, kw_only=True)
class FunctionFailures:
    """The failures of one function, the oldest first: "image set 0123, SomeError: why"."""

    lines: tuple[str, ...]

    def reason(self, *subjects: str | None) -> str:
        """The last failure about the first of these identifiers that the log knows; empty without one."""
        for subject in subjects:
            told = [line for line in self.lines if subject and subject in line]
            if told:
                return told[-1].partition(", ")[2]
        return ""


def function_failures(deployment: Deployment, log_group: str, *, since: datetime) -> FunctionFailures:
    """What the function's log group says since then; nothing, for who may not read it: who may send letters
    again need not be allowed to.
    """
    try:
        pages = (
            deployment.session.client("logs")
            .get_paginator("filter_log_events")
            .paginate(
                logGroupName=log_group,
                filterPattern=f'"{_FAILED.strip()}"',
                startTime=int((since - timedelta(minutes=1)).timestamp() * 1000),
            )
        )
        messages = [str(event["message"]) for page in pages for event in page["events"]]
    except ClientError as error:
        if error.response["Error"]["Code"] in ACCESS_DENIED:
            return FunctionFailures(lines=())
        raise
    return FunctionFailures(
        lines=tuple(one.rstrip().partition(_FAILED)[2] for one in messages if _FAILED in one)
    )
