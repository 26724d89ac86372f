"""What failed, noted with its request until it succeeds, so that it can be listed and asked for again.

A note is the detail of its event, at `failures/noted/<run id>.json`. To ask again is to invoke the endpoint
with the note's `request` as the input location and its `runId` as the inference id: when that succeeds, the
note goes by itself.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote


class Failures:
    """The notes in the result bucket."""

    def __init__(self, *, s3: Any, bucket: str, prefix: str) -> None:
        self._s3 = s3
        self._bucket = bucket
        self._prefix = prefix

    def note(self, run_id: str, detail: Mapping[str, Any]) -> None:
        """The run has failed."""
        self._s3.put_object(
            Bucket=self._bucket,
            Key=self._key(run_id),
            Body=json.dumps(detail).encode(),
            ContentType="application/json",
        )

    def forget(self, run_id: str) -> None:
        """The run has succeeded, perhaps after it had failed before."""
        self._s3.delete_object(Bucket=self._bucket, Key=self._key(run_id))

    def _key(self, run_id: str) -> str:
        # A caller may choose any inference id, one with slashes included.
        return f"{self._prefix}{quote(run_id, safe='')}.json"
