"""Athena's views: Glue tables whose text is the base64 of Trino's view definition.

A view gives exactly the columns of its definition. As in Trino, one whose SQL no longer fits the tables
(INVALID_VIEW) or no longer gives these columns (VIEW_IS_STALE) fails every query that reads it. Source:
trino, ConnectorViewDefinition and StatementAnalyzer.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from dataclasses import dataclass
from typing import Any

import duckdb
import sqlglot.errors
from sqlglot import exp

from local.athena import dialect, relations
from local.athena.dialect import QueryError

_TEXT = re.compile(r"/\* Presto View: ([A-Za-z0-9+/=]+) \*/")

_INTEGERS = ("TINYINT", "SMALLINT", "INTEGER", "BIGINT")
"""Each is taken where a later one is expected."""


@dataclass(frozen=True, kw_only=True)
class View:
    """A view of the catalog and its SQL in DuckDB's dialect."""

    database: str
    table: str
    columns: tuple[tuple[str, str], ...]
    """(name, Trino type) as the definition has them."""
    types: dict[str, str]
    """The Hive types by name in lower case."""
    query: str

    @property
    def name(self) -> str:
        return f"awsdatacatalog.{self.database}.{self.table}"


Read = list[relations.Relation | View]


def all_read(query: exp.Query, *, database: str) -> Read:
    """Tables and views that a query reads, those that its views read included; each after what it reads."""
    found: dict[tuple[str, str], relations.Relation | View] = {}
    _collect(query, database=database, within=(), found=found)
    return list(found.values())


def types(read: Read) -> dict[str, str]:
    """The Hive types of all columns that are read, by name in lower case."""
    return {name: kind for one in read for name, kind in one.types.items()}


def create(connection: duckdb.DuckDBPyConnection, view: View) -> None:
    """Make the view known to DuckDB under its database's name; what it reads is known already."""
    try:
        given = connection.execute(f"DESCRIBE {view.query}").fetchall()
    except duckdb.Error as error:
        raise _invalid(view.name, str(error).splitlines()[0]) from error
    _must_be_current(view, [(row[0], row[1]) for row in given])
    names = ", ".join(relations.quoted(name) for name, _ in view.columns)
    values = ", ".join(
        f"CAST({relations.quoted(name)} AS {_trino(kind).sql('duckdb')}) AS {relations.quoted(name)}"
        for name, kind in view.columns
    )
    schema = relations.quoted(view.database)
    connection.execute(f"CREATE SCHEMA IF NOT EXISTS {schema}")
    # It runs confined to the tables, like every query.
    rows = f"SELECT {values} FROM ({view.query}) AS definition ({names})"  # noqa: S608 - a view is SQL
    connection.execute(f"CREATE VIEW {schema}.{relations.quoted(view.table)} AS {rows}")


def _collect(
    query: exp.Query,
    *,
    database: str,
    within: tuple[tuple[str, str], ...],
    found: dict[tuple[str, str], relations.Relation | View],
) -> None:
    for named, table in sorted(dialect.tables(query)):
        key = (named or database, table)
        if key in within:
            raise QueryError("VIEW_IS_RECURSIVE: Statement stored in view is recursive")
        if key in found:
            continue
        entry = relations.declared(*key)
        if entry.get("TableType") == "VIRTUAL_VIEW":
            found[key] = _view(*key, entry, within=(*within, key), found=found)
        elif relations.is_iceberg(entry):
            # PyIceberg is loaded when it is needed: most clouds are started without.
            from local.athena.iceberg import reading

            found[key] = reading.relation(*key, entry)
        else:
            found[key] = relations.relation(*key, entry)


