"""Stores the segmentation beside its source."""

from __future__ import annotations

from typing import Any

from monai.deploy.core import Operator, OperatorSpec

from runtime.operators.exchange import Exchange
from runtime.operators.messages import Segmentation
from runtime.results.results import Results


class ArchiveWriter(Operator):
    """Stores by STOW-RS into the source's study, checks that the result is primary, and ends the exchange."""

    def __init__(
        self, fragment: Any, *args: Any, exchange: Exchange, results: Results, **kwargs: Any
    ) -> None:
        self._exchange = exchange
        self._results = results
        super().__init__(fragment, *args, **kwargs)

    def setup(self, spec: OperatorSpec) -> None:
        spec.input("segmentation")

    def compute(self, op_input: Any, op_output: Any, context: Any) -> None:
        message: Segmentation = op_input.receive("segmentation")
        identity = message.opened.identity
        with self._exchange.phase("store"):
            stored = self._results.store(
                datastore_id=message.opened.image_set.ref.datastore_id, dataset=message.dataset
            )
        with self._exchange.phase("write"):
            self._exchange.result = self._results.describe(
                identity=identity, dataset=message.dataset, stored=stored
            )
