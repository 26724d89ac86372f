"""Makes and stores what is asked for besides the result, and ends the exchange."""

from __future__ import annotations

from typing import Any

from monai.deploy.core import Operator, OperatorSpec

from runtime.bundles.bundle import Bundle
from runtime.operators.exchange import Exchange
from runtime.operators.faults import reported
from runtime.operators.messages import StoredResultObject
from runtime.operators.volume_loader import load_volume
from runtime.reports.derived import Derived, derive
from runtime.results.outputs import Output
from runtime.results.results import Results


class ReportWriter(Operator):
    """Writes what of a stored result is missing. The result is in the archive before anything that refers to
    it: where this fails, the next request for the same image set finds the result and comes here again.
    """

    def __init__(
        self, fragment: Any, *args: Any, exchange: Exchange, bundle: Bundle, results: Results, **kwargs: Any
    ) -> None:
        self._exchange = exchange
        self._bundle = bundle
        self._results = results
        super().__init__(fragment, *args, **kwargs)

    def setup(self, spec: OperatorSpec) -> None:
        spec.input("stored")

    @reported
    def compute(self, op_input: Any, op_output: Any, context: Any) -> None:
        message: StoredResultObject = op_input.receive("stored")
        opened, found = message.series.opened, message.found
        datastore_id = opened.image_set.ref.datastore_id
        missing = self._results.missing(found)
        derived = Derived()
        if missing:
            volume = message.volume
            if volume is None and Output.SNAPSHOT in missing:
                with self._exchange.phase("fetch"):
                    volume = load_volume(message.series)
            with self._exchange.phase("write"):
                derived = derive(
                    missing,
                    segmentation=found.primary.dataset,
                    source=message.series.headers,
                    grid=message.grid,
                    volume=volume,
                    model=self._bundle.identity,
                    result=opened.identity,
                )
            with self._exchange.phase("store"):
                found = self._results.store_reports(datastore_id=datastore_id, found=found, derived=derived)
        with self._exchange.phase("write"):
            self._exchange.result = self._results.describe(
                datastore_id=datastore_id,
                identity=opened.identity,
                found=found,
                label_maps=derived.label_maps,
            )
