"""UNLOAD: the rows of a query as Parquet objects.

Source: https://docs.aws.amazon.com/athena/latest/ug/unload.html
"""

from __future__ import annotations

import io
import uuid
from collections.abc import Sequence
from urllib.parse import quote

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from local.athena import objects
from local.athena.dialect import QueryError
from local.athena.objects import Place, Store
from local.athena.statements import Unload
from local.athena.values import text

_COMPRESSIONS = {"SNAPPY": "snappy", "ZSTD": "zstd", "GZIP": "gzip", "LZ4": "lz4", "NONE": "none"}
_ROWS = 1_000_000
"""Of one object."""


def check(statement: Unload) -> Place:
    """Where the rows go. Raises `QueryError` for options that are not supported, and where something is there
    already. Called in the context of a request."""
    options = dict(statement.options)
    if str(options.pop("format", "")).upper() != "PARQUET":
        raise QueryError("NOT_SUPPORTED: by the local Athena: UNLOAD in another format than PARQUET")
    if str(options.pop("compression", "GZIP")).upper() not in _COMPRESSIONS:
        raise QueryError("INVALID_SESSION_PROPERTY: unknown compression of UNLOAD")
    options.pop("partitioned_by", None)
    if options:
        raise QueryError(f"NOT_SUPPORTED: by the local Athena: UNLOAD with {', '.join(sorted(options))}")
    place = Place.of(statement.location).folder
    if objects.keys(place):
        raise QueryError(
            "HIVE_PATH_ALREADY_EXISTS: Target directory for table already exists: " + statement.location
        )
    return place


def write(statement: Unload, rows: pa.Table, *, place: Place, store: Store) -> None:
    """Write the rows, in folders `name=value` by the columns that the statement partitions by."""
    named = statement.options.get("partitioned_by", ())
    by = [named] if isinstance(named, str) else list(named)
    if by and [name.lower() for name in rows.column_names[-len(by) :]] != [name.lower() for name in by]:
        raise QueryError("SYNTAX_ERROR: columns of partitioned_by must be the last of the query, in order")
    codec = _COMPRESSIONS[str(statement.options.get("compression", "GZIP")).upper()]
    for folder, some in _parted(rows, rows.column_names[len(rows.column_names) - len(by) :]):
        for start in range(0, some.num_rows, _ROWS):
            key = f"{place.key}{folder}{uuid.uuid4().hex}.parquet"
            store.put(
                Place(bucket=place.bucket, key=key), parquet(some.slice(start, _ROWS), compression=codec)
            )


def parquet(rows: pa.Table, *, compression: str) -> bytes:
    """Rows as one Parquet file."""
    buffer = io.BytesIO()
    pq.write_table(rows, buffer, compression=compression)
    return buffer.getvalue()


def _parted(rows: pa.Table, by: Sequence[str]) -> list[tuple[str, pa.Table]]:
    if not by:
        return [("", rows)]
    parts = []
    for values in rows.select(by).group_by(list(by)).aggregate([]).to_pylist():
        keep = pa.array([True] * rows.num_rows)
        for name, value in values.items():
            same = (
                pc.is_null(rows[name]) if value is None else pc.fill_null(pc.equal(rows[name], value), False)
            )
            keep = pc.and_(keep, same)
        folder = "".join(f"{name}={_folder(value)}/" for name, value in values.items())
        parts.append((folder, rows.filter(keep).drop_columns(list(by))))
    return parts


def _folder(value: object) -> str:
    written = text(value)
    return "__HIVE_DEFAULT_PARTITION__" if written is None else quote(written, safe=" ")
