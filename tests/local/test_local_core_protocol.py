"""The server side of the protocols against botocore's client side: what one writes, the other must read."""

from __future__ import annotations

import io
import json
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qs

import botocore.parsers
import botocore.serialize
import pytest
from botocore.awsrequest import HeadersDict
from botocore.model import OperationModel, Shape

from local.protocol import HttpRequest, answer, invoke, wire_model
from local.protocol.check import broken_constraints
from local.protocol.parse import parse_request
from local.protocol.serialize import serialize_answer
from local.service import Call, Caller, ServiceError

ROOT = Caller(
    account_id="000000000000", region="us-east-1", access_key_id="", arn="arn:aws:iam::000000000000:root"
)
OPERATIONS = [
    (service, operation)
    for service in ("medical-imaging", "sagemaker", "sagemaker-runtime")
    for operation in wire_model(service).service.operation_names
]


def example(shape: Shape, depth: int = 0, *, location: str = "") -> Any:
    """A value of a shape with every member filled in, recursion cut off."""
    kind = shape.type_name
    if kind == "structure":
        members = shape.members.items()
        if shape.is_tagged_union:
            members = list(members)[:1]
        elif depth > 4:
            members = [(name, member) for name, member in members if name in shape.required_members]
        return {
            name: example(member, depth + 1, location=member.serialization.get("location", ""))
            for name, member in members
            if not getattr(member, "is_event_stream", False) and not member.serialization.get("eventstream")
        }
    if kind == "list":
        return [example(shape.member, depth + 1, location=location)]
    if kind == "map":
        return {"key": example(shape.value, depth + 1)}
    if kind == "string":
        return (
            shape.enum[0]
            if shape.enum
            else "täxt/ and +more"
            if location in ("", "uri", "querystring")
            else "text"
        )
    if kind in ("integer", "long"):
        return 7
    if kind in ("float", "double"):
        return 0.5
    if kind == "boolean":
        return True
    if kind == "blob":
        return b"\x00bytes\xff"
    if kind == "timestamp":
        return datetime(2026, 2, 3, 4, 5, 6, tzinfo=UTC)
    raise AssertionError(kind)


def sent(service: str, operation: OperationModel, params: dict[str, Any]) -> HttpRequest:
    """A request as botocore's client writes it."""
    model = wire_model(service)
    request = botocore.serialize.create_serializer(
        model.protocol, include_validation=False
    ).serialize_to_request(params, operation)
    body = request["body"]
    path, _, query = request["url_path"].partition("?")
    given = {
        key: [str(item) for item in value] if isinstance(value, list) else [str(value)]
        for key, value in (request["query_string"] or {}).items()
    }
    return HttpRequest(
        method=request["method"],
        path=path,
        query={**parse_qs(query, keep_blank_values=True), **given},
        headers={key.lower(): str(value) for key, value in request["headers"].items()},
        body=body.encode() if isinstance(body, str) else bytes(body),
    )


@pytest.mark.parametrize(("service", "name"), OPERATIONS)
def test_requests_of_every_operation_are_read(service: str, name: str) -> None:
    model = wire_model(service)
    operation = model.operation(name)
    params = example(operation.input_shape) if operation.input_shape else {}
    request = sent(service, operation, params)
    found, labels = model.route(request.method, request.path, request.query, request.headers)
    assert found == name
    assert (
        parse_request(
            operation, labels=labels, query=request.query, headers=request.headers, body=request.body
        )
        == params
    )


@pytest.mark.parametrize(("service", "name"), OPERATIONS)
def test_answers_of_every_operation_are_written(service: str, name: str) -> None:
    model = wire_model(service)
    operation = model.operation(name)
    if operation.has_event_stream_output:
        pytest.skip("event streams are not served")
    value = example(operation.output_shape) if operation.output_shape else {}
    status, headers, body = serialize_answer(model, operation, value)
    headers = HeadersDict(headers)
    parser = botocore.parsers.create_parser(model.protocol)
    if operation.has_streaming_output:
        stream: Any = io.BytesIO(body)
        read = parser.parse(
            {"status_code": status, "headers": headers, "body": stream}, operation.output_shape
        )
        payload = operation.output_shape.serialization["payload"]
        read[payload] = read[payload].read()
    else:
        read = parser.parse({"status_code": status, "headers": headers, "body": body}, operation.output_shape)
    read.pop("ResponseMetadata")
    assert read == value


class Shelf:
    """A service of one operation that works, one that fails, one that answers against its model."""

    name = "medical-imaging"

    def handlers(self):
        return {"GetDatastore": self._get, "DeleteDatastore": self._wrong, "ListDatastores": self._broken}

    def resources(self, operation, params, caller):
        return ["*"]

    def condition_keys(self, operation, params):
        return {}

    def start(self) -> None: ...

    def stop(self) -> None: ...

    def _get(self, call: Call):
        raise ServiceError("ResourceNotFoundException", f"no datastore {call.params['datastoreId']}")

    def _wrong(self, call: Call):
        return {"datastoreId": 3}

    def _broken(self, call: Call):
        raise ZeroDivisionError


def ask(method: str, path: str, body: bytes = b"", **query: str) -> tuple[int, str, dict[str, Any]]:
    request = HttpRequest(
        method=method, path=path, query={key: [value] for key, value in query.items()}, headers={}, body=body
    )
    response = answer(Shelf(), request, ROOT)
    return response.status, response.headers["x-amzn-errortype"], json.loads(response.body)


ID = "0123456789abcdef0123456789abcdef"


@pytest.mark.parametrize(
    ("method", "path", "query", "status", "code", "says"),
    [
        ("GET", f"/datastore/{ID}", {}, 404, "ResourceNotFoundException", ID),
        ("DELETE", f"/datastore/{ID}", {}, 500, "InternalServerException", "DeleteDatastore failed"),
        ("GET", "/datastore", {}, 500, "InternalServerException", "ListDatastores failed"),
        ("GET", "/datastore", {"maxResults": "0"}, 400, "ValidationException", "maxResults"),
        ("GET", "/datastore", {"maxResults": "x"}, 400, "SerializationException", "maxResults"),
        ("GET", "/datastore", {"datastoreStatus": "OPEN"}, 400, "ValidationException", "enum value set"),
        ("GET", "/datastore/short", {}, 400, "ValidationException", "regular expression"),
        ("PUT", "/nothing", {}, 404, "UnknownOperationException", "PUT /nothing"),
    ],
)
def test_errors_on_the_wire(method, path, query, status, code, says) -> None:
    got_status, got_code, body = ask(method, path, **query)
    assert (got_status, got_code) == (status, code)
    assert says in body["message"]


def test_operation_without_a_handler_is_named() -> None:
    with pytest.raises(ServiceError, match=r"does not support medical-imaging:GetImageSet") as refused:
        invoke(Shelf(), "GetImageSet", {"datastoreId": ID, "imageSetId": ID}, ROOT)
    assert refused.value.code == "UnsupportedOperation"


def test_sensitive_values_are_not_repeated() -> None:
    shape = wire_model("medical-imaging").service.shape_for("DICOMPatientName")
    assert shape.metadata["sensitive"]
    (sentence,) = broken_constraints(shape, "x" * 600, "patient")
    assert "xxx" not in sentence
