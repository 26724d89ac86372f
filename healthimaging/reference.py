"""The identity of one version of one image set. Standard library only."""

from __future__ import annotations

import re
from dataclasses import dataclass

_TEXT = re.compile(r"([0-9a-z]{32})[/\\]([0-9a-z]{32})@([1-9][0-9]*)")
"""What `str` makes of a reference. A path of Windows has the other slash."""


@dataclass(frozen=True, kw_only=True, order=True)
class ImageSetRef:
    """An image set, pinned to a version: what it names never changes."""

    datastore_id: str
    image_set_id: str
    version_id: str
    """HealthImaging counts versions from "1" and passes them as text."""

    def __str__(self) -> str:
        return f"{self.datastore_id}/{self.image_set_id}@{self.version_id}"

    @classmethod
    def parse(cls, text: str) -> ImageSetRef:
        """The reference that `str` made this text of.

        Raises:
            ValueError: It is no such text. The version is not optional: "the latest" is another image set
                tomorrow.
        """
        found = _TEXT.fullmatch(text)
        if found is None:
            msg = "Not a reference to an image set, which is written datastore/imageset@version"
            raise ValueError(msg)
        datastore_id, image_set_id, version_id = found.groups()
        return cls(datastore_id=datastore_id, image_set_id=image_set_id, version_id=version_id)
