"""What the tests of `infra` look at: synthesized environments."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ENVIRONMENTS = ("local", "dev", "staging", "prod")
STACKS = ("data", "catalog", "training", "inference")

Resource = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Assembly:
    """One synthesized environment."""

    environment: str
    folder: Path
    """Cloud assembly of the app; its assets are here."""
    stacks: dict[str, dict[str, Any]]
    """Stack artifacts by the last part of the stack's name, with `template` added."""

    def template(self, stack: str) -> dict[str, Any]:
        template: dict[str, Any] = self.stacks[stack]["template"]
        return template

    def resources(self, type: str) -> Iterator[tuple[str, Resource]]:
        """(stack/logical id, resource) of every resource of the type."""
        for stack, artifact in self.stacks.items():
            for logical_id, resource in artifact["template"]["Resources"].items():
                if resource["Type"] == type:
                    yield f"{stack}/{logical_id}", resource

    def only(self, type: str) -> Resource:
        found = [resource for _, resource in self.resources(type)]
        assert len(found) == 1, f"{len(found)} resources of type {type}"
        return found[0]
