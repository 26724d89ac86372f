"""Requests on the wire -> parameters as boto3 spells them."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

from botocore.model import OperationModel

from local.protocol.model import Shape
from local.service import ServiceError


def parse_request(
    operation: OperationModel,
    *,
    labels: Mapping[str, str],
    query: Mapping[str, list[str]],
    headers: Mapping[str, str],
    body: bytes,
) -> dict[str, Any]:
    """The parameters of a request. Header names are lower case, labels and query are decoded."""
    shape = operation.input_shape
    if shape is None:
        return {}
    params: dict[str, Any] = {}
    in_body: dict[str, Shape] = {}
    payload = shape.serialization.get("payload")
    for name, member in shape.members.items():
        location = member.serialization.get("location")
        wire = member.serialization.get("name", name)
        if location == "uri":
            params[name] = _scalar(member, labels[wire], where=name, location=location)
        elif location == "querystring":
            _put(params, name, _query_value(member, wire, query, where=name))
        elif location == "header":
            if wire.lower() in headers:
                params[name] = _scalar(member, headers[wire.lower()], where=name, location=location)
        elif location == "headers":
            found = {
                key[len(wire) :]: value for key, value in headers.items() if key.startswith(wire.lower())
            }
            _put(params, name, found or None)
        else:
            in_body[name] = member
    if payload is not None:
        member = shape.members[payload]
        if member.type_name == "blob":
            params[payload] = body
        elif member.type_name == "string":
            params[payload] = body.decode()
        elif body:
            params[payload] = _value(member, _json(body), where=payload)
        return params
    if in_body:
        document = _json(body) if body.strip() else {}
        if not isinstance(document, dict):
            raise _malformed("the body is not a JSON object")
        wire_names: dict[str, str] = {
            member.serialization.get("name", name): name for name, member in in_body.items()
        }
        for spelled, value in dict[str, Any](document).items():
            # Unknown keys are kept: validation names them.
            known = wire_names.get(spelled, spelled)
            if value is not None:
                params[known] = _value(in_body[known], value, where=known) if known in in_body else value
    return params


def _put(params: dict[str, Any], name: str, value: Any) -> None:
    if value is not None:
        params[name] = value


def _json(body: bytes) -> Any:
    try:
        return json.loads(body)
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise _malformed("the body is not JSON") from error


def _malformed(message: str) -> ServiceError:
    return ServiceError("SerializationException", message, status=400)


def _query_value(member: Shape, wire: str, query: Mapping[str, list[str]], *, where: str) -> Any:
    values = query.get(wire)
    if values is None:
        return None
    if member.type_name == "list":
        return [_scalar(member.member, value, where=where, location="querystring") for value in values]
    return _scalar(member, values[0], where=where, location="querystring")


def _scalar(shape: Shape, text: str, *, where: str, location: str) -> Any:
    """A value that travels as text, in a path, a query or a header."""
    kind = shape.type_name
    try:
        if kind in ("integer", "long"):
            return int(text)
        if kind in ("float", "double"):
            return float(text)
    except ValueError:
        raise _malformed(f"{where} is not a number") from None
    if kind == "boolean":
        if text.lower() not in ("true", "false"):
            raise _malformed(f"{where} is not a boolean")
        return text.lower() == "true"
    if kind == "timestamp":
        default = "rfc822" if location == "header" else "iso8601"
        return _timestamp(text, shape.serialization.get("timestampFormat", default), where=where)
    if kind == "list":
        return [
            _scalar(shape.member, part.strip(), where=where, location=location) for part in text.split(",")
        ]
    if kind == "blob":
        return _blob(text, where=where)
    return text


def _value(shape: Shape, value: Any, *, where: str) -> Any:
    """A value of a JSON document. A value of another type than the model's is kept: validation names it."""
    kind = shape.type_name
    if kind == "structure":
        if not isinstance(value, dict) or getattr(shape, "is_document_type", False):
            return value
        wire_names = {
            member.serialization.get("name", name): (name, member) for name, member in shape.members.items()
        }
        parsed = {}
        for key, item in value.items():
            name, member = wire_names.get(key, (key, None))
            if item is not None:
                parsed[name] = item if member is None else _value(member, item, where=f"{where}.{name}")
        return parsed
    if kind == "list" and isinstance(value, list):
        return [_value(shape.member, item, where=f"{where}[{index}]") for index, item in enumerate(value)]
    if kind == "map" and isinstance(value, dict):
        return {key: _value(shape.value, item, where=f"{where}.{key}") for key, item in value.items()}
    if kind == "blob" and isinstance(value, str):
        return _blob(value, where=where)
    if kind == "timestamp":
        return _timestamp(value, shape.serialization.get("timestampFormat", "unixTimestamp"), where=where)
    if kind in ("float", "double") and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    return value


def _blob(text: str, *, where: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise _malformed(f"{where} is not base64") from None


def _timestamp(value: Any, form: str, *, where: str) -> datetime:
    try:
        if form == "unixTimestamp" or isinstance(value, int | float):
            return datetime.fromtimestamp(float(value), UTC)
        if form == "rfc822":
            return parsedate_to_datetime(value).astimezone(UTC)
        return datetime.fromisoformat(value).astimezone(UTC)
    except (TypeError, ValueError, OverflowError):
        raise _malformed(f"{where} is not a timestamp of the form {form}") from None
