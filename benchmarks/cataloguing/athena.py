"""Asks Athena, and says what it read and how long it took."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

from workbench.deployment import Deployment

_LOOK_SECONDS = 0.01


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What came of a statement."""

    rows: tuple[tuple[str | None, ...], ...]
    bytes: int
    """Statistics.DataScannedInBytes."""
    seconds: float
    """From the request until Athena says that it is done; the rows are fetched after it."""


@dataclass(frozen=True, kw_only=True)
class Athena:
    """The workgroup of the catalog stack."""

    deployment: Deployment

    def ask(self, sql: str, *, database: str | None = None) -> Answer:
        """Run a statement to its end.

        Raises:
            RuntimeError: Athena could not do it.
        """
        catalog, athena = self.deployment.stack("catalog"), self.deployment.session.client("athena")
        begin = time.perf_counter()
        execution_id = athena.start_query_execution(
            QueryString=sql,
            QueryExecutionContext={"Database": database or catalog["DatabaseName"]},
            WorkGroup=catalog["WorkgroupName"],
        )["QueryExecutionId"]
        while True:
            found: Any = athena.get_query_execution(QueryExecutionId=execution_id)["QueryExecution"]
            state = found["Status"]["State"]
            if state == "SUCCEEDED":
                break
            if state in ("FAILED", "CANCELLED"):
                raise RuntimeError(f"{found['Status'].get('StateChangeReason')}: {sql[:200]}")
            time.sleep(_LOOK_SECONDS)
        seconds = time.perf_counter() - begin
        return Answer(
            rows=self._rows(athena, execution_id),
            bytes=int(found["Statistics"]["DataScannedInBytes"]),
            seconds=seconds,
        )

    def _rows(self, athena: Any, execution_id: str) -> tuple[tuple[str | None, ...], ...]:
        pages = athena.get_paginator("get_query_results").paginate(QueryExecutionId=execution_id)
        rows = [
            tuple(cell.get("VarCharValue") for cell in row["Data"])
            for page in pages
            for row in page["ResultSet"]["Rows"]
        ]
        # The first row of a result has the columns' names.
        return tuple(rows[1:])
