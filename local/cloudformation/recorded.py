"""Types that are only recorded: validated, remembered in the stack, referable; nothing else comes of them."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from local.cloudformation.resource import Resource, generated_name
from local.cloudformation.schema import registry_schema

RECORDED_TYPES = (
    "AWS::ApplicationAutoScaling::ScalableTarget",
    "AWS::ApplicationAutoScaling::ScalingPolicy",
    "AWS::CloudTrail::Trail",
)
"""Accepted so that the templates of a real deployment deploy unchanged."""

INERT_TYPES = ("AWS::Glue::Crawler", "AWS::Glue::SecurityConfiguration")
"""Types whose calls MiniStack answers but nothing comes of: a crawl ends at once, and encrypts nothing."""


@dataclass(frozen=True, kw_only=True)
class RecordedType:
    """Answers `Ref` and `Fn::GetAtt` from the registry schema of the type."""

    type_name: str
    account_id: str
    region: str

    def create(self, *, stack: str, logical_id: str, properties: Mapping[str, Any]) -> Resource:
        schema = registry_schema(self.type_name)
        name = next(
            (
                str(properties[key])
                for key in schema.primary_identifier
                if key.endswith("Name") and key in properties
            ),
            generated_name(stack, logical_id),
        )
        identifier = [
            str(properties.get(key) or self._attribute(key, name)) for key in schema.primary_identifier
        ]
        physical_id = "|".join(identifier)
        return Resource(physical_id=physical_id, attributes=self._attributes(physical_id))

    def update(
        self, *, physical_id: str, old: Mapping[str, Any], new: Mapping[str, Any]
    ) -> Mapping[str, Any]:
        return self._attributes(physical_id)

    def delete(self, *, physical_id: str, properties: Mapping[str, Any]) -> None:
        """Nothing exists beside the record, which the engine drops."""

    def _attributes(self, physical_id: str) -> dict[str, str]:
        """The parts of the primary identifier and the read-only properties, the same whenever they are
        asked for."""
        schema = registry_schema(self.type_name)
        identifier = dict(zip(schema.primary_identifier, physical_id.split("|"), strict=True))
        name = physical_id.split("|")[0].rsplit("/", 1)[-1]
        return {key: self._attribute(key, name) for key in schema.read_only} | identifier

    def _attribute(self, key: str, name: str) -> str:
        """A value of the form that the property's name promises."""
        if key.endswith("Arn"):
            _, service, kind = self.type_name.split("::")
            return f"arn:aws:{service.lower()}:{self.region}:{self.account_id}:{kind.lower()}/{name}"
        return str(uuid.uuid5(uuid.NAMESPACE_URL, name)) if key.endswith("Id") else name
