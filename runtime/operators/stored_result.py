"""Answers from the archive when the result is already there."""

from __future__ import annotations

from typing import Any

from monai.deploy.core import Operator, OperatorSpec

from runtime.operators.exchange import Exchange
from runtime.operators.faults import reported
from runtime.operators.messages import FoundResult, OpenedImageSet
from runtime.results.results import Results


class StoredResult(Operator):
    """Passes an image set on when the archive does not hold its result by this model, or not all that is
    asked for besides.

    Otherwise the exchange gets the stored result, and the rest of the graph has nothing to do.
    """

    def __init__(
        self, fragment: Any, *args: Any, exchange: Exchange, results: Results, **kwargs: Any
    ) -> None:
        self._exchange = exchange
        self._results = results
        super().__init__(fragment, *args, **kwargs)

    def setup(self, spec: OperatorSpec) -> None:
        spec.input("opened")
        spec.output("missing")
        spec.output("incomplete")

    @reported
    def compute(self, op_input: Any, op_output: Any, context: Any) -> None:
        opened: OpenedImageSet = op_input.receive("opened")
        datastore_id = opened.image_set.ref.datastore_id
        with self._exchange.phase("lookup"):
            found = self._results.find(datastore_id=datastore_id, identity=opened.identity)
        if found is None:
            op_output.emit(opened, "missing")
            return
        if self._results.missing(found):
            op_output.emit(FoundResult(opened=opened, found=found), "incomplete")
            return
        with self._exchange.phase("write"):
            self._exchange.result = self._results.describe(
                datastore_id=datastore_id, identity=opened.identity, found=found
            )
