"""OPTIMIZE and VACUUM of Iceberg tables.

Source: https://docs.aws.amazon.com/athena/latest/ug/querying-iceberg-data-optimization.html and the table
properties of https://docs.aws.amazon.com/athena/latest/ug/querying-iceberg-creating-tables.html
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path

from pyiceberg.manifest import DataFile
from pyiceberg.table import Table

from local.athena import objects
from local.athena.dialect import QueryError
from local.athena.iceberg import reading
from local.athena.iceberg.catalog import committing
from local.athena.iceberg.writing import conform, replace, selected_as, written
from local.athena.objects import Place, Store
from local.athena.relations import quoted
from local.athena.session import Session

_TARGET_BYTES = 512 * 1024 * 1024
"""write.target-file-size-bytes"""
_SMALL = 0.75
"""Of the target: optimize_rewrite_min_data_file_size_bytes."""
_SNAPSHOTS_TO_KEEP = 1
_SNAPSHOT_SECONDS = 432_000


def optimize(
    table: Table,
    session: Session,
    *,
    files: Sequence[DataFile],
    paths: Sequence[Path],
    condition: str | None,
) -> None:
    """Few large files in place of many small ones, within each partition, in one commit.

    `condition` is on columns that the table is partitioned by; only partitions that it holds for are looked
    at.
    """
    target = int(table.properties.get("write.target-file-size-bytes", _TARGET_BYTES))
    several = len(table.metadata.schemas) > 1
    groups: dict[tuple[int, str], list[int]] = defaultdict(list)
    for place, file in enumerate(files):
        if file.file_size_in_bytes < _SMALL * target:
            groups[file.spec_id, str(file.partition)].append(place)
    selected = ", ".join(
        selected_as(table, field.name, quoted(field.name)) for field in table.schema().fields
    )
    removed: list[DataFile] = []
    added: list[DataFile] = []
    for places in groups.values():
        if len(places) < 2:
            continue
        source = reading.source([paths[place] for place in places], several_schemas=several)
        where = f" WHERE {condition}" if condition else ""
        if where and not session.rows(f"SELECT 1 FROM {source}{where} LIMIT 1")[1]:  # noqa: S608 - the statement's own SQL, confined
            continue
        rows = session.arrow(f"SELECT {selected} FROM {source}")  # noqa: S608 - names and files of the table
        added += written(table, conform(table, rows))
        removed += [files[place] for place in places]
    if removed:
        replace(table, removed=removed, added=added)


def vacuum(table: Table, *, store: Store) -> None:
    """Expire snapshots, and delete the files that no snapshot needs and that are old enough."""
    keep = _property(table, "vacuum_min_snapshots_to_keep", _SNAPSHOTS_TO_KEEP)
    seconds = _property(table, "vacuum_max_snapshot_age_seconds", _SNAPSHOT_SECONDS)
    before = time.time() - seconds
    chain = sorted(table.metadata.snapshots, key=lambda one: one.timestamp_ms, reverse=True)
    protected = {ref.snapshot_id for ref in table.metadata.refs.values()}
    old = [
        one.snapshot_id
        for one in chain[max(keep, 1) :]
        if one.timestamp_ms < before * 1000 and one.snapshot_id not in protected
    ]
    needed_once = set(_needed(table))
    if old:
        with committing(table):
            table.maintenance.expire_snapshots().by_ids(old).commit()
        table.refresh()
    needed = set(_needed(table))
    # What an expired snapshot needed goes now; what nothing ever needed may be a commit under way.
    folder = Place.of(table.location()).folder
    gone = needed_once - needed
    for key in objects.keys(folder):
        place = Place(bucket=folder.bucket, key=key)
        uri = f"s3://{place.bucket}/{place.key}"
        if uri not in needed and uri not in gone and _modified(place) < before:
            gone.add(uri)
    store.delete([Place.of(uri) for uri in sorted(gone)])


def _needed(table: Table) -> Iterable[str]:
    """All files that the table's metadata names."""
    yield table.metadata_location
    yield from (entry.metadata_file for entry in table.metadata.metadata_log)
    for snapshot in table.metadata.snapshots:
        yield snapshot.manifest_list
        for manifest in snapshot.manifests(table.io):
            yield manifest.manifest_path
            for entry in manifest.fetch_manifest_entry(table.io, discard_deleted=True):
                yield entry.data_file.file_path


def _modified(place: Place) -> float:
    from ministack.services import s3

    found = (s3._buckets.get(place.bucket) or {"objects": {}})["objects"].get(place.key)
    if found is None:
        return time.time()
    return datetime.fromisoformat(found["last_modified"]).astimezone(UTC).timestamp()


def _property(table: Table, name: str, otherwise: int) -> int:
    value = table.properties.get(name, str(otherwise))
    if not str(value).isdigit():
        raise QueryError(f"INVALID_TABLE_PROPERTY: {name} is not a number")
    return int(value)
