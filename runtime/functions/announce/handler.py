"""Announce function: puts what came of every asynchronous inference on the account's event bus.

Reads SageMaker's notifications from SQS (two topics put them there), and the answer, or what the endpoint
said of its failure, from S3. Source `monai.inference`, detail types `Inference Result Stored` and
`Inference Failed`; identifiers only (`results`).

At least once: a notification that comes twice is announced twice, with the same `id` in both details.

Environment:
    RESULT_BUCKET: Where requests, answers and failures are.
    NOTED_PREFIX: Where failures are noted.
    DATASTORE_ID: The archive that all endpoints work on.
    EVENT_BUS: Name of the bus.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Sequence
from typing import Any

import boto3
from botocore.exceptions import ClientError

from runtime.functions.announce.failures import Failures
from runtime.functions.announce.notifications import Notification, notification, type_of
from runtime.functions.announce.results import FAILED, SOURCE, STORED, AnswerError, failed, stored
from runtime.functions.batches.batch import work_off
from runtime.functions.batches.errors import FunctionError, code_of

logger = logging.getLogger(__name__)
logger.setLevel(logging.INFO)

MOST_BYTES = 8 * 2**20
"""Of an answer or a request. A request names up to a hundred image sets, each with some kilobytes of
answer.
"""

_ENTRIES = 10
"""In one call of PutEvents."""

_NOT_THERE = frozenset({"AccessDenied", "NoSuchBucket", "NoSuchKey"})
"""What S3 says of an object that is not there, or not for this function: without the right to list, which it
does not have, a missing object is AccessDenied
(https://docs.aws.amazon.com/AmazonS3/latest/API/API_GetObject.html).
"""


class NotPutError(FunctionError):
    """The event bus refused events; the message comes again."""


def handle(event: dict[str, Any], context: Any) -> dict[str, Any]:
    """Lambda handler for batches of SQS messages.

    Args:
        event: `Records` of SQS, each body one notification of SageMaker.
        context: Lambda's context.

    Returns:
        `batchItemFailures`: the messages to deliver again.
    """
    s3, bucket = boto3.client("s3"), os.environ["RESULT_BUCKET"]
    announcer = Announcer(
        s3=s3,
        events=boto3.client("events"),
        failures=Failures(s3=s3, bucket=bucket, prefix=os.environ["NOTED_PREFIX"]),
        bucket=bucket,
        datastore_id=os.environ["DATASTORE_ID"],
        bus=os.environ["EVENT_BUS"],
    )
    return work_off(event, context=context, doing="announcing", read=notification, work=announcer.announce)


class Announcer:
    """From notifications to events."""

    def __init__(
        self, *, s3: Any, events: Any, failures: Failures, bucket: str, datastore_id: str, bus: str
    ) -> None:
        self._s3 = s3
        self._events = events
        self._failures = failures
        self._bucket = bucket
        self._datastore_id = datastore_id
        self._bus = bus

    def announce(self, about: Notification) -> bool:
        """Announce one notification. Never settles another one of the same run: asked again, a run that
        failed may succeed.

        Raises:
            AnswerError: What it names is not in the promised form.
            NotPutError: The bus did not take it.
        """
        if about.completed:
            details = list(
                stored(self._document(about.output_uri), of=about, datastore_id=self._datastore_id)
            )
            self._failures.forget(about.run_id)
            self._put(STORED, details)
            logger.info("announced: %s, endpoint %s, %d results", about.subject, about.endpoint, len(details))
            return False
        request = self._request(about)
        detail = failed(
            request,
            of=about,
            failure_uri=about.output_uri,
            error_type=self._error_type(about.output_uri),
        )
        self._failures.note(about.run_id, detail)
        self._put(FAILED, [detail])
        logger.info("announced: %s failed, endpoint %s", about.subject, about.endpoint)
        return False

    def _request(self, about: Notification) -> Any:
        """The request of a failed run. What is wrong with it, or that it is not there, may be why it failed:
        nobody would hear of the failure if that kept it from being announced.
        """
        if about.request_uri is None:
            return None
        try:
            return self._document(about.request_uri)
        except AnswerError:
            return None

    def _error_type(self, uri: str | None) -> str | None:
        """The class of error that the container named. What is no error of ours (of the web server, of
        SageMaker) has none, and a request that never reached the container has no document at all.
        """
        if uri is None:
            return None
        try:
            document = self._document(uri)
        except AnswerError:
            return None
        error = document.get("error") if isinstance(document, dict) else None
        return type_of(error.get("type")) if isinstance(error, dict) else None

    def _document(self, uri: str | None) -> Any:
        """The JSON document at a location in the result bucket.

        Raises:
            AnswerError: There is none that could be read. What S3 may do another time is raised as it is.
        """
        place = f"s3://{self._bucket}/"
        if uri is None or not uri.startswith(place):
            msg = "The location is not in the result bucket"
            raise AnswerError(msg)
        try:
            answer = self._s3.get_object(Bucket=self._bucket, Key=uri.removeprefix(place))
        except ClientError as error:
            if code_of(error) not in _NOT_THERE:
                raise
            msg = f"{uri} cannot be read: GetObject: {code_of(error)}"
            raise AnswerError(msg) from error
        body = answer["Body"].read(MOST_BYTES + 1)
        if len(body) > MOST_BYTES:
            msg = f"{uri} is larger than {MOST_BYTES} bytes"
            raise AnswerError(msg)
        try:
            return json.loads(body)
        except (ValueError, RecursionError) as error:
            msg = f"{uri} is not a JSON document"
            raise AnswerError(msg) from error

    def _put(self, detail_type: str, details: Sequence[dict[str, Any]]) -> None:
        for start in range(0, len(details), _ENTRIES):
            answer = self._events.put_events(
                Entries=[
                    {
                        "EventBusName": self._bus,
                        "Source": SOURCE,
                        "DetailType": detail_type,
                        "Detail": json.dumps(detail),
                    }
                    for detail in details[start : start + _ENTRIES]
                ]
            )
            refused = [entry["ErrorCode"] for entry in answer["Entries"] if entry.get("ErrorCode")]
            if refused:
                msg = f"PutEvents: {', '.join(sorted(set(refused)))}"
                raise NotPutError(msg)
