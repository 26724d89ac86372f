"""Whether the conditions of a Condition step hold."""

from __future__ import annotations

import json
import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any

_COMPARE: Mapping[str, Callable[[Any, Any], Any]] = {
    "Equals": operator.eq,
    "GreaterThan": operator.gt,
    "GreaterThanOrEqualTo": operator.ge,
    "LessThan": operator.lt,
    "LessThanOrEqualTo": operator.le,
}


class ConditionError(Exception):
    """Two values that cannot be compared."""


def hold(conditions: Sequence[Mapping[str, Any]]) -> bool:
    """Whether all of them hold; references are resolved already.

    Raises:
        ConditionError: one cannot be decided, whatever the others say.
    """
    outcomes = [_holds(condition) for condition in conditions]
    return all(outcomes)


def _holds(condition: Mapping[str, Any]) -> bool:
    kind = condition["Type"]
    if kind == "Not":
        return not _holds(condition["Expression"])
    if kind == "Or":
        return any(_holds(entry) for entry in condition["Conditions"])
    if kind == "In":
        return condition["QueryValue"] in condition["Values"]
    left, right = condition["LeftValue"], condition["RightValue"]
    if kind != "Equals" and (not _is_number(left) or not _is_number(right)):
        raise ConditionError(f"{kind} compares numbers, got {json.dumps(left)} and {json.dumps(right)}")
    return bool(_COMPARE[kind](left, right))


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
