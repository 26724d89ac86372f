"""Answers from the archive when the result is already there."""

from __future__ import annotations

from typing import Any

from monai.deploy.core import Operator, OperatorSpec

from runtime.operators.exchange import Exchange
from runtime.operators.messages import OpenedImageSet
from runtime.results.results import Results


class StoredResult(Operator):
    """Passes an image set on only when the archive does not hold its segmentation by this model.

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

    def compute(self, op_input: Any, op_output: Any, context: Any) -> None:
        opened: OpenedImageSet = op_input.receive("opened")
        datastore_id = opened.image_set.ref.datastore_id
        with self._exchange.phase("lookup"):
            found = self._results.find(datastore_id=datastore_id, identity=opened.identity)
        if found is None:
            op_output.emit(opened, "missing")
            return
        dataset, stored = found
        with self._exchange.phase("write"):
            record = self._results.describe(identity=opened.identity, dataset=dataset, stored=stored)
        self._exchange.result = record
