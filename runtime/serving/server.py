"""SageMaker's container contract over HTTP: /ping, /invocations, /execution-parameters."""

from __future__ import annotations

import asyncio
import logging
import time
import uuid

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException

from runtime.errors import ErrorReport, RequestTooLargeError, UnsupportedMediaTypeError, report
from runtime.logs import places
from runtime.metrics import Metrics
from runtime.results.answer import to_document
from runtime.serving.request import ImageSetInput, parse_request
from runtime.serving.worker import Worker

_LOG = logging.getLogger(__name__)

MAXIMUM_BODY_BYTES = 1024 * 1024
"""Requests are identifiers; the longest list of them that is accepted is a few kilobytes."""


def create_app(worker: Worker, metrics: Metrics) -> FastAPI:
    """Make the HTTP application in front of a worker; it counts its requests in `metrics`."""
    app = FastAPI(title="MONAI inference", docs_url=None, redoc_url=None, openapi_url=None)

    @app.get("/ping")
    async def ping() -> Response:
        return Response(status_code=200 if worker.is_ready else 503)

    @app.get("/execution-parameters")
    async def execution_parameters() -> dict[str, int | str]:
        """Batch transform asks how to call; one request at a time is what the worker runs."""
        return {"MaxConcurrentTransforms": 1, "BatchStrategy": "SINGLE_RECORD", "MaxPayloadInMB": 1}

    @app.post("/invocations")
    async def invocations(request: Request) -> Response:
        return await _invoke(request, worker, metrics)

    @app.exception_handler(HTTPException)
    async def unknown_route(request: Request, error: HTTPException) -> Response:
        return _error_response(
            ErrorReport(
                status=error.status_code,
                type={404: "UnknownPathError", 405: "MethodNotAllowedError"}.get(
                    error.status_code, "HttpError"
                ),
                message=str(error.detail),
                retry_after=None,
                expected=True,
            )
        )

    return app


async def _invoke(request: Request, worker: Worker, metrics: Metrics) -> Response:
    start = time.perf_counter()
    # SageMaker's own id of the invocation when there is one, so that its logs and ours can be joined.
    invocation = request.headers.get("x-amzn-sagemaker-inference-id") or uuid.uuid4().hex
    inputs: tuple[ImageSetInput, ...] = ()
    try:
        inputs = parse_request(await _body(request))
        answer = await asyncio.wrap_future(worker.submit(inputs))
    except Exception as error:  # noqa: BLE001 - the boundary: every failure becomes a typed answer
        description = report(error)
        seconds = time.perf_counter() - start
        _log_failure(invocation, inputs, description, error, seconds)
        metrics.failed(error_type=description.type, seconds=seconds)
        return _error_response(description)
    seconds = time.perf_counter() - start
    metrics.answered(seconds=seconds)
    _LOG.info(
        "answered",
        extra={
            "fields": {
                "invocation": invocation,
                "status": 200,
                "seconds": round(seconds, 3),
                "results": [
                    {
                        "imageSetId": result.image_set_id,
                        "versionId": result.version_id,
                        "segmentation": result.segmentation.image_set_id,
                        "seconds": dict(result.seconds),
                    }
                    for result in answer.results
                ],
            }
        },
    )
    return JSONResponse(to_document(answer))


async def _body(request: Request) -> bytes:
    content_type = request.headers.get("content-type", "application/json").partition(";")[0].strip().lower()
    if content_type != "application/json":
        raise UnsupportedMediaTypeError("the request must be application/json")
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAXIMUM_BODY_BYTES:
            raise RequestTooLargeError(f"the body is longer than {MAXIMUM_BODY_BYTES} bytes")
    return bytes(body)


def _error_response(description: ErrorReport) -> Response:
    headers = {} if description.retry_after is None else {"Retry-After": str(description.retry_after)}
    return JSONResponse(
        {"error": {"type": description.type, "message": description.message}},
        status_code=description.status,
        headers=headers,
    )


def _log_failure(
    invocation: str,
    inputs: tuple[ImageSetInput, ...],
    description: ErrorReport,
    error: BaseException,
    seconds: float,
) -> None:
    fields: dict[str, object] = {
        "invocation": invocation,
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
