"""What the catalog knows of image sets: of each, the lower of the versions that its two tables have."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from runtime.functions.catalog_queries.queries import Queries
from runtime.functions.reconcile_catalog.datastore import Moment, Window

CHANGES = {"series": "series_changes", "instances": "instance_changes"}
"""The table of changes of each table."""

_COLUMNS: Mapping[Moment, str] = {"createdAt": "created_at", "updatedAt": "updated_at"}

# Changes are few, and rows without content (a version without series, a tombstone) say no moment: all of
# them are read.
_KNOWN = """SELECT image_set_id, min(version_id) AS version_id, count(*) AS tables
FROM (
    SELECT kind, image_set_id, max(version_id) AS version_id
    FROM ({parts}) AS written
    GROUP BY kind, image_set_id
) AS latest
GROUP BY image_set_id"""

_PART = """
        SELECT '{table}' AS kind, image_set_id, version_id
        FROM compacted_{table}
        WHERE datastore_id = '{datastore_id}'
          AND {column} BETWEEN TIMESTAMP '{start}' AND TIMESTAMP '{end}'
        UNION ALL
        SELECT '{table}' AS kind, image_set_id, version_id
        FROM {changes}
        WHERE datastore_id = '{datastore_id}'
    """

_NAMED = """SELECT image_set_id, min(version_id) AS version_id, count(*) AS tables
FROM (
    SELECT kind, image_set_id, max(version_id) AS version_id
    FROM ({parts}) AS written
    WHERE image_set_id IN ({image_sets})
    GROUP BY kind, image_set_id
) AS latest
GROUP BY image_set_id"""

_NAMED_PART = """
        SELECT '{table}' AS kind, image_set_id, version_id
        FROM compacted_{table}
        WHERE datastore_id = '{datastore_id}'
        UNION ALL
        SELECT '{table}' AS kind, image_set_id, version_id
        FROM {changes}
        WHERE datastore_id = '{datastore_id}'
    """

_NAMED_AT_ONCE = 2000
"""Image sets in one statement, of which Athena takes 262,144 bytes
(https://docs.aws.amazon.com/athena/latest/ug/service-limits.html).
"""

_UNDATED = """SELECT DISTINCT image_set_id
FROM ({parts}) AS shown
WHERE created_at IS NULL"""

_SHOWN = """SELECT DISTINCT image_set_id
FROM ({parts}) AS shown
WHERE created_at >= TIMESTAMP '{start}' AND created_at < TIMESTAMP '{end}'"""

_SHOWN_PART = "SELECT image_set_id, created_at FROM {table} WHERE datastore_id = '{datastore_id}'"


@dataclass(frozen=True, kw_only=True)
class Catalog:
    """The catalog's rows of one datastore."""

    queries: Queries
    datastore_id: str

    def versions(self, found: Window) -> dict[str, int]:
        """The version that both tables have at least, of image sets of the window and of some beyond it.
        What only one table has, or none, is missing.
        """
        parts = "UNION ALL".join(
            _PART.format(
                table=table,
                changes=changes,
                datastore_id=self.datastore_id,
                column=_COLUMNS[found.by],
                start=_literal(found.start),
                end=_literal(found.end),
            )
            for table, changes in CHANGES.items()
        )
        return self._in_both(_KNOWN.format(parts=parts))

    def versions_of(self, image_set_ids: Sequence[str]) -> dict[str, int]:
        """The same of some image sets, whatever moments their rows have: none, or others than the search
        says. That is what `versions` cannot see of compacted rows.
        """
        parts = "UNION ALL".join(
            _NAMED_PART.format(table=table, changes=changes, datastore_id=self.datastore_id)
            for table, changes in CHANGES.items()
        )
        found: dict[str, int] = {}
        for start in range(0, len(image_set_ids), _NAMED_AT_ONCE):
            named = ", ".join(f"'{one}'" for one in image_set_ids[start : start + _NAMED_AT_ONCE])
            found |= self._in_both(_NAMED.format(parts=parts, image_sets=named))
        return found

    def undated(self) -> set[str]:
        """Image sets whose rows people see, and do not say when they were created."""
        sql = _UNDATED.format(parts=self._shown_parts())
        return {str(image_set_id) for (image_set_id,) in self.queries.rows(sql, token=uuid.uuid4().hex)}

    def _in_both(self, sql: str) -> dict[str, int]:
        return {
            str(image_set_id): int(version or 0)
            for image_set_id, version, tables in self.queries.rows(sql, token=uuid.uuid4().hex)
            if int(tables or 0) == len(CHANGES)
        }

    def shown(self, found: Window) -> set[str]:
        """Image sets whose rows people see, and which were created from the window's start until before its
        end.
        """
        sql = _SHOWN.format(
            parts=self._shown_parts(),
            start=_literal(found.start),
            end=_literal(found.end),
        )
        return {str(image_set_id) for (image_set_id,) in self.queries.rows(sql, token=uuid.uuid4().hex)}

    def _shown_parts(self) -> str:
        return " UNION ALL ".join(
            _SHOWN_PART.format(table=table, datastore_id=self.datastore_id) for table in CHANGES
        )


def _literal(moment: datetime) -> str:
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M:%S}"
