"""Frames, fetched and decoded side by side.

GetImageFrame allows 1000 requests a second, against 50 of DICOMweb, so frames are fetched with it. Many
threads fetch, which hides the latency; one a core decodes, because decoding takes memory, and releases the
interpreter's lock. A bounded number of frames is under way at any time, so memory does not grow with the
image set.
"""

from __future__ import annotations

import logging
import os
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from typing import Any, Generic, TypeVar

from healthimaging.errors import (
    FrameChecksumError,
    FrameDecodeError,
    FrameError,
    FrameLayoutError,
    FrameUnavailableError,
)
from healthimaging.frames.codecs import PixelArray
from healthimaging.frames.connections import Cancellation
from healthimaging.frames.counts import require_all_frames
from healthimaging.frames.decoding import decode_frame
from healthimaging.frames.retries import RequestFailedError, retrying
from healthimaging.frames.transport import FrameSource, frame_source
from healthimaging.metadata import InstanceRecord
from healthimaging.threads import leave
from healthimaging.timings import ProgressCallback, Reporter, Stopwatch, Timings

WORKERS = 24
"""Requests under way at once. They hide the latency, and stay far below the service's 1000 a second."""

_WAITING = 8
"""Frames that may wait to be taken, so that a slow one does not stop the others."""

Taken = TypeVar("Taken")

_LOGGER = logging.getLogger("healthimaging")


@dataclass(frozen=True, kw_only=True, eq=False)
class Frame:
    """One verified frame."""

    instance_uid: str
    """SOP Instance UID."""
    number: int
    """Counted from 1 within the instance, as DICOM does."""
    pixels: PixelArray = field(repr=False)
    """(rows, columns), or (rows, columns, samples) for colour: stored values before any rescale."""


@dataclass(frozen=True, kw_only=True)
class FrameReading(Generic[Taken]):
    """How frames are read, and what is made of each.

    Attributes:
        take: What is made of a frame, in the thread that decoded it.
        out: The array to decode a frame (instance, number) into, where that is possible; see `decode_frame`.
        level: As in `decode_frame`.
        workers: Requests under way at once; a few frames more may wait to be taken.
        progress: Is told of every frame.
        stopwatch: Adds up where the time goes.
    """

    take: Callable[[Frame], Taken]
    out: Callable[[InstanceRecord, int], PixelArray | None] | None = None
    level: int = 0
    workers: int = WORKERS
    progress: ProgressCallback | None = None
    stopwatch: Stopwatch | None = None


def fetch_frames(
    client: Any,
    instances: Iterable[InstanceRecord],
    *,
    level: int = 0,
    workers: int = WORKERS,
    progress: ProgressCallback | None = None,
    stopwatch: Stopwatch | None = None,
) -> Generator[Frame]:
    """Yields every frame of the instances, in their order, as they arrive.

    Closing the iterator early stops the work: frames that are not yet under way are not fetched.

    Args:
        client: boto3 `medical-imaging` client.
        instances: Instances whose frames are wanted, of one or several image sets.
        level: As in `decode_frame`.
        workers: Requests under way at once; a few frames more may wait to be taken.
        progress: Is told of every frame.
        stopwatch: Adds up where the time goes.

    Raises:
        MetadataError: An instance has more or fewer frames than its header announces; before anything is
            fetched.
        FrameError: A frame cannot be delivered; the subclass says why and the fields say which.
    """
    instances = list(instances)
    for instance in instances:
        require_all_frames(instance)
    reading = FrameReading(
        take=lambda frame: frame, level=level, workers=workers, progress=progress, stopwatch=stopwatch
    )
    return read_frames(client, [frame for instance in instances for frame in frames_of(instance)], reading)


def frames_of(instance: InstanceRecord) -> list[tuple[InstanceRecord, int]]:
    """(instance, frame number from 1) of every frame of an instance."""
    return [(instance, number) for number in range(1, len(instance.frames) + 1)]


def read_frames(
    client: Any, frames: Sequence[tuple[InstanceRecord, int]], reading: FrameReading[Taken]
) -> Generator[Taken]:
    """As `fetch_frames`, of single frames (instance, number), yielding what `reading.take` made of each."""
    if reading.workers < 1:
        msg = f"At least one request must be allowed, got workers={reading.workers}"
        raise ValueError(msg)
    total = len(frames)
    reporter = Reporter(reading.progress, total=total)
    until = Cancellation()
    delivery = _Delivery(frame_source(client), reading, until)
    fetchers = ThreadPoolExecutor(max(1, min(reading.workers, total)), thread_name_prefix="frame")
    decoders = ThreadPoolExecutor(max(1, min(_cores(), total)), thread_name_prefix="frame decoder")
    under_way: deque[Future[Future[_Delivered[Taken]]]] = deque()
    decoding: set[Future[_Delivered[Taken]]] = set()

    def fetch_one(instance: InstanceRecord, number: int) -> Future[_Delivered[Taken]]:
        fetched = delivery.fetch(instance, number)
        future = decoders.submit(delivery.decode, fetched)
        decoding.add(future)
        future.add_done_callback(decoding.discard)
        return future

    begin = time.perf_counter()
    spent = Stopwatch()

    def taken() -> Taken:
        delivered = under_way.popleft().result().result()
        for stopwatch in (spent, reading.stopwatch):
            if stopwatch is not None:
                stopwatch.add(**delivered.spent)
        reporter.arrived(int(delivered.spent["stored_bytes"]))
        return delivered.value

    try:
        for instance, number in frames:
            under_way.append(fetchers.submit(fetch_one, instance, number))
            if len(under_way) >= reading.workers + _WAITING:
                yield taken()
        while under_way:
            yield taken()
    finally:
        # Nothing is under way after a read that came to its end.
        until.set()
        leave(fetchers, under_way)
        leave(decoders, list(decoding))
        _log(frames, spent.timings, time.perf_counter() - begin)


