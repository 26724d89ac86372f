"""Puts our execution of statements into MiniStack's Athena, which keeps states, results and workgroups."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

from local.athena import dialect, statements, views
from local.athena.objects import LoopStore, Place
from local.athena.permissions import Permissions
from local.athena.session import Session
from local.athena.values import athena_type, text
from local.service import Cloud

_MAINTENANCE = ("unload", "optimize", "vacuum")
"""Words that begin statements which MiniStack does not take for DML."""


@dataclass(frozen=True, kw_only=True)
class Told:
    """What Athena tells of a statement beside its result."""

    scanned: int
    """Bytes of data that it read."""
    updated: int | None = None
    """Rows that it wrote, changed or deleted; None for a query."""


_TOLD: ContextVar[list[Told] | None] = ContextVar("told", default=None)
"""Where a statement that runs leaves what is told of it."""


def install(cloud: Cloud) -> None:
    """Replace how MiniStack's Athena runs a statement, let it bind execution parameters and know a client's
    token again, and let Glue make Iceberg tables."""
    from ministack.services import athena

    _install_tables()
    athena._run_duckdb = lambda query, database, catalog=None: run(query, database, catalog, cloud=cloud)
    execute = athena._execute_query
    athena._execute_query = lambda *arguments: _execute(cloud, execute, *arguments)
    athena._save_query_results = _save
    results = athena._get_query_results
    athena._get_query_results = lambda request: _results(results, request)
    kind = athena._detect_statement_type
    athena._detect_statement_type = lambda sql: (
        "DML" if sql.lstrip().lower().startswith(_MAINTENANCE) else kind(sql)
    )
    start = athena._start_query_execution
    athena._start_query_execution = lambda request: _start(start, request)


def _install_tables() -> None:
    """Let Glue make and change tables in an open format, which MiniStack accepts and forgets."""
    from ministack.services import glue

    create, update = glue._create_table, glue._update_table

    def create_table(request: dict[str, Any]) -> Any:
        if not request.get("OpenTableFormatInput"):
            return create(request)
        from local.athena.iceberg import glue_tables

        return glue_tables.create_table(create, request)

    def update_table(request: dict[str, Any]) -> Any:
        if not request.get("OpenTableFormatInput") and not request.get("UpdateOpenTableFormatInput"):
            return update(request)
        from local.athena.iceberg import glue_tables

        return glue_tables.update_table(update, request)

    glue._create_table, glue._update_table = create_table, update_table


async def run(
    query: str, database: str | None, catalog: str | None = None, *, cloud: Cloud | None = None
) -> dict[str, Any]:
    """Columns, their types and rows of a statement; every value as Athena writes it, None for NULL. Without
    a cloud, queries only."""
    # A thread sees the account and region of the request.
    result, about = await asyncio.to_thread(_run, query, (database or "default").lower(), cloud)
    told = _TOLD.get()
    if told is not None:
        told.append(about)
    return result


def _run(sql: str, database: str, cloud: Cloud | None) -> tuple[dict[str, Any], Told]:
    statement = statements.parse(sql)
    permissions = Permissions.of_request(cloud) if cloud is not None else None
    if isinstance(statement, statements.Select):
        return _select(statement, database, permissions)
    if cloud is None or permissions is None:
        raise dialect.QueryError(f"NOT_SUPPORTED: queries only, not {type(statement).__name__.upper()}")
    # PyIceberg is loaded when it is needed: most clouds are started without.
    from local.athena import changes

    done = changes.Changes(cloud=cloud, database=database, permissions=permissions).run(statement)
    result = {"columns": ["rows"], "column_types": ["bigint"], "rows": []}
    return result, Told(scanned=done.scanned, updated=done.rows)


def _select(
    statement: statements.Select, database: str, permissions: Permissions | None
) -> tuple[dict[str, Any], Told]:
    read = views.all_read(statement.query, database=database)
    if permissions is not None:
        permissions.must_read(read)
    translated = dialect.to_duckdb(statement.query, types=views.types(read))
    with Session(read, database=database) as session:
        columns, rows = session.rows(translated)
        result = {
            "columns": [name for name, _ in columns],
            "column_types": [athena_type(kind) for _, kind in columns],
            "rows": [[text(value) for value in row] for row in rows],
        }
        return result, Told(scanned=session.scanned)


async def _execute(cloud: Cloud, execute: Callable[..., Any], query_id: str, *arguments: Any) -> None:
    """An execution whose result the caller may keep. MiniStack counts the result's characters as the bytes
    scanned."""
    from ministack.services import athena

    result = Place.of(athena._executions[query_id]["ResultConfiguration"]["OutputLocation"])
    try:
        Permissions.of_request(cloud).must_keep_result(result)
    except dialect.QueryError as error:
        status = {"State": "FAILED", "StateChangeReason": str(error), "CompletionDateTime": int(time.time())}
        athena._executions[query_id]["Status"].update(status)
        return
    told: list[Told] = []
    token = _TOLD.set(told)
    try:
        await execute(query_id, *arguments)
    finally:
        _TOLD.reset(token)
    # Nothing else has run since the execution got its final state.
    execution = athena._executions.get(query_id)
    if execution is not None:
        execution["Statistics"]["DataScannedInBytes"] = sum(one.scanned for one in told)
        execution["_updated"] = next((one.updated for one in told if one.updated is not None), None)


async def _save(query_id: str) -> None:
    """The result where `OutputLocation` says: as Athena writes it, every value in quotes and NULL nothing at
    all. MiniStack puts it below that place. A statement that writes has no such object."""
    from ministack.services import athena

    told = _TOLD.get()
    if told and told[-1].updated is not None:
        return
    execution = athena._executions[query_id]
    found = execution["_results"]
    lines = (",".join(_quoted(value) for value in row) for row in [found["columns"], *found["rows"]])
    body = "".join(f"{line}\n" for line in lines).encode()
    try:
        LoopStore().put(Place.of(execution["ResultConfiguration"]["OutputLocation"]), body)
    except dialect.QueryError as error:
        execution["Status"].update(State="FAILED", StateChangeReason=str(error))


def _quoted(value: str | None) -> str:
    return "" if value is None else '"' + value.replace('"', '""') + '"'


def _results(answer: Callable[[dict[str, Any]], Any], request: dict[str, Any]) -> Any:
    """GetQueryResults: a statement that writes has no rows, not even a header, but `UpdateCount`."""
    from ministack.services import athena

    status, headers, body = answer(request)
    updated = (athena._executions.get(request.get("QueryExecutionId")) or {}).get("_updated")
    if status != 200 or updated is None:
        return status, headers, body
    document = json.loads(body)
    document["ResultSet"]["Rows"] = []
    return status, headers, json.dumps({**document, "UpdateCount": updated}).encode()


def _start(start: Callable[[dict[str, Any]], Any], request: dict[str, Any]) -> Any:
    """StartQueryExecution with `ExecutionParameters` and `ClientRequestToken`, which MiniStack does not
    know."""
    from ministack.core.responses import error_response_json, json_response
    from ministack.services import athena

    token, given = request.get("ClientRequestToken"), request.get("QueryString", "")
    for query_id, execution in list(athena._executions.items()) if token else []:
        if execution.get("_token") == token:
            if execution.get("_given") == given:
                return json_response({"QueryExecutionId": query_id})
            return error_response_json(
                "InvalidRequestException", "Idempotent parameters do not match those of the first call", 400
            )
    parameters = request.get("ExecutionParameters")
    if parameters:
        try:
            request = {**request, "QueryString": dialect.bind(given, parameters)}
        except dialect.QueryError as error:
            return error_response_json("InvalidRequestException", str(error), 400)
    answer = start(request)
    if token and answer[0] == 200:
        execution = athena._executions[json.loads(answer[2])["QueryExecutionId"]]
        execution.update(_token=token, _given=given)
    return answer
