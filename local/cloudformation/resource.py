"""What a resource type is to the engine, and what all types share: names, attributes, replacement."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol


@dataclass(frozen=True, kw_only=True)
class Resource:
    """A provisioned resource: what `Ref` answers, and what `Fn::GetAtt` answers."""

    physical_id: str
    attributes: Mapping[str, Any] = field(default_factory=dict)


class UnsupportedChange(Exception):
    """A resource as the template wants it that the local cloud refuses; the stack's event says so."""


class ResourceType(Protocol):
    """A type of resource. Its methods run in a worker thread and may wait until the resource is settled.

    `properties` have been checked against the registry schema. Any exception fails the resource, and its
    text becomes the reason in the stack's events.
    """

    @property
    def type_name(self) -> str: ...

    def create(self, *, stack: str, logical_id: str, properties: Mapping[str, Any]) -> Resource: ...

    def update(
        self, *, physical_id: str, old: Mapping[str, Any], new: Mapping[str, Any]
    ) -> Mapping[str, Any]:
        """Change in place what is not create-only; answers the attributes afterwards."""

    def delete(self, *, physical_id: str, properties: Mapping[str, Any]) -> None:
        """Delete, and wait until it is gone. A resource that is gone already is not an error."""


def generated_name(stack: str, logical_id: str, *, longest: int = 63) -> str:
    """A name as CloudFormation makes it, of letters, digits and hyphens: Stack-LogicalId-random."""
    suffix = secrets.token_hex(6).upper()
    stem = "-".join(part for part in (_plain(stack), _plain(logical_id)) if part)
    return f"{stem[: longest - len(suffix) - 1].rstrip('-')}-{suffix}"


def changed(old: Mapping[str, Any], new: Mapping[str, Any]) -> set[str]:
    """Names of properties that differ."""
    return {name for name in old.keys() | new.keys() if old.get(name) != new.get(name)}


def _plain(text: str) -> str:
    return "".join(c if c.isalnum() else "-" for c in text).strip("-")
