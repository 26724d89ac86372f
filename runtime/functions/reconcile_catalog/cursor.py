"""How far the comparison has come, in one object of the catalog bucket."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime
from typing import Any

KEY = "comparison/cursor.json"


@dataclass(frozen=True, kw_only=True)
class Cursor:
    """Where the next run goes on. None: from the beginning."""

    created: datetime | None = None
    """Image sets that were created from then on are still to be compared in this pass."""
    updated: datetime | None = None
    """Changes from then on have not been looked at."""


def read_cursor(*, s3: Any, bucket: str) -> Cursor:
    """What the last run has left; before the first one, an empty cursor."""
    # Listed first: to a role that may list this prefix only, S3 denies an object that is not there.
    if not s3.list_objects_v2(Bucket=bucket, Prefix=KEY, MaxKeys=1).get("KeyCount"):
        return Cursor()
    body = s3.get_object(Bucket=bucket, Key=KEY)["Body"].read()
    return Cursor(
        **{name: None if at is None else datetime.fromisoformat(at) for name, at in json.loads(body).items()}
    )


def write_cursor(cursor: Cursor, *, s3: Any, bucket: str) -> None:
    """Keep it for the next run."""
    document = {name: None if at is None else at.isoformat() for name, at in vars(cursor).items()}
    s3.put_object(Bucket=bucket, Key=KEY, Body=json.dumps(document).encode(), ContentType="application/json")
