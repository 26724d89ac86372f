"""Makes a DICOM SEG of the masks."""

from __future__ import annotations

from typing import Any

from monai.deploy.core import Operator, OperatorSpec

from healthimaging import SegmentDescription, write_segmentation
from runtime.bundles.bundle import Bundle
from runtime.operators.exchange import Exchange
from runtime.operators.faults import reported
from runtime.operators.messages import Masks, ResultObject
from runtime.reports.equipment import (
    MANUFACTURER,
    SEGMENTATION_SERIES_NUMBER,
    algorithm_version,
    series_description,
)


class SegmentationWriter(Operator):
    """Writes one segment for each of the bundle's channels but background, with its coded terms."""

    def __init__(self, fragment: Any, *args: Any, exchange: Exchange, bundle: Bundle, **kwargs: Any) -> None:
        self._exchange = exchange
        self._bundle = bundle
        super().__init__(fragment, *args, **kwargs)

    def setup(self, spec: OperatorSpec) -> None:
        spec.input("masks")
        spec.output("result")

    @reported
    def compute(self, op_input: Any, op_output: Any, context: Any) -> None:
        message: Masks = op_input.receive("masks")
        identity = message.source.opened.identity
        model = self._bundle.identity
        with self._exchange.phase("write"):
            dataset = write_segmentation(
                source=list(message.source.headers),
                masks=message.masks,
                grid=message.source.volume.geometry,
                segments=self._segments(),
                series_instance_uid=identity.series_instance_uid,
                sop_instance_uid=identity.sop_instance_uid,
                series_number=SEGMENTATION_SERIES_NUMBER,
                series_description=series_description(model),
                algorithm_name=model.name[:64],
                algorithm_version=algorithm_version(model),
                manufacturer=MANUFACTURER,
                manufacturer_model_name=model.name[:64],
                software_version=model.version[:64],
                device_serial_number=model.sha256,
            )
        op_output.emit(ResultObject(source=message.source, dataset=dataset), "result")

    def _segments(self) -> list[SegmentDescription]:
        channels = self._bundle.files.segment_channels
        terms = self._bundle.terms
        return [
            SegmentDescription(
                number=number,
                label=channel.name[:64],
                category=terms[channel.name].category,
                type=terms[channel.name].type,
                color=terms[channel.name].color,
            )
            for number, channel in enumerate(channels, start=1)
        ]
