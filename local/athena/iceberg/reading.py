"""An Iceberg table as a query reads it: the data files of its current snapshot.

Columns are found in files by their names, so the local Glue refuses to rename one (`glue_tables.py`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pyiceberg.catalog.glue import _to_columns
from pyiceberg.manifest import DataFile
from pyiceberg.table import Table

from local.athena import objects
from local.athena.dialect import QueryError
from local.athena.iceberg.catalog import load
from local.athena.iceberg.file_io import ObjectIO
from local.athena.objects import LoopStore, Place
from local.athena.relations import Relation


def relation(database: str, table: str, entry: Mapping[str, Any]) -> Relation:
    """The table and the files that it has now. Called in the context of a request."""
    from ministack.core.responses import get_account_id

    account_id = get_account_id()
    # It is only read: nothing is written to the store.
    loaded = load(database, table, entry, io=ObjectIO(store=LoopStore(), account_id=account_id))
    return relation_of(loaded, data_files(loaded), account_id=account_id)


def relation_of(table: Table, files: Sequence[DataFile], *, account_id: str) -> Relation:
    """The table with some of its data files."""
    database, name = table.name()
    current = {field.name for field in table.schema().fields}
    paths = tuple(path(file, account_id=account_id) for file in files)
    return Relation(
        database=database,
        table=name,
        columns=tuple(
            (column["Name"], column["Type"])
            for column in _to_columns(table.metadata)
            if column["Name"] in current
        ),
        files=paths,
        location=table.location(),
        source=source(paths, several_schemas=len(table.metadata.schemas) > 1),
    )


def source(paths: Sequence[Path], *, several_schemas: bool, file_column: str | None = None) -> str:
    """DuckDB's expression that reads data files; "" for none.

    Args:
        several_schemas: Whether files may lack columns that others have.
        file_column: Name of one more column, which has each row's file.
    """
    if not paths:
        return ""
    listed = ", ".join("'" + str(one).replace("'", "''") + "'" for one in paths)
    named = f", filename = '{file_column}'" if file_column else ""
    by_name = "true" if several_schemas else "false"
    return f"read_parquet([{listed}], union_by_name = {by_name}, hive_partitioning = false{named})"


def data_files(table: Table) -> list[DataFile]:
    """The data files of the current snapshot, in a stable order."""
    found: list[DataFile] = []
    for task in table.scan().plan_files():
        if task.delete_files:
            # Nothing here writes such files; another engine may have done so.
            raise QueryError("NOT_SUPPORTED: by the local Athena: an Iceberg table with delete files")
        found.append(task.file)
    return sorted(found, key=lambda file: file.file_path)


def path(file: DataFile, *, account_id: str) -> Path:
    """Where a data file lies on this machine."""
    return objects.path(Place.of(file.file_path), account_id=account_id)
