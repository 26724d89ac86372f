"""One invocation over HTTP: read, queue, wait, answer, log, count."""

from __future__ import annotations

import asyncio
import logging
import re
import time
import uuid
from collections.abc import Callable
from typing import Any

from fastapi import Request
from fastapi.responses import JSONResponse, Response
from starlette.requests import ClientDisconnect

from runtime.errors import ErrorReport, RequestAbandonedError, report
from runtime.logs import places
from runtime.metrics import Metrics
from runtime.results.answer import Answer, Result, to_document
from runtime.serving.bodies import check_accept, error_response, read_json_body
from runtime.serving.lanes import Job
from runtime.serving.request import ImageSetInput, parse_request
from runtime.serving.served_model import Invocable

_LOG = logging.getLogger(__name__)

_INFERENCE_ID = re.compile(r"[A-Za-z0-9_.:-]{1,64}")


async def invoke(
    request: Request, find: Callable[[], Invocable], metrics: Metrics, **identity: str
) -> Response:
    """Answer one invocation.

    Parameters
    ----------
    request
        Its body is not read yet.
    find
        Returns the model; what it raises is answered like any other failure.
    metrics
        Where the request is counted.
    identity
        Further members of the log's line.
    """
    start = time.perf_counter()
    # SageMaker's own id of the invocation when there is one, so that its logs and ours can be joined.
    sent_id = request.headers.get("x-amzn-sagemaker-inference-id") or ""
    identity["invocation"] = sent_id if _INFERENCE_ID.fullmatch(sent_id) else uuid.uuid4().hex
    inputs: tuple[ImageSetInput, ...] = ()
    model: Invocable | None = None
    try:
        model = find()
        check_accept(request)
        inputs = parse_request(await read_json_body(request))
        answer = await _wait(request, model.submit(inputs, patience=_patience(request)))
    except ClientDisconnect:
        return _failed(RequestAbandonedError("the caller went away"), inputs, model, metrics, start, identity)
    except Exception as error:  # noqa: BLE001 - the boundary: every failure becomes a typed answer
        return _failed(error, inputs, model, metrics, start, identity)
    seconds = time.perf_counter() - start
    metrics.answered(seconds=seconds, model=model.name)
    _LOG.info(
        "answered",
        extra={
            "fields": {
                **identity,
                "status": 200,
                "seconds": round(seconds, 3),
                "results": [_logged(result) for result in answer.results],
            }
        },
    )
    return JSONResponse(to_document(answer))


async def _wait(request: Request, job: Job) -> Answer:
    """Wait for the answer, or for the caller to go away: what is not begun then never is."""
    answer: asyncio.Future[Any] = asyncio.wrap_future(job.answer)
    leaving = asyncio.ensure_future(_left(request))
    try:
        await asyncio.wait({answer, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if answer.done():
            found: Answer = answer.result()
            return found
        job.abandon()
        # A request that runs goes on to the end of its image set, whose result the archive then has.
        answer.add_done_callback(_forget)
        raise ClientDisconnect
    finally:
        leaving.cancel()


async def _left(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        continue


def _forget(answer: asyncio.Future[Any]) -> None:
    """Look at what nobody waits for, so that asyncio does not log it as forgotten, with its text."""
    if not answer.cancelled():
        answer.exception()


def _patience(request: Request) -> float | None:
    """Seconds that the caller of an asynchronous endpoint gives the container (InvokeEndpointAsync)."""
    text = request.headers.get("x-amzn-sagemaker-invocationtimeoutseconds", "")
    return float(text) if text.isdecimal() and text.isascii() and len(text) < 6 else None


def _logged(result: Result) -> dict[str, Any]:
    return {
        "imageSetId": result.image_set_id,
        "versionId": result.version_id,
        "segmentation": None if result.segmentation is None else result.segmentation.image_set_id,
        "reports": [one.image_set_id for one in result.reports],
        "seconds": dict(result.seconds),
    }


def _failed(
    error: Exception,
    inputs: tuple[ImageSetInput, ...],
    model: Invocable | None,
    metrics: Metrics,
    start: float,
    identity: dict[str, str],
) -> Response:
    description = report(error)
    seconds = time.perf_counter() - start
    _log_failure(identity, inputs, description, error, seconds)
    metrics.failed(error_type=description.type, seconds=seconds, model=None if model is None else model.name)
    return error_response(description)


def _log_failure(
    identity: dict[str, str],
    inputs: tuple[ImageSetInput, ...],
    description: ErrorReport,
    error: BaseException,
    seconds: float,
) -> None:
    fields: dict[str, object] = {
        **identity,
        "status": description.status,
        "type": description.type,
        "detail": description.message,
        "imageSetIds": [one.image_set_id for one in inputs],
        "seconds": round(seconds, 3),
    }
    if not description.expected:
        fields["places"] = places(error.__traceback__)
    level = logging.WARNING if description.expected else logging.ERROR
    _LOG.log(level, "refused" if description.status < 500 else "failed", extra={"fields": fields})
