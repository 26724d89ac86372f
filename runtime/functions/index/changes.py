"""What the index function writes: an object for each version of an image set and table.

A key names the version, so an object is never overwritten with rows of another one, and what is true of an
image set is the highest version that anybody has written (the views `series` and `instances` say it so; of
compacted rows and a change of the same version those count that were written later, which may have columns
that this function did not know before). That a maximum does not depend on the order, nor on repetitions, is
why events may come late, twice and in any order, and why two invocations that overlap need no lock, nor to
look again after they have written. A deleted image set is a version above all others: ids are not used again,
so nothing that is written later, by an invocation that had read it before, brings it back. An invocation that
ends between its two writes leaves the tables with different versions; its message comes again, and where it
does not, the reconcile function compares both.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from healthimaging.catalog.columns import TABLES
from healthimaging.catalog.rows import Row
from runtime.functions.catalog_queries.change_objects import TOMBSTONE, change_key
from runtime.functions.index.tables import IS_DELETED, parquet

_CONTENT_TYPE = "application/vnd.apache.parquet"


@dataclass(frozen=True, kw_only=True)
class Changes:
    """The change objects of the catalog bucket."""

    s3: Any
    bucket: str

    def write(
        self, datastore_id: str, image_set_id: str, *, version_id: int, rows: Mapping[str, list[Row]]
    ) -> None:
        """Write a version's rows. A table without rows gets one that hides those of earlier versions."""
        for table in TABLES:
            marked = [{**row, IS_DELETED: False} for row in rows[table]]
            self._put(
                change_key(table, datastore_id, image_set_id, version=version_id),
                table,
                marked or [_nothing(datastore_id, image_set_id, version_id=version_id)],
            )

    def delete(self, datastore_id: str, image_set_id: str) -> None:
        """Write that the image set is gone."""
        nothing = _nothing(datastore_id, image_set_id, version_id=TOMBSTONE)
        for table in TABLES:
            key = change_key(table, datastore_id, image_set_id, version=TOMBSTONE)
            self._put(key, table, [nothing])

    def _put(self, key: str, table: str, rows: list[Row]) -> None:
        self.s3.put_object(Bucket=self.bucket, Key=key, Body=parquet(table, rows), ContentType=_CONTENT_TYPE)


def _nothing(datastore_id: str, image_set_id: str, *, version_id: int) -> Row:
    return {
        "datastore_id": datastore_id,
        "image_set_id": image_set_id,
        "version_id": version_id,
        "indexed_at": datetime.now(UTC).replace(tzinfo=None, microsecond=0),
        IS_DELETED: True,
    }
