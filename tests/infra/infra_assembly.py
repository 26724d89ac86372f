"""What the tests of `infra` look at: synthesized environments."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ENVIRONMENTS = ("local", "dev", "staging", "prod")
STACKS = ("data", "network", "arrival", "catalog", "training", "inference", "studio", "observability")
PROMOTION = "promotion"
"""One stack more in the environments of the delivery."""

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

    def only(self, type: str, *, stack: str = "") -> Resource:
        """The one resource of the type, in all stacks or in the one that is named."""
        found = [resource for name, resource in self.resources(type) if name.startswith(stack)]
        assert len(found) == 1, f"{len(found)} resources of type {type} in {stack or 'all stacks'}"
        return found[0]
