"""One call of a service: validated, authorised, answered, and the answer validated."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Mapping
from typing import Any

from local import identity
from local.protocol.check import check_request, check_response
from local.protocol.model import wire_model
from local.service import Call, Caller, Service, ServiceError

logger = logging.getLogger(__name__)


def invoke(
    service: Service, operation: str, params: Mapping[str, Any], caller: Caller, *, request_id: str = ""
) -> dict[str, Any]:
    """Call a service in this process, as if the caller had sent the request. Raises `ServiceError`."""
    return perform(service, admit(service, operation, params, caller, request_id=request_id))


def admit(
    service: Service, operation: str, params: Mapping[str, Any], caller: Caller, *, request_id: str = ""
) -> Call:
    """The call, once it is known to be supported, valid and allowed. Raises `ServiceError`."""
    model = wire_model(service.name)
    described = model.operation(operation)
    if operation not in service.handlers():
        raise ServiceError(
            "UnsupportedOperation",
            f"The local cloud does not support {service.name}:{operation}. "
            "docs/local-cloud.md says what it does.",
            status=501,
        )
    given = dict(params)
    shape = described.input_shape
    if shape is not None:
        for name in shape.members:
            # As an SDK does: the token that makes a repeated request harmless.
            if shape.members[name].metadata.get("idempotencyToken") and name not in given:
                given[name] = str(uuid.uuid4())
    check_request(described, given)
    identity.authorize(
        caller=caller,
        action=f"{model.iam_prefix}:{operation}",
        resources=service.resources(operation, given, caller),
        context=service.condition_keys(operation, given),
    )
    return Call(operation=operation, params=given, caller=caller, request_id=request_id or str(uuid.uuid4()))


def perform(service: Service, call: Call) -> dict[str, Any]:
    """The answer to a call that has been admitted, validated too. Raises `ServiceError`."""
    found = service.handlers()[call.operation](call)
    answer = {name: value for name, value in found.items() if value is not None}
    check_response(wire_model(service.name).operation(call.operation), answer)
    return answer
