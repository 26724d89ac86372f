"""Trino SQL -> DuckDB SQL.

sqlglot knows both dialects. What it leaves different is translated here; what cannot be translated is
refused, so that a query never runs with another meaning than on AWS. Source: functions of Athena engine
version 3 (Trino).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

import sqlglot
import sqlglot.errors
from sqlglot import exp

from local.athena import map_functions, moments

_JODA = {
    "yyyy": "%Y",
    "yy": "%y",
    "MMM": "%b",
    "MM": "%m",
    "dd": "%d",
    "HH": "%H",
    "hh": "%I",
    "mm": "%M",
    "ss": "%S",
    "SSS": "%g",
    "a": "%p",
    "EEEE": "%A",
    "EEE": "%a",
}
"""Fields of Joda patterns, of format_datetime and parse_datetime, in strftime's spelling."""


class QueryError(Exception):
    """A query that fails, with Athena's word for the kind of error first."""


def parse(sql: str) -> exp.Query:
    """The one query in a text. Anything but a query, and what is not Trino SQL, raises `QueryError`."""
    found = _one(sql)
    if not isinstance(found, exp.Query):
        raise QueryError(f"NOT_SUPPORTED: a view is a query, not a {found.key.upper()} statement")
    return found


def _one(sql: str) -> exp.Expression:
    """The one statement in a text."""
    try:
        statements = [found for found in sqlglot.parse(sql, read="athena") if found is not None]
    except sqlglot.errors.SqlglotError as error:
        raise QueryError(f"SYNTAX_ERROR: {_first_line(error)}") from error
    if len(statements) != 1:
        raise QueryError(f"SYNTAX_ERROR: expected one statement, found {len(statements)}")
    return statements[0]


def to_duckdb(query: exp.Query, *, types: Mapping[str, str] | None = None) -> str:
    """The query for DuckDB. `types` are the Hive types of the columns it reads, by name in lower case."""
    known = types or {}

    def rewrite(node: exp.Expression) -> exp.Expression:
        if isinstance(node, exp.ArraySize) and _is_map(node.this, known):
            return exp.Anonymous(this="cardinality", expressions=[node.this])
        if map_functions.is_unnested_map(node, lambda value: _is_map(value, known)):
            return map_functions.unnested(node)
        if isinstance(node, exp.Avg) and _decimal(node.this, known):
            # DuckDB makes a double of it; Trino keeps the type.
            return exp.cast(node.copy(), _decimal(node.this, known))
        moment = moments.moved(node)
        if moment is not None:
            return moments.of_the_same_type(node, moment, is_date=_is_date(moment, known))
        for kind, change in _NODES:
            if isinstance(node, kind):
                return change(node)
        if isinstance(node, exp.Anonymous) and node.name.lower() in _FUNCTIONS:
            return _FUNCTIONS[node.name.lower()](*node.expressions)
        return node

    translated = query.copy()
    try:
        # Innermost first: what is replaced contains what has been replaced before.
        for node in reversed(list(translated.walk())):
            replacement = rewrite(node)
            if replacement is not node:
                node.replace(replacement)
        return str(translated.sql("duckdb", unsupported_level=sqlglot.ErrorLevel.RAISE))
    except sqlglot.errors.UnsupportedError as error:
        raise QueryError(f"NOT_SUPPORTED: by the local Athena: {_first_line(error)}") from error
    except moments.NotOfADateError as error:
        raise QueryError(f"INVALID_FUNCTION_ARGUMENT: {error}") from error
    except (TypeError, ValueError) as error:
        raise QueryError("SYNTAX_ERROR: wrong number of arguments of a function") from error


def bind(sql: str, parameters: list[str]) -> str:
    """A statement with its `?` replaced by execution parameters, which are SQL literals, in order."""
    query = _one(sql)
    places = list(query.find_all(exp.Placeholder, bfs=False))
    if len(places) != len(parameters):
        raise QueryError(f"INVALID_PARAMETER_USAGE: expected {len(places)} parameters, got {len(parameters)}")
    for place, text in zip(places, parameters, strict=True):
        try:
            place.replace(sqlglot.parse_one(text, read="athena"))
        except sqlglot.errors.SqlglotError as error:
            raise QueryError(f"SYNTAX_ERROR: execution parameter: {_first_line(error)}") from error
    return str(query.sql("athena"))


def tables(query: exp.Query) -> set[tuple[str, str]]:
    """(database, table) of everything that a query reads; "" for the database of the context. Names in
    lower case."""
    named = {cte.alias_or_name.lower() for cte in query.find_all(exp.CTE)}
    return {
        (table.db.lower(), table.name.lower())
        for table in query.find_all(exp.Table)
        if table.name and (table.db or table.name.lower() not in named)
    }


def qualified(query: exp.Query, database: str) -> exp.Query:
    """The query with `database` before every table that names none."""
    result = query.copy()
    named = {cte.alias_or_name.lower() for cte in result.find_all(exp.CTE)}
    for table in result.find_all(exp.Table):
        if table.name and not table.db and table.name.lower() not in named:
            table.set("db", exp.to_identifier(database, quoted=True))
    return result


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0]


