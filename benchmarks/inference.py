"""The runtime on real CT: what a request costs beside its work, beside the workshop's way, and under load.

One server process, started as SageMaker starts the container, with the demo's bundle; a local cloud with the
demo's unseen patient (61 x 512 x 512). Every request asks for an image set version of its own, so that each
is computed and none answered with the result that is stored already. What shares the cores with it: the local
cloud, and the client.

**Overhead** of a request is the part of the time between its client's first byte and the last one of the
answer that is none of: opening the image set, fetching and decoding its frames, preprocessing, network,
postprocessing, writing the result's objects, storing them. So it holds HTTP, JSON, waiting in the queue, the
App SDK's scheduler, the look-up whether the result is stored already, choosing the series, logs and metrics.

**The workshop's way** is a program that does for every request what the workshop's inference script does
(`benchmarks.inferring.with_workshop`). It is asked over a pipe, and its SEG goes to S3 and not into the
archive: both are less work than what the runtime does.

**Memory** is the server's proportional set size after each of many requests about a small volume. It is flat
when its slope after a warm-up, the median of the slopes between any two samples, stays below what would add
up to `FLAT_MB_PER_1000` in a thousand requests.
"""

from __future__ import annotations

import io
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from statistics import median

import numpy as np
from pydicom import dcmread

from benchmarks.inferring.endpoint import (
    ARCHIVED_MODEL,
    MODELS_PYTHON,
    Answered,
    Endpoint,
    make_model,
    serving,
)
from benchmarks.inferring.event_path import Arrival, EventPath, quiet_seconds
from benchmarks.inferring.masks import compare
from benchmarks.inferring.stored_series import StoredSeries, StoredVersion, store_volume
from benchmarks.inferring.workshop_package import workshop_package
from benchmarks.local_cloud import LocalCloud, local_cloud
from benchmarks.reading.archive import BUCKET, Archive
from benchmarks.reading.reader import Reader, Reading, Stored
from benchmarks.reading.series import chest_ct
from benchmarks.report import FOLDER, Progress, Report
from healthimaging import ImageSet
from workbench.demo.nrrd_volume import CtVolume

LOG = FOLDER / "inference.log"
"""What the workshop's way prints."""
WORK = ("open", "fetch", "decode", "preprocess", "network", "postprocess", "write", "store")
"""Phases of an answer that are what was asked for; all else is overhead."""

WARM_UP = 2
REPEATS = 7
OVERHEAD = 0.05
"""Share of a request's time."""
TIMES_WORKSHOP = 3.0

CLIENTS = (1, 2, 4)
_LOAD = "concurrent clients, 61 x 512 x 512"
REQUESTS = 12
"""Of all clients together."""
KEPT_UP = 0.9
"""Requests a minute under most clients, against one: the queue must not cost throughput."""

MEMORY_REQUESTS = 200
MEMORY_WARM_UP = 50
FLAT_MB_PER_1000 = 100.0
MB = 1e6

ARRIVALS = 2
EVENT_SECONDS = 30.0
"""From the first file's upload to the stored SEG, without the quiet period, which is a choice."""


def run(progress: Progress) -> Report:
    """Everything above, in one run."""
    report = Report(name="inference")
    FOLDER.mkdir(parents=True, exist_ok=True)
    LOG.unlink(missing_ok=True)
    package = workshop_package(MODELS_PYTHON, progress)
    volume = chest_ct("lung2", progress)
    with tempfile.TemporaryDirectory(dir=FOLDER, prefix="inference-") as folder:
        progress("making the model")
        model = make_model(Path(folder) / "bundle")
        with local_cloud(FOLDER) as cloud:
            _on_one_server(report, cloud, volume, model=model, package=package, progress=progress)
        with local_cloud(FOLDER) as cloud:
            _event_path(report, cloud, volume, model=model, progress=progress)
    return report


