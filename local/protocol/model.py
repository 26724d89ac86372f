"""botocore's model of one service, with the routes of its operations."""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl, unquote

import botocore.loaders
import botocore.model

from local.service import ServiceError

Shape = Any
"""A shape of a botocore model. The stubs of botocore do not know what its kinds have."""

IAM_PREFIXES = {"sagemaker-runtime": "sagemaker"}
"""Services whose IAM actions have another prefix than their name in botocore."""

_LABEL = re.compile(r"\{(\w+)(\+?)\}")


@dataclass(frozen=True, kw_only=True)
class Route:
    """An operation of a REST service: method, path pattern, and the query literals that select it."""

    operation: str
    method: str
    pattern: re.Pattern[str]
    tail: str
    """How every path of it ends, but for a slash: tells most paths that are not its own faster than
    `pattern`."""
    labels: tuple[str, ...]
    query: tuple[tuple[str, str], ...]

    def match(self, method: str, path: str, query: Mapping[str, list[str]]) -> dict[str, str] | None:
        """The labels of a path in wire encoding, decoded; None if the route does not match."""
        if method != self.method or not path.endswith((self.tail, self.tail + "/")):
            return None
        found = self.pattern.fullmatch(path)
        if found is None:
            return None
        for name, value in self.query:
            if name not in query or (value and value not in query[name]):
                return None
        return {label: unquote(text) for label, text in zip(self.labels, found.groups(), strict=True)}


@dataclass(frozen=True, kw_only=True)
class WireModel:
    """A service model and what the server side needs to know of it."""

    service: botocore.model.ServiceModel
    routes: tuple[Route, ...]

    @property
    def name(self) -> str:
        return str(self.service.service_name)

    @property
    def protocol(self) -> str:
        """ "rest-json" or "json"."""
        return str(self.service.metadata["protocol"])

    @property
    def iam_prefix(self) -> str:
        return IAM_PREFIXES.get(self.name, self.name)

    def operation(self, name: str) -> botocore.model.OperationModel:
        try:
            return self.service.operation_model(name)
        except botocore.model.OperationNotFoundError:
            raise unknown_operation(self.name, name) from None

    def route(
        self, method: str, path: str, query: Mapping[str, list[str]], headers: Mapping[str, str]
    ) -> tuple[str, dict[str, str]]:
        """The operation that a request asks for, and the labels of its path."""
        if self.protocol == "json":
            prefix, _, name = headers.get("x-amz-target", "").rpartition(".")
            if prefix != self.service.metadata["targetPrefix"] or name not in self.service.operation_names:
                raise unknown_operation(self.name, headers.get("x-amz-target", "") or f"{method} {path}")
            return name, {}
        for route in self.routes:
            labels = route.match(method, path, query)
            if labels is not None:
                return route.operation, labels
        raise unknown_operation(self.name, f"{method} {path}")

    def error_shape(self, code: str) -> Shape | None:
        """The model's shape of an error code, None where the model has none (AccessDenied of json
        services)."""
        shapes: list[Shape] = self.service.error_shapes
        for shape in shapes:
            if code in (shape.name, shape.error_code):
                return shape
        return None


def unknown_operation(service: str, what: str) -> ServiceError:
    return ServiceError("UnknownOperationException", f"{service} has no operation {what}", status=404)


@functools.cache
def wire_model(name: str) -> WireModel:
    """The model of a service by botocore's name of it."""
    document = botocore.loaders.Loader().load_service_model(name, "service-2")
    service = botocore.model.ServiceModel(document, name)
    protocol = service.metadata["protocol"]
    if protocol not in ("rest-json", "json"):
        raise ValueError(f"{name} speaks {protocol}; only rest-json and json are served")
    routes = () if protocol == "json" else tuple(_routes(service))
    return WireModel(service=service, routes=routes)


def _routes(service: botocore.model.ServiceModel) -> list[Route]:
    routes = []
    for name in service.operation_names:
        http = service.operation_model(name).http
        path, _, query = http["requestUri"].partition("?")
        pattern, position = "", 0
        for label in _LABEL.finditer(path):
            pattern += re.escape(path[position : label.start()]) + ("(.+)" if label[2] else "([^/]+)")
            position = label.end()
        routes.append(
            Route(
                operation=name,
                method=http["method"],
                pattern=re.compile(pattern + re.escape(path[position:]) + "/?"),
                tail=path[position:],
                labels=tuple(label[1] for label in _LABEL.finditer(path)),
                query=tuple(parse_qsl(query, keep_blank_values=True)),
            )
        )
    # Literal text wins over a label, a longer path over a shorter one.
    return sorted(routes, key=lambda route: (len(route.labels), -len(route.pattern.pattern), route.operation))
