"""A catalog without a cloud: S3 with conditional writes, Athena on DuckDB, and the views of the product.

Statements are the product's own, translated by sqlglot. A started statement takes effect when it is next
asked about, or when the world says so: Athena goes on with it, whatever becomes of the function.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from functools import cache
from io import BytesIO
from typing import Any

import duckdb
import sqlglot
from botocore.exceptions import ClientError

from infra.catalog.columns import COLUMNS
from infra.catalog.sql_views import INSTANCES, SERIES
from infra.catalog.tables import CHANGE_TABLES
from runtime.functions.catalog_queries.change_objects import TOMBSTONE
from runtime.functions.catalog_queries.queries import Queries
from runtime.functions.compact.handler import Compaction, Report
from runtime.functions.compact.progress import ProgressRecord

DATASTORE = "d" * 32
START = datetime(2026, 1, 10, 12, tzinfo=UTC)
SETTLE = timedelta(minutes=10)
"""Of the compact function: its runs leave younger things alone."""

_DUCKDB = {"string": "VARCHAR", "int": "INTEGER"}


class Crash(Exception):
    """The end of an invocation, anywhere."""


class Refusal(ClientError):
    """An error of a service."""

    def __init__(self, code: str, operation: str) -> None:
        super().__init__({"Error": {"Code": code, "Message": code}}, operation)


def duckdb_type(hive: str) -> str:
    """DuckDB's name of a Hive type."""
    if hive.startswith("array<"):
        return f"{duckdb_type(hive[6:-1])}[]"
    if hive.startswith("map<"):
        key, value = hive[4:-1].split(",")
        return f"MAP({duckdb_type(key)}, {duckdb_type(value)})"
    return _DUCKDB.get(hive, hive)


@dataclass(frozen=True, kw_only=True)
class Written:
    """The rows of a version in one table: each with its modality and the date of its study."""

    image_set_id: str
    version: int
    rows: tuple[tuple[str | None, date | None], ...]
    """Empty: the version has none, or the image set is gone."""
    at: datetime
    dated: bool = True
    """Whether its rows say when the image set was created and updated."""


@dataclass(kw_only=True)
class _Execution:
    sql: str
    state: str = "QUEUED"
    reason: str = ""
    result: tuple[list[str], list[tuple[Any, ...]]] = ([], [])