def _on_one_server(
    report: Report, cloud: LocalCloud, volume: CtVolume, *, model: Path, package: Path, progress: Progress
) -> None:
    archive = Archive.create(cloud)
    progress("importing the volumes")
    series = store_volume(archive, volume, name="demo")
    small = store_volume(archive, _thinned(volume), name="small")
    base = model.parent / "base"
    base.mkdir()
    with serving(model, base, endpoint_url=cloud.endpoint_url) as endpoint:
        workshop = Reader(
            MODELS_PYTHON,
            "benchmarks.inferring.with_workshop",
            endpoint_url=cloud.endpoint_url,
            log=LOG,
            arguments=[str(package), str(model / ARCHIVED_MODEL), BUCKET],
        )
        with workshop:
            progress(f"side by side, {REPEATS} times each")
            answers, readings = _take_turns(endpoint, workshop, series)
        _overhead(report, answers, endpoint)
        _side_by_side(report, archive, answers, readings)
        for clients in CLIENTS:
            progress(f"{REQUESTS} requests of {clients} clients")
            _load(report, endpoint, series, clients=clients)
        _kept_up(report)
        progress(f"memory over {MEMORY_REQUESTS} requests")
        _memory(report, endpoint, small)


def _thinned(volume: CtVolume) -> CtVolume:
    """Every fourth column and row of 24 slices: the same chest, cheap."""
    scale = np.diag([4.0, 4.0, 1.0, 1.0])
    return CtVolume(array=volume.array[18:42, ::4, ::4], affine=volume.affine @ scale)


def _take_turns(
    endpoint: Endpoint, workshop: Reader, series: StoredSeries
) -> tuple[list[Answered], list[Reading]]:
    stored = Stored(datastore_id=series.archive.datastore_id, image_set_id=series.image_set_id)
    answers, readings = [], []
    for version in series.versions(WARM_UP + REPEATS):
        answers.append(endpoint.invoke(version))
        readings.append(workshop.read(stored, kind="segmentation"))
    return answers[WARM_UP:], readings[WARM_UP:]


def _overhead(report: Report, answers: Sequence[Answered], endpoint: Endpoint) -> None:
    """Rows of where a request's time goes, by medians."""
    title = f"a warm request, 61 x 512 x 512, medians of {len(answers)}"
    wall = median(answer.wall for answer in answers)
    names = list(dict.fromkeys(name for answer in answers for name in answer.seconds))

    def row(part: str, seconds: float) -> None:
        report.row(title, part=part, milliseconds=1000 * seconds, share_percent=100 * seconds / wall)

    row("request, as its client sees it", wall)
    for name in names:
        kind = "work" if name in WORK else "overhead"
        row(f"{kind}: {name}", median(answer.seconds.get(name, 0.0) for answer in answers))
    row("overhead: none of the answer's phases", median(_unnamed(answer) for answer in answers))
    share = median(_share(answer) for answer in answers)
    report.row(
        "the server",
        seconds_to_warm=endpoint.start_seconds,
        overhead_percent=100 * share,
        memory_mb=endpoint.resident() / MB,
    )
    report.at_most("overhead of a warm request, percent of its time", 100 * share, 100 * OVERHEAD)


def _unnamed(answer: Answered) -> float:
    return answer.wall - sum(answer.seconds.values())


def _share(answer: Answered) -> float:
    return 1 - sum(answer.seconds.get(name, 0.0) for name in WORK) / answer.wall


def _side_by_side(
    report: Report, archive: Archive, answers: Sequence[Answered], readings: Sequence[Reading]
) -> None:
    failed = [reading.error[0] for reading in readings if reading.error]
    report.check("the workshop's way answered", wanted="every time", got=len(failed), ok=not failed)
    taken = {
        "runtime: SEG in the archive, checked": [answer.wall for answer in answers],
        "workshop's way: SEG in S3": [reading.seconds for reading in readings],
    }
    title = f"one request, 61 x 512 x 512, {len(answers)} in turns"
    slowest = max(median(seconds) for seconds in taken.values())
    for way, seconds in taken.items():
        report.row(
            title,
            way=way,
            median=median(seconds),
            fastest=min(seconds),
            slowest=max(seconds),
            times_as_fast=slowest / median(seconds),
        )
    ours, workshops = (median(seconds) for seconds in taken.values())
    report.at_least("times as fast as the workshop's way", workshops / ours, TIMES_WORKSHOP)
    if failed:
        return
    (name,) = readings[-1].digests
    file = archive.s3.get_object(Bucket=BUCKET, Key=name)["Body"].read()
    stored = answers[-1].result["segmentation"]["imageSetId"]
    (segmentation,) = ImageSet.open(archive.client, archive.datastore_id, stored).datasets()
    found = compare(segmentation, dcmread(io.BytesIO(file)))
    report.row("masks of the two", voxels=found.voxels, different=found.different)
    report.check("both give the same mask", wanted="0 voxels differ", got=found.different, ok=found.same)


