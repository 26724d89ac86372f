"""What goes over HTTP: bodies with limits, media types, errors as documents."""

from __future__ import annotations

import asyncio

from fastapi import Request
from fastapi.responses import JSONResponse, Response

from runtime.errors import (
    BodyTimeoutError,
    ErrorReport,
    NotAcceptableError,
    RequestTooLargeError,
    UnsupportedMediaTypeError,
)

MAXIMUM_BODY_BYTES = 1024 * 1024
"""Requests are identifiers; the longest list of them that is accepted is a few kilobytes."""

BODY_SECONDS = 20.0
"""SageMaker has the whole body before it calls; who sends one more slowly does not keep the connection."""

_JSON = "application/json"
_ACCEPTING = frozenset({_JSON, "application/*", "*/*"})


async def read_json_body(request: Request) -> bytes:
    """Read the body of a request that is declared as JSON, or as nothing.

    Raises
    ------
    UnsupportedMediaTypeError, RequestTooLargeError, BodyTimeoutError
        As their names say.
    starlette.requests.ClientDisconnect
        When the connection ends before the body does.
    """
    if _media_type(request.headers.get("content-type") or _JSON) != _JSON:
        raise UnsupportedMediaTypeError("the request must be application/json")
    if request.headers.get("content-encoding", "identity").strip().lower() != "identity":
        raise UnsupportedMediaTypeError("the request must not be compressed")
    body = bytearray()
    try:
        async with asyncio.timeout(BODY_SECONDS):
            async for chunk in request.stream():
                body += chunk
                if len(body) > MAXIMUM_BODY_BYTES:
                    raise RequestTooLargeError(f"the body is longer than {MAXIMUM_BODY_BYTES} bytes")
    except TimeoutError as error:
        msg = f"the body did not arrive within {BODY_SECONDS:.0f} s"
        raise BodyTimeoutError(msg) from error
    return bytes(body)


def check_accept(request: Request) -> None:
    """Refuse at once who could not read the answer: it is JSON.

    Raises
    ------
    NotAcceptableError
        When the ``Accept`` header (RFC 9110, 12.5.1) excludes it.
    """
    accept = ",".join(request.headers.getlist("accept"))
    ranges = [part for part in accept.split(",") if part.strip()]
    if ranges and not any(_media_type(part) in _ACCEPTING and not _is_excluded(part) for part in ranges):
        raise NotAcceptableError("the answer is application/json, which the Accept header excludes")


def error_response(description: ErrorReport) -> Response:
    """The promised document, with ``Retry-After`` where sending again can help."""
    headers = {} if description.retry_after is None else {"Retry-After": str(description.retry_after)}
    return JSONResponse(
        {"error": {"type": description.type, "message": description.message}},
        status_code=description.status,
        headers=headers,
    )


def _media_type(value: str) -> str:
    return value.partition(";")[0].strip().lower()


def _is_excluded(media_range: str) -> bool:
    parameters = [part.strip().lower() for part in media_range.split(";")[1:]]
    return any(part.startswith("q=0") and not part.strip("q=0.") for part in parameters)
