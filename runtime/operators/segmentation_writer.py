"""Makes a DICOM SEG of the masks."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from monai.deploy.core import Operator, OperatorSpec

from healthimaging import SegmentDescription, write_segmentation
from runtime.bundles.bundle import Bundle
from runtime.operators.exchange import Exchange
from runtime.operators.messages import Masks, Segmentation, SourceVolume

SERIES_NUMBER = 900
"""SeriesNumber (0020,0011) of results: above the numbers that scanners give, so viewers list them last."""

MANUFACTURER = "MONAI on AWS"
"""Manufacturer (0008,0070) of results; dispatch rules skip it, so that a result never starts an inference."""


_HASH_DIGITS = 32
"""Hexadecimal digits of the weights' SHA-256 in AlgorithmVersion (0066,0031), which holds 64 characters.
DeviceSerialNumber (0018,1000) has all of them: of software, the weights are what is unique."""


class SegmentationWriter(Operator):
    """Writes one segment for each of the bundle's channels but background, with its coded terms."""

    def __init__(self, fragment: Any, *args: Any, exchange: Exchange, bundle: Bundle, **kwargs: Any) -> None:
        self._exchange = exchange
        self._bundle = bundle
        super().__init__(fragment, *args, **kwargs)

    def setup(self, spec: OperatorSpec) -> None:
        spec.input("masks")
        spec.output("segmentation")

    def compute(self, op_input: Any, op_output: Any, context: Any) -> None:
        message: Masks = op_input.receive("masks")
        identity = message.source.opened.identity
        model = self._bundle.identity
        with self._exchange.phase("write"):
            dataset = write_segmentation(
                source=list(message.source.headers),
                masks=message.masks[:, _source_order(message.source)],
                segments=self._segments(),
                series_instance_uid=identity.series_instance_uid,
                sop_instance_uid=identity.sop_instance_uid,
                series_number=SERIES_NUMBER,
                series_description=f"{model.name} {model.version}"[:64],
                algorithm_name=model.name,
                algorithm_version=f"{model.version[:24]} sha256:{model.sha256[:_HASH_DIGITS]}",
                manufacturer=MANUFACTURER,
                manufacturer_model_name=model.name[:64],
                software_version=model.version[:64],
                device_serial_number=model.sha256,
            )
        op_output.emit(Segmentation(opened=message.source.opened, dataset=dataset), "segmentation")

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


def _source_order(source: SourceVolume) -> npt.NDArray[np.intp]:
    """Slices of the volume in the order in which the source's headers list them.

    Single-frame headers are in slice order already. A multi-frame instance numbers its frames as it likes,
    often from head to feet, where slices run from feet to head.
    """
    header_rank = {str(header.SOPInstanceUID): rank for rank, header in enumerate(source.headers)}
    volume = source.volume
    return np.lexsort((volume.frame_numbers, [header_rank[uid] for uid in volume.instance_uids]))
