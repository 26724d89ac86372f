"""Dates and timestamps that are moved or truncated.

Trino keeps the type: a date plus two days, and a date truncated to its month, are dates
(https://trino.io/docs/current/functions/datetime.html, date_add and date_trunc "[same as input]"). DuckDB
makes timestamps of them. Which type an expression has, only DuckDB knows, through every subquery and CTE; so
it is told to give the result the type of the operand.
"""

from __future__ import annotations

from sqlglot import exp

_OF_A_DAY = ("hour", "minute", "second", "millisecond")


class NotOfADateError(Exception):
    """A date has no hours: Trino refuses to move or truncate it by them."""


def moved(node: exp.Expression) -> exp.Expression | None:
    """What a node moves or truncates; None if it does something else."""
    if isinstance(node, exp.DateAdd | exp.DateSub | exp.DateTrunc | exp.TimestampTrunc):
        return node.this
    if isinstance(node, exp.Add | exp.Sub) and isinstance(node.expression, exp.Interval):
        return node.this
    if isinstance(node, exp.Add) and isinstance(node.this, exp.Interval):
        return node.expression
    return None


def of_the_same_type(node: exp.Expression, operand: exp.Expression, *, is_date: bool) -> exp.Expression:
    """The node, as a value of its operand's type.

    Raises:
        NotOfADateError: The operand is known to be a date, and the unit is a part of a day.
    """
    unit = _unit(node)
    if is_date and unit in _OF_A_DAY:
        raise NotOfADateError(f"{unit!r} is not a valid DATE field")
    return exp.Anonymous(this="cast_to_type", expressions=[node.copy(), operand.copy()])


def _unit(node: exp.Expression) -> str:
    interval = next((side for side in (node.expression, node.this) if isinstance(side, exp.Interval)), node)
    return str(interval.text("unit")).lower()
