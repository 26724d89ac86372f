"""What has been decided about which version of an image set: the record that the reconcile function asks.

One small object a version, put when all is done that there was to do: requests sent, or none needed. Its key
says everything, so that a list of keys is enough to see what is missing, and nothing has to be read. Versions
that nobody decided about are those whose events were lost, or were passed over for an event that was lost.

Objects expire with their prefix (30 days), so nothing may be missed that is older.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from healthimaging.reference import ImageSetRef

DECIDED = "decided/"
"""Below the prefix of requests."""

_SINCE = "since"
_FORMAT = "%Y-%m-%dT%H:%M:%SZ"


class Decisions:
    """The record of one result bucket."""

    def __init__(self, *, s3: Any, bucket: str, prefix: str) -> None:
        self._s3 = s3
        self._bucket = bucket
        self._prefix = f"{prefix}{DECIDED}"

    def note(self, image_set: ImageSetRef, *, endpoints: Sequence[str]) -> None:
        """All is done about this version: these endpoints have a request, now or from before."""
        self._put(
            f"{image_set.datastore_id}/{image_set.image_set_id}/{image_set.version_id}",
            json.dumps({"endpoints": list(endpoints)}),
        )

    def of(self, datastore_id: str) -> Decided:
        """Everything that is recorded about a data store."""
        prefix = f"{self._prefix}{datastore_id}/"
        versions, since = set(), []
        for page in self._s3.get_paginator("list_objects_v2").paginate(Bucket=self._bucket, Prefix=prefix):
            for found in page.get("Contents", []):
                first, _, second = found["Key"].removeprefix(prefix).partition("/")
                if first == _SINCE:
                    since.append(datetime.strptime(second, _FORMAT).replace(tzinfo=UTC))
                else:
                    versions.add((first, second))
        earliest = min(since, default=None)
        return Decided(
            versions=frozenset(versions),
            since=earliest,
            resume=None if earliest is None else self._resume(datastore_id, earliest),
        )

    def keep(self, datastore_id: str, *, since: datetime, resume: datetime | None) -> None:
        """Record from when on decisions are taken about a data store, and how far they have been compared
        with it. Kept again and again, it never expires.
        """
        self._put(
            f"{datastore_id}/{_since(since)}",
            json.dumps({"resume": None if resume is None else resume.isoformat()}),
        )

    def _resume(self, datastore_id: str, since: datetime) -> datetime | None:
        key = f"{self._prefix}{datastore_id}/{_since(since)}"
        kept = json.loads(self._s3.get_object(Bucket=self._bucket, Key=key)["Body"].read())
        # What an earlier version of the function kept has none.
        return datetime.fromisoformat(kept["resume"]) if kept.get("resume") else None

    def _put(self, name: str, body: str) -> None:
        self._s3.put_object(
            Bucket=self._bucket,
            Key=f"{self._prefix}{name}",
            Body=body.encode(),
            ContentType="application/json",
        )


class Decided:
    """Of a data store: which versions are decided about, and from when on anything is."""

    def __init__(
        self, *, versions: frozenset[tuple[str, str]], since: datetime | None, resume: datetime | None
    ) -> None:
        self._versions = versions
        self.since = since
        """None: nobody has kept it yet."""
        self.resume = resume
        """The change at which the last comparison with the archive ran out of time; None: it saw all."""

    def has(self, image_set_id: str, version_id: str) -> bool:
        return (image_set_id, version_id) in self._versions


def _since(moment: datetime) -> str:
    """Name of the object that says from when on."""
    return f"{_SINCE}/{moment.astimezone(UTC).strftime(_FORMAT)}"
