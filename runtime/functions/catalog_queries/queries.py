"""Statements in the catalog's workgroup: started, waited for as long as the invocation has time, read.

Source: https://docs.aws.amazon.com/athena/latest/APIReference/API_StartQueryExecution.html
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from runtime.functions.batches.batch import RESERVE_SECONDS, seconds_left
from runtime.functions.batches.errors import FunctionError

_LONGEST_PAUSE = 5.0
_PAGE = 1000
"""The most rows that a page of GetQueryResults has."""

_UNREADABLE = re.compile(r"HIVE_(?:BAD_DATA|CANNOT_OPEN_SPLIT|CURSOR_ERROR)")
"""Words for an object that Athena could not read
(https://github.com/trinodb/trino/blob/master/plugin/trino-hive/src/main/java/io/trino/plugin/hive/HiveErrorCode.java).
"""

_PATH = re.compile(r"s3[an]?://[^\s,;:()\[\]\"'<>]+")

_WORD = re.compile(r"(?:\[ErrorCode: )?([A-Z][A-Z0-9]*(?:_[A-Z0-9]+)+)(?=[:\]]|$)")
"""At the beginning of Athena's reason; further on, capitals may be a value that it quotes."""


class QueryFailedError(FunctionError):
    """Athena could not do a statement, or somebody stopped it.

    Attributes:
        word: Athena's word for the kind of error (`ICEBERG_COMMIT_ERROR`). The rest of its message may quote
            values of rows, and stays in Athena's history of queries.
        unreadable: URI of the object that Athena could not read; None where that is not what failed.
    """

    def __init__(self, *, execution_id: str, state: str, reason: str) -> None:
        found = _WORD.match(reason)
        self.word = found.group(1) if found else "UNKNOWN"
        path = _PATH.search(reason) if _UNREADABLE.fullmatch(self.word) else None
        self.unreadable = path.group() if path else None
        where = f", in {self.unreadable}" if self.unreadable else ""
        super().__init__(f"query {execution_id} {state}: {self.word}{where}")


class OutOfTimeError(FunctionError):
    """The invocation ends before the statement does. Athena goes on with it."""


@dataclass(frozen=True, kw_only=True)
class Queries:
    """Athena, for one invocation of a function.

    Attributes:
        athena: boto3's client.
        workgroup: Its settings say where results go.
        database: Where the statements' tables are.
        context: Lambda's context; None where nothing limits the time.
    """

    athena: Any
    workgroup: str
    database: str
    context: Any
    sleep: Callable[[float], None] = time.sleep

    def start(self, sql: str, *, token: str) -> str:
        """Start a statement, and return the id of its execution.

        Args:
            token: 32 characters and more. A second start with the same token and statement gives the
                execution that the first one made: nothing runs twice.
        """
        answer = self.athena.start_query_execution(
            QueryString=sql,
            ClientRequestToken=token,
            QueryExecutionContext={"Database": self.database},
            WorkGroup=self.workgroup,
        )
        return str(answer["QueryExecutionId"])

    def wait(self, execution_id: str) -> None:
        """Wait until an execution has succeeded.

        Raises:
            QueryFailedError: It has not.
            OutOfTimeError: The invocation is about to end.
        """
        pause = 0.1
        while True:
            found = self.athena.get_query_execution(QueryExecutionId=execution_id)["QueryExecution"]["Status"]
            if found["State"] == "SUCCEEDED":
                return
            if found["State"] in ("FAILED", "CANCELLED"):
                raise QueryFailedError(
                    execution_id=execution_id,
                    state=found["State"].lower(),
                    reason=found.get("StateChangeReason", ""),
                )
            if seconds_left(self.context) < RESERVE_SECONDS + pause:
                msg = f"query {execution_id} is still running"
                raise OutOfTimeError(msg)
            self.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)

    def columns(self, sql: str, *, token: str) -> tuple[str, ...]:
        """The names of the columns that a SELECT gives."""
        execution_id = self.start(sql, token=token)
        self.wait(execution_id)
        answer = self.athena.get_query_results(QueryExecutionId=execution_id, MaxResults=1)
        return tuple(one["Name"] for one in answer["ResultSet"]["ResultSetMetadata"]["ColumnInfo"])

    def rows(self, sql: str, *, token: str) -> Iterator[tuple[str | None, ...]]:
        """The rows of a SELECT, every value as Athena's text for it, None for NULL."""
        execution_id = self.start(sql, token=token)
        self.wait(execution_id)
        pages = self.athena.get_paginator("get_query_results").paginate(
            QueryExecutionId=execution_id, PaginationConfig={"PageSize": _PAGE}
        )
        header = True
        for page in pages:
            for row in page["ResultSet"]["Rows"]:
                # The first row of a result has the columns' names.
                if not header:
                    yield tuple(cell.get("VarCharValue") for cell in row["Data"])
                header = False
