"""INSERT, DELETE and UPDATE of Iceberg tables: rows by DuckDB, files and commits by PyIceberg.

DELETE and UPDATE copy on write: a data file with a changed row is written anew. Athena writes delete files
beside it (merge on read); what a query sees is the same.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import pyarrow as pa
from pyiceberg.io.pyarrow import _dataframe_to_data_files, _determine_partitions, schema_to_pyarrow
from pyiceberg.manifest import DataFile
from pyiceberg.table import Table

from local.athena.dialect import QueryError
from local.athena.iceberg import reading
from local.athena.iceberg.catalog import committing
from local.athena.relations import duckdb_type, quoted
from local.athena.session import Session

_FILE = "$file"
"""A column beside those of the table."""

_MOST_PARTITIONS = 100
"""https://docs.aws.amazon.com/athena/latest/ug/ctas-insert-into.html"""


def append(table: Table, rows: pa.Table) -> int:
    """Add rows, which have the table's columns in its order, in one commit. Appends never contradict another
    commit. Returns how many rows there were."""
    if rows.num_rows == 0:
        return 0
    files = written(table, rows)
    with (
        committing(table),
        table.transaction() as transaction,
        transaction.update_snapshot().fast_append() as snapshot,
    ):
        for file in files:
            snapshot.append_data_file(file)
    return int(rows.num_rows)


def change(
    table: Table,
    session: Session,
    *,
    files: Sequence[DataFile],
    paths: Sequence[Path],
    name: str,
    condition: str | None,
    assignments: Mapping[str, str] | None = None,
) -> int:
    """Delete the rows for which a condition holds, or update them.

    Args:
        session: Has the tables that the condition reads, and may read the data files.
        files: The table's data files, and `paths`, where they lie.
        name: How the condition calls the table.
        condition: SQL for DuckDB; None for all rows.
        assignments: SQL of the new values by column; None deletes.

    Returns:
        How many rows were changed.
    """
    if not files:
        return 0
    of_path = {str(path): file for path, file in zip(paths, files, strict=True)}
    columns = [field.name for field in table.schema().fields]
    rows = _rows(table, paths)
    holds = f"({condition})" if condition else "TRUE"
    hit = session.rows(
        f"SELECT {quoted(_FILE)}, count(*) FROM {rows} AS {quoted(name)} WHERE {holds} GROUP BY 1"  # noqa: S608 - the statement's own SQL, confined
    )[1]
    if not hit:
        return 0
    partly = [path for path, count in hit if assignments or count < of_path[path].record_count]
    replaced: list[DataFile] = []
    if partly:
        selected = ", ".join(_value(table, column, holds, assignments) for column in columns)
        kept = "" if assignments else f" WHERE {holds} IS NOT TRUE"
        rewritten = session.arrow(
            f"SELECT {selected} FROM {_rows(table, [Path(path) for path in partly])} AS {quoted(name)}{kept}"  # noqa: S608 - as above
        )
        replaced = written(table, conform(table, rewritten))
    replace(table, removed=[of_path[path] for path, _ in hit], added=replaced)
    return sum(count for _, count in hit)


def replace(table: Table, *, removed: Sequence[DataFile], added: Sequence[DataFile]) -> None:
    """Data files for others, in one commit. It fails if the table got other rows meanwhile."""
    with (
        committing(table),
        table.transaction() as transaction,
        transaction.update_snapshot().overwrite() as snapshot,
    ):
        for file in removed:
            snapshot.delete_data_file(file)
        for file in added:
            snapshot.append_data_file(file)


def written(table: Table, rows: pa.Table) -> list[DataFile]:
    """New data files with rows, by the table's partitions. They belong to the table only with a commit."""
    if not table.spec().is_unpartitioned():
        count = len(list(_determine_partitions(spec=table.spec(), schema=table.schema(), arrow_table=rows)))
        if count > _MOST_PARTITIONS:
            raise QueryError(
                f"ICEBERG_TOO_MANY_OPEN_PARTITIONS: Exceeded limit of {_MOST_PARTITIONS} open writers for"
                f" partitions: {count}"
            )
    return list(_dataframe_to_data_files(table_metadata=table.metadata, df=rows, io=table.io))


def conform(table: Table, rows: pa.Table) -> pa.Table:
    """Rows with exactly the Arrow types of the table."""
    return rows.cast(schema_to_pyarrow(table.schema(), include_field_ids=False))


def selected_as(table: Table, column: str, value: str) -> str:
    """A value as a column of the table."""
    kind = next(kind for name, kind in hive_columns(table) if name == column)
    return f"CAST({value} AS {duckdb_type(kind)}) AS {quoted(column)}"


def hive_columns(table: Table) -> tuple[tuple[str, str], ...]:
    """(name, Hive type) of the table's columns."""
    return reading.relation_of(table, (), account_id="").columns


def _rows(table: Table, paths: Sequence[Path]) -> str:
    """A subquery with the table's columns, and `_FILE`, of some of its files."""
    several = len(table.metadata.schemas) > 1
    source = reading.source(paths, several_schemas=several, file_column=_FILE)
    columns = ", ".join(quoted(field.name) for field in table.schema().fields)
    return f"(SELECT {columns}, {quoted(_FILE)} FROM {source})"  # noqa: S608 - names and files of the table


def _value(table: Table, column: str, holds: str, assignments: Mapping[str, str] | None) -> str:
    if not assignments or column not in assignments:
        return selected_as(table, column, quoted(column))
    return selected_as(
        table, column, f"CASE WHEN {holds} THEN {assignments[column]} ELSE {quoted(column)} END"
    )
