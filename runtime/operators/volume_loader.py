"""Fetches and decodes the volume of the selected series."""

from __future__ import annotations

from typing import Any

from monai.deploy.core import Operator, OperatorSpec

from runtime.exchange import Exchange
from runtime.operators.messages import SelectedSeries, SourceVolume


class VolumeLoader(Operator):
    """Reads the frames through ``healthimaging``, which verifies every one and orders them by geometry."""

    def __init__(self, fragment: Any, *args: Any, exchange: Exchange, **kwargs: Any) -> None:
        self._exchange = exchange
        super().__init__(fragment, *args, **kwargs)

    def setup(self, spec: OperatorSpec) -> None:
        spec.input("selected")
        spec.output("source")

    def compute(self, op_input: Any, op_output: Any, context: Any) -> None:
        selected: SelectedSeries = op_input.receive("selected")
        with self._exchange.phase("fetch"):
            (volume,) = selected.opened.image_set.volumes(series_instance_uid=selected.series_instance_uid)
        headers = {str(header.SOPInstanceUID): header for header in selected.headers}
        # A multi-frame instance repeats among the slices; it is one source all the same.
        ordered = tuple(headers[uid] for uid in dict.fromkeys(volume.instance_uids))
        source = SourceVolume(opened=selected.opened, volume=volume, headers=ordered)
        op_output.emit(source, "source")
