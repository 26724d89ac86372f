"""Statements that write: INSERT INTO, DELETE, UPDATE, OPTIMIZE, VACUUM and UNLOAD.

Runs in a worker thread: it calls back into this server.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pyiceberg.table import Table
from sqlglot import exp

from local.athena import dialect, relations, unload, views
from local.athena.coercion import must_fit
from local.athena.dialect import QueryError
from local.athena.iceberg import reading, upkeep, writing
from local.athena.iceberg.catalog import LocalGlueCatalog, load
from local.athena.iceberg.file_io import ObjectIO
from local.athena.objects import ClientStore, Place, Store
from local.athena.permissions import Permissions
from local.athena.relations import duckdb_type, is_iceberg, quoted
from local.athena.session import Session
from local.athena.statements import Delete, Insert, Optimize, Statement, Target, Unload, Update, Vacuum
from local.service import Cloud


@dataclass(frozen=True, kw_only=True)
class Done:
    """What a statement did."""

    rows: int
    """Rows that it wrote, changed or deleted."""
    scanned: int = 0
    """Bytes of data that it read."""


class Changes:
    """Statements that write, in the account and region of the request, with `database` for names without
    one."""

    def __init__(self, *, cloud: Cloud, database: str, permissions: Permissions) -> None:
        from ministack.core.responses import get_account_id

        self._permissions = permissions
        self._database = database
        self._account_id = get_account_id()
        self._store: Store = ClientStore(s3=cloud.client("s3"))
        io = ObjectIO(store=self._store, account_id=self._account_id)
        self._catalog = LocalGlueCatalog(glue=cloud.client("glue"), io=io)

    def run(self, statement: Statement) -> Done:
        match statement:
            case Insert():
                return self._insert(statement)
            case Delete():
                return self._change(statement, {})
            case Update():
                return self._change(statement, statement.assignments)
            case Optimize():
                return self._optimize(statement)
            case Vacuum():
                upkeep.vacuum(self._iceberg(statement.target, delete=True), store=self._store)
                return Done(rows=0)
            case Unload():
                return self._unload(statement)
        raise TypeError(type(statement).__name__)

    def _insert(self, statement: Insert) -> Done:
        database, name = self._named(statement.target)
        entry = relations.declared(database, name)
        table = self._iceberg(statement.target) if is_iceberg(entry) else None
        columns = writing.hive_columns(table) if table else _plain_columns(entry, f"{database}.{name}")
        given = statement.columns or tuple(column.lower() for column, _ in columns)
        unknown = set(given) - {column.lower() for column, _ in columns}
        if unknown:
            raise QueryError(f"COLUMN_NOT_FOUND: Insert column name does not exist: {sorted(unknown)[0]}")
        if len(set(given)) != len(given):
            raise QueryError("DUPLICATE_COLUMN_NAME: Insert column name is specified more than once")
        with self._session(statement.query) as (session, sql):
            found = session.columns(sql)
            kinds = {column.lower(): kind for column, kind in columns}
            must_fit([kind for _, kind in found], [duckdb_type(kinds[column]) for column in given])
            position = {column: place for place, column in enumerate(given)}
            selected = ", ".join(
                f"CAST({_place(position.get(column.lower()))} AS {duckdb_type(kind)}) AS {quoted(column)}"
                for column, kind in columns
            )
            names = ", ".join(_place(place) for place in range(len(given)))
            rows = session.arrow(f"SELECT {selected} FROM ({sql}) AS given ({names})")  # noqa: S608 - the statement's own SQL, confined
            if table is not None:
                count = writing.append(table, writing.conform(table, rows))
            else:
                count = rows.num_rows
                folder = Place.of(entry["StorageDescriptor"]["Location"]).folder
                self._permissions.must_write_below(folder)
                key = f"{folder.key}{uuid.uuid4().hex}.parquet"
                if count:
                    body = unload.parquet(rows, compression="snappy")
                    self._store.put(Place(bucket=folder.bucket, key=key), body)
            return Done(rows=count, scanned=session.scanned)

    def _change(self, statement: Delete | Update, assignments: dict[str, exp.Expression]) -> Done:
        table = self._iceberg(statement.target)
        columns = {column for column, _ in writing.hive_columns(table)}
        unknown = set(assignments) - columns
        if unknown:
            raise QueryError(
                f"COLUMN_NOT_FOUND: The UPDATE SET target column {sorted(unknown)[0]} is unknown"
            )
        files = reading.data_files(table)
        paths = [reading.path(file, account_id=self._account_id) for file in files]
        whole = reading.relation_of(table, files, account_id=self._account_id)
        parts = [*([statement.condition] if statement.condition is not None else []), *assignments.values()]
        read = views.all_read(_carrier(parts), database=self._database)
        self._permissions.must_read(read)
        types = views.types([whole, *read])
        with Session(read, database=self._database, more_files=paths) as session:
            changed = writing.change(
                table,
                session,
                files=files,
                paths=paths,
                name=statement.name,
                condition=_sql(statement.condition, types) if statement.condition is not None else None,
                assignments={column: _sql(value, types) for column, value in assignments.items()},
            )
            return Done(rows=changed, scanned=session.scanned)

    def _optimize(self, statement: Optimize) -> Done:
        table = self._iceberg(statement.target)
        by = {table.schema().find_column_name(field.source_id) for field in table.spec().fields}
        condition = statement.condition
        if condition is not None and any(column.name not in by for column in condition.find_all(exp.Column)):
            raise QueryError(
                "NOT_SUPPORTED: WHERE of OPTIMIZE takes columns that the table is partitioned by"
            )
        files = reading.data_files(table)
        paths = [reading.path(file, account_id=self._account_id) for file in files]
        types = views.types([reading.relation_of(table, files, account_id=self._account_id)])
        with Session([], database=self._database, more_files=paths) as session:
            upkeep.optimize(
                table,
                session,
                files=files,
                paths=paths,
                condition=_sql(condition, types) if condition is not None else None,
            )
            return Done(rows=0, scanned=session.scanned)

    def _unload(self, statement: Unload) -> Done:
        place = unload.check(statement)
        self._permissions.must_write_below(place)
        with self._session(statement.query) as (session, sql):
            # sum(bigint) is DuckDB's HUGEINT and Trino's bigint.
            casts = ", ".join(
                f"CAST({quoted(name)} AS {kind.replace('HUGEINT', 'BIGINT')}) AS {quoted(name)}"
                for name, kind in session.columns(sql)
            )
            rows = session.arrow(f"SELECT {casts} FROM ({sql}) AS given")  # noqa: S608 - the statement's own SQL, confined
            unload.write(statement, rows, place=place, store=self._store)
            return Done(rows=rows.num_rows, scanned=session.scanned)

    def _session(self, query: exp.Query) -> _Prepared:
        read = views.all_read(query, database=self._database)
        self._permissions.must_read(read)
        sql = dialect.to_duckdb(query, types=views.types(read))
        return _Prepared(Session(read, database=self._database), sql)

    def _named(self, target: Target) -> tuple[str, str]:
        return target.database or self._database, target.table

    def _iceberg(self, target: Target, *, delete: bool = False) -> Table:
        """The table, which the caller may change; with `delete`, objects of it, too."""
        database, name = self._named(target)
        entry = relations.declared(database, name)
        if not is_iceberg(entry):
            raise QueryError(
                "NOT_SUPPORTED: Modifying Hive table rows is only supported for transactional tables:"
                f" {database}.{name} is no Iceberg table"
            )
        table = load(database, name, entry, io=self._catalog.object_io, catalog=self._catalog)
        self._permissions.must_read([reading.relation_of(table, (), account_id=self._account_id)])
        self._permissions.must_commit(database, name)
        self._permissions.must_write_below(Place.of(table.location()).folder, delete=delete)
        return table


class _Prepared:
    """A session, and the statement's query for it."""

    def __init__(self, session: Session, sql: str) -> None:
        self._session = session
        self._sql = sql

    def __enter__(self) -> tuple[Session, str]:
        return self._session.__enter__(), self._sql

    def __exit__(self, *error: Any) -> None:
        self._session.__exit__(*error)


