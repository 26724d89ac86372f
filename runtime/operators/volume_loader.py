"""Fetches and decodes the volume of the selected series."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from monai.deploy.core import Operator, OperatorSpec
from pydicom import Dataset

from healthimaging import Geometry, Volume
from healthimaging.errors import VolumeError
from healthimaging.volumes.planning import plan_volumes
from runtime.metrics import VolumeFigures
from runtime.operators.exchange import Exchange
from runtime.operators.faults import reported
from runtime.operators.messages import SelectedSeries, SourceVolume


def only_volume(volumes: list[Volume]) -> Volume:
    """The one volume of a series that a model can be given.

    Raises:
        VolumeError: The series holds several, or colours: which of them a model was trained for is not known.
    """
    first = volumes[0]
    if len(volumes) == 1 and first.array.ndim == 3:
        return first
    what = f"{len(volumes)} volumes" if len(volumes) > 1 else "colours"
    msg = f"The series holds {what}, a model takes one volume of one quantity"
    raise VolumeError(msg, series_instance_uid=first.series_instance_uid)


def load_volume(selected: SelectedSeries) -> Volume:
    """Fetch and decode the one volume of a series.

    Raises:
        VolumeError: As `only_volume`.
        HealthImagingError: As `ImageSet.volumes`.
    """
    return only_volume(selected.opened.image_set.volumes(series_instance_uid=selected.series_instance_uid))


def planned(selected: SelectedSeries) -> tuple[SelectedSeries, Geometry]:
    """The instances of the volume that `load_volume` gives, and its grid, from the header alone.

    Raises:
        VolumeError: The series holds several volumes.
        HealthImagingError: As `healthimaging.volumes.planning.plan_volumes`.
    """
    plans = plan_volumes(selected.opened.image_set.metadata.series[selected.series_instance_uid])
    if len(plans) != 1:
        msg = f"The series holds {len(plans)} volumes, a model takes one volume of one quantity"
        raise VolumeError(msg, series_instance_uid=selected.series_instance_uid)
    uids = [instance.sop_instance_uid for instance, _ in plans[0].frames]
    return replace(selected, headers=headers_of(selected, uids)), plans[0].stack.geometry


def headers_of(selected: SelectedSeries, instance_uids: Iterable[str]) -> tuple[Dataset, ...]:
    """The headers of a volume's instances in the order of its slices: a series may hold more than them.

    A multi-frame instance repeats among the slices; it is one source all the same.
    """
    headers = {str(header.SOPInstanceUID): header for header in selected.headers}
    return tuple(headers[uid] for uid in dict.fromkeys(instance_uids))


class VolumeLoader(Operator):
    """Reads the frames through ``healthimaging``, which verifies every one and orders them by geometry."""

    def __init__(self, fragment: Any, *args: Any, exchange: Exchange, **kwargs: Any) -> None:
        self._exchange = exchange
        super().__init__(fragment, *args, **kwargs)

    def setup(self, spec: OperatorSpec) -> None:
        spec.input("selected")
        spec.output("source")

    @reported
    def compute(self, op_input: Any, op_output: Any, context: Any) -> None:
        selected: SelectedSeries = op_input.receive("selected")
        image_set = selected.opened.image_set
        before = image_set.timings.decode_seconds
        with self._exchange.phase("fetch"):
            volume = load_volume(selected)
        # Its seconds are those of as many threads as there are cores.
        decoding = (image_set.timings.decode_seconds - before) / len(os.sched_getaffinity(0))
        self._exchange.move(decoding, of="fetch", to="decode")
        self._exchange.volume = VolumeFigures(
            modality=volume.modality, slices=volume.array.shape[0], spacing=volume.geometry.spacing
        )
        headers = headers_of(selected, volume.instance_uids)
        source = SourceVolume(opened=selected.opened, volume=volume, headers=headers)
        op_output.emit(source, "source")
