"""HTTP requests of a service: from bytes to an operation, from its answer or error back to bytes."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Mapping
from dataclasses import dataclass

from local.protocol.dispatch import admit, perform
from local.protocol.model import WireModel, wire_model
from local.protocol.parse import parse_request
from local.protocol.serialize import serialize_answer, serialize_error
from local.service import Caller, Prompt, Service, ServiceError

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class HttpRequest:
    """A request as it arrived: path in wire encoding, header names lower case, body decoded from its
    transfer."""

    method: str
    path: str
    query: Mapping[str, list[str]]
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True, kw_only=True)
class HttpResponse:
    status: int
    headers: Mapping[str, str]
    body: bytes


def answer(service: Service, request: HttpRequest, caller: Caller) -> HttpResponse:
    """The response to a request whose caller has been authenticated. Blocks while the handler works."""
    response = _answer(service, request, caller, None)
    if response is None:
        raise AssertionError("only a prompt answer may be missing")
    return response


def answer_promptly(service: Service, request: HttpRequest, caller: Caller) -> HttpResponse | None:
    """The same for the event loop: None unless the service answers this request without waiting.

    None of the request has been carried out then.
    """
    return _answer(service, request, caller, service.prompt())


def _answer(
    service: Service, request: HttpRequest, caller: Caller, only: Mapping[str, Prompt] | None
) -> HttpResponse | None:
    """The response; None where the request is not one of `only`."""
    model = wire_model(service.name)
    request_id = str(uuid.uuid4())
    operation = "?"
    try:
        operation, labels = model.route(request.method, request.path, request.query, request.headers)
        if only is not None and operation not in only:
            return None
        described = model.operation(operation)
        params = parse_request(
            described, labels=labels, query=request.query, headers=request.headers, body=request.body
        )
        call = admit(service, operation, params, caller, request_id=request_id)
        if only is not None and not only[operation](call):
            return None
        result = perform(service, call)
        status, headers, body = serialize_answer(model, described, result)
        logger.info("%s %s %s", model.name, operation, status)
        return HttpResponse(status=status, headers=headers | _identified(request_id), body=body)
    except ServiceError as error:
        logger.info("%s %s %s", model.name, operation, error.code)
        return refusal(model, error, request_id=request_id)
    except Exception:
        # The border of the service: a defect of a handler is a 500 to the client and a traceback in the log.
        logger.exception("%s %s failed", model.name, operation)
        failure = ServiceError(
            "InternalServerException",
            f"{operation} failed in the local cloud; its log has the traceback",
            status=500,
        )
        return refusal(model, failure, request_id=request_id)


def refusal(model: WireModel, error: ServiceError, *, request_id: str = "") -> HttpResponse:
    """The response that carries an error."""
    status, headers, body = serialize_error(model, error, request_id=request_id)
    return HttpResponse(
        status=status, headers=headers | _identified(request_id or str(uuid.uuid4())), body=body
    )


def _identified(request_id: str) -> dict[str, str]:
    return {"x-amzn-requestid": request_id}
