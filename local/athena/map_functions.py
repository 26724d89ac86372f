"""Trino's functions on maps that DuckDB lacks, by lists of a map's entries."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from sqlglot import exp

_ENTRY = "entry$"


def map_filter(entries: exp.Expression, test: exp.Expression) -> exp.Expression:
    """map_filter(map, (k, v) -> boolean)"""
    return _from(_call("list_filter", _entries(entries), _of_entry(test)))


def transform_values(entries: exp.Expression, change: exp.Expression) -> exp.Expression:
    """transform_values(map, (k, v) -> value)"""
    return _map(_call("map_keys", entries), _call("list_transform", _entries(entries), _of_entry(change)))


def transform_keys(entries: exp.Expression, change: exp.Expression) -> exp.Expression:
    """transform_keys(map, (k, v) -> key)"""
    return _map(_call("list_transform", _entries(entries), _of_entry(change)), _call("map_values", entries))


def unnested(node: exp.Unnest) -> exp.Expression:
    """UNNEST(map) AS t (key, value), a row for each entry."""
    entries = node.expressions[0]
    alias = node.args["alias"]
    key, value = (column.copy() for column in alias.columns)
    rows = exp.select(
        exp.alias_(_call("unnest", _call("map_keys", entries)), key),
        exp.alias_(_call("unnest", _call("map_values", entries)), value),
    )
    return rows.subquery(alias.this.copy())


def is_unnested_map(node: exp.Expression, is_map: Callable[[exp.Expression], bool]) -> bool:
    """Whether a node is the UNNEST of one map, with names for its two columns."""
    if not isinstance(node, exp.Unnest) or len(node.expressions) != 1:
        return False
    alias = node.args.get("alias")
    named = alias is not None and len(alias.columns) == 2 and not node.args.get("offset")
    return bool(named and is_map(node.expressions[0]))


FUNCTIONS: Mapping[str, Callable[..., exp.Expression]] = {
    "map_filter": map_filter,
    "transform_values": transform_values,
    "transform_keys": transform_keys,
}


def _of_entry(function: exp.Expression) -> exp.Expression:
    """(k, v) -> ... as a function of one entry."""
    if not isinstance(function, exp.Lambda) or len(function.expressions) != 2:
        raise TypeError("a function of two arguments")
    fields = {
        parameter.name: _call("struct_extract", exp.column(_ENTRY, quoted=True), exp.Literal.string(field))
        for parameter, field in zip(function.expressions, ("key", "value"), strict=True)
    }
    body = exp.Paren(this=function.this.copy())
    # sqlglot has the arguments of a function as bare names, and other columns as columns.
    for name in list(body.find_all(exp.Identifier)):
        if name.name in fields and not isinstance(name.parent, exp.Column):
            name.replace(fields[name.name].copy())
    return exp.Lambda(this=body.this, expressions=[exp.to_identifier(_ENTRY, quoted=True)])


def _entries(entries: exp.Expression) -> exp.Expression:
    return _call("map_entries", entries)


def _from(entries: exp.Expression) -> exp.Expression:
    return _call("map_from_entries", entries)


def _map(keys: exp.Expression, values: exp.Expression) -> exp.Expression:
    return _call("map", keys, values)


def _call(name: str, *arguments: exp.Expression) -> exp.Expression:
    return exp.Anonymous(this=name, expressions=[argument.copy() for argument in arguments])
