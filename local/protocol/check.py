"""Values against the shapes of a service model: types and required members, then the shape's constraints.

botocore's own validator knows types, unknown and required members and minima. A service also refuses what
breaks a maximum, an enumeration or a pattern, and names each at once; so does `broken_constraints`.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any

import regex
from botocore.model import OperationModel
from botocore.validate import ParamValidator

from local.protocol.model import Shape
from local.service import ServiceError


def check_request(operation: OperationModel, params: dict[str, Any]) -> None:
    """Raise the service's validation error, which names everything wrong with the parameters, never a
    sensitive value."""
    shape = operation.input_shape
    if shape is None:
        return
    report = ParamValidator().validate(params, shape)
    if report.has_errors():
        raise ServiceError(_code(operation), report.generate_report(), status=400)
    broken = list(broken_constraints(shape, params))
    if broken:
        count = f"{len(broken)} validation error{'s' if len(broken) > 1 else ''} detected: "
        raise ServiceError(_code(operation), count + "; ".join(broken), status=400)


def _code(operation: OperationModel) -> str:
    """How the service calls a request that breaks its model: ValidationError where its errors say so."""
    names = {shape.name for shape in operation.error_shapes}
    return "ValidationError" if "ValidationError" in names else "ValidationException"


def check_response(operation: OperationModel, answer: dict[str, Any]) -> None:
    """Raise ValueError where a handler's answer is not what the model promises."""
    shape = operation.output_shape
    if shape is None:
        if answer:
            raise ValueError(f"{operation.name} answers nothing, but its handler returned {sorted(answer)}")
        return
    report = ParamValidator().validate(answer, shape)
    if report.has_errors():
        raise ValueError(f"{operation.name} answered against its model: {report.generate_report()}")


def broken_constraints(shape: Shape, value: Any, where: str = "") -> Iterator[str]:
    """Sentences about minima, maxima, enumerations and patterns that a value of the right types breaks."""
    kind = shape.type_name
    if kind == "structure":
        if getattr(shape, "is_document_type", False):
            return
        for name, member in shape.members.items():
            if name in value:
                yield from broken_constraints(member, value[name], f"{where}.{name}" if where else name)
        return
    if kind == "list":
        yield from _size(shape, len(value), "length", value, where)
        for index, item in enumerate(value, start=1):
            yield from broken_constraints(shape.member, item, f"{where}.{index}.member")
        return
    if kind == "map":
        yield from _size(shape, len(value), "length", value, where)
        for key, item in value.items():
            yield from broken_constraints(shape.key, key, f"{where}.key")
            yield from broken_constraints(shape.value, item, f"{where}.{key}")
        return
    if kind in ("integer", "long", "float", "double"):
        yield from _size(shape, value, "value", value, where)
    elif kind == "string":
        yield from _size(shape, len(value), "length", value, where)
        if shape.enum and value not in shape.enum:
            yield _sentence(shape, value, where, f"Member must satisfy enum value set: {list(shape.enum)}")
        pattern = shape.metadata.get("pattern")
        if pattern and not _pattern(pattern).search(value):
            yield _sentence(shape, value, where, f"Member must satisfy regular expression pattern: {pattern}")


def _size(shape: Shape, size: float, what: str, value: Any, where: str) -> Iterator[str]:
    low, high = shape.metadata.get("min"), shape.metadata.get("max")
    if low is not None and size < low:
        yield _sentence(shape, value, where, f"Member must have {what} greater than or equal to {low}")
    if high is not None and size > high:
        yield _sentence(shape, value, where, f"Member must have {what} less than or equal to {high}")


def _sentence(shape: Shape, value: Any, where: str, constraint: str) -> str:
    shown = "***" if shape.metadata.get("sensitive") or not isinstance(value, str | int | float) else value
    return f"Value '{shown}' at '{where}' failed to satisfy constraint: {constraint}"


@functools.cache
def _pattern(java: str) -> regex.Pattern[str]:
    """A model's pattern, which is a Java expression (of UTF-16 code units) for the whole value."""
    return regex.compile(rf"\A(?:{java.replace(_SURROGATES, _ASTRAL)})\Z")


_SURROGATES = r"\uD800\uDC00-\uDBFF\uDFFF"
_ASTRAL = r"\U00010000-\U0010FFFF"
