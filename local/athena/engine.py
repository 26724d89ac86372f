"""Puts our execution of queries into MiniStack's Athena, which keeps states, results and workgroups."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import duckdb

from local.athena import dialect, relations, views
from local.athena.values import athena_type, text

_ERRORS: tuple[tuple[type[duckdb.Error], str], ...] = (
    (duckdb.CatalogException, "FUNCTION_NOT_FOUND"),
    (duckdb.BinderException, "SYNTAX_ERROR"),
    (duckdb.ParserException, "SYNTAX_ERROR"),
    (duckdb.ConversionException, "INVALID_CAST_ARGUMENT"),
    (duckdb.OutOfRangeException, "NUMERIC_VALUE_OUT_OF_RANGE"),
    (duckdb.IOException, "HIVE_CANNOT_OPEN_SPLIT"),
    (duckdb.PermissionException, "PERMISSION_DENIED"),
)


def install() -> None:
    """Replace how MiniStack's Athena runs a query, and let it bind execution parameters."""
    from ministack.services import athena

    athena._run_duckdb = run
    start = athena._start_query_execution
    athena._start_query_execution = lambda request: _start_bound(start, request)


async def run(query: str, database: str | None, catalog: str | None = None) -> dict[str, Any]:
    """Columns, their types and rows of a query; every value as Athena writes it, None for NULL."""
    parsed = dialect.parse(query)
    read = views.all_read(parsed, database=(database or "default").lower())
    types = {name: kind for relation in read for name, kind in relation.types.items()}
    translated = dialect.to_duckdb(parsed, types=types)
    return await asyncio.to_thread(_execute, translated, read, (database or "default").lower())


def _execute(query: str, read: views.Read, database: str) -> dict[str, Any]:
    with duckdb.connect(":memory:") as connection:
        try:
            for relation in read:
                if isinstance(relation, views.View):
                    continue
                relations.create_view(connection, relation)
            _confine(connection, [found for found in read if isinstance(found, relations.Relation)])
            for view in read:
                if isinstance(view, views.View):
                    views.create(connection, view)
            schema = relations.quoted(database)
            connection.execute(f"CREATE SCHEMA IF NOT EXISTS {schema}; USE {schema}")
            result = connection.execute(query)
            described = result.description or []
            return {
                "columns": [column[0] for column in described],
                "column_types": [athena_type(str(column[1])) for column in described],
                "rows": [[text(value) for value in row] for row in result.fetchall()],
            }
        except duckdb.Error as error:
            word = next((word for kind, word in _ERRORS if isinstance(error, kind)), "GENERIC_INTERNAL_ERROR")
            raise dialect.QueryError(f"{word}: {str(error).splitlines()[0]}") from error


def _confine(connection: duckdb.DuckDBPyConnection, read: list[relations.Relation]) -> None:
    """A query reads its tables and nothing else of this machine. Numbers divide and zones count as in
    Trino."""
    connection.execute("SET allowed_directories = $1", [relations.folders(read)])
    connection.execute("SET enable_external_access = false")
    connection.execute("SET integer_division = true")
    connection.execute("SET TimeZone = 'UTC'")


def _start_bound(start: Callable[[dict[str, Any]], Any], request: dict[str, Any]) -> Any:
    """StartQueryExecution with `ExecutionParameters`, which MiniStack does not know."""
    from ministack.core.responses import error_response_json

    parameters = request.get("ExecutionParameters")
    if not parameters:
        return start(request)
    try:
        bound = dialect.bind(request.get("QueryString", ""), parameters)
    except dialect.QueryError as error:
        return error_response_json("InvalidRequestException", str(error), 400)
    return start({**request, "QueryString": bound})
