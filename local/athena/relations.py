"""Glue tables as DuckDB views over the objects in S3. Athena's own views are in `views.py`.

A view has exactly the columns that the catalog declares, of the declared types; a column that no file has
is NULL, and a table without files is empty, as in Athena. The data are read where MiniStack keeps the
objects, not copied.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
from sqlglot import exp

from local.athena import json_tables, objects
from local.athena.dialect import QueryError
from local.athena.objects import Place
from local.athena.small_files import SMALL_FILES


@dataclass(frozen=True, kw_only=True)
class Relation:
    """A table of the catalog and the files that are its data now."""

    database: str
    table: str
    columns: tuple[tuple[str, str], ...]
    """(name, Hive type), partition keys last."""
    files: tuple[Path, ...]
    source: str
    """DuckDB's expression that reads the files; "" if there are none."""
    location: str = ""
    """Below which the objects are in S3; "" if the catalog says nothing of it."""
    columnar: bool = True
    """Whether a part of a file can be read without the rest."""
    whole: bool = False
    """Whether small files may be read as a whole, and kept: Parquet without partitions in the keys."""
    partitions: tuple[str, ...] = ()
    """Names of the columns that come from the keys, in lower case."""

    @property
    def types(self) -> dict[str, str]:
        """The Hive types by name in lower case."""
        return {name.lower(): kind.lower() for name, kind in self.columns}


def declared(database: str, table: str) -> dict[str, Any]:
    """A table or view of Glue by its names in lower case, in the account and region of the request."""
    from ministack.services import glue

    found: dict[str, Any] | None = glue._tables.get(f"{database}/{table}")
    if found is None:
        known = database in glue._databases
        raise QueryError(
            f"TABLE_NOT_FOUND: Table 'awsdatacatalog.{database}.{table}' does not exist"
            if known
            else f"SCHEMA_NOT_FOUND: Schema '{database}' does not exist"
        )
    return found


def is_iceberg(entry: Mapping[str, Any]) -> bool:
    """Whether a table of Glue is an Iceberg table."""
    return str((entry.get("Parameters") or {}).get("table_type", "")).upper() == "ICEBERG"


def relation(database: str, table: str, found: dict[str, Any]) -> Relation:
    """What Glue declares as a table, with the files that it has now."""
    from ministack.services import athena

    storage = found.get("StorageDescriptor") or {}
    columns = [*(storage.get("Columns") or ()), *(found.get("PartitionKeys") or ())]
    location = storage.get("Location") or ""
    files = _files(location)
    return Relation(
        database=database,
        table=table,
        columns=tuple((column["Name"], column.get("Type") or "string") for column in columns),
        files=tuple(files),
        source=str(athena._table_relation(found, [str(file) for file in files])) if files else "",
        columnar=athena._data_format(found) in ("parquet", "orc"),
        location=location,
        whole=athena._data_format(found) == "parquet" and not found.get("PartitionKeys"),
        partitions=tuple(column["Name"].lower() for column in found.get("PartitionKeys") or ()),
    )


def create_view(connection: duckdb.DuckDBPyConnection, relation: Relation) -> int:
    """Make the table known to DuckDB under its database's name. Returns the bytes that were read for it at
    once."""
    source, read = relation.source, 0
    if relation.whole:
        small = SMALL_FILES.rows(f"{relation.database}.{relation.table}", relation.files)
        if small is not None:
            rows, read = small
            source = quoted(f"${relation.database}.{relation.table}")
            connection.register(source[1:-1], rows)
    if json_tables.is_json(source):
        source = json_tables.reading_text(connection, source, partitions=relation.partitions)
    present = _present(connection, source) if source else {}
    projected = []
    for name, hive in relation.columns:
        kind = duckdb_type(hive)
        known = present.get(name.lower())
        value = f"CAST({quoted(known)} AS {kind})" if known else f"CAST(NULL AS {kind})"
        projected.append(f"{value} AS {quoted(name)}")
    origin = f"FROM {source}" if source else "WHERE FALSE"
    schema = quoted(relation.database)
    connection.execute(f"CREATE SCHEMA IF NOT EXISTS {schema}")
    connection.execute(
        f"CREATE VIEW {schema}.{quoted(relation.table)} AS SELECT {', '.join(projected)} {origin}"
    )
    return read


def duckdb_type(hive: str) -> str:
    """A Hive type of the catalog ("array<double>") as DuckDB writes it."""
    return str(exp.DataType.build(hive, dialect="hive").sql("duckdb"))


def _present(connection: duckdb.DuckDBPyConnection, source: str) -> Mapping[str, str]:
    """Names of the columns that the files have, by their lower case: Athena does not tell case apart."""
    names = connection.sql(f"FROM {source}").columns
    return {name.lower(): name for name in names}


def _files(location: str) -> list[Path]:
    """The files of all objects below an S3 location, except those that Hive hides (`_x`, `.x`)."""
    from ministack.services import athena

    if not location:
        return []
    folder = Place.of(location).folder
    shown = objects.keys(
        folder,
        wanted=lambda key: not key.endswith("/") and not athena._hidden(key[len(folder.key) :]),
    )
    return [objects.path(Place(bucket=folder.bucket, key=key)) for key in shown]


def quoted(name: str) -> str:
    """A name as DuckDB takes it, whatever is in it."""
    return '"' + name.replace('"', '""') + '"'