def _is_date(node: exp.Expression, types: Mapping[str, str]) -> bool:
    if isinstance(node, exp.Column):
        return types.get(node.name.lower()) == "date"
    if isinstance(node, exp.Paren):
        return _is_date(node.this, types)
    return isinstance(node, exp.CurrentDate) or (isinstance(node, exp.Cast) and node.is_type("date"))


def _decimal(node: exp.Expression, types: Mapping[str, str]) -> str:
    """The type of a column of decimals; "" for anything else."""
    kind = types.get(node.name.lower(), "") if isinstance(node, exp.Column) else ""
    return kind if kind.startswith("decimal") else ""


def _is_map(node: exp.Expression, types: Mapping[str, str]) -> bool:
    if isinstance(node, exp.Column):
        return types.get(node.name.lower(), "").startswith("map<")
    return isinstance(node, exp.Map | exp.VarMap) or (
        isinstance(node, exp.Anonymous) and node.name.lower().startswith("map")
    )


def _call(name: str, *arguments: exp.Expression) -> exp.Expression:
    return exp.Anonymous(this=name, expressions=[argument.copy() for argument in arguments])


def _matching(array: exp.Expression, test: exp.Expression) -> exp.Expression:
    return _call("len", _call("list_filter", array, test))


def _date_diff(node: exp.DateDiff) -> exp.Expression:
    """Trino counts complete units between two moments (an age in years); DuckDB's date_diff counts
    boundaries."""
    unit = exp.Literal.string(node.text("unit").lower() or "day")
    moments = [exp.cast(side.copy(), "timestamp") for side in (node.expression, node.this)]
    return _call("date_sub", unit, *moments)


def _slice(node: exp.ArraySlice) -> exp.Expression:
    """Trino's third argument is a length, DuckDB's is the last position."""
    start, length = node.args["start"], node.args["end"]
    end = exp.Sub(this=exp.Add(this=start.copy(), expression=length.copy()), expression=exp.Literal.number(1))
    return _call("list_slice", node.this, start, end)


def _reduce(node: exp.Reduce) -> exp.Expression:
    """A fourth argument that gives the state back unchanged, as it mostly does, may go."""
    finish = node.args.get("finish")
    identity = (
        isinstance(finish, exp.Lambda)
        and len(finish.expressions) == 1
        and finish.this.name == finish.expressions[0].name
        and isinstance(finish.this, exp.Identifier | exp.Column)
    )
    if identity:
        node.set("finish", None)
    return node


def _array_position(node: exp.ArrayPosition) -> exp.Expression:
    """Trino says 0 where there is none, DuckDB NULL."""
    return exp.Coalesce(
        this=_call("list_position", node.this, node.expression), expressions=[exp.Literal.number(0)]
    )


def _pattern(pattern: exp.Expression) -> exp.Expression:
    if not pattern.is_string:
        raise QueryError("NOT_SUPPORTED: by the local Athena: a date pattern that is not a literal")
    text, result = pattern.name, ""
    while text:
        field = next((joda for joda in _JODA if text.startswith(joda)), None)
        if field is None and text[0].isalpha():
            raise QueryError(f"NOT_SUPPORTED: by the local Athena: {text[0]!r} in the date pattern")
        result += _JODA[field] if field else text[0].replace("%", "%%")
        text = text[len(field) if field else 1 :]
    return exp.Literal.string(result)


def _format(node: exp.Format) -> exp.Expression:
    """Java's formats, which DuckDB's printf mostly has; `%s` takes any value."""
    if not node.this.is_string:
        raise QueryError("NOT_SUPPORTED: by the local Athena: a format that is not a literal")
    kinds = [kind for kind in _CONVERSION.findall(node.this.name) if kind != "%"]
    values = [
        exp.cast(value.copy(), "text") if kind == "s" else value
        for kind, value in zip(kinds, node.expressions, strict=True)
    ]
    return _call("printf", node.this, *values)


_CONVERSION = re.compile(r"%[-+# 0,.\d]*([a-zA-Z%])")
_ZERO = exp.Literal.number(0)

_NODES: tuple[tuple[type[exp.Expression], Callable[..., exp.Expression]], ...] = (
    (exp.DateDiff, _date_diff),
    (exp.Format, _format),
    (exp.ArraySlice, _slice),
    (exp.Reduce, _reduce),
    (exp.ArrayPosition, _array_position),
    (exp.ParseDatetime, lambda node: _call("strptime", node.this, _pattern(node.args["format"]))),
)

_FUNCTIONS: dict[str, Callable[..., exp.Expression]] = {
    **map_functions.FUNCTIONS,
    "any_match": lambda array, test: exp.paren(exp.GT(this=_matching(array, test), expression=_ZERO.copy())),
    "none_match": lambda array, test: exp.paren(exp.EQ(this=_matching(array, test), expression=_ZERO.copy())),
    "all_match": lambda array, test: exp.paren(
        exp.EQ(this=_matching(array, test), expression=_call("len", array))
    ),
    "arrays_overlap": lambda one, other: _call("list_has_any", one, other),
    "at_timezone": lambda moment, zone: _call("timezone", zone, moment),
    "codepoint": lambda text: _call("unicode", text),
    "format_datetime": lambda moment, pattern: _call("strftime", moment, _pattern(pattern)),
    "map_agg": lambda key, value: _call("map", _call("list", key), _call("list", value)),
}
