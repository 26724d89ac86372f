"""Metadata that was made before, by image set and version.

A version of an image set never changes: an update, an import or a copy makes the next version. What is kept
is therefore right for as long as the version exists, and whether it does is asked of the database each time.
"""

from __future__ import annotations

import threading
from collections import OrderedDict


class MetadataStore:
    """The blobs that were asked for last, up to a number of bytes. For several threads."""

    def __init__(self, most_bytes: int) -> None:
        self._most = most_bytes
        self._held = 0
        self._blobs: OrderedDict[tuple[str, int], bytes] = OrderedDict()
        self._lock = threading.Lock()

    def __contains__(self, key: tuple[str, int]) -> bool:
        return key in self._blobs

    def get(self, image_set_id: str, version: int) -> bytes | None:
        """The blob of a version, None where it has to be made."""
        with self._lock:
            blob = self._blobs.get((image_set_id, version))
            if blob is not None:
                self._blobs.move_to_end((image_set_id, version))
            return blob

    def put(self, image_set_id: str, version: int, blob: bytes) -> None:
        """Keep a blob, instead of those that were not asked for longest."""
        with self._lock:
            self._held += len(blob) - len(self._blobs.pop((image_set_id, version), b""))
            self._blobs[image_set_id, version] = blob
            while self._held > self._most:
                _, dropped = self._blobs.popitem(last=False)
                self._held -= len(dropped)
