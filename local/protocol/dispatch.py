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
    model = wire_model(service.name)
    described = model.operation(operation)
    handler = service.handlers().get(operation)
    if handler is None:
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
    )
    call = Call(operation=operation, params=given, caller=caller, request_id=request_id or str(uuid.uuid4()))
    answer = {name: value for name, value in handler(call).items() if value is not None}
    check_response(described, answer)
    return answer
