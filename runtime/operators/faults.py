"""Keeps exceptions of operators out of holoscan.

An exception that reaches holoscan 4.6 (``SystemExit`` is one) does come out of ``Application.run``, but the
process dies with a segmentation fault in a later run: always when two runs in a row fail, and often when the
first exception is still referred to. So an operator that fails says so on its exchange, emits nothing, and
the graph ends as one whose result was found early.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, Protocol, TypeVar

from runtime.operators.exchange import Exchange


class _OfExchange(Protocol):
    _exchange: Exchange


_OperatorT = TypeVar("_OperatorT", bound=_OfExchange)


def reported(
    compute: Callable[[_OperatorT, Any, Any, Any], None],
) -> Callable[[_OperatorT, Any, Any, Any], None]:
    """Decorate ``compute`` of an operator that has ``_exchange``: what it raises ends the exchange."""

    @wraps(compute)
    def guarded(operator: _OperatorT, op_input: Any, op_output: Any, context: Any) -> None:
        try:
            compute(operator, op_input, op_output, context)
        except BaseException as error:  # noqa: BLE001 - whatever it was, the application raises it again
            operator._exchange.failure = error

    return guarded
