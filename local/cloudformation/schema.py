"""The CloudFormation registry's schema of a resource type, as cfn-lint ships it.

It says what a template may write (properties), what cannot change without a replacement (create-only), what
`Ref` answers (the primary identifier) and what `Fn::GetAtt` answers (read-only properties).
"""

from __future__ import annotations

import functools
import importlib.util
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jsonschema
import regex

_REGION = "us-east-1"


class TemplateError(ValueError):
    """Properties that the registry schema of the type refuses."""


@dataclass(frozen=True, kw_only=True)
class RegistrySchema:
    """One type's schema. Property names are top-level names."""

    type_name: str
    document: Mapping[str, Any]

    @property
    def primary_identifier(self) -> tuple[str, ...]:
        return _names(self.document.get("primaryIdentifier", ()))

    @property
    def read_only(self) -> tuple[str, ...]:
        return _names(self.document.get("readOnlyProperties", ()))

    @property
    def create_only(self) -> tuple[str, ...]:
        return _names(self.document.get("createOnlyProperties", ()))

    def checked(self, properties: Mapping[str, Any]) -> dict[str, Any]:
        """The properties with scalars of the schema's types ("3" -> 3), or `TemplateError` with all that is
        wrong."""
        written_read_only = sorted(set(self.read_only) & set(properties))
        if written_read_only:
            raise TemplateError(f"{self.type_name}: {', '.join(written_read_only)} cannot be set")
        converted = self._convert(dict(properties), self.document)
        problems = sorted(
            (
                f"#/{'/'.join(map(str, error.absolute_path))}: {error.message}"
                for error in self._errors(converted)
            ),
        )
        if problems:
            raise TemplateError(f"Properties validation failed for {self.type_name}: " + "; ".join(problems))
        result: dict[str, Any] = converted
        return result

    def _errors(self, properties: Any) -> list[Any]:
        return list(_VALIDATOR(self.document).iter_errors(properties))

    def _convert(self, value: Any, schema: Mapping[str, Any]) -> Any:
        schema = self._resolved(schema)
        kinds = schema.get("type", ())
        kinds = (kinds,) if isinstance(kinds, str) else tuple(kinds)
        if isinstance(value, Mapping):
            properties = schema.get("properties", {})
            patterns = list(schema.get("patternProperties", {}).values())
            return {
                key: self._convert(item, properties.get(key, patterns[0] if patterns else {}))
                for key, item in value.items()
            }
        if isinstance(value, list):
            items = schema.get("items", {})
            return [self._convert(item, items if isinstance(items, Mapping) else {}) for item in value]
        if isinstance(value, str) and "string" not in kinds:
            return _scalar(value, kinds)
        if isinstance(value, bool) and kinds == ("string",):
            return str(value).lower()
        if isinstance(value, int | float) and kinds == ("string",):
            return str(value)
        return value

    def _resolved(self, schema: Mapping[str, Any]) -> Mapping[str, Any]:
        reference = schema.get("$ref")
        if not reference:
            return schema
        found: Any = self.document
        for part in reference.removeprefix("#/").split("/"):
            found = found[part]
        return self._resolved(found)


@functools.cache
def registry_schema(type_name: str) -> RegistrySchema:
    """The schema of a type; KeyError if cfn-lint knows no such type."""
    package = importlib.util.find_spec("cfnlint")
    if package is None or not package.submodule_search_locations:
        raise ModuleNotFoundError("cfn-lint, which brings the registry schemas, is not installed")
    schemas = Path(package.submodule_search_locations[0]) / "data" / "schemas"
    listed = json.loads((schemas / "providers" / f"{_REGION}.json").read_text())
    document = json.loads((schemas / "resources" / f"{listed[type_name]}.json").read_text())
    return RegistrySchema(type_name=type_name, document=document)


def _names(pointers: Any) -> tuple[str, ...]:
    return tuple(pointer.removeprefix("/properties/") for pointer in pointers)


def _scalar(text: str, kinds: tuple[str, ...]) -> Any:
    """CloudFormation takes "3" and "true" for a number and a boolean; anything else stays, to be refused."""
    if "boolean" in kinds and text in ("true", "false"):
        return text == "true"
    for kind, convert in (("integer", int), ("number", float)):
        if kind in kinds:
            try:
                return convert(text)
            except ValueError:
                return text
    if "object" in kinds and text.startswith("{"):
        try:
            return json.loads(text)
        except json.JSONDecodeError:
            return text
    return text


def _pattern(validator: Any, pattern: str, instance: Any, schema: Any) -> Any:
    """Registry patterns use classes such as \\p{L} that Python's `re` does not know."""
    if validator.is_type(instance, "string") and not regex.search(pattern, instance):
        yield jsonschema.ValidationError(f"failed validation constraint for keyword [pattern] {pattern}")


def _pattern_properties(validator: Any, patterns: Mapping[str, Any], instance: Any, schema: Any) -> Any:
    if validator.is_type(instance, "object"):
        for pattern, inner in patterns.items():
            for name, value in instance.items():
                if regex.search(pattern, name):
                    yield from validator.descend(value, inner, path=name, schema_path=pattern)


def _additional_properties(validator: Any, allowed: Any, instance: Any, schema: Any) -> Any:
    if not validator.is_type(instance, "object"):
        return
    patterns = schema.get("patternProperties", {})
    for name, value in instance.items():
        if name in schema.get("properties", {}) or any(regex.search(pattern, name) for pattern in patterns):
            continue
        if validator.is_type(allowed, "object"):
            yield from validator.descend(value, allowed, path=name)
        elif not allowed:
            yield jsonschema.ValidationError(f"extraneous key {name!r} was unexpected")


_extend: Any = jsonschema.validators.extend
_VALIDATOR = _extend(
    jsonschema.Draft7Validator,
    {
        "pattern": _pattern,
        "patternProperties": _pattern_properties,
        "additionalProperties": _additional_properties,
    },
)