def _plain_columns(entry: dict[str, Any], name: str) -> tuple[tuple[str, str], ...]:
    """Columns of a table that is no Iceberg table, if rows can be added to it."""
    from ministack.services import athena

    if entry.get("TableType") == "VIRTUAL_VIEW":
        raise QueryError(f"NOT_SUPPORTED: Inserting into views is not supported: {name}")
    if athena._data_format(entry) != "parquet" or entry.get("PartitionKeys"):
        raise QueryError(
            f"NOT_SUPPORTED: the local Athena adds rows to Iceberg tables and to Parquet tables without"
            f" partitions: {name}"
        )
    columns = entry["StorageDescriptor"].get("Columns") or ()
    return tuple((column["Name"], column.get("Type") or "string") for column in columns)


def _place(place: int | None) -> str:
    """The name of a column of what is inserted; NULL where the statement does not give it."""
    return f'"${place}"' if place is not None else "NULL"


def _carrier(parts: Sequence[exp.Expression]) -> exp.Query:
    """A query with the subqueries of expressions, to ask which tables they read."""
    return exp.select(*(part.copy() for part in parts)) if parts else exp.select("1")


def _sql(expression: exp.Expression, types: dict[str, str]) -> str:
    """An expression for DuckDB."""
    translated = dialect.to_duckdb(exp.select(expression.copy()), types=types)
    return translated.removeprefix("SELECT").strip()
