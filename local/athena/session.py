"""DuckDB with the tables and views that a statement reads, and nothing else of this machine."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import duckdb

from local.athena import relations, views
from local.athena.dialect import QueryError

if TYPE_CHECKING:
    import pyarrow as pa

_ERRORS: tuple[tuple[type[duckdb.Error], str], ...] = (
    (duckdb.CatalogException, "FUNCTION_NOT_FOUND"),
    (duckdb.BinderException, "SYNTAX_ERROR"),
    (duckdb.ParserException, "SYNTAX_ERROR"),
    (duckdb.ConversionException, "INVALID_CAST_ARGUMENT"),
    (duckdb.OutOfRangeException, "NUMERIC_VALUE_OUT_OF_RANGE"),
    (duckdb.IOException, "HIVE_CANNOT_OPEN_SPLIT"),
    (duckdb.PermissionException, "PERMISSION_DENIED"),
)


class Session:
    """One statement's connection.

    Args:
        read: Tables and views, each after what it reads.
        database: Where a name without a database is looked up.
        more_files: Files that the statement reads beside those of its tables.
    """

    def __init__(self, read: views.Read, *, database: str, more_files: Sequence[Path] = ()) -> None:
        self._tables = [one for one in read if isinstance(one, relations.Relation)]
        self._views = [one for one in read if isinstance(one, views.View)]
        self._database = database
        self._more_files = more_files
        self._connection = duckdb.connect(":memory:")
        self._scanned = 0

    @property
    def scanned(self) -> int:
        """Bytes of data that the statements so far have read: of Parquet what was really read, row groups and
        columns that are not needed left out; of text never more than the files have, as Athena counts."""
        if self._more_files or any(table.columnar for table in self._tables):
            return self._scanned
        return min(self._scanned, sum(file.stat().st_size for table in self._tables for file in table.files))

    def __enter__(self) -> Self:
        try:
            with _named():
                self._prepare()
        except BaseException:
            self._connection.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._connection.close()

    def rows(self, sql: str) -> tuple[list[tuple[str, str]], list[tuple[Any, ...]]]:
        """The columns of a query, with DuckDB's names of their types, and its rows."""
        with _named():
            result = self._connection.execute(sql)
            columns = [(str(column[0]), str(column[1])) for column in result.description or ()]
            found = result.fetchall()
            self._count()
            return columns, found

    def columns(self, sql: str) -> list[tuple[str, str]]:
        """The columns that a query gives, without running it."""
        with _named():
            return [(row[0], row[1]) for row in self._connection.execute(f"DESCRIBE {sql}").fetchall()]

    def arrow(self, sql: str) -> pa.Table:
        """What a query gives, as Arrow has it."""
        with _named():
            found = self._connection.sql(sql).to_arrow_table()
            self._count()
            return found

    def _prepare(self) -> None:
        self._connection.execute("SET parquet_metadata_cache = true")
        for table in self._tables:
            self._scanned += relations.create_view(self._connection, table)
        self._confine()
        for view in self._views:
            views.create(self._connection, view)
        schema = relations.quoted(self._database)
        self._connection.execute(f"CREATE SCHEMA IF NOT EXISTS {schema}; USE {schema}")
        self._connection.execute("PRAGMA enable_profiling = 'no_output'")

    def _confine(self) -> None:
        """A query reads its tables and nothing else of this machine. Numbers divide and zones count as in
        Trino."""
        files = {str(file) for table in self._tables for file in table.files}
        files.update(str(file) for file in self._more_files)
        self._connection.execute("SET allowed_paths = $1", [sorted(files)])
        self._connection.execute("SET enable_external_access = false")
        self._connection.execute("SET integer_division = true")
        self._connection.execute("SET TimeZone = 'UTC'")

    def _count(self) -> None:
        profile = json.loads(self._connection.get_profiling_information(format="json"))
        self._scanned += int(profile.get("io", {}).get("total_bytes_read", 0))


@contextmanager
def _named() -> Iterator[None]:
    """DuckDB's errors in Athena's words."""
    try:
        yield
    except duckdb.Error as error:
        word = next((word for kind, word in _ERRORS if isinstance(error, kind)), "GENERIC_INTERNAL_ERROR")
        raise QueryError(f"{word}: {str(error).splitlines()[0]}") from error
