"""The connector beside AHItoDICOMInterface and beside the floor, on real CT frames of the local cloud.

Clients take turns on the same image sets, each in a process of its own, over direct connections and with
added latency. The floor of a read is the larger of two times that no client can go below: processor time of
decoding divided by cores, and latency x requests / frames that may be under way at once. The local cloud
shares the cores with the clients, so without latency none can come near it: "bare requests" is a program that
does nothing but take the same frames from the same server, or decode them, too.

Figures are ratios of one run: absolute times are the machine's. Each has a goal, which is the project's for
two quiet cores, and a limit, which holds on a busy machine too; a check fails when the limit is broken.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import imagecodecs
import numpy as np
import numpy.typing as npt

from benchmarks.local_cloud import LocalCloud, local_cloud
from benchmarks.reading.archive import Archive
from benchmarks.reading.awscrt_package import make_awscrt_importable
from benchmarks.reading.client_way import (
    ARRAYS,
    BARE_ARRAYS,
    DATASETS,
    LIBRARY,
    LOG,
    PEER,
    PEER_DATASETS,
    WAYS,
    Way,
    start_readers,
)
from benchmarks.reading.damage import DAMAGES, damage_stored
from benchmarks.reading.latency import delayed
from benchmarks.reading.peer_environment import peer_python
from benchmarks.reading.reader import NoAnswerError, Reader, Reading
from benchmarks.reading.request_cost import request_costs
from benchmarks.reading.series import Series, chest_ct, store_series
from benchmarks.report import FOLDER, Progress, Report, cores
from healthimaging import ImageSet
from healthimaging.frames.fetching import WORKERS

LATENCIES = (0, 30)
"""Added to each request, milliseconds."""
SIZES = (200, 61, 1)
"""Instances of a series: 61 is the CT as it is, 200 repeats it."""
REPEATS = 5
HEADER_REQUESTS = 2
"""Before the first frame."""
DAMAGED_SECONDS = 20.0
"""How long a client may take over a series with a damaged frame before it counts as hanging."""


@dataclass(frozen=True, kw_only=True)
class Figure:
    """What a ratio shall reach, and what it must not fall short of."""

    goal: float
    limit: float


TIMES_PEER = {
    (200, 0): Figure(goal=5.0, limit=4.0),
    (61, 0): Figure(goal=5.0, limit=4.5),
    (1, 0): Figure(goal=10.0, limit=10.0),
    (200, 30): Figure(goal=5.0, limit=3.5),
    (61, 30): Figure(goal=5.0, limit=4.0),
    # Header and frame are two round trips, 60 ms: a ninth of what the peer takes.
    (1, 30): Figure(goal=10.0, limit=5.0),
}
"""Frames a second of this library against the peer's, both building datasets, by (instances, latency)."""
TIMES_FLOOR = Figure(goal=1.3, limit=4.0)
"""Seconds of arrays against the floor."""
TIMES_BARE = Figure(goal=1.3, limit=2.0)
"""Seconds of arrays against bare requests and decoding, which share the cores with the server, too."""
TIMES_PIXELS = Figure(goal=1.5, limit=1.5)
"""Peak memory against the bytes of the decoded pixels."""
ERROR_SECONDS = 5.0
"""Until a damaged frame is an exception."""


def run(progress: Progress) -> Report:
    """Everything above, in one run."""
    report = Report(name="connector")
    python = peer_python(progress)
    make_awscrt_importable(progress)
    LOG.unlink(missing_ok=True)
    with local_cloud(FOLDER) as cloud:
        archive = Archive.create(cloud)
        client = archive.client
        volume = chest_ct("lung2", progress)
        progress(f"importing series of {', '.join(map(str, SIZES))} instances")
        series = [store_series(archive, volume=volume, instances=size) for size in SIZES]
        progress("cost of a frame")
        decode = _costs(report, client, cloud, series[1])
        for milliseconds in LATENCIES:
            with delayed(cloud.endpoint_url, milliseconds=milliseconds) as endpoint_url, ExitStack() as stack:
                readers = start_readers(stack, python, endpoint_url)
                for one in series:
                    progress(f"{one.instances} instances, {milliseconds} ms, {REPEATS} times each")
                    _compare(report, readers, one, decode=decode, milliseconds=milliseconds)
        progress("memory")
        _memory(report, python, cloud, largest=series[0], smallest=series[-1])
        # Another CT, so that no frame of it is one of the series above: the cloud keeps equal frames once.
        small = store_series(archive, volume=chest_ct("lung1", progress), instances=8)
        progress("damaged frames")
        _damaged(report, client, cloud, python, small)
    return report


