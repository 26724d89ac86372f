"""Asks an endpoint that answers while the caller waits (InvokeEndpoint).

SageMaker gives the container 60 seconds
(https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_runtime_InvokeEndpoint.html). An endpoint
that is busy, starting or out of copies says so, and is asked again after the time that it names.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from botocore.exceptions import ClientError, ReadTimeoutError

from healthimaging.reference import ImageSetRef
from workbench.deployment import Deployment
from workbench.errors import PredictionFailed, WorkbenchError
from workbench.log_tail import component_log_group, endpoint_log_group, log_tail
from workbench.predicting.answer import Prediction, failure_message, read_body, request_body
from workbench.progress import Progress
from workbench.served import Mode, Served

ANSWER_SECONDS = 60.0
"""SageMaker's limit."""
REAL_TIME_TIMEOUT_SECONDS = 300.0
"""For all attempts together: a busy endpoint is asked again for so long."""
RETRY_SECONDS = 5.0
"""Until the next attempt, where the endpoint names no time."""

_LATER = frozenset(
    {"InternalDependencyException", "ModelNotReadyException", "ServiceUnavailable", "ThrottlingException"}
)
_BUSY = 503
"""The container's own status for "not now"; SageMaker hands it on within its ModelError."""


def ask_now(
    deployment: Deployment,
    served: Served,
    image: ImageSetRef,
    *,
    model: str | None,
    progress: Progress,
    timeout_seconds: float,
    sleep: Callable[[float], None] = time.sleep,
    clock: Callable[[], float] = time.monotonic,
) -> Prediction:
    """The answer of the endpoint; asks again while it is busy, and never after it has begun to work."""
    endpoint_name = deployment.stack("inference")[served.endpoint_output]
    target = _target(deployment, served, model)
    component = target.get("InferenceComponentName")
    group = endpoint_log_group(endpoint_name) if component is None else component_log_group(component)
    # Some seconds more than SageMaker takes, so that its own message about the limit arrives.
    client = deployment.session.waiting_client("sagemaker-runtime", answer_seconds=ANSWER_SECONDS + 15)
    deadline = clock() + timeout_seconds
    progress(f"asking {endpoint_name}")
    while True:
        try:
            reply = client.invoke_endpoint(
                EndpointName=endpoint_name,
                Body=request_body(image),
                ContentType="application/json",
                Accept="application/json",
                **target,
            )
            return read_body(reply["Body"].read())
        except ReadTimeoutError as error:
            raise _too_slow(deployment, endpoint_name, group) from error
        except ClientError as error:
            if _timed_out(error):
                raise _too_slow(deployment, endpoint_name, group) from error
            if not _is_busy(error):
                # What is not of the model but of the service is in the service's own words.
                if error.response["Error"]["Code"] != "ModelError":
                    raise
                raise PredictionFailed(
                    f"Endpoint {endpoint_name} could not do it: {_told(error)}",
                    advice="The message says what the model's container did not accept; its last log lines "
                    "are the details.",
                    details=log_tail(deployment.session, group=group),
                ) from error
            seconds = _retry_after(error)
            if clock() + seconds > deadline:
                raise PredictionFailed(
                    f"Endpoint {endpoint_name} was busy for {timeout_seconds:.0f} s: {_told(error)}",
                    advice="Ask again later, give the endpoint more machines, or use an asynchronous "
                    "endpoint, which keeps requests until it has time.",
                ) from error
            progress(f"{endpoint_name} is busy, asking again in {seconds:.0f} s")
            sleep(seconds)


def _target(deployment: Deployment, served: Served, model: str | None) -> dict[str, str]:
    """Which model of an endpoint that has several."""
    match served.mode:
        case Mode.MULTI_MODEL:
            if model is None:
                raise WorkbenchError(
                    f"Endpoint {served.name} has many models.",
                    advice="Name one with --model: an archive below its prefix, without .tar.gz.",
                )
            return {"TargetModel": f"{model}.tar.gz"}
        case Mode.INFERENCE_COMPONENTS:
            chosen = model or (served.tasks[0] if len(served.tasks) == 1 else None)
            if chosen not in served.tasks:
                raise WorkbenchError(
                    f"Endpoint {served.name} serves {len(served.tasks)} tasks, {model or 'and none is named'}"
                    f"{' is none of them' if model else ''}.",
                    advice=f"Name one with --model: {', '.join(served.tasks)}.",
                )
            return {"InferenceComponentName": deployment.stack("inference")[served.name_output(chosen)]}
        case _:
            if model is not None:
                raise WorkbenchError(
                    f"Endpoint {served.name} has one model; --model chooses nothing.",
                    advice="Leave --model out, or name an endpoint with several models.",
                )
            return {}


def _is_busy(error: ClientError) -> bool:
    return error.response["Error"]["Code"] in _LATER or _original_status(error) == _BUSY


def _original_status(error: ClientError) -> int | None:
    # A member of ModelError alone, which the types of a general error do not know.
    response: Mapping[str, Any] = error.response
    return response.get("OriginalStatusCode")


def _timed_out(error: ClientError) -> bool:
    """SageMaker words the end of the 60 seconds as a ModelError without a status of the container."""
    return error.response["Error"]["Code"] == "ModelError" and "timed out" in str(error).lower()


def _retry_after(error: ClientError) -> float:
    """Seconds, from the Retry-After header where it came through and is a number
    (https://www.rfc-editor.org/rfc/rfc9110#field.retry-after).
    """
    headers: Mapping[str, Any] = error.response.get("ResponseMetadata", {}).get("HTTPHeaders", {})
    value = str(headers.get("retry-after", ""))
    return max(1.0, float(value)) if value.isdigit() else RETRY_SECONDS


def _told(error: ClientError) -> str:
    original = error.response.get("OriginalMessage")
    if original:
        return failure_message(str(original).encode())
    return str(error.response["Error"].get("Message", error.response["Error"]["Code"]))


def _too_slow(deployment: Deployment, endpoint_name: str, group: str) -> PredictionFailed:
    return PredictionFailed(
        f"Endpoint {endpoint_name} did not answer within the {ANSWER_SECONDS:.0f} s that SageMaker gives a "
        "real-time model.",
        advice="Use an asynchronous endpoint for this image set, which has an hour. The container may have "
        "finished all the same: a request for the same version finds what is stored, and stores nothing "
        "twice.",
        details=log_tail(deployment.session, group=group),
    )
