"""Runs the warm bundle on the volume."""

from __future__ import annotations

from typing import Any

from monai.deploy.core import Operator, OperatorSpec

from healthimaging.monai import load_metatensor
from runtime.bundles.bundle import Bundle
from runtime.bundles.channel_masks import channel_masks
from runtime.operators.exchange import Exchange
from runtime.operators.faults import reported
from runtime.operators.messages import Masks, SourceVolume


class BundleInference(Operator):
    """Preprocessing, network and postprocessing as the bundle's inference configuration says."""

    def __init__(self, fragment: Any, *args: Any, exchange: Exchange, bundle: Bundle, **kwargs: Any) -> None:
        self._exchange = exchange
        self._bundle = bundle
        super().__init__(fragment, *args, **kwargs)

    def setup(self, spec: OperatorSpec) -> None:
        spec.input("source")
        spec.output("masks")

    @reported
    def compute(self, op_input: Any, op_output: Any, context: Any) -> None:
        source: SourceVolume = op_input.receive("source")
        with self._exchange.phase("preprocess"):
            image = load_metatensor(source.volume)
        prediction = self._bundle.predict(image, phase=self._exchange.phase)
        with self._exchange.phase("postprocess"):
            masks = channel_masks(prediction, self._bundle.files.channels)
        op_output.emit(Masks(source=source, masks=masks), "masks")