def _costs(report: Report, client: Any, cloud: LocalCloud, series: Series) -> float:
    """Rows of what a frame costs; answers the processor seconds of decoding one."""
    stored = series.stored
    image_set = ImageSet.open(client, stored.datastore_id, stored.image_set_id)
    frame_ids = [frame.frame_id for instance in image_set.metadata.instances for frame in instance.frames]
    title = "cost of a frame, one after the other in one thread (ms)"
    before = cloud.cpu_seconds()
    costs = request_costs(
        client, stored, endpoint_url=cloud.endpoint_url, frame_ids=frame_ids, rounds=REPEATS
    )
    # One more round, with boto3, gave the frames to compare with.
    requests = (REPEATS * len(costs) + 1) * len(frame_ids)
    server = (cloud.cpu_seconds() - before) / requests
    for cost in costs:
        report.row(title, what=cost.way, client_cpu=cost.cpu_milliseconds, wall=cost.milliseconds)
    decode = _decode_seconds(_stored_frames(client, series, frame_ids))
    report.row(title, what="HTJ2K decoding (OpenJPH), all cores at work", client_cpu=1000 * decode)
    report.row(title, what="the local cloud's server", server_cpu=1000 * server)
    return decode


def _decode_seconds(frames: Sequence[bytes]) -> float:
    """Processor time of decoding one frame into new memory while all cores do so, median of the repeats."""
    seconds = []
    for _ in range(REPEATS):
        volume = np.empty((len(frames), *imagecodecs.htj2k_decode(frames[0]).shape), np.uint16)

        def decode(numbers: range, volume: npt.NDArray[np.uint16] = volume) -> None:
            for number in numbers:
                imagecodecs.htj2k_decode(frames[number], out=volume[number])

        begin = time.process_time()
        with ThreadPoolExecutor(max_workers=cores()) as pool:
            list(pool.map(decode, [range(k, len(frames), cores()) for k in range(cores())]))
        seconds.append((time.process_time() - begin) / len(frames))
    return median(seconds)


def _stored_frames(client: Any, series: Series, frame_ids: Sequence[str]) -> list[bytes]:
    return [
        client.get_image_frame(
            datastoreId=series.stored.datastore_id,
            imageSetId=series.stored.image_set_id,
            imageFrameInformation={"imageFrameId": frame_id},
        )["imageFrameBlob"].read()
        for frame_id in frame_ids
    ]


def _compare(
    report: Report, readers: dict[str, Reader], series: Series, *, decode: float, milliseconds: int
) -> None:
    """Rows and checks of one series at one latency."""
    readings: dict[Way, list[Reading]] = {way: [] for way in WAYS}
    for way in WAYS:
        readers[way.client].read(series.stored, kind=way.kind)  # the first read opens connections
    for _ in range(REPEATS):
        for way in WAYS:
            readings[way].append(readers[way.client].read(series.stored, kind=way.kind))
    seconds = {way: median(reading.seconds for reading in readings[way]) for way in WAYS}
    size = series.instances
    requests = size + HEADER_REQUESTS
    waiting = milliseconds / 1000 * requests / min(WORKERS, requests)
    floor = max(decode * size / cores(), waiting)
    case = f"{size} instances, {milliseconds} ms"
    title = f"reading an image set of 512 x 512 CT, medians of {REPEATS}"
    for way in WAYS:
        taken = [reading.seconds for reading in readings[way]]
        report.row(
            title,
            case=case,
            reader=way.name,
            seconds=seconds[way],
            fastest=min(taken),
            slowest=max(taken),
            frames_per_s=size / seconds[way],
            times_peer=seconds[PEER_DATASETS] / seconds[way],
            times_floor=seconds[way] / floor,
            times_bare=seconds[way] / seconds[BARE_ARRAYS],
            # The peer's processes do its work, and are gone when it ends: their time is not known.
            cpu_s=None if way.client == PEER else median(reading.cpu_seconds for reading in readings[way]),
        )
    report.row(
        title,
        case=case,
        reader="floor: decoding on all cores, or latency",
        seconds=floor,
        frames_per_s=size / floor,
        times_floor=1.0,
    )
    _reaches(
        report,
        f"{case}: times as fast as {PEER}",
        seconds[PEER_DATASETS] / seconds[DATASETS],
        TIMES_PEER[size, milliseconds],
    )
    if size > 1:  # one frame cannot be decoded on two cores, nor be asked for before its header is read
        _stays_below(report, f"{case}: arrays, times the floor", seconds[ARRAYS] / floor, TIMES_FLOOR)
        _stays_below(
            report,
            f"{case}: arrays, times bare requests and decoding",
            seconds[ARRAYS] / seconds[BARE_ARRAYS],
            TIMES_BARE,
        )
    for client in (PEER, LIBRARY):
        exact = [
            reading.digests == series.digests[way.kind]
            for way in WAYS
            for reading in readings[way]
            if way.client == client
        ]
        report.check(
            f"{case}: pixels of {client} equal the source's",
            wanted="every read",
            got=f"{sum(exact)} of {len(exact)}",
            ok=all(exact),
        )


