"""Finds what CloudFormation passes on without looking into it: policies, patterns, definitions, scripts.

Two searches, neither of which knows kinds of documents, so that a new kind is found as well: every property
that the resource type's schema declares as a free object, and every text that is JSON, has lines, or is
base64 of such a text.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from cfnlint.schema import PROVIDER_SCHEMA_MANAGER
from template_values import Values

_REGION = "us-east-1"
_VIEW = re.compile(r"/\* Presto View: (.*) \*/")
"""How Athena keeps a view's definition in Glue: base64 within a comment."""
_BASE64 = re.compile(r"[A-Za-z0-9+/]{40,}={0,2}")


@dataclass(frozen=True, kw_only=True)
class Document:
    """A document inside a template."""

    where: str
    """Stack, logical id and property, for messages."""
    kind: str
    """Resource type and path of the property, `*` for any item of a list: one validator each."""
    content: Any
    """As the service will see it: references resolved, JSON and base64 decoded."""
    values: Values
    """What references of the same environment lead to."""


def documents(stack: str, template: Mapping[str, Any], values: Values) -> Iterator[Document]:
    """All documents in a template."""
    for logical_id, resource in template["Resources"].items():
        type, properties = resource["Type"], resource.get("Properties", {})
        found = dict(_free_objects(type, properties))
        found |= {
            path: content
            for path, content in _texts(values.resolve(stack, properties), ())
            # A text within a free object belongs to that object.
            if not any(path[: len(outer)] == outer for outer in found)
        }
        for path, content in found.items():
            yield Document(
                where=f"{stack}/{logical_id}: {'.'.join(map(str, path))}",
                kind=f"{type} {'.'.join('*' if isinstance(step, int) else step for step in path)}",
                content=values.resolve(stack, content),
                values=values,
            )


def _texts(value: Any, path: tuple[str | int, ...]) -> Iterator[tuple[tuple[str | int, ...], Any]]:
    if isinstance(value, dict):
        for key, item in value.items():
            yield from _texts(item, (*path, key))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _texts(item, (*path, index))
    elif isinstance(value, str):
        content = decoded(value)
        if content is not None:
            yield path, content


def decoded(text: str) -> Any:
    """The document that a text is, or None if it is a mere value."""
    view = _VIEW.fullmatch(text)
    if view is not None:
        return decoded(base64.b64decode(view[1], validate=True).decode("utf-8"))
    if _BASE64.fullmatch(text):
        try:
            return base64.b64decode(text, validate=True).decode("utf-8")
        except (binascii.Error, UnicodeDecodeError):
            return None
    if text.lstrip()[:1] in ("{", "["):
        try:
            return json.loads(text)
        except ValueError:
            return text
    return text if "\n" in text.strip() else None


def _free_objects(type: str, properties: Any) -> Iterator[tuple[tuple[str | int, ...], Any]]:
    schema = _schema(type)
    if schema is not None:
        yield from _walk(schema, schema, properties, ())


@cache
def _schema(type: str) -> dict[str, Any] | None:
    if type.startswith("Custom::"):
        return None
    schema: dict[str, Any] = PROVIDER_SCHEMA_MANAGER.get_resource_schema(_REGION, type).schema
    return schema


def _walk(
    root: dict[str, Any], node: dict[str, Any], value: Any, path: tuple[str | int, ...]
) -> Iterator[tuple[tuple[str | int, ...], Any]]:
    while "$ref" in node:
        name = node["$ref"].rpartition("/")[2]
        node = root["definitions"][name]
    if isinstance(value, dict) and len(value) == 1 and next(iter(value)).startswith(("Fn::", "Ref")):
        return
    if isinstance(value, list):
        for index, item in enumerate(value):
            yield from _walk(root, node.get("items", {}), item, (*path, index))
        return
    if not isinstance(value, dict):
        return
    parts = _properties(root, node)
    if not parts and "patternProperties" not in node:
        yield path, value
        return
    for key, item in value.items():
        if key in parts:
            yield from _walk(root, parts[key], item, (*path, key))


def _properties(root: dict[str, Any], node: dict[str, Any]) -> dict[str, Any]:
    """Declared properties, those of alternatives included."""
    found = dict(node.get("properties", {}))
    for combination in ("oneOf", "anyOf", "allOf"):
        for alternative in node.get(combination, []):
            while "$ref" in alternative:
                alternative = root["definitions"][alternative["$ref"].rpartition("/")[2]]
            found |= alternative.get("properties", {})
    return found
