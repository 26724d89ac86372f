"""Makes a structured report of the probabilities."""

from __future__ import annotations

from typing import Any

from monai.deploy.core import Operator, OperatorSpec

from runtime.bundles.bundle import Bundle
from runtime.operators.exchange import Exchange
from runtime.operators.faults import reported
from runtime.operators.messages import ResultObject, Scores
from runtime.reports.classification_report import write_classification_report


class ClassificationWriter(Operator):
    """Writes a DICOM SR with the probability of each class, which refers to every instance of the source."""

    def __init__(self, fragment: Any, *args: Any, exchange: Exchange, bundle: Bundle, **kwargs: Any) -> None:
        self._exchange = exchange
        self._bundle = bundle
        super().__init__(fragment, *args, **kwargs)

    def setup(self, spec: OperatorSpec) -> None:
        spec.input("scores")
        spec.output("result")

    @reported
    def compute(self, op_input: Any, op_output: Any, context: Any) -> None:
        message: Scores = op_input.receive("scores")
        with self._exchange.phase("write"):
            dataset = write_classification_report(
                scores=message.scores,
                source=message.source.headers,
                model=self._bundle.identity,
                result=message.source.opened.identity,
            )
        op_output.emit(ResultObject(source=message.source, dataset=dataset), "result")