def _memory(report: Report, python: Path, cloud: LocalCloud, *, largest: Series, smallest: Series) -> None:
    """Rows and checks of memory, each in a new process that has read one instance before."""
    size = largest.decoded_bytes
    title = f"memory while reading {largest.instances} instances ({size / 1e6:.0f} MB of pixels)"
    for way in (PEER_DATASETS, DATASETS, ARRAYS):
        with ExitStack() as stack:
            reader = start_readers(stack, python, cloud.endpoint_url)[way.client]
            reader.read(smallest.stored, kind=way.kind)
            used = reader.footprint(largest.stored, kind=way.kind)
        times = used.bytes_ / size
        report.row(
            title,
            reader=way.name,
            peak_mb=used.bytes_ / 1e6,
            times_pixels=times,
            processes=used.processes,
        )
        if way.client == LIBRARY:
            _stays_below(report, f"memory of {way.name}, times the pixels", times, TIMES_PIXELS)
            report.check(f"processes of {way.name}", wanted="1", got=used.processes, ok=used.processes == 1)


def _damaged(report: Report, client: Any, cloud: LocalCloud, python: Path, series: Series) -> None:
    """Rows and checks of a series with one damaged frame, for each kind of damage."""
    stored = series.stored
    instances = ImageSet.open(client, stored.datastore_id, stored.image_set_id).metadata.instances
    victim = instances[len(instances) // 2]
    (frame,) = _stored_frames(client, series, [victim.frames[0].frame_id])
    for name, damage in DAMAGES.items():
        damage_stored(cloud.root, frame, damage)
        for way in (PEER_DATASETS, DATASETS):
            # New processes each time: a client that hung is of no use afterwards.
            with ExitStack() as stack:
                reader = start_readers(stack, python, cloud.endpoint_url)[way.client]
                outcome, seconds, typed = _outcome(reader, series, way, victim.sop_instance_uid)
            report.row(
                f"one damaged frame of {series.instances}",
                damage=name,
                reader=way.name,
                outcome=outcome,
                seconds=seconds,
            )
            if way.client == LIBRARY:
                report.check(
                    f"damaged frame ({name}): {LIBRARY} names it in a FrameError",
                    wanted=f"within {ERROR_SECONDS:g} s",
                    got=outcome,
                    ok=typed and seconds <= ERROR_SECONDS,
                )


def _outcome(reader: Reader, series: Series, way: Way, victim: str) -> tuple[str, float, bool]:
    """What a person would see, seconds until then, and whether it is a FrameError that names the instance."""
    begin = time.monotonic()
    try:
        reading = reader.read(series.stored, kind=way.kind, timeout=DAMAGED_SECONDS)
    except NoAnswerError as error:
        return str(error), time.monotonic() - begin, False
    if reading.error:
        return reading.error[0], reading.seconds, "FrameError" in reading.error and reading.instance == victim
    wrong = sum(reading.digests.get(uid) != digest for uid, digest in series.digests[way.kind].items())
    return f"{wrong} wrong images, no error" if wrong else "the right images", reading.seconds, False


def _reaches(report: Report, name: str, got: float, figure: Figure) -> None:
    """A figure that shall be large."""
    report.row("goals", figure=name, goal=f">= {figure.goal:g}", got=got, reached=got >= figure.goal)
    report.at_least(name, got, figure.limit)


def _stays_below(report: Report, name: str, got: float, figure: Figure) -> None:
    """A figure that shall be small."""
    report.row("goals", figure=name, goal=f"<= {figure.goal:g}", got=got, reached=got <= figure.goal)
    report.at_most(name, got, figure.limit)
