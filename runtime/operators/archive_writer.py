"""Stores the object that a result is beside its source."""

from __future__ import annotations

from typing import Any

from monai.deploy.core import Operator, OperatorSpec

from runtime.operators.exchange import Exchange
from runtime.operators.faults import reported
from runtime.operators.messages import ResultObject, SelectedSeries, StoredResultObject
from runtime.results.results import Results


class ArchiveWriter(Operator):
    """Stores by STOW-RS into the source's study, and passes the object on when it is seen to be primary."""

    def __init__(
        self, fragment: Any, *args: Any, exchange: Exchange, results: Results, **kwargs: Any
    ) -> None:
        self._exchange = exchange
        self._results = results
        super().__init__(fragment, *args, **kwargs)

    def setup(self, spec: OperatorSpec) -> None:
        spec.input("result")
        spec.output("stored")

    @reported
    def compute(self, op_input: Any, op_output: Any, context: Any) -> None:
        message: ResultObject = op_input.receive("result")
        source = message.source
        with self._exchange.phase("store"):
            found = self._results.store(
                datastore_id=source.opened.image_set.ref.datastore_id, dataset=message.dataset
            )
        series = SelectedSeries(
            opened=source.opened,
            series_instance_uid=source.volume.series_instance_uid,
            headers=source.headers,
        )
        op_output.emit(
            StoredResultObject(series=series, grid=source.volume.geometry, volume=source.volume, found=found),
            "stored",
        )
