"""Asks the catalog with SQL, through Athena."""

from __future__ import annotations

import csv
import io
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from arrival.waiting import poll
from workbench.deployment import Deployment
from workbench.errors import QueryFailed
from workbench.progress import Progress, silent

QUERY_TIMEOUT_SECONDS = 900.0
USD_PER_BYTE = 5 / 10**12
LEAST_BYTES_BILLED = 10 * 10**6
Value = str | int | float | bool | date | datetime | None


@dataclass(frozen=True, kw_only=True)
class Column:
    """A column of a result; `type` is Athena's name of it: varchar, bigint, array(double) ..."""

    name: str
    type: str


@dataclass(frozen=True, kw_only=True)
class QueryResult:
    """The rows of one query, in Python's types; arrays stay in Athena's text form "[a, b]"."""

    execution_id: str
    sql: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[Value, ...], ...]
    bytes_scanned: int
    seconds: float

    @property
    def list_price_usd(self) -> float:
        """As `list_price_usd` of its bytes."""
        return list_price_usd(self.bytes_scanned)

    def records(self) -> list[dict[str, Value]]:
        """The rows as dictionaries by column name."""
        names = [column.name for column in self.columns]
        return [dict(zip(names, row, strict=True)) for row in self.rows]

    def to_json(self) -> dict[str, object]:
        return {
            "executionId": self.execution_id,
            "sql": self.sql,
            "columns": [{"name": column.name, "type": column.type} for column in self.columns],
            "rows": [{name: _plain(value) for name, value in record.items()} for record in self.records()],
            "bytesScanned": self.bytes_scanned,
            "listPriceUsd": round(self.list_price_usd, 6),
            "seconds": self.seconds,
        }

    def to_csv(self) -> str:
        """The rows as CSV (RFC 4180) with a header line; null is an empty field."""
        text = io.StringIO()
        writer = csv.writer(text)
        writer.writerow([column.name for column in self.columns])
        writer.writerows([["" if value is None else _plain(value) for value in row] for row in self.rows])
        return text.getvalue()


def query(
    deployment: Deployment, sql: str, *, progress: Progress = silent, every_seconds: float = 0.5
) -> QueryResult:
    """Run `sql` (Trino's dialect) in the catalog's workgroup and return all of its rows."""
    athena = deployment.session.client("athena")
    execution_id, statistics = run(deployment, sql, progress=progress, every_seconds=every_seconds)
    columns, rows = _results(athena, execution_id)
    return QueryResult(
        execution_id=execution_id,
        sql=sql,
        columns=columns,
        rows=rows,
        bytes_scanned=bytes_scanned(statistics),
        seconds=seconds(statistics),
    )


def bytes_scanned(statistics: Mapping[str, Any]) -> int:
    """Of Athena's statistics of a query."""
    return int(statistics.get("DataScannedInBytes", 0))


def seconds(statistics: Mapping[str, Any]) -> float:
    """That a query took, waiting included where Athena says it."""
    milliseconds = statistics.get(
        "TotalExecutionTimeInMillis", statistics.get("EngineExecutionTimeInMillis", 0)
    )
    return float(milliseconds) / 1000


def list_price_usd(scanned: int) -> float:
    """What Athena bills for a query by the list price of us-east-1: five dollars a terabyte, ten megabytes at
    least (https://aws.amazon.com/athena/pricing/).
    """
    return max(scanned, LEAST_BYTES_BILLED) * USD_PER_BYTE


