"""Frames, fetched and decoded side by side.

GetImageFrame allows 1000 requests a second, against 50 of DICOMweb, so frames are fetched with it. Threads
fetch and decode: the decoders release the interpreter's lock. A bounded number of frames is under way at
any time, so memory does not grow with the image set.
"""

from __future__ import annotations

import logging
import os
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import asdict, dataclass
from threading import Semaphore
from typing import Any, Generic, TypeVar

from healthimaging.dicom.frame_counts import require_all_frames
from healthimaging.errors import FrameChecksumError, FrameDecodeError, FrameUnavailableError
from healthimaging.frames.codecs import PixelArray
from healthimaging.frames.connections import Cancellation
from healthimaging.frames.decoding import decode_frame
from healthimaging.frames.retries import RequestFailedError, retrying
from healthimaging.frames.transport import FrameSource, frame_source
from healthimaging.metadata import InstanceRecord
from healthimaging.timings import ProgressCallback, Reporter, Stopwatch, Timings

WORKERS = 16
"""Requests under way at once. They hide the latency, and stay far below the service's 1000 a second."""

_DECODERS = os.cpu_count() or 1
"""Threads beyond those: while as many decode, every request that is allowed is still under way."""

CANCEL_SECONDS = 1.0
"""How long a read that ends early waits for its threads, whose connections it breaks. One that is still
connecting, or is in boto3, is left behind and ends when its request times out, without another attempt.
"""

Taken = TypeVar("Taken")

_LOGGER = logging.getLogger("healthimaging")


@dataclass(frozen=True, kw_only=True, eq=False)
class Frame:
    """One verified frame."""

    instance_uid: str
    """SOP Instance UID."""
    number: int
    """Counted from 1 within the instance, as DICOM does."""
    pixels: PixelArray
    """(rows, columns), or (rows, columns, samples) for colour: stored values before any rescale."""


@dataclass(frozen=True, kw_only=True)
class FrameReading(Generic[Taken]):
    """How frames are read, and what is made of each.

    Attributes:
        take: What is made of a frame, in the thread that decoded it.
        out: The array to decode a frame (instance, number) into, where that is possible; see `decode_frame`.
        level: As in `decode_frame`.
        workers: Requests under way at once; as many frames again may wait to be taken.
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
        workers: Requests under way at once; as many frames again may wait to be taken.
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
    source = frame_source(client)
    total = len(frames)
    reporter = Reporter(reading.progress, total=total)
    until = Cancellation()
    requests = Semaphore(reading.workers)
    threads = max(1, min(reading.workers + _DECODERS, total))
    pool = ThreadPoolExecutor(max_workers=threads, thread_name_prefix="frame")
    under_way: deque[Future[_Delivered[Taken]]] = deque()

    begin = time.perf_counter()
    spent = Stopwatch()

    def taken() -> Taken:
        delivered = under_way.popleft().result()
        for stopwatch in (spent, reading.stopwatch):
            if stopwatch is not None:
                stopwatch.add(**delivered.spent)
        reporter.arrived(int(delivered.spent["stored_bytes"]))
        return delivered.value

    try:
        for instance, number in frames:
            under_way.append(pool.submit(_deliver, source, instance, number, reading, requests, until))
            if len(under_way) >= 2 * reading.workers:
                yield taken()
        while under_way:
            yield taken()
    finally:
        # Nothing is under way after a read that came to its end.
        until.set()
        running = [future for future in under_way if not future.cancel()]
        stalled = wait(running, timeout=CANCEL_SECONDS).not_done
        pool.shutdown(wait=not stalled, cancel_futures=True)
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


@dataclass(frozen=True, kw_only=True)
class _Delivered(Generic[Taken]):
    value: Taken
    spent: dict[str, float]
    """What it adds to `Timings`."""


def _deliver(
    source: FrameSource,
    instance: InstanceRecord,
    number: int,
    reading: FrameReading[Taken],
    requests: Semaphore,
    until: Cancellation,
) -> _Delivered[Taken]:
    """Fetches, decodes and takes one frame."""
    record = instance.frames[number - 1]
    attempts = 0

    def attempt() -> bytes:
        nonlocal attempts
        attempts += 1
        return source.get(
            datastore_id=instance.datastore_id,
            image_set_id=instance.image_set_id,
            frame_id=record.frame_id,
            until=until,
        )

    def fetch() -> bytes:
        try:
            with requests:
                return retrying(attempt, pace=source.pace, until=until, attempts=source.attempts)
        except RequestFailedError as failure:
            raise FrameUnavailableError(
                f"The frame could not be read: GetImageFrame: {failure.code}",
                code=failure.code,
                image_set_id=instance.image_set_id,
                sop_instance_uid=instance.sop_instance_uid,
                frame_number=number,
            ) from failure

    def decode(data: bytes) -> PixelArray:
        out = reading.out(instance, number) if reading.out is not None else None
        return decode_frame(
            data, instance=instance, number=number, record=record, level=reading.level, out=out
        )

    begin = time.perf_counter()
    data = fetch()
    fetched = time.perf_counter()
    try:
        pixels = decode(data)
    except (FrameChecksumError, FrameDecodeError) as damaged:
        if record.checksum is None:
            raise
        # Damaged in the archive or on the way: only another copy can tell.
        try:
            again = fetch()
        except FrameUnavailableError:
            raise damaged from None
        if again == data:
            raise
        data = again
        pixels = decode(data)
    value = reading.take(Frame(instance_uid=instance.sop_instance_uid, number=number, pixels=pixels))
    return _Delivered(
        value=value,
        spent={
            "fetch_seconds": fetched - begin,
            "decode_seconds": time.perf_counter() - fetched,
            "retries": attempts - 1,
            "frames": 1,
            "stored_bytes": len(data),
            "decoded_bytes": pixels.nbytes,
        },
    )
