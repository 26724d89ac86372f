"""What the compact function asks of Athena: Trino SQL over one of the catalog's tables.

`series_changes` and `instance_changes` have the rows of every version that the index function has written and
that is still there; `compacted_series` and `compacted_instances` have at most one version of an image set.
`newest` and `held` are what each of them says of an image set. The higher version counts, and of two rows of
the same version the one that was written later: the index function may know columns that it did not know
before.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import datetime, timedelta

from runtime.functions.catalog_queries.change_objects import CHANGES, TOMBSTONE

KEEP_TOMBSTONES = timedelta(days=1)
"""Longer than any invocation of the index function, which may have read an image set before it was deleted
and writes its rows after the tombstone.
"""

MOST_GROUPS = 60
"""Pairs of modality and year in one INSERT. Athena has at most 100 partitions open, and a few image sets with
series of several modalities come on top (https://docs.aws.amazon.com/athena/latest/ug/ctas-insert-into.html).
"""

MOST_IMAGE_SETS = 20_000
"""In one INSERT, so that it ends well within the 30 minutes that Athena gives a statement
(https://docs.aws.amazon.com/athena/latest/ug/service-limits.html), however much has waited.
"""

MOST_REMOVED = 20_000
"""Objects of a table that one run looks for to remove."""

_NEWEST = """SELECT datastore_id,
           image_set_id,
           min(version_id) AS first_version,
           max(version_id) AS version_id,
           max_by(indexed_at, version_id) AS indexed_at,
           max_by(is_deleted, version_id) AS is_deleted
    FROM {changes}
    GROUP BY datastore_id, image_set_id"""

_HELD = """SELECT datastore_id, image_set_id, max(version_id) AS version_id, max(indexed_at) AS indexed_at
    FROM compacted_{table}
    GROUP BY datastore_id, image_set_id"""

_KNOWN = "newest AS (\n    " + _NEWEST + "\n),\nheld AS (\n    " + _HELD + "\n)"

# Rows of the same version wait for a while before they replace compacted ones: the key of their object may
# be one that another run has found superfluous, and is about to remove.
_IS_SUPERSEDED = """held.version_id < newest.version_id
       OR (held.version_id = newest.version_id
           AND newest.indexed_at > held.indexed_at
           AND newest.indexed_at <= TIMESTAMP '{settled}')"""

_WAITING = """waiting AS (
    SELECT datastore_id,
           image_set_id,
           version_id,
           dense_rank() OVER (ORDER BY modality, study_year) AS place,
           row_number() OVER (ORDER BY modality, study_year, image_set_id) AS number
    FROM (
        SELECT change.datastore_id,
               change.image_set_id,
               change.version_id,
               coalesce(min(change.modality), '') AS modality,
               coalesce(min(year(change.study_date)), 0) AS study_year
        FROM {changes} AS change
        JOIN newest
          ON newest.datastore_id = change.datastore_id
         AND newest.image_set_id = change.image_set_id
         AND newest.version_id = change.version_id
        LEFT JOIN held
               ON held.datastore_id = change.datastore_id AND held.image_set_id = change.image_set_id
        WHERE held.version_id IS NULL AND NOT newest.is_deleted
        GROUP BY change.datastore_id, change.image_set_id, change.version_id
    ) AS one
)"""

_SURVEY = (
    "WITH "  # noqa: S608 - names of tables and columns only
    + _KNOWN
    + ",\n"
    + _WAITING
    + """
SELECT (
           SELECT count(*)
           FROM newest
           JOIN held ON held.datastore_id = newest.datastore_id AND held.image_set_id = newest.image_set_id
           WHERE """
    + _IS_SUPERSEDED
    + """
       ) AS superseded,
       (SELECT count(*) FROM waiting) AS image_sets,
       (SELECT max(place) FROM waiting) AS places"""
)

_SUPERFLUOUS = (
    "WITH "
    + _KNOWN
    + """
SELECT DISTINCT change.datastore_id, change.image_set_id, change.version_id
FROM {changes} AS change
JOIN newest ON newest.datastore_id = change.datastore_id AND newest.image_set_id = change.image_set_id
LEFT JOIN held ON held.datastore_id = change.datastore_id AND held.image_set_id = change.image_set_id
WHERE (change.version_id < newest.version_id AND newest.indexed_at <= TIMESTAMP '{settled}')
   OR (NOT change.is_deleted
       AND (change.version_id < held.version_id
            OR (change.version_id = held.version_id
                AND NOT coalesce(change.indexed_at > held.indexed_at, FALSE))))
   OR (change.version_id = {tombstone}
       AND newest.first_version = {tombstone}
       AND held.version_id IS NULL
       AND change.indexed_at < TIMESTAMP '{before}')
LIMIT {most}"""
)

_DELETE = (
    """DELETE FROM compacted_{table}
WHERE datastore_id || image_set_id IN (
    SELECT newest.datastore_id || newest.image_set_id
    FROM (
    """  # noqa: S608 - names of tables and columns only
    + _NEWEST
    + """
    ) AS newest
    JOIN (
    """
    + _HELD
    + """
    ) AS held ON held.datastore_id = newest.datastore_id AND held.image_set_id = newest.image_set_id
    WHERE """
    + _IS_SUPERSEDED
    + """
)"""
)

_INSERT = (
    "INSERT INTO compacted_{table} ({columns})\nWITH "
    + _KNOWN
    + ",\n"
    + _WAITING
    + """
SELECT {selected}
FROM {changes} AS change
JOIN waiting
  ON waiting.datastore_id = change.datastore_id
 AND waiting.image_set_id = change.image_set_id
 AND waiting.version_id = change.version_id
WHERE waiting.place <= {groups} AND waiting.number <= {image_sets} AND NOT change.is_deleted"""
)


def survey(table: str, *, now: datetime, settle: timedelta) -> str:
    """How many image sets have compacted rows that do not count any more, how many wait to be compacted, and
    how many groups of modality and year these are of (none: NULL).
    """
    return _SURVEY.format(table=table, changes=CHANGES[table], settled=_literal(now - settle))


def superfluous(table: str, *, now: datetime, settle: timedelta) -> str:
    """(datastore, image set, version) of the change objects whose loss changes nothing: a higher version has
    been in the changes for longer than `settle`, a higher one is compacted, or the same that was not written
    earlier, or it is a tombstone with nothing left to hide.
    """
    return _SUPERFLUOUS.format(
        table=table,
        changes=CHANGES[table],
        tombstone=TOMBSTONE,
        before=_literal(now - KEEP_TOMBSTONES),
        settled=_literal(now - settle),
        most=MOST_REMOVED,
    )


def columns(table: str) -> str:
    """A SELECT without rows that has the columns of the compacted table."""
    return f"SELECT * FROM compacted_{table} LIMIT 0"  # noqa: S608 - a name of TABLES


def delete(table: str, *, now: datetime, settle: timedelta) -> str:
    """Removes compacted rows that do not count any more."""
    return _DELETE.format(table=table, changes=CHANGES[table], settled=_literal(now - settle))


def insert(table: str, *, columns: Sequence[str]) -> str:
    """Compacts the newest changes of image sets that have no compacted rows, some partitions at a time."""
    quoted = [f'"{name}"' for name in columns]
    return _INSERT.format(
        table=table,
        changes=CHANGES[table],
        columns=", ".join(quoted),
        selected=", ".join(f"change.{name}" for name in quoted),
        groups=MOST_GROUPS,
        image_sets=MOST_IMAGE_SETS,
    )


def inserts(*, image_sets: int, groups: int) -> int:
    """The INSERTs after which so many image sets of so many groups are compacted, at most: each moves all
    that comes first in their order, up to one of its two limits.
    """
    if not image_sets:
        return 0
    return math.ceil(groups / MOST_GROUPS) + math.ceil(image_sets / MOST_IMAGE_SETS) - 1


def optimize(table: str) -> str:
    """Few large files in place of many small ones
    (https://docs.aws.amazon.com/athena/latest/ug/querying-iceberg-data-optimization.html).
    """
    return f"OPTIMIZE compacted_{table} REWRITE DATA USING BIN_PACK"


def vacuum(table: str) -> str:
    """Removes files that no snapshot of the last days needs."""
    return f"VACUUM compacted_{table}"


def _literal(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M:%S}"
