"""One batch of messages: each stands for itself, whatever is wrong with the others.

Three things could let one message take nine with it, and each has its limit: an error (caught here), memory
(who reads something of unknown size bounds it, `runtime/functions/image_sets/reading.py`), and time: a
message that cannot be begun in good time is handed back, in place of being cut off in its midst with all the
others of the batch. It comes again when its visibility timeout is over.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from typing import Any, Protocol, TypeVar

from runtime.functions.batches.errors import TimeIsUpError, describe

logger = logging.getLogger(__name__)
logger.setLevel(logging.INFO)

RESERVE_SECONDS = 30.0
"""A message is not begun with less: the largest image set takes some ten seconds."""


class Item(Protocol):
    """What a message asks for."""

    @property
    def subject(self) -> str:
        """What it is about, in identifiers: "image set 0123..."."""
        ...


Asked = TypeVar("Asked", bound=Item)


def work_off(
    event: dict[str, Any],
    *,
    context: Any,
    doing: str,
    read: Callable[[str], Asked],
    work: Callable[[Asked], bool],
    speaking: tuple[type[Exception], ...] = (),
) -> dict[str, Any]:
    """Work off a batch of SQS messages.

    Args:
        event: `Records` of SQS.
        context: Lambda's context; None where nothing limits the time.
        doing: What is done, for the log: "indexing".
        read: From a message's body to what it asks for.
        work: Does it. True: nothing is left to do about this subject in this batch. Queues often hold several
            messages of one, and the first may have done what the others ask for.
        speaking: Error classes whose messages carry identifiers only (`describe`).

    Returns:
        `batchItemFailures`: the messages to deliver again
        (https://docs.aws.amazon.com/lambda/latest/dg/services-sqs-errorhandling.html#services-sqs-batchfailurereporting).
    """
    failures = []
    done: set[str] = set()
    for record in event["Records"]:
        subject = f"message {record['messageId']}"
        try:
            item = read(record["body"])
            subject = item.subject
            if subject in done:
                continue
            if seconds_left(context) < RESERVE_SECONDS:
                raise TimeIsUpError("handed back, the next invocation has more time")
            if work(item):
                done.add(subject)
        # One bad message must not keep the rest of its batch from being worked off.
        except Exception as error:  # noqa: BLE001 - reported as this message's failure
            logger.error("%s failed: %s, %s", doing, subject, describe(error, speaking=speaking))
            failures.append({"itemIdentifier": record["messageId"]})
    return {"batchItemFailures": failures}


def seconds_left(context: Any) -> float:
    """What remains of the invocation's time limit."""
    return math.inf if context is None else float(context.get_remaining_time_in_millis()) / 1000