def _load(report: Report, endpoint: Endpoint, series: StoredSeries, *, clients: int) -> None:
    versions = list(series.versions(REQUESTS))
    begin = time.perf_counter()
    with ThreadPoolExecutor(max_workers=clients) as pool:
        answers = list(pool.map(endpoint.invoke, versions))
    seconds = time.perf_counter() - begin
    waits = [answer.wall for answer in answers]
    report.row(
        _LOAD,
        clients=clients,
        requests=len(answers),
        requests_per_minute=60 * len(answers) / seconds,
        median_seconds=median(waits),
        longest_seconds=max(waits),
        memory_mb=endpoint.resident() / MB,
    )
    right = [
        answer.result["versionId"] == version.version_id and answer.result["segmentation"]["isPrimary"]
        for answer, version in zip(answers, versions, strict=True)
    ]
    report.check(
        f"{clients} clients: every request has its own answer",
        wanted=f"{len(versions)} of {len(versions)}",
        got=sum(right),
        ok=all(right),
    )


def _kept_up(report: Report) -> None:
    rates = [float(row["requests_per_minute"] or 0) for row in report.tables[_LOAD]]
    report.at_least(f"requests a minute, {CLIENTS[-1]} clients against 1", rates[-1] / rates[0], KEPT_UP)


@dataclass(frozen=True, kw_only=True)
class _Sample:
    requests: int
    megabytes: float


def _memory(report: Report, endpoint: Endpoint, small: StoredSeries) -> None:
    samples = list(_sampled(endpoint, small.versions(MEMORY_REQUESTS)))
    title = f"memory over {MEMORY_REQUESTS} requests, 24 x 128 x 128"
    for sample in samples[:: MEMORY_REQUESTS // 8]:
        report.row(title, after_requests=sample.requests, memory_mb=sample.megabytes)
    kept = [sample for sample in samples if sample.requests > MEMORY_WARM_UP]
    slope = median(
        (late.megabytes - early.megabytes) / (late.requests - early.requests)
        for early, late in combinations(kept, 2)
    )
    report.row(
        title,
        after_requests=samples[-1].requests,
        memory_mb=samples[-1].megabytes,
        kb_per_request=1000 * slope,
    )
    report.at_most("memory, MB more in 1000 requests", 1000 * slope, FLAT_MB_PER_1000)


def _sampled(endpoint: Endpoint, versions: Iterator[StoredVersion]) -> Iterator[_Sample]:
    for number, version in enumerate(versions, start=1):
        endpoint.invoke(version)
        yield _Sample(requests=number, megabytes=endpoint.resident() / MB)


def _event_path(
    report: Report, cloud: LocalCloud, volume: CtVolume, *, model: Path, progress: Progress
) -> None:
    path = EventPath.deploy(cloud, model, progress)
    quiet = quiet_seconds()
    for number in range(1, ARRIVALS + 1):
        progress(f"study {number} of {ARRIVALS} arrives")
        _arrival_rows(report, path.arrive(volume, name=str(number)), number=number, quiet=quiet)


def _arrival_rows(report: Report, arrival: Arrival, *, number: int, quiet: float) -> None:
    total = arrival.stored - arrival.begun
    parts = {
        "upload and import, to the image set": arrival.created - arrival.begun,
        "quiet period, as set": quiet,
        "event, queue and dispatch, beyond the quiet period": arrival.sent - arrival.created - quiet,
        "endpoint, to the stored SEG": arrival.stored - arrival.sent,
        "sum: import to stored SEG": total,
        "of the endpoint: what its answer names": sum(arrival.phases.values()),
        "after it: answer in S3": arrival.answered - arrival.stored,
    }
    for part, seconds in parts.items():
        report.row(
            "event path, 61 x 512 x 512",
            study=number,
            part=part,
            seconds=seconds,
            share_percent=100 * seconds / total,
        )
    report.at_most(
        f"study {number}: import to stored SEG without the quiet period, seconds",
        total - quiet,
        EVENT_SECONDS,
    )
