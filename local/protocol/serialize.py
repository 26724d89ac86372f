"""Answers as boto3 spells them -> responses on the wire."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from datetime import UTC, date, datetime
from email.utils import format_datetime
from typing import Any

from botocore.model import OperationModel

from local.protocol.model import Shape, WireModel
from local.service import ServiceError

JSON_11 = "application/x-amz-json-1.1"


def serialize_answer(
    model: WireModel, operation: OperationModel, answer: Mapping[str, Any]
) -> tuple[int, dict[str, str], bytes]:
    """Status, headers and body of an operation's answer, which has been validated."""
    status = int(operation.http.get("responseCode", 200))
    shape = operation.output_shape
    if model.protocol == "json":
        document = {} if shape is None else _value(shape, answer)
        return 200, {"content-type": JSON_11}, _json(document)
    headers: dict[str, str] = {}
    document = {}
    if shape is None:
        return status, headers, b""
    payload = shape.serialization.get("payload")
    for name, member in shape.members.items():
        if answer.get(name) is None:
            continue
        location = member.serialization.get("location")
        wire = member.serialization.get("name", name)
        if location == "statusCode":
            status = int(answer[name])
        elif location == "header":
            headers[wire.lower()] = _text(member, answer[name], default="rfc822")
        elif location == "headers":
            headers |= {f"{wire}{key}".lower(): str(value) for key, value in answer[name].items()}
        elif name != payload:
            document[wire] = _value(member, answer[name])
    if payload is None:
        return status, {"content-type": "application/json", **headers}, _json(document)
    member = shape.members[payload]
    value = answer.get(payload)
    if member.type_name in ("blob", "string"):
        body = b"" if value is None else value.encode() if isinstance(value, str) else bytes(value)
        return status, {"content-type": "application/octet-stream", **headers}, body
    body = b"" if value is None else _json(_value(member, value))
    return status, {"content-type": "application/json", **headers}, body


def serialize_error(
    model: WireModel, error: ServiceError, *, request_id: str
) -> tuple[int, dict[str, str], bytes]:
    """Status, headers and body of an error; shape and status are the model's where it knows the code."""
    shape = model.error_shape(error.code)
    status = error.status or 400
    key = "message"
    document: dict[str, Any] = {}
    if shape is not None:
        status = error.status or int(shape.metadata.get("error", {}).get("httpStatusCode", 400))
        spelled = [name for name in shape.members if name.lower() == "message"]
        key = spelled[0] if spelled else "message"
        document = {
            shape.members[name].serialization.get("name", name): _value(shape.members[name], value)
            for name, value in error.fields.items()
            if name in shape.members
        }
    document[key] = error.message
    if model.protocol == "json":
        document["__type"] = error.code
        return status, {"content-type": JSON_11, "x-amzn-errortype": error.code}, _json(document)
    return status, {"content-type": "application/json", "x-amzn-errortype": error.code}, _json(document)


def _json(document: Any) -> bytes:
    return json.dumps(document, separators=(",", ":"), allow_nan=False).encode()


def _value(shape: Shape, value: Any) -> Any:
    kind = shape.type_name
    if kind == "structure":
        if getattr(shape, "is_document_type", False):
            return value
        return {
            member.serialization.get("name", name): _value(member, value[name])
            for name, member in shape.members.items()
            if value.get(name) is not None
        }
    if kind == "list":
        return [_value(shape.member, item) for item in value]
    if kind == "map":
        return {str(key): _value(shape.value, item) for key, item in value.items()}
    if kind == "blob":
        return base64.b64encode(value.encode() if isinstance(value, str) else bytes(value)).decode()
    if kind == "timestamp":
        return _timestamp(value, shape.serialization.get("timestampFormat", "unixTimestamp"))
    return value


def _text(shape: Shape, value: Any, *, default: str) -> str:
    if shape.type_name == "timestamp":
        return str(_timestamp(value, shape.serialization.get("timestampFormat", default)))
    if shape.type_name == "boolean":
        return "true" if value else "false"
    return str(value)


def _timestamp(value: Any, form: str) -> float | str:
    moment = _moment(value)
    if form == "unixTimestamp":
        return round(moment.timestamp(), 3)
    if form == "rfc822":
        return format_datetime(moment, usegmt=True)
    return moment.isoformat().replace("+00:00", "Z")


def _moment(value: Any) -> datetime:
    if isinstance(value, datetime):
        return value.astimezone(UTC)
    if isinstance(value, date):
        return datetime(value.year, value.month, value.day, tzinfo=UTC)
    if isinstance(value, int | float):
        return datetime.fromtimestamp(value, UTC)
    return datetime.fromisoformat(value).astimezone(UTC)