def _log(frames: Sequence[tuple[InstanceRecord, int]], spent: Timings, seconds: float) -> None:
    """One line a read; identifiers of image sets and numbers only."""
    if not _LOGGER.isEnabledFor(logging.INFO):
        return
    image_sets = ", ".join(dict.fromkeys(instance.image_set_id for instance, _ in frames))
    _LOGGER.info(
        "read %d of %d frames of image set %s in %.3f s: %.1f MB, %d retries; "
        "in threads %.3f s fetching, %.3f s decoding",
        spent.frames,
        len(frames),
        image_sets,
        seconds,
        spent.stored_bytes / 1e6,
        spent.retries,
        spent.fetch_seconds,
        spent.decode_seconds,
        extra={"image_sets": image_sets, "timings": asdict(spent)},
    )


def _cores() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@dataclass(frozen=True, kw_only=True)
class _Fetched:
    """The bytes of a frame, not verified."""

    instance: InstanceRecord
    number: int
    data: bytes
    attempts: int
    seconds: float


@dataclass(frozen=True, kw_only=True)
class _Delivered(Generic[Taken]):
    value: Taken
    spent: dict[str, float]
    """What it adds to `Timings`."""


class _Delivery(Generic[Taken]):
    """The way of one frame: fetched, decoded and verified, taken."""

    def __init__(self, source: FrameSource, reading: FrameReading[Taken], until: Cancellation) -> None:
        self._source = source
        self._reading = reading
        self._until = until

    def fetch(self, instance: InstanceRecord, number: int) -> _Fetched:
        """The bytes, after as many attempts as it takes."""
        source, frame_id = self._source, instance.frames[number - 1].frame_id
        attempts = 0

        def attempt() -> bytes:
            nonlocal attempts
            attempts += 1
            return source.get(
                datastore_id=instance.datastore_id,
                image_set_id=instance.image_set_id,
                frame_id=frame_id,
                until=self._until,
            )

        begin = time.perf_counter()
        try:
            data = retrying(attempt, pace=source.pace, until=self._until, attempts=source.attempts)
        except RequestFailedError as failure:
            raise FrameUnavailableError(
                f"The frame could not be read: GetImageFrame: {failure.code}",
                code=failure.code,
                image_set_id=instance.image_set_id,
                sop_instance_uid=instance.sop_instance_uid,
                frame_number=number,
            ) from failure
        return _Fetched(
            instance=instance,
            number=number,
            data=data,
            attempts=attempts,
            seconds=time.perf_counter() - begin,
        )

    def decode(self, fetched: _Fetched) -> _Delivered[Taken]:
        """What is made of the frame once it is verified."""
        begin = time.perf_counter()
        again: _Fetched | None = None
        try:
            pixels = self._pixels(fetched)
        except (FrameChecksumError, FrameDecodeError, FrameLayoutError) as damaged:
            again = self._another(fetched, damaged)
            pixels = self._pixels(again)
        frame = Frame(instance_uid=fetched.instance.sop_instance_uid, number=fetched.number, pixels=pixels)
        value = self._reading.take(frame)
        last = again or fetched
        return _Delivered(
            value=value,
            spent={
                "fetch_seconds": fetched.seconds + (again.seconds if again else 0),
                "decode_seconds": time.perf_counter() - begin - (again.seconds if again else 0),
                "retries": fetched.attempts + (again.attempts if again else 0) - 1,
                "frames": 1,
                "stored_bytes": len(last.data),
                "decoded_bytes": pixels.nbytes,
            },
        )

    def _pixels(self, fetched: _Fetched) -> PixelArray:
        instance, number, reading = fetched.instance, fetched.number, self._reading
        return decode_frame(
            fetched.data,
            instance=instance,
            number=number,
            record=instance.frames[number - 1],
            level=reading.level,
            out=reading.out(instance, number) if reading.out is not None else None,
        )

    def _another(self, fetched: _Fetched, damaged: FrameError) -> _Fetched:
        """Another copy of a damaged frame, which alone can tell whether the archive or the way is to blame.

        Raises:
            FrameError: `damaged`, where there is none, or it is the same.
        """
        if fetched.instance.frames[fetched.number - 1].checksum is None:
            raise damaged
        try:
            again = self.fetch(fetched.instance, fetched.number)
        except FrameUnavailableError:
            raise damaged from None
        if again.data == fetched.data:
            raise damaged
        return again