def _view(
    database: str,
    table: str,
    entry: dict[str, Any],
    *,
    within: tuple[tuple[str, str], ...],
    found: dict[tuple[str, str], relations.Relation | View],
) -> View:
    storage = entry.get("StorageDescriptor") or {}
    if storage.get("SerdeInfo") is None:
        raise QueryError("HIVE_METASTORE_ERROR: Table storage descriptor is missing SerDe info")
    name = f"awsdatacatalog.{database}.{table}"
    definition = _definition(name, entry)
    try:
        schema = definition["schema"].lower()
        columns = tuple((column["name"], column["type"]) for column in definition["columns"])
        for _, kind in columns:
            _trino(kind)
        query = dialect.qualified(dialect.parse(definition["originalSql"]), schema)
        _collect(query, database=schema, within=within, found=found)
        read = [found[named, name] for named, name in sorted(dialect.tables(query))]
        translated = dialect.to_duckdb(query, types=types(read))
    except (KeyError, TypeError, AttributeError, sqlglot.errors.SqlglotError) as error:
        raise QueryError(f"HIVE_INVALID_VIEW_DATA: Invalid view definition of '{name}': {error}") from error
    except QueryError as error:
        if str(error).startswith(("HIVE_", "VIEW_IS_", "INVALID_VIEW")):
            raise
        raise _invalid(name, str(error)) from error
    return View(
        database=database,
        table=table,
        columns=columns,
        types={
            column["Name"].lower(): (column.get("Type") or "string").lower()
            for column in storage.get("Columns") or ()
        },
        query=translated,
    )


def _definition(name: str, entry: dict[str, Any]) -> dict[str, Any]:
    """The definition in a Glue table's text."""
    if (entry.get("Parameters") or {}).get("presto_view") != "true":
        raise QueryError(f"NOT_SUPPORTED: by the local Athena: the Hive view '{name}'")
    text = _TEXT.fullmatch((entry.get("ViewOriginalText") or "").strip())
    try:
        if text is None:
            raise ValueError("View data missing prefix or suffix")
        definition: dict[str, Any] = json.loads(base64.b64decode(text[1], validate=True))
    except (binascii.Error, ValueError) as error:
        raise QueryError(f"HIVE_INVALID_VIEW_DATA: Invalid view JSON of '{name}': {error}") from error
    return definition


def _must_be_current(view: View, given: list[tuple[str, str]]) -> None:
    """`given` are the columns that the SQL gives now: names, and types as DuckDB writes them."""
    if len(given) != len(view.columns):
        raise _stale(
            view,
            f"stored view column count ({len(view.columns)}) does not match column count derived from the"
            f" view query analysis ({len(given)})",
        )
    for position, ((name, duck), (stored, trino)) in enumerate(zip(given, view.columns, strict=True)):
        kind, wanted = _written(_duckdb(duck)), _written(_trino(trino))
        wider = kind in _INTEGERS and wanted in _INTEGERS and _INTEGERS.index(kind) < _INTEGERS.index(wanted)
        if name.lower() != stored.lower() or not (kind == wanted or wider):
            raise _stale(
                view,
                f"column [{name}] of type {kind.lower()} projected from query view at position {position}"
                f" cannot be coerced to column [{stored}] of type {trino} stored in view definition",
            )


def _trino(kind: str) -> exp.DataType:
    return exp.DataType.build(kind, dialect="trino")


def _duckdb(kind: str) -> exp.DataType:
    # sum(bigint) is DuckDB's HUGEINT and Trino's bigint.
    return exp.DataType.build(kind.replace("HUGEINT", "BIGINT"), dialect="duckdb")


def _written(kind: exp.DataType) -> str:
    """A type in Trino's spelling, without the precision of a timestamp or the length of a varchar."""
    return re.sub(r"\(\d+\)", "", str(kind.sql("trino")))


def _invalid(name: str, reason: str) -> QueryError:
    return QueryError(f"INVALID_VIEW: Failed analyzing stored view '{name}': {reason}")


def _stale(view: View, reason: str) -> QueryError:
    return QueryError(f"VIEW_IS_STALE: View '{view.name}' is stale or in invalid state: {reason}")