def run(
    deployment: Deployment, sql: str, *, progress: Progress = silent, every_seconds: float = 0.5
) -> tuple[str, Mapping[str, Any]]:
    """Run a statement to its end: its execution id and what Athena counted.

    Who does not wait for the end, for whatever reason, has the query stopped: Athena would go on reading, and
    bills what it reads.

    Raises:
        QueryFailed: Athena did not run it, or it takes longer than `QUERY_TIMEOUT_SECONDS`.
    """
    catalog = deployment.stack("catalog")
    athena = deployment.session.client("athena")
    try:
        execution_id = str(
            athena.start_query_execution(
                QueryString=sql,
                QueryExecutionContext={"Database": catalog["DatabaseName"]},
                WorkGroup=catalog["WorkgroupName"],
                ClientRequestToken=uuid.uuid4().hex,
            )["QueryExecutionId"]
        )
    except ClientError as error:
        if error.response["Error"]["Code"] == "InvalidRequestException":
            raise _failed(str(error.response["Error"]["Message"])) from error
        raise

    def ended() -> Mapping[str, Any] | None:
        execution: Mapping[str, Any] = athena.get_query_execution(QueryExecutionId=execution_id)[
            "QueryExecution"
        ]
        return execution if execution["Status"]["State"] in {"SUCCEEDED", "FAILED", "CANCELLED"} else None

    try:
        progress(f"query {execution_id}")
        execution = poll(
            ended,
            every_seconds=every_seconds,
            timeout_seconds=QUERY_TIMEOUT_SECONDS,
            on_timeout=lambda: QueryFailed(
                f"Query {execution_id} has not ended after {QUERY_TIMEOUT_SECONDS / 60:.0f} minutes.",
                advice="Narrow it with a WHERE clause.",
            ),
        )
    except BaseException as error:  # KeyboardInterrupt is none of Exception, and Ctrl-C is the usual reason.
        _stop(athena, execution_id, because=error, progress=progress)
        raise
    status = execution["Status"]
    if status["State"] != "SUCCEEDED":
        raise _failed(str(status.get("StateChangeReason", status["State"])))
    statistics: Mapping[str, Any] = execution.get("Statistics", {})
    return execution_id, statistics


def _stop(athena: Any, execution_id: str, *, because: BaseException, progress: Progress) -> None:
    """End a query for which nobody waits any more. When that does not work either, `because` says so."""
    try:
        athena.stop_query_execution(QueryExecutionId=execution_id)
    except (BotoCoreError, ClientError) as error:
        said = f"query {execution_id} could not be stopped and goes on: {error}"
        because.add_note(said)
        progress(said)
    else:
        progress(f"query {execution_id} stopped")


def text_literal(value: str) -> str:
    """`value` as an SQL string literal, so that a quote in it stays text."""
    return "'" + value.replace("'", "''") + "'"


def _failed(reason: str) -> QueryFailed:
    return QueryFailed(
        f"Athena did not run the query: {reason}",
        advice="Views: series, instances, studies, patients. Try: SELECT * FROM series LIMIT 10; "
        "or one of: monai-aws query --list",
    )


def _results(athena: Any, execution_id: str) -> tuple[tuple[Column, ...], tuple[tuple[Value, ...], ...]]:
    columns: tuple[Column, ...] = ()
    rows: list[tuple[Value, ...]] = []
    for number, page in enumerate(_pages(athena, execution_id)):
        result = page["ResultSet"]
        if number == 0:
            columns = tuple(
                Column(name=one["Name"], type=one["Type"])
                for one in result["ResultSetMetadata"]["ColumnInfo"]
            )
        readers = [_reader(column.type) for column in columns]
        raw = [[cell.get("VarCharValue") for cell in row.get("Data", [])] for row in result["Rows"]]
        if number == 0 and raw and raw[0] == [column.name for column in columns]:
            # Athena repeats the column names as the first row of a SELECT's first page.
            raw = raw[1:]
        for cells in raw:
            rows.append(
                tuple(None if cell is None else read(cell) for read, cell in zip(readers, cells, strict=True))
            )
    return columns, tuple(rows)


def _pages(athena: Any, execution_id: str) -> Iterator[Mapping[str, Any]]:
    yield from athena.get_paginator("get_query_results").paginate(QueryExecutionId=execution_id)


def _reader(type_: str) -> Callable[[str], Value]:
    name = type_.lower()
    if name in {"tinyint", "smallint", "int", "integer", "bigint"}:
        return int
    if name in {"double", "float", "real"} or name.startswith("decimal"):
        return float
    if name == "boolean":
        return lambda cell: cell.lower() == "true"
    if name == "date":
        return date.fromisoformat
    if name.startswith("timestamp"):
        return _timestamp
    return str


def _timestamp(cell: str) -> Value:
    try:
        return datetime.fromisoformat(cell)
    except ValueError:
        # Athena adds a zone's name ("2024-01-01 00:00:00.000 UTC"), which ISO 8601 does not know.
        return cell


def _plain(value: Value) -> str | int | float | bool | None:
    return value.isoformat() if isinstance(value, date | datetime) else value


def table_rows(result: QueryResult) -> Sequence[Sequence[str]]:
    """The rows as text for a table on a screen; null is an empty cell."""
    return [["" if value is None else str(_plain(value)) for value in row] for row in result.rows]
