"""Trino SQL on DuckDB: what each expression answers on Athena engine version 3."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from local.athena import engine
from local.athena.dialect import QueryError, bind, parse, tables, to_duckdb
from local.athena.relations import duckdb_type
from local.athena.values import text

ROWS = """
SELECT * FROM (VALUES
  ('CT', date '2020-02-03', ARRAY[1.5, 2.5], 'abc-123', timestamp '2020-02-03 04:05:06.007', CAST(7 AS
  bigint)), ('MR', date '2021-05-06', ARRAY[3.0], 'zz', timestamp '2021-05-06 00:00:00', CAST(NULL AS bigint))
) AS t (modality, day, spacing, label, moment, number)
"""


def one(sql: str) -> list[str | None]:
    """The single row of a query, as Athena writes it."""
    (row,) = rows(sql)
    return row


def rows(sql: str) -> list[list[str | None]]:
    result: dict[str, Any] = asyncio.run(engine.run(sql, "default"))
    found: list[list[str | None]] = result["rows"]
    return found


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("5 / 2", "2"),
        ("-5 / 2", "-2"),
        ("5.0E0 / 2", "2.5"),
        ("CAST(5 AS double) / 2", "2.5"),
        ("map_filter(MAP(ARRAY['a', 'b'], ARRAY[1, 2]), (k, v) -> v > 1 OR k = 'c')", "{b=2}"),
        ("transform_values(MAP(ARRAY['a'], ARRAY['x']), (k, v) -> k || v)", "{a=ax}"),
        ("transform_keys(MAP(ARRAY['a'], ARRAY[1]), (k, v) -> upper(k))", "{A=1}"),
        ("format('%s is %d, %s %%', 'a', 5, DATE '2020-01-02')", "a is 5, 2020-01-02 %"),
        ("date_parse('2020-01-02', '%Y-%m-%d')", "2020-01-02 00:00:00.000"),
        ("date_diff('day', date '2020-02-28', date '2020-03-01')", "2"),
        ("date_diff('year', date '1970-06-15', date '2020-06-14')", "49"),
        ("date_diff('month', date '2020-01-31', date '2020-02-29')", "1"),
        ("date_add('month', 1, date '2020-01-31')", "2020-02-29"),
        ("date '2020-02-28' + interval '2' day", "2020-03-01"),
        ("date_trunc('month', date '2020-02-28')", "2020-02-01"),
        ("year(date '2020-02-03')", "2020"),
        ("day_of_week(date '2026-11-22')", "7"),
        ("date_format(timestamp '2020-01-02 03:04:05', '%Y%m%d %H:%i')", "20200102 03:04"),
        ("format_datetime(timestamp '2020-01-02 03:04:05', 'yyyy-MM-dd HH:mm')", "2020-01-02 03:04"),
        ("from_iso8601_date('2020-01-02')", "2020-01-02"),
        ("to_unixtime(timestamp '1970-01-02 00:00:00')", "86400.0"),
        ("regexp_like('abc-123', '[0-9]+$')", "true"),
        ("regexp_extract('abc-123', '([0-9]+)', 1)", "123"),
        ("split('a-b', '-')", "[a, b]"),
        ("element_at(ARRAY[1, 2], 5)", None),
        ("element_at(ARRAY[1, 2], -1)", "2"),
        ("ARRAY[1, 2][1]", "1"),
        ("element_at(MAP(ARRAY['a'], ARRAY[1]), 'a')", "1"),
        ("element_at(MAP(ARRAY['a'], ARRAY[1]), 'b')", None),
        ("cardinality(ARRAY[1, 2])", "2"),
        ("cardinality(MAP(ARRAY['a'], ARRAY[1]))", "1"),
        ("contains(ARRAY['x'], 'x')", "true"),
        ("array_join(transform(ARRAY[1, 2], x -> x * 10), '/')", "10/20"),
        ("filter(ARRAY[1, 2, 3], x -> x > 1)", "[2, 3]"),
        ("reduce(ARRAY[1, 2, 3], 0, (s, x) -> s + x, s -> s)", "6"),
        ("any_match(ARRAY[1, 2], x -> x > 1)", "true"),
        ("all_match(ARRAY[1, 2], x -> x > 1)", "false"),
        ("none_match(ARRAY[1, 2], x -> x > 5)", "true"),
        ("slice(ARRAY[1, 2, 3, 4], 2, 2)", "[2, 3]"),
        ("array_position(ARRAY['a'], 'b')", "0"),
        ("arrays_overlap(ARRAY[1], ARRAY[1, 2])", "true"),
        ("any_match(ARRAY[ARRAY[1, 2, 3]], x -> cardinality(slice(x, 2, 2)) = 2)", "true"),
        ("MAP(ARRAY['a', 'b'], ARRAY[1, 2])", "{a=1, b=2}"),
        ("ARRAY['a', NULL]", "[a, null]"),
        ("json_extract_scalar('{\"a\": {\"b\": 3}}', '$.a.b')", "3"),
        ("try(CAST('x' AS integer))", None),
        ("try_cast('x' AS integer)", None),
        ("if(1 > 2, 'a', 'b')", "b"),
        ("coalesce(NULL, 'x')", "x"),
        ("CAST(1 AS double)", "1.0"),
        ("CAST(123456789 AS double)", "1.23456789E8"),
        ("CAST(0.0001 AS double)", "1.0E-4"),
        ("CAST(NULL AS varchar)", None),
        ("'it''s' LIKE 'it%'", "true"),
    ],
)
def test_expressions(expression: str, expected: str | None) -> None:
    assert one(f"SELECT {expression}") == [expected]


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("SELECT approx_distinct(modality), count(*), sum(number) FROM t", [["2", "2", "7"]]),
        ("SELECT modality, cardinality(spacing) FROM t ORDER BY day DESC", [["MR", "1"], ["CT", "2"]]),
        (
            "SELECT modality, s FROM t CROSS JOIN UNNEST(spacing) AS u (s) ORDER BY s",
            [["CT", "1.5"], ["CT", "2.5"], ["MR", "3.0"]],
        ),
        (
            "SELECT i FROM t CROSS JOIN UNNEST(spacing) WITH ORDINALITY AS u (s, i) WHERE s < 3 ORDER BY i",
            [["1"], ["2"]],
        ),
        ("SELECT max_by(modality, day), min_by(modality, day) FROM t", [["MR", "CT"]]),
        ("SELECT array_agg(modality ORDER BY day) FROM t", [["[CT, MR]"]]),
        ("SELECT map_agg(modality, cardinality(spacing)) FROM t WHERE modality = 'CT'", [["{CT=2}"]]),
        ("SELECT count_if(number > 5), count(number) FROM t", [["1", "1"]]),
        ("SELECT moment FROM t ORDER BY 1 LIMIT 1", [["2020-02-03 04:05:06.007"]]),
        ("SELECT modality FROM t WHERE day BETWEEN date '2020-01-01' AND date '2020-12-31'", [["CT"]]),
        (
            "SELECT row_number() OVER (ORDER BY day) n, modality FROM t ORDER BY n OFFSET 1 LIMIT 1",
            [["2", "MR"]],
        ),
        (
            "SELECT k, v FROM t CROSS JOIN UNNEST(MAP(ARRAY['a','b'], ARRAY[1, number])) u (k, v) ORDER BY v",
            [["a", "1"], ["a", "1"], ["b", "7"], ["b", None]],
        ),
    ],
)
def test_queries(query: str, expected: list[list[str]]) -> None:
    assert rows(f"WITH t AS ({ROWS}) {query}") == expected


@pytest.mark.parametrize(
    ("query", "complaint"),
    [
        ("SELEC 1", "SYNTAX_ERROR|NOT_SUPPORTED"),
        ("SELECT FROM WHERE", "SYNTAX_ERROR"),
        ("SELECT 1; SELECT 2", "expected one statement, found 2"),
        ("INSERT INTO t VALUES (1)", "queries only, not INSERT"),
        ("SELECT no_such_function(1)", "FUNCTION_NOT_FOUND"),
        ("SELECT nothing", "SYNTAX_ERROR"),
        ("SELECT CAST('x' AS integer)", "INVALID_CAST_ARGUMENT"),
        ("SELECT * FROM read_csv('/etc/passwd')", "PERMISSION_DENIED"),
        ("SELECT reduce(ARRAY[1], 0, (s, x) -> s + x, s -> s * 2)", "NOT_SUPPORTED"),
        ("SELECT format_datetime(now(), 'yyyy Q')", "NOT_SUPPORTED"),
        ("SELECT date_trunc('hour', date '2020-01-02')", "'hour' is not a valid DATE field"),
        ("SELECT date '2020-01-02' + interval '1' hour", "'hour' is not a valid DATE field"),
    ],
)
def test_refusals(query: str, complaint: str) -> None:
    with pytest.raises(QueryError, match=complaint):
        rows(query)


def test_tables_of_a_query() -> None:
    query = parse('WITH c AS (SELECT * FROM "Data".Series) SELECT * FROM c JOIN instances i ON true')
    assert tables(query) == {("data", "series"), ("", "instances")}


def test_execution_parameters() -> None:
    assert (
        bind("SELECT * FROM t WHERE a = ? AND b > ?", ["'x'", "3"])
        == "SELECT * FROM t WHERE a = 'x' AND b > 3"
    )
    with pytest.raises(QueryError, match="expected 1 parameters, got 2"):
        bind("SELECT ?", ["1", "2"])


@pytest.mark.parametrize(
    ("expression", "value", "kind"),
    [
        ("date_trunc('month', a)", "2020-02-01", "date"),
        ("date_add('day', -3, a)", "2020-01-31", "date"),
        ("a + interval '2' day", "2020-02-05", "date"),
        ("interval '1' month + a", "2020-03-03", "date"),
        ("date_trunc('year', a - interval '2' month)", "2019-01-01", "date"),
        ("max(a) - interval '1' year", "2019-02-03", "date"),
        ("date_trunc('month', b)", "2020-02-01 00:00:00.000", "timestamp"),
        ("date_trunc('hour', b) + interval '1' hour", "2020-02-03 05:00:00.000", "timestamp"),
    ],
)
def test_a_moment_that_is_moved_keeps_its_type(expression: str, value: str, kind: str) -> None:
    """Trino documents "[same as input]". The CTE renames: no declared column says what it is."""
    sql = (
        f"WITH t AS ({ROWS}), renamed AS (SELECT day AS a, moment AS b FROM t WHERE modality = 'CT')"  # noqa: S608 - this test's own expressions
        f" SELECT {expression} FROM renamed"
    )
    result: dict[str, Any] = asyncio.run(engine.run(sql, "default"))
    assert (result["rows"], result["column_types"]) == ([[value]], [kind])


def test_map_columns_are_counted() -> None:
    assert (
        "CARDINALITY"
        in to_duckdb(parse("SELECT cardinality(m) FROM t"), types={"m": "map<string,int>"}).upper()
    )


@pytest.mark.parametrize(
    ("hive", "expected"),
    [
        ("array<double>", "DOUBLE[]"),
        ("map<string,int>", "MAP(TEXT, INT)"),
        ("struct<a:int,b:array<string>>", "STRUCT(a INT, b TEXT[])"),
        ("decimal(10,2)", "DECIMAL(10, 2)"),
        ("timestamp", "TIMESTAMP"),
    ],
)
def test_types_of_the_catalog(hive: str, expected: str) -> None:
    assert duckdb_type(hive) == expected


def test_values() -> None:
    assert text({"a": [1.0, None], "b": True}) == "{a=[1.0, null], b=true}"
