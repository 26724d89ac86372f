"""SageMaker's container contract over HTTP, for one model: /ping, /invocations, /execution-parameters.

Real-time and asynchronous endpoints, serverless ones, batch transform and inference components all call this
(https://docs.aws.amazon.com/sagemaker/latest/dg/your-algorithms-inference-code.html,
https://docs.aws.amazon.com/sagemaker/latest/dg/your-algorithms-batch-code.html).
"""

from __future__ import annotations

from collections.abc import Callable

from fastapi import FastAPI, Request
from fastapi.responses import Response
from starlette.exceptions import HTTPException

from runtime.errors import ErrorReport, report
from runtime.metrics import Metrics
from runtime.serving.bodies import MAXIMUM_BODY_BYTES, error_response
from runtime.serving.invocation import invoke
from runtime.serving.served_model import ServedModel
from runtime.serving.worker import Worker


def create_app(model: ServedModel, worker: Worker, metrics: Metrics) -> FastAPI:
    """Make the HTTP application in front of a model; it counts its requests in `metrics`."""
    app = base_app(lambda: worker.is_healthy and model.is_warm)

    @app.get("/execution-parameters")
    async def execution_parameters() -> dict[str, int | str]:
        """Batch transform asks how to call; one request at a time is what the worker runs."""
        return {
            "MaxConcurrentTransforms": 1,
            "BatchStrategy": "SINGLE_RECORD",
            "MaxPayloadInMB": MAXIMUM_BODY_BYTES // 1024**2,
        }

    @app.post("/invocations")
    async def invocations(request: Request) -> Response:
        return await invoke(request, lambda: model, metrics)

    return app


def base_app(is_healthy: Callable[[], bool]) -> FastAPI:
    """Make the application with what every mode has: /ping, and errors as documents."""
    app = FastAPI(title="MONAI inference", docs_url=None, redoc_url=None, openapi_url=None)

    @app.get("/ping")
    async def ping() -> Response:
        return Response(status_code=200 if is_healthy() else 503)

    @app.exception_handler(HTTPException)
    async def unknown_route(request: Request, error: HTTPException) -> Response:
        return error_response(
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

    @app.exception_handler(Exception)
    async def unexpected(request: Request, error: Exception) -> Response:
        return error_response(report(error))

    return app
