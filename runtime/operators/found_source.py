"""Goes back from a result in the archive to what it was made of."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from monai.deploy.core import Operator, OperatorSpec

from runtime.operators.exchange import Exchange
from runtime.operators.faults import reported
from runtime.operators.messages import FoundResult, StoredResultObject
from runtime.operators.series_rules import SeriesRule
from runtime.operators.series_selection import select
from runtime.operators.volume_loader import planned


class FoundSource(Operator):
    """Takes the place of everything between selection and archive where the archive has the result, but not
    all that is asked for besides: an output was switched on later, or a container ended in between.
    """

    def __init__(
        self, fragment: Any, *args: Any, exchange: Exchange, rules: Sequence[SeriesRule], **kwargs: Any
    ) -> None:
        self._exchange = exchange
        self._rules = tuple(rules)
        super().__init__(fragment, *args, **kwargs)

    def setup(self, spec: OperatorSpec) -> None:
        spec.input("incomplete")
        spec.output("stored")

    @reported
    def compute(self, op_input: Any, op_output: Any, context: Any) -> None:
        message: FoundResult = op_input.receive("incomplete")
        with self._exchange.phase("select"):
            series, grid = planned(select(message.opened, self._rules))
        op_output.emit(
            StoredResultObject(series=series, grid=grid, volume=None, found=message.found), "stored"
        )
