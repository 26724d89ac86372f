"""Events that a function of the platform could not work off: the dead-letter queues of its stacks.

SQS shows a message by handing it out, for which it hides it from everybody else. So listing takes all of them
and puts them back. Sending one again is two calls, first to the queue and then to the dead letters: a crash
between them leaves the message in both. The functions expect that: events come at least once.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from botocore.exceptions import ClientError

from workbench.dead_letters.function_failures import FunctionFailures, function_failures
from workbench.dead_letters.letter import DeadLetter, Held
from workbench.deployment import Deployment

HIDDEN_SECONDS = 120
"""How long a message is hidden that is being looked at: longer than a command with hundreds of them."""
AT_ONCE = 10
"""SQS hands out no more."""
EVERY = 5000
"""Far more than anybody wants to see one by one; the others come when these are done."""

STAGES = (("catalog", "index"), ("inference", "dispatch"), ("inference", "announce"))
"""Stack, and what its function does. Outputs are named after it: DispatchQueueUrl."""

THREADS = 16
"""Messages that are put back at a time."""

NOT_HIDDEN = frozenset(
    {"AWS.SimpleQueueService.MessageNotInflight", "InvalidParameterValue", "MessageNotInflight"}
)
"""What SQS says of a message whose time of being hidden is over
(https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/API_ChangeMessageVisibility.html).
"""

UNDELIVERED = "ERROR_CODE"
"""The attribute in which EventBridge says why it could not bring a message to the queue
(https://docs.aws.amazon.com/eventbridge/latest/userguide/eb-rule-dlq.html).
"""

_IDENTIFIERS = ("datastoreId", "imageSetId", "imagesetId", "imageSetVersion")
_OF_NOTIFICATIONS = ("inferenceId",)


def dead_letter_queues(deployment: Deployment) -> list[DeadLetterQueue]:
    """Those of the environment: an environment without rules dispatches nothing."""
    found = []
    for stack, stage in STAGES:
        outputs = deployment.stack(stack).values
        name = stage.capitalize()
        queue, dead = outputs.get(f"{name}QueueUrl"), outputs.get(f"{name}DeadLetterQueueUrl")
        if queue and dead:
            found.append(
                DeadLetterQueue(
                    deployment=deployment,
                    stage=stage,
                    queue_url=queue,
                    dead_letters_url=dead,
                    log_group=outputs.get(f"{name}LogGroupName", ""),
                )
            )
    return found


@dataclass(frozen=True, kw_only=True)
class DeadLetterQueue:
    """The dead letters of one function."""

    deployment: Deployment
    stage: str
    queue_url: str
    dead_letters_url: str
    log_group: str
    """Of its function; empty where a stack of before does not name it."""

    @contextmanager
    def open(self) -> Iterator[list[Held]]:
        """Every message, hidden from others until the block ends."""
        taken = list(self._take())
        gone: set[str] = set()
        try:
            yield self._explained(taken, gone)
        finally:
            self._put_back([one for one in taken if one["MessageId"] not in gone])

    def _put_back(self, messages: Sequence[Mapping[str, Any]]) -> None:
        """Show them again to everybody."""
        sqs = self._sqs

        def put_back(message: Mapping[str, Any]) -> None:
            try:
                sqs.change_message_visibility(
                    QueueUrl=self.dead_letters_url,
                    ReceiptHandle=message["ReceiptHandle"],
                    VisibilityTimeout=0,
                )
            except ClientError as error:
                # Its time is over: it is to be seen already.
                if error.response["Error"]["Code"] not in NOT_HIDDEN:
                    raise

        with ThreadPoolExecutor(THREADS) as pool:
            for _ in pool.map(put_back, messages):
                continue

    @property
    def _sqs(self) -> Any:
        return self.deployment.session.client("sqs")

    def _take(self) -> Iterator[Mapping[str, Any]]:
        seen: set[str] = set()
        while len(seen) < EVERY:
            answer = self._sqs.receive_message(
                QueueUrl=self.dead_letters_url,
                MaxNumberOfMessages=AT_ONCE,
                VisibilityTimeout=HIDDEN_SECONDS,
                # Without waiting, SQS asks some of its servers only, and an empty answer says nothing.
                WaitTimeSeconds=1,
                MessageSystemAttributeNames=["SentTimestamp"],
                MessageAttributeNames=[UNDELIVERED],
            )
            messages = [one for one in answer.get("Messages", ()) if one["MessageId"] not in seen]
            if not messages:
                return
            seen.update(one["MessageId"] for one in messages)
            yield from messages

    def _explained(self, messages: Sequence[Mapping[str, Any]], gone: set[str]) -> list[Held]:
        failures = FunctionFailures(lines=())
        if messages and self.log_group:
            since = min(_sent(one) for one in messages)
            failures = function_failures(self.deployment, self.log_group, since=since)
        return [self._held(one, gone, failures) for one in messages]

    def _held(self, message: Mapping[str, Any], gone: set[str], failures: FunctionFailures) -> Held:
        def discard() -> None:
            self._sqs.delete_message(QueueUrl=self.dead_letters_url, ReceiptHandle=message["ReceiptHandle"])
            gone.add(message["MessageId"])

        def replay() -> None:
            self._sqs.send_message(QueueUrl=self.queue_url, MessageBody=message["Body"])
            discard()

        about = identifiers(message["Body"])
        letter = DeadLetter(
            id=message["MessageId"],
            place=self.stage,
            when=_sent(message),
            about=about,
            reason=self._reason(message, about, failures),
            replay=f"goes to the queue of the {self.stage} function again",
        )
        return Held(letter=letter, replay=replay, discard=discard)

    def _reason(
        self, message: Mapping[str, Any], about: Mapping[str, str], failures: FunctionFailures
    ) -> str:
        undelivered = message.get("MessageAttributes", {}).get(UNDELIVERED)
        if undelivered:
            return f"EventBridge could not deliver it: {undelivered['StringValue']}"
        # A function that could not read the message at all names it by its id.
        told = failures.reason(about.get("imageSetId"), about.get("inferenceId"), message["MessageId"])
        return told or f"see the log of the {self.stage} function, {self.log_group}".rstrip(", ")


def _sent(message: Mapping[str, Any]) -> datetime:
    return datetime.fromtimestamp(int(message["Attributes"]["SentTimestamp"]) / 1000, UTC)


def identifiers(body: str) -> dict[str, str]:
    """What a message is about: identifiers of HealthImaging's events and of SageMaker's notifications, and
    nothing else of what is in it.
    """
    try:
        document = json.loads(body)
        detail = document.get("detail", {})
        found = {name: str(detail[name]) for name in _IDENTIFIERS if name in detail}
        found |= {name: str(document[name]) for name in _OF_NOTIFICATIONS if name in document}
        if "requestParameters" in document:
            found["endpoint"] = str(document["requestParameters"]["endpointName"])
    except (ValueError, AttributeError, KeyError, TypeError):
        return {}
    # The service's documentation spells it `imagesetId`, its samples `imageSetId`.
    if "imagesetId" in found:
        found["imageSetId"] = found.pop("imagesetId")
    return found
