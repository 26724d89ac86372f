"""What the catalog knows of image sets: of each, the lower of the versions that its two tables have."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from runtime.functions.catalog_queries.change_objects import CHANGES
from runtime.functions.catalog_queries.queries import Queries
from runtime.functions.image_sets.searching import Moment
from runtime.functions.reconcile_catalog.datastore import Window

_COLUMNS: Mapping[Moment, str] = {"createdAt": "created_at", "updatedAt": "updated_at"}

# Changes are few, and rows without content (a version without series, a tombstone) say no moment: all of
# them are read.
_KNOWN = """SELECT image_set_id, min(version_id) AS version_id, count(*) AS tables
FROM (
    SELECT kind, image_set_id, max(version_id) AS version_id
    FROM ({parts}) AS written
    WHERE {wanted}
    GROUP BY kind, image_set_id
) AS latest
GROUP BY image_set_id"""

_PART = """
        SELECT '{table}' AS kind, image_set_id, version_id
        FROM compacted_{table}
        WHERE datastore_id = '{datastore_id}'
          AND {compacted}
        UNION ALL
        SELECT '{table}' AS kind, image_set_id, version_id
        FROM {changes}
        WHERE datastore_id = '{datastore_id}'
    """

_NAMED_AT_ONCE = 2000
"""Image sets in one statement, of which Athena takes 262,144 bytes
(https://docs.aws.amazon.com/athena/latest/ug/service-limits.html).
"""

_SHOWN = """SELECT DISTINCT image_set_id
FROM ({parts}) AS shown
WHERE {condition}"""

_SHOWN_PART = "SELECT image_set_id, created_at, indexed_at FROM {table} WHERE datastore_id = '{datastore_id}'"


@dataclass(frozen=True, kw_only=True)
class Catalog:
    """The catalog's rows of one datastore."""

    queries: Queries
    datastore_id: str

    def versions(self, found: Window) -> dict[str, int]:
        """The version that both tables have at least, of image sets of the window and of some beyond it.
        What only one table has, or none, is missing.
        """
        column, start, end = _COLUMNS[found.by], _literal(found.start), _literal(found.end)
        return self._in_both(compacted=f"{column} BETWEEN TIMESTAMP '{start}' AND TIMESTAMP '{end}'")

    def versions_of(self, image_set_ids: Sequence[str]) -> dict[str, int]:
        """The same of some image sets, whatever moments their rows have: none, or others than the search
        says. That is what `versions` cannot see of compacted rows.
        """
        found: dict[str, int] = {}
        for start in range(0, len(image_set_ids), _NAMED_AT_ONCE):
            named = ", ".join(f"'{one}'" for one in image_set_ids[start : start + _NAMED_AT_ONCE])
            found |= self._in_both(wanted=f"image_set_id IN ({named})")
        return found

    def undated(self) -> set[str]:
        """Image sets whose rows people see, and do not say when they were created."""
        return self._shown("created_at IS NULL")

    def written_before(self, moment: datetime) -> set[str]:
        """Image sets whose rows people see, and which the index function wrote before a moment."""
        return self._shown(f"indexed_at < TIMESTAMP '{_literal(moment)}'")

    def shown(self, found: Window) -> set[str]:
        """Image sets whose rows people see, and which were created from the window's start until before its
        end.
        """
        return self._shown(
            f"created_at >= TIMESTAMP '{_literal(found.start)}' "
            f"AND created_at < TIMESTAMP '{_literal(found.end)}'"
        )

    def _in_both(self, *, compacted: str = "TRUE", wanted: str = "TRUE") -> dict[str, int]:
        """Versions by image set: of compacted rows that meet a condition and of all changes, the wanted."""
        parts = "UNION ALL".join(
            _PART.format(table=table, changes=changes, datastore_id=self.datastore_id, compacted=compacted)
            for table, changes in CHANGES.items()
        )
        found = self.queries.rows(_KNOWN.format(parts=parts, wanted=wanted), token=uuid.uuid4().hex)
        return {
            str(image_set_id): int(version or 0)
            for image_set_id, version, tables in found
            if int(tables or 0) == len(CHANGES)
        }

    def _shown(self, condition: str) -> set[str]:
        parts = " UNION ALL ".join(
            _SHOWN_PART.format(table=table, datastore_id=self.datastore_id) for table in CHANGES
        )
        found = self.queries.rows(_SHOWN.format(parts=parts, condition=condition), token=uuid.uuid4().hex)
        return {str(image_set_id) for (image_set_id,) in found}


def _literal(moment: datetime) -> str:
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M:%S}"
