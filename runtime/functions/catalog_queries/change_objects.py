"""The objects in which the index function writes, and which tables Athena sees in them.

Known to the functions that write them, move them into the compacted tables, and look for what is missing.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

CHANGES = {"series": "series_changes", "instances": "instance_changes"}
"""The table of changes of each table."""

TOMBSTONE = 2**63 - 1
"""The version of a deleted image set: the highest that a `bigint` holds."""

_KEY = re.compile(
    rf"changes/(?P<table>{'|'.join(CHANGES)})/(?P<datastore_id>[0-9a-z]{{32}})"
    r"/(?P<image_set_id>[0-9a-z]{32})/(?:[0-9]{1,19}|deleted)\.parquet"
)


@dataclass(frozen=True, kw_only=True)
class ChangeObject:
    """What a key says of the rows in its object."""

    table: str
    datastore_id: str
    image_set_id: str


def change_key(table: str, datastore_id: str, image_set_id: str, *, version: int) -> str:
    """The key of the object with a version's rows in the catalog bucket."""
    name = "deleted" if version == TOMBSTONE else str(version)
    return f"changes/{table}/{datastore_id}/{image_set_id}/{name}.parquet"


def change_object(key: str) -> ChangeObject | None:
    """What a key says; None: the index function writes no such key."""
    found = _KEY.fullmatch(key)
    return None if found is None else ChangeObject(**found.groupdict())
