"""Volumes and datasets from headers and frames, of one image set or of several."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from functools import cache
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np

from healthimaging.errors import HealthImagingError, SeriesNotFoundError
from healthimaging.frames.codecs import FrameLayout, PixelArray
from healthimaging.frames.counts import require_all_frames
from healthimaging.frames.fetching import FrameReading, frames_of, read_frames
from healthimaging.metadata import ImageSetMetadata, InstanceRecord, SeriesRecord
from healthimaging.timings import ProgressCallback, Stopwatch
from healthimaging.volumes.assembly import Assembly
from healthimaging.volumes.planning import plan_volumes
from healthimaging.volumes.resampling import resample as resample_volume
from healthimaging.volumes.slices import SPACING_TOLERANCE
from healthimaging.volumes.volume import Volume

if TYPE_CHECKING:
    from pydicom import Dataset

    from healthimaging.dicom.datasets import DatasetBuilder
    from healthimaging.dicom.elements import BulkReader
    from healthimaging.dicomweb.client import DicomWeb


def chosen_series(series: Iterable[SeriesRecord], series_instance_uid: str | None) -> list[SeriesRecord]:
    """The one series that is wanted; every series when None.

    Raises:
        SeriesNotFoundError: It is not among them.
    """
    series = list(series)
    found = [one for one in series if series_instance_uid in (None, one.series_instance_uid)]
    if series_instance_uid is not None and not found:
        msg = f"The series is not among the {len(series)} that were opened"
        raise SeriesNotFoundError(msg, series_instance_uid=series_instance_uid)
    return found


def read_volumes(
    client: Any,
    series: Sequence[SeriesRecord],
    *,
    spacing_tolerance: float = SPACING_TOLERANCE,
    resample: bool = False,
    level: int = 0,
    accept_incomplete: bool = False,
    workers: int,
    progress: ProgressCallback | None = None,
    stopwatch: Stopwatch | None = None,
) -> list[Volume]:
    """The volumes of the series, all planned before the first frame is fetched.

    As `ImageSet.volumes`; instances of a series may lie in several image sets.
    """
    plans = [
        plan
        for one in series
        for plan in plan_volumes(
            one,
            spacing_tolerance=spacing_tolerance,
            resample=resample,
            level=level,
            accept_incomplete=accept_incomplete,
        )
    ]
    assemblies = [Assembly(plan) for plan in plans]
    home = {
        (instance.sop_instance_uid, number): assembly
        for plan, assembly in zip(plans, assemblies, strict=True)
        for instance, number in plan.frames
    }
    reading: FrameReading[None] = FrameReading(
        take=lambda frame: home[frame.instance_uid, frame.number].take(frame),
        out=lambda instance, number: home[instance.sop_instance_uid, number].out(instance, number),
        level=level,
        workers=workers,
        progress=progress,
        stopwatch=stopwatch,
    )
    for _ in read_frames(client, [frame for plan in plans for frame in plan.frames], reading):
        pass  # each is in its place already
    return [
        resample_volume(assembly.volume(), plan) for plan, assembly in zip(plans, assemblies, strict=True)
    ]


def read_datasets(
    client: Any,
    metadata: ImageSetMetadata,
    *,
    pixels: bool = True,
    bulk: BulkReader | None = None,
    workers: int,
    progress: ProgressCallback | None = None,
    stopwatch: Stopwatch | None = None,
) -> list[Dataset]:
    """Complete pydicom datasets of an image set, as `ImageSet.datasets`."""
    from healthimaging.dicom.datasets import (
        DatasetBuilder,
        attach_pixels,
        in_slice_order,
        pixel_bytes,
    )

    instances = in_slice_order(metadata)
    if not pixels:
        builder = DatasetBuilder(metadata)
        return [_built(builder, instance) for instance in instances]
    for instance in instances:
        require_all_frames(instance)
    scratch = _Scratch()
    reading: FrameReading[tuple[str, int, bytes]] = FrameReading(
        take=lambda frame: (frame.instance_uid, frame.number, pixel_bytes(frame.pixels)),
        out=scratch.of,
        workers=workers,
        progress=progress,
        stopwatch=stopwatch,
    )
    built = []
    wanted = [frame for instance in instances for frame in frames_of(instance)]
    with (
        closing(read_frames(client, wanted, reading)) as frames,
        _bulk_reader(client, metadata.datastore_id) as read_bulk,
    ):
        builder = DatasetBuilder(metadata, bulk=bulk or read_bulk)
        for instance in instances:
            # While it is built the frames are under way.
            dataset = _built(builder, instance)
            arrived = list(islice(frames, len(instance.frames)))
            if arrived:
                _require_own(instance, [(uid, number) for uid, number, _ in arrived])
                attach_pixels(dataset, instance, [data for _, _, data in arrived])
            built.append(dataset)
    return built


def _built(builder: DatasetBuilder, instance: InstanceRecord) -> Dataset:
    try:
        return builder.build(instance)
    except HealthImagingError as error:
        error.image_set_id = instance.image_set_id
        raise


def _require_own(instance: InstanceRecord, frames: Sequence[tuple[str, int]]) -> None:
    """Frames come in the order of the instances; this is what notices if that ever breaks."""
    expected = [(instance.sop_instance_uid, n) for n in range(1, len(instance.frames) + 1)]
    if list(frames) != expected:
        raise AssertionError("frames of another instance came")


class _Scratch(threading.local):
    """An array in each thread to decode into, where the pixels are copied from at once: new memory for each
    frame costs the system as much as a tenth of the decoding.
    """

    def __init__(self) -> None:
        self._array: PixelArray = np.empty(0)

    def of(self, instance: InstanceRecord, _number: int) -> PixelArray | None:
        """An array for a frame of the instance."""
        try:
            layout = FrameLayout.from_attributes(instance.attributes)
        except ValueError:
            return None  # decoding says what is wrong with it
        if self._array.shape != layout.shape or self._array.dtype != layout.dtype:
            self._array = np.empty(layout.shape, layout.dtype)
        return self._array


@contextmanager
def _bulk_reader(client: Any, datastore_id: str) -> Iterator[BulkReader]:
    """Reads large values over DICOMweb; nothing is connected until there is one."""
    with ExitStack() as opened:

        @cache
        def web() -> DicomWeb:
            from healthimaging.dicomweb.client import DicomWeb

            return opened.enter_context(DicomWeb(client, datastore_id))

        yield lambda uri: web().retrieve_bulk_data(uri)
