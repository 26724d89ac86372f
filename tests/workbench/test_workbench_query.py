"""Queries: typed rows over pages, failures in Athena's words, and waiting for the catalog."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, datetime
from typing import Any

import pytest
from workbench_fakes import FakePaginator, deployment, error

from workbench.catalog import series_rows, wait_for_catalog
from workbench.errors import QueryFailed, WorkbenchError
from workbench.query import query, text_literal

COLUMNS = [
    ("image_set_id", "varchar"),
    ("version_id", "bigint"),
    ("is_primary", "boolean"),
    ("slice_thickness", "double"),
    ("study_date", "date"),
    ("indexed_at", "timestamp"),
    ("pixel_spacing", "array(double)"),
]
HEADER = [name for name, _ in COLUMNS]
ROW = ["abc", "3", "true", "5.0", "2000-01-02", "2026-01-02 03:04:05.678", "[0.5, 0.5]"]


def page(*rows: Sequence[str | None]) -> dict[str, Any]:
    return {
        "ResultSet": {
            "ResultSetMetadata": {"ColumnInfo": [{"Name": name, "Type": type_} for name, type_ in COLUMNS]},
            "Rows": [
                {"Data": [{} if cell is None else {"VarCharValue": cell} for cell in row]} for row in rows
            ],
        }
    }


class FakeAthena:
    def __init__(self, pages: list[dict[str, Any]], states: list[str], reason: str = "") -> None:
        self.pages, self.states, self.reason = pages, states, reason
        self.requests: list[dict[str, Any]] = []
        self.stopped: list[str] = []

    def stop_query_execution(self, *, QueryExecutionId: str) -> None:
        self.stopped.append(QueryExecutionId)

    def start_query_execution(self, **request: Any) -> dict[str, Any]:
        self.requests.append(request)
        return {"QueryExecutionId": "q1"}

    def get_query_execution(self, **_: Any) -> dict[str, Any]:
        state = self.states.pop(0) if len(self.states) > 1 else self.states[0]
        status = {"State": state, "StateChangeReason": self.reason}
        statistics = {"DataScannedInBytes": 4096, "TotalExecutionTimeInMillis": 1500}
        return {"QueryExecution": {"Status": status, "Statistics": statistics}}

    def get_paginator(self, name: str) -> FakePaginator:
        assert name == "get_query_results"
        return FakePaginator(lambda **_: self.pages)


def test_rows_are_typed_over_pages() -> None:
    athena = FakeAthena([page(HEADER, ROW), page([None] * 7, ROW)], ["QUEUED", "RUNNING", "SUCCEEDED"])
    result = query(deployment(athena=athena), "SELECT 1", every_seconds=0.0)
    assert len(result.rows) == 3
    assert result.rows[0] == (
        "abc",
        3,
        True,
        5.0,
        date(2000, 1, 2),
        datetime(2026, 1, 2, 3, 4, 5, 678000),
        "[0.5, 0.5]",
    )
    assert result.rows[1] == (None,) * 7
    assert result.bytes_scanned == 4096
    assert result.seconds == 1.5
    assert athena.requests[0]["WorkGroup"] == "monai-test"
    assert athena.requests[0]["QueryExecutionContext"] == {"Database": "monai_test"}


def test_csv_and_json_forms() -> None:
    result = query(deployment(athena=FakeAthena([page(HEADER, ROW)], ["SUCCEEDED"])), "SELECT 1")
    assert result.to_csv().splitlines() == [
        ",".join(HEADER),
        'abc,3,True,5.0,2000-01-02,2026-01-02T03:04:05.678000,"[0.5, 0.5]"',
    ]
    rows: Any = result.to_json()["rows"]
    assert rows[0]["study_date"] == "2000-01-02"


def test_a_first_row_that_is_data_stays() -> None:
    result = query(deployment(athena=FakeAthena([page(ROW)], ["SUCCEEDED"])), "SELECT 1")
    assert len(result.rows) == 1


def test_failure_quotes_athena() -> None:
    athena = FakeAthena([], ["FAILED"], reason="line 1:8: Column 'nope' cannot be resolved")
    with pytest.raises(QueryFailed, match="cannot be resolved"):
        query(deployment(athena=athena), "SELECT nope FROM series")


def test_syntax_that_athena_refuses_at_once() -> None:
    class Refusing(FakeAthena):
        def start_query_execution(self, **request: Any) -> dict[str, Any]:
            raise error("InvalidRequestException", "mismatched input")

    with pytest.raises(QueryFailed, match="mismatched input"):
        query(deployment(athena=Refusing([], ["FAILED"])), "SELEC")


class Interrupted(FakeAthena):
    """Somebody presses Ctrl-C while the query runs."""

    def get_query_execution(self, **_: Any) -> dict[str, Any]:
        raise KeyboardInterrupt


def test_a_query_that_nobody_waits_for_is_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    athena = Interrupted([], ["RUNNING"])
    with pytest.raises(KeyboardInterrupt):
        query(deployment(athena=athena), "SELECT 1")
    assert athena.stopped == ["q1"]
    # Nor one that takes too long.
    monkeypatch.setattr("workbench.query.QUERY_TIMEOUT_SECONDS", 0.0)
    athena = FakeAthena([], ["RUNNING"])
    with pytest.raises(QueryFailed, match="has not ended"):
        query(deployment(athena=athena), "SELECT 1")
    assert athena.stopped == ["q1"]
    # What has ended by itself is left alone.
    athena = FakeAthena([], ["FAILED"])
    with pytest.raises(QueryFailed):
        query(deployment(athena=athena), "SELECT 1")
    assert athena.stopped == []


def test_a_query_that_cannot_be_stopped_is_named_and_the_interruption_stays() -> None:
    class Unstoppable(Interrupted):
        def stop_query_execution(self, *, QueryExecutionId: str) -> None:
            raise error("AccessDeniedException", "not authorized to perform: athena:StopQueryExecution")

    told: list[str] = []
    with pytest.raises(KeyboardInterrupt):
        query(deployment(athena=Unstoppable([], ["RUNNING"])), "SELECT 1", progress=told.append)
    assert told[-1].startswith("query q1 could not be stopped and goes on")
    assert "athena:StopQueryExecution" in told[-1]


def test_quotes_stay_text() -> None:
    assert text_literal("O'Neil") == "'O''Neil'"


def test_rows_of_series_need_their_columns() -> None:
    result = query(deployment(athena=FakeAthena([page(HEADER, ROW)], ["SUCCEEDED"])), "SELECT 1")
    with pytest.raises(QueryFailed, match="datastore_id, patient_id"):
        series_rows(result)


def catalog_page(*rows: tuple[str, int]) -> dict[str, Any]:
    return {
        "ResultSet": {
            "ResultSetMetadata": {
                "ColumnInfo": [
                    {"Name": "image_set_id", "Type": "varchar"},
                    {"Name": "version_id", "Type": "bigint"},
                ]
            },
            "Rows": [{"Data": [{"VarCharValue": a}, {"VarCharValue": str(b)}]} for a, b in rows],
        }
    }


def test_waiting_ends_at_the_version_asked_for() -> None:
    answers = [catalog_page(), catalog_page(("a", 1)), catalog_page(("a", 2), ("b", 5)), catalog_page()]

    class Growing(FakeAthena):
        def get_paginator(self, name: str) -> FakePaginator:
            return FakePaginator(lambda **_: [answers.pop(0)])

    wait_for_catalog(
        deployment(athena=Growing([], ["SUCCEEDED"])), {"a": 2, "b": 5}, every_seconds=0.0, timeout_seconds=30
    )
    assert len(answers) == 1


def test_waiting_names_what_is_missing_and_where_to_look() -> None:
    athena = FakeAthena([catalog_page(("a", 1))], ["SUCCEEDED"])
    with pytest.raises(WorkbenchError, match="1 image sets") as caught:
        wait_for_catalog(deployment(athena=athena), {"a": 1, "b": 1}, every_seconds=0.0, timeout_seconds=0.0)
    assert "/aws/lambda/index" in caught.value.advice
