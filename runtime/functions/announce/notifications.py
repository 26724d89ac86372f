"""SageMaker's notifications of asynchronous inference, as a topic hands them on.

Source: https://docs.aws.amazon.com/sagemaker/latest/dg/async-inference-check-predictions.html
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any

from runtime.functions.batches.errors import MalformedEventError

_RUN = re.compile(r"[\x21-\x7e]{1,64}")
"""InferenceId (API_runtime_InvokeEndpointAsync)."""

_TYPE = re.compile(r"[A-Za-z]{1,64}")
"""Names of error classes, and of the kinds of error that SageMaker puts before its reasons."""


@dataclass(frozen=True, kw_only=True)
class Notification:
    """An asynchronous inference has ended."""

    run_id: str
    """The inference id: of requests of the event path, the run's (`runtime/functions/dispatch/runs.py`)."""
    endpoint: str
    completed: bool
    request_uri: str | None
    """Where its request lies. None: it came with the invocation."""
    output_uri: str | None
    """Where the answer lies, or what says why there is none."""
    ended: str | None
    """When, as SageMaker writes it."""
    reason: str | None
    """The kind of error that SageMaker names: "ClientError". Not its text, which quotes the container."""

    @property
    def subject(self) -> str:
        return f"run {self.run_id}"


def notification(body: str) -> Notification:
    """The notification in a message's body.

    Raises:
        MalformedEventError: It is none.
    """
    try:
        document = json.loads(body)
        request, response = document["requestParameters"], document.get("responseParameters") or {}
        run_id, status = document["inferenceId"], document["invocationStatus"]
        found = Notification(
            run_id=run_id if _RUN.fullmatch(run_id) else "",
            endpoint=_text(request["endpointName"]),
            completed=status == "Completed",
            request_uri=_optional(request.get("inputLocation")),
            output_uri=_optional(response.get("outputLocation")),
            ended=_optional(document.get("eventTime")),
            reason=type_of(str(document.get("failureReason") or "").partition(":")[0]),
        )
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        msg = f"The message is not a notification of SageMaker: {type(error).__name__}"
        raise MalformedEventError(msg) from error
    if not found.run_id or status not in ("Completed", "Failed"):
        msg = "The message is not a notification of SageMaker: no inference id, or another status"
        raise MalformedEventError(msg)
    return found


def type_of(value: Any) -> str | None:
    """The value if it could be the name of an error class."""
    return value if isinstance(value, str) and _TYPE.fullmatch(value) else None


def _optional(value: Any) -> str | None:
    return None if value is None else _text(value)


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError
    return value