@dataclass(kw_only=True)
class World:
    """Clients of S3 and Athena over one catalog."""

    now: datetime = START
    crash_in: int | None = None
    """Calls until the invocation ends: an even number before the call has its effect, an odd one after."""
    fails: dict[str, str] = field(default_factory=dict)
    """Athena's reason for refusing statements that begin with a word."""
    changes: dict[str, Written] = field(default_factory=dict)
    """By key."""
    damaged: dict[str, bytes] = field(default_factory=dict)
    """What is below such keys instead. Athena refuses all queries over tables with such an object."""
    notes: dict[str, bytes] = field(default_factory=dict)
    executions: dict[str, _Execution] = field(default_factory=dict)
    tokens: dict[str, str] = field(default_factory=dict)
    done: list[str] = field(default_factory=list)
    """Statements that changed a table, in their order."""

    def __post_init__(self) -> None:
        self._database = duckdb.connect(config={"threads": 1})
        self._listed: dict[str, frozenset[tuple[str, Written]]] = {}
        for table, columns in COLUMNS.items():
            declared = ", ".join(f'"{column.name}" {duckdb_type(column.type)}' for column in columns)
            self._database.execute(f"CREATE TABLE compacted_{table} ({declared})")
            self._database.execute(f"CREATE TABLE {CHANGE_TABLES[table]} ({declared}, is_deleted BOOLEAN)")
        for view in (SERIES, INSTANCES):
            self._database.execute(f"CREATE VIEW {view.name} AS {_translated(view.sql)}")

    # --- the index function ---

    def write(self, table: str, written: Written) -> None:
        """The object of a version."""
        name = "deleted" if written.version == TOMBSTONE else str(written.version)
        self.changes[f"changes/{table}/{DATASTORE}/{written.image_set_id}/{name}.parquet"] = written

    # --- what people see ---

    def shown(self, table: str) -> list[tuple[Any, ...]]:
        """(image set, version, modality, study date) of the view's rows, sorted."""
        return self._rows(table, where=table)

    def compacted(self, table: str) -> list[tuple[Any, ...]]:
        """The same of the compacted table."""
        return self._rows(table, where=f"compacted_{table}")

    def _rows(self, table: str, *, where: str) -> list[tuple[Any, ...]]:
        self._list_changes(table)
        found = self._database.execute(
            f"SELECT image_set_id, version_id, modality, study_date FROM {where}"  # noqa: S608 - a table of the product
        ).fetchall()
        return sorted(found, key=str)

    def _list_changes(self, table: str) -> None:
        name = CHANGE_TABLES[table]
        listed = frozenset(one for one in self.changes.items() if one[0].startswith(f"changes/{table}/"))
        if self._listed.get(table, frozenset()) == listed:
            return
        self._listed[table] = listed
        self._database.execute(f"DELETE FROM {name}")  # noqa: S608 - a table of the product
        rows = [
            (
                one.image_set_id,
                one.version,
                modality,
                day,
                one.at.replace(tzinfo=None) if one.dated else None,
                one.at.replace(tzinfo=None),
                not one.rows,
            )
            for _, one in listed
            for modality, day in one.rows or ((None, None),)
        ]
        if rows:
            places = ", ".join(["(?, ?, ?, ?, CAST(? AS TIMESTAMP), ?, ?)"] * len(rows))
            self._database.execute(
                f"INSERT INTO {name} (datastore_id, image_set_id, version_id, modality, study_date, "  # noqa: S608 - names of the product, values as parameters
                f"created_at, updated_at, indexed_at, is_deleted) "
                f"SELECT '{DATASTORE}', a, b, c, d, e, e, f, g "
                f"FROM (VALUES {places}) AS written (a, b, c, d, e, f, g)",
                [value for row in rows for value in row],
            )

    # --- Athena ---

    def start_query_execution(self, **params: Any) -> dict[str, str]:
        def start() -> dict[str, str]:
            token, sql = params["ClientRequestToken"], params["QueryString"]
            assert len(token) >= 32
            if token not in self.tokens:
                if not sql.startswith(("SELECT", "WITH")):
                    assert not self.pending, "two statements at a time"
                self.tokens[token] = f"execution-{len(self.tokens)}"
                self.executions[self.tokens[token]] = _Execution(sql=sql)
            assert self.executions[self.tokens[token]].sql == sql
            return {"QueryExecutionId": self.tokens[token]}

        return self._call(start)

    def get_query_execution(self, **params: str) -> dict[str, Any]:
        def look() -> dict[str, Any]:
            if params["QueryExecutionId"] not in self.executions:
                raise Refusal("InvalidRequestException", "GetQueryExecution")
            execution = self.executions[params["QueryExecutionId"]]
            self._run(execution)
            status = {"State": execution.state, "StateChangeReason": execution.reason}
            return {"QueryExecution": {"Status": status}}

        return self._call(look)

    def get_query_results(self, **params: Any) -> dict[str, Any]:
        names, rows = self.executions[params["QueryExecutionId"]].result
        shown = [names, *([None if value is None else str(value) for value in row] for row in rows)]
        cells = [{"Data": [{} if c is None else {"VarCharValue": c} for c in row]} for row in shown]
        metadata = {"ColumnInfo": [{"Name": name} for name in names]}
        return {"ResultSet": {"Rows": cells, "ResultSetMetadata": metadata}}

    def get_paginator(self, operation: str) -> World:
        assert operation == "get_query_results"
        return self

    def paginate(self, *, PaginationConfig: Mapping[str, int], **params: Any) -> Iterator[dict[str, Any]]:
        rows = self.get_query_results(**params)["ResultSet"]["Rows"]
        for start in range(0, len(rows), PaginationConfig["PageSize"]):
            yield {"ResultSet": {"Rows": rows[start : start + PaginationConfig["PageSize"]]}}

    @property
    def pending(self) -> list[_Execution]:
        """Statements that change a table and have not taken effect yet."""
        return [
            one
            for one in self.executions.values()
            if one.state == "QUEUED" and not one.sql.startswith(("SELECT", "WITH"))
        ]

    def settle(self) -> None:
        """Athena does what it has been asked to do."""
        for execution in self.executions.values():
            self._run(execution)

    def _run(self, execution: _Execution) -> None:
        if execution.state != "QUEUED":
            return
        word = execution.sql.split()[0]
        if word in self.fails:
            execution.state, execution.reason = "FAILED", self.fails.pop(word)
            return
        execution.state = "SUCCEEDED"
        if word in ("OPTIMIZE", "VACUUM"):
            self.done.append(" ".join(execution.sql.split()[:2]))
            return
        for key, body in self.damaged.items():
            execution.state = "FAILED"
            execution.reason = (
                f"HIVE_BAD_DATA: Malformed Parquet file. Expected magic number: PAR1 got: {body[-4:]!r} "
                f"[s3://catalog/{key}]"
            )
            return
        for table in COLUMNS:
            self._list_changes(table)
        result = self._database.execute(_translated(execution.sql))
        if word in ("SELECT", "WITH"):
            execution.result = ([column[0] for column in result.description], result.fetchall())
        else:
            self.done.append(" ".join(execution.sql.split()[:3]))

    # --- S3 ---

    def list_objects_v2(self, **params: Any) -> dict[str, Any]:
        return self._call(lambda: {"KeyCount": int(params["Prefix"] in self.notes)})

    def get_object(self, **params: str) -> dict[str, Any]:
        def get() -> dict[str, Any]:
            if params["Key"] not in self.notes | self.damaged:
                raise Refusal("NoSuchKey", "GetObject")
            body = (self.notes | self.damaged)[params["Key"]]
            return {"Body": BytesIO(body), "ETag": _etag(body)}

        return self._call(get)

    def put_object(self, **params: Any) -> dict[str, Any]:
        def put() -> dict[str, Any]:
            there = self.notes.get(params["Key"])
            taken = there is not None if "IfNoneMatch" in params else False
            if taken or ("IfMatch" in params and (there is None or _etag(there) != params["IfMatch"])):
                raise Refusal("PreconditionFailed", "PutObject")
            self.notes[params["Key"]] = params["Body"]
            return {"ETag": _etag(params["Body"])}

        return self._call(put)

    def delete_object(self, **params: str) -> dict[str, Any]:
        def delete() -> dict[str, Any]:
            self.damaged.pop(params["Key"], None)
            self.changes.pop(params["Key"], None)
            return {}

        return self._call(delete)

    def delete_objects(self, **params: Any) -> dict[str, Any]:
        def delete() -> dict[str, Any]:
            for one in params["Delete"]["Objects"]:
                self.changes.pop(one["Key"], None)
            return {}

        return self._call(delete)

    def _call(self, effect: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        if self.crash_in is None:
            return effect()
        self.crash_in -= 1
        if self.crash_in == 0:
            raise Crash
        answer = effect()
        self.crash_in -= 1
        if self.crash_in == 0:
            raise Crash
        return answer

    def later(self, by: timedelta) -> None:
        """Time passes."""
        self.now += by


def compaction(world: World, *, context: Any = None) -> Compaction:
    """A run of the compact function."""
    return Compaction(
        queries=Queries(
            athena=world, workgroup="w", database="d", context=context, sleep=lambda seconds: None
        ),
        s3=world,
        bucket="catalog",
        record=ProgressRecord(s3=world, bucket="catalog"),
        settle=SETTLE,
        clock=lambda: world.now,
    )


def run(world: World, *, context: Any = None) -> Report:
    """Compact, and tell what was done."""
    return compaction(world, context=context).work()


def _etag(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()


@cache
def _translated(sql: str) -> str:
    (translated,) = sqlglot.transpile(sql, read="athena", write="duckdb")
    return translated
