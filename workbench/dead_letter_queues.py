"""Events that a function of the platform could not work off: the dead-letter queues of its stacks.

SQS shows a message by handing it out, for which it hides it from everybody else. So listing takes all of them
and puts them back. Sending one again is two calls, first to the queue and then to the dead letters: a crash
between them leaves the message in both. The functions expect that: events come at least once.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from botocore.exceptions import ClientError

from workbench.deployment import Deployment
from workbench.failures import ACCESS_DENIED
from workbench.letter import DeadLetter, Held

HIDDEN_SECONDS = 120
"""How long a message is hidden that is being looked at: longer than a command with hundreds of them."""
AT_ONCE = 10
"""SQS hands out no more."""
EVERY = 5000
"""Far more than anybody wants to see one by one; the others come when these are done."""

STAGES = (("catalog", "index"), ("inference", "dispatch"), ("inference", "announce"))
"""Stack, and what its function does. Outputs are named after it: DispatchQueueUrl."""

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
                    function=outputs[f"{name}FunctionName"],
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
    function: str

    @contextmanager
    def open(self) -> Iterator[list[Held]]:
        """Every message, hidden from others until the block ends."""
        taken = list(self._take())
        gone: set[str] = set()
        try:
            yield [self._held(message, gone) for message in taken]
        finally:
            for message in taken:
                if message["MessageId"] not in gone:
                    self._sqs.change_message_visibility(
                        QueueUrl=self.dead_letters_url,
                        ReceiptHandle=message["ReceiptHandle"],
                        VisibilityTimeout=0,
                    )

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
                MessageAttributeNames=["ERROR_CODE"],
            )
            messages = [one for one in answer.get("Messages", ()) if one["MessageId"] not in seen]
            if not messages:
                return
            seen.update(one["MessageId"] for one in messages)
            yield from messages

    def _held(self, message: Mapping[str, Any], gone: set[str]) -> Held:
        def discard() -> None:
            self._sqs.delete_message(QueueUrl=self.dead_letters_url, ReceiptHandle=message["ReceiptHandle"])
            gone.add(message["MessageId"])

        def replay() -> None:
            self._sqs.send_message(QueueUrl=self.queue_url, MessageBody=message["Body"])
            discard()

        return Held(letter=self._letter(message), replay=replay, discard=discard)

    def _letter(self, message: Mapping[str, Any]) -> DeadLetter:
        about = identifiers(message["Body"])
        milliseconds = int(message["Attributes"]["SentTimestamp"])
        sent = datetime.fromtimestamp(milliseconds / 1000, UTC)
        return DeadLetter(
            id=message["MessageId"],
            place=self.stage,
            when=sent,
            about=about,
            reason=self._reason(message, about, sent),
            replay=f"goes to the queue of the {self.stage} function again",
        )

    def _reason(self, message: Mapping[str, Any], about: Mapping[str, str], sent: datetime) -> str:
        undelivered = message.get("MessageAttributes", {}).get("ERROR_CODE")
        if undelivered:
            # https://docs.aws.amazon.com/eventbridge/latest/userguide/eb-rule-dlq.html
            return f"EventBridge could not deliver it: {undelivered['StringValue']}"
        # A function that could not read the message at all names it by its id.
        for subject in (about.get("imageSetId"), about.get("inferenceId"), message["MessageId"]):
            told = self._told_by_log(subject, sent) if subject else ""
            if told:
                return told
        return f"see the log of function {self.function}"

    def _told_by_log(self, subject: str, since: datetime) -> str:
        """The last line of the function's log about a failure with `subject`; empty without one."""
        client = self.deployment.session.client
        try:
            configuration = client("lambda").get_function_configuration(FunctionName=self.function)
            pages = (
                client("logs")
                .get_paginator("filter_log_events")
                .paginate(
                    logGroupName=configuration["LoggingConfig"]["LogGroup"],
                    filterPattern=f'"{subject}"',
                    startTime=int((since - timedelta(minutes=1)).timestamp() * 1000),
                )
            )
            lines = [str(event["message"]) for page in pages for event in page["events"]]
        except ClientError as error:
            # Who may send letters again need not be allowed to read logs.
            if error.response["Error"]["Code"] in ACCESS_DENIED:
                return ""
            raise
        # "... dispatching failed: image set 0123, SomeError: why"
        failures = [line.rstrip().partition(" failed: ")[2] for line in lines if " failed: " in line]
        return failures[-1].partition(", ")[2] if failures else ""


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
