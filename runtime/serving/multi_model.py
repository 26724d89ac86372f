"""SageMaker's container contract for many models: /models, besides /ping.

Contract: https://docs.aws.amazon.com/sagemaker/latest/dg/mms-container-apis.html
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Annotated, Any

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.requests import ClientDisconnect

from runtime.errors import InvalidRequestError, report
from runtime.logs import places
from runtime.metrics import Metrics
from runtime.serving.bodies import error_response, read_json_body
from runtime.serving.invocation import invoke
from runtime.serving.models import LoadedModel, Models
from runtime.serving.request import explain, read_json
from runtime.serving.server import base_app
from runtime.serving.worker import Worker

_LOG = logging.getLogger(__name__)

PAGE = 100
"""Models on a page of the list unless ``limit`` says otherwise, and at most."""


class _LoadRequest(BaseModel):
    """Members that SageMaker may add later are not refused."""

    model_config = ConfigDict(frozen=True, strict=True, extra="ignore", protected_namespaces=())

    model_name: Annotated[str, Field(min_length=1, max_length=1024)]
    url: Annotated[str, Field(min_length=1, max_length=4096)]


def create_multi_model_app(models: Models, worker: Worker, metrics: Metrics) -> FastAPI:
    """Make the HTTP application in front of many models.

    It is healthy with no model at all: SageMaker waits for /ping before it loads the first one.
    """
    app = base_app(lambda: worker.is_healthy)

    @app.post("/models")
    async def load(request: Request) -> Response:
        async def action() -> dict[str, Any]:
            wanted = _load_request(await read_json_body(request))
            await asyncio.wrap_future(models.load(name=wanted.model_name, url=wanted.url))
            return _document(models.get(wanted.model_name))

        return await _answer("load", action)

    @app.get("/models")
    async def list_models(request: Request) -> Response:
        async def action() -> dict[str, Any]:
            page = models.list(
                limit=_number(request, "limit", default=PAGE, highest=PAGE),
                after=_number(request, "next_page_token", default=0, highest=2**63),
            )
            found: dict[str, Any] = {"models": [_document(one) for one in page.models]}
            # A token that is not there means that there are no more models.
            return found if page.next is None else found | {"nextPageToken": str(page.next)}

        return await _answer("list", action)

    @app.post("/models/{name:path}/invoke")
    async def invoke_model(request: Request, name: str) -> Response:
        return await invoke(request, lambda: models.find(name), metrics, modelName=name)

    @app.get("/models/{name:path}")
    async def get(name: str) -> Response:
        async def action() -> dict[str, Any]:
            return _document(models.get(name))

        return await _answer("get", action)

    @app.delete("/models/{name:path}")
    async def unload(name: str) -> Response:
        async def action() -> dict[str, Any]:
            await asyncio.wrap_future(models.unload(name))
            return {}

        return await _answer("unload", action)

    return app


async def _answer(what: str, action: Callable[[], Awaitable[dict[str, Any]]]) -> Response:
    start = time.perf_counter()
    try:
        return JSONResponse(await action())
    except ClientDisconnect:
        return Response(status_code=400)
    except Exception as error:  # noqa: BLE001 - the boundary: every failure becomes a typed answer
        description = report(error)
        fields: dict[str, object] = {
            "action": what,
            "status": description.status,
            "type": description.type,
            "detail": description.message,
            "seconds": round(time.perf_counter() - start, 3),
        }
        if not description.expected:
            fields["places"] = places(error.__traceback__)
        _LOG.log(
            logging.WARNING if description.expected else logging.ERROR,
            "the models stay as they were",
            extra={"fields": fields},
        )
        return error_response(description)


def _load_request(body: bytes) -> _LoadRequest:
    try:
        return _LoadRequest.model_validate(read_json(body))
    except ValidationError as error:
        raise InvalidRequestError(explain(error)) from error


def _number(request: Request, name: str, *, default: int, highest: int) -> int:
    text = request.query_params.get(name)
    if text is None:
        return default
    if not (text.isascii() and text.isdecimal() and len(text) < 20 and 1 <= int(text) <= highest):
        raise InvalidRequestError(f"{name}: is not a whole number from 1 to {highest}")
    return int(text)


def _document(model: LoadedModel) -> dict[str, str]:
    return {"modelName": model.name, "modelUrl": model.url}
