"""The identity of one version of one image set. Standard library only."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, order=True)
class ImageSetRef:
    """An image set, pinned to a version: what it names never changes."""

    datastore_id: str
    image_set_id: str
    version_id: str
    """HealthImaging counts versions from "1" and passes them as text."""

    def __str__(self) -> str:
        return f"{self.datastore_id}/{self.image_set_id}@{self.version_id}"
