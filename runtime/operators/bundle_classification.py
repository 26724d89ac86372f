"""Runs the warm bundle of a classification on the volume."""

from __future__ import annotations

from typing import Any

from monai.deploy.core import Operator, OperatorSpec

from healthimaging.monai import load_metatensor
from runtime.bundles.bundle import Bundle
from runtime.operators.exchange import Exchange
from runtime.operators.faults import reported
from runtime.operators.messages import Scores, SourceVolume


class BundleClassification(Operator):
    """Preprocessing, network and postprocessing as the bundle's inference configuration says: one
    probability for each class."""

    def __init__(self, fragment: Any, *args: Any, exchange: Exchange, bundle: Bundle, **kwargs: Any) -> None:
        self._exchange = exchange
        self._bundle = bundle
        super().__init__(fragment, *args, **kwargs)

    def setup(self, spec: OperatorSpec) -> None:
        spec.input("source")
        spec.output("scores")

    @reported
    def compute(self, op_input: Any, op_output: Any, context: Any) -> None:
        source: SourceVolume = op_input.receive("source")
        scores = self._bundle.classify(load_metatensor(source.volume), phase=self._exchange.phase)
        op_output.emit(Scores(source=source, scores=scores), "scores")
