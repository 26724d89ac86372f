"""Input of training: the platform's way beside the workshop's loop, on real CT with latency, and two ranks.

**Input wait** of a step is the time from asking for its volume to having it. The two ways train on the same
volumes, and the same tensors reach the network (compared slice by slice). The network's work is slept, as
long for one as for the other: a GPU works meanwhile, and the cores are free. The workshop's way is
`benchmarks.feeding.with_workshop`; it reads every volume again in every epoch while the network waits. The
platform's is `benchmarks.feeding.with_platform`; it reads each volume once, while the network works, and
takes it from its cache from the second epoch on. What shares the cores with both: the local cloud.
A batch of one whole volume is 50 MB, and to copy it together takes 20 to 30 ms that count as wait. No bundle
that ships trains on whole volumes: the share of a step that is wait is held to its limit where the network
gets what the classification bundle makes of the same volumes, 64 x 64 x 64.

**Memory** is the most anonymous memory beyond what the process had before its first step. Pages of the
cache's files do not count: the kernel drops them when it needs the room. It is bounded when, with a cache
that is smaller than the data set, it stays below so many volumes, and twice the data set takes no more than
one volume more.

**Ranks**: the training job itself, on small chests with segmentations, with one process and with two. The
losses of two ranks are those of one with the double batch, to rounding.
"""

from __future__ import annotations

import json
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks.feeding.loop import STEP_SECONDS
from benchmarks.feeding.ranks import DIVISIONS, DOUBLE_BATCH, STEPS, largest_difference, losses, store_cases
from benchmarks.feeding.trainer import Trained, run_trainer
from benchmarks.feeding.volumes import class_manifest, store_volumes, write_manifest
from benchmarks.inferring.endpoint import MODELS_PYTHON
from benchmarks.inferring.workshop_package import workshop_package
from benchmarks.local_cloud import REPOSITORY, aws_environment, local_cloud
from benchmarks.reading.archive import Archive
from benchmarks.reading.latency import delayed
from benchmarks.reading.series import chest_ct
from benchmarks.report import FOLDER, Progress, Report
from healthimaging import Manifest

LOG = FOLDER / "training.log"
"""What the programs print besides their figures."""
MILLISECONDS = 30
"""Added to each request."""
VOLUMES = 6
EPOCHS = 3
WORKERS = 2
"""Threads that prepare ahead, one a core here."""
CACHED_VOLUMES = 2.5
"""Room of a cache that is smaller than the data set."""
MB = 1e6

TIMES_WORKSHOP = 5.0
"""Input wait of the workshop's way against the platform's, over all epochs."""
WAIT_SHARE = 0.02
"""Of a step, from the second epoch on."""
BOUND_VOLUMES = 8.0
"""Prepared volumes that memory may take: what two threads work on, two batches ahead, and the one in use."""
GROWTH_VOLUMES = 1.0
"""What twice the data set may cost more."""
LOSS_DIFFERENCE = 1e-4

_WAITS = f"input wait, {VOLUMES} volumes of 48 x 512 x 512, {MILLISECONDS} ms a request"
_TOTAL = "over all epochs"
_MEMORY = "memory of the platform's way, without pages of its cache"


def run(progress: Progress) -> Report:
    """Everything above, in one run."""
    report = Report(name="training")
    FOLDER.mkdir(parents=True, exist_ok=True)
    LOG.unlink(missing_ok=True)
    package = workshop_package(MODELS_PYTHON, progress)
    volume = chest_ct("lung1", progress)
    with tempfile.TemporaryDirectory(dir=FOLDER, prefix="training-") as name, local_cloud(FOLDER) as cloud:
        folder = Path(name)
        archive = Archive.create(cloud)
        progress(f"importing {VOLUMES} volumes")
        image_set_ids = store_volumes(archive, volume, count=VOLUMES, name="feed")
        manifests = {
            count: write_manifest(
                class_manifest(archive, image_set_ids[:count], name="feed"), folder / f"of-{count}"
            )
            for count in (VOLUMES // 2, VOLUMES)
        }
        # Of the tensor that reaches the network: float32.
        item_bytes = 4 * volume.array.size
        with delayed(cloud.endpoint_url, milliseconds=MILLISECONDS) as endpoint_url:
            progress(f"the workshop's way, {EPOCHS} epochs")
            workshop = run_trainer(
                "benchmarks.feeding.with_workshop",
                [str(package), str(EPOCHS), archive.datastore_id, *image_set_ids],
                endpoint_url=endpoint_url,
                log=LOG,
            )
            progress(f"the platform's way, {EPOCHS} epochs")
            room = 2 * VOLUMES * item_bytes
            platform = _platform(manifests[VOLUMES], endpoint_url, cache_bytes=room)
            _compare(report, workshop, platform)
            progress(f"the shipped bundle, {EPOCHS} epochs")
            _shares(report, _platform(manifests[VOLUMES], endpoint_url, cache_bytes=room, input_="bundle"))
            progress("a cache that is smaller than the data set")
            _memory(report, manifests, endpoint_url, whole=platform, item_bytes=item_bytes)
            progress("preparing a volume")
            _preparation(report, manifests[VOLUMES // 2], endpoint_url, folder)
        progress("one rank and two")
        _ranks(report, store_cases(archive, volume, folder), endpoint_url=cloud.endpoint_url, folder=folder)
    return report


def _platform(manifest: Path, endpoint_url: str, *, cache_bytes: int, input_: str = "whole") -> Trained:
    """Train with an empty cache."""
    with tempfile.TemporaryDirectory(dir=FOLDER, prefix="cache-") as cache:
        return run_trainer(
            "benchmarks.feeding.with_platform",
            [input_, str(manifest), cache, str(cache_bytes // 2**20), str(WORKERS), str(EPOCHS)],
            endpoint_url=endpoint_url,
            log=LOG,
            cache=Path(cache),
        )


def _compare(report: Report, workshop: Trained, platform: Trained) -> None:
    """Rows of every epoch and of all, and their checks."""
    _rows(report, "workshop", workshop)
    _rows(report, "platform, the same tensors", platform)
    report.check(
        "the same tensors reach the network",
        wanted=f"{VOLUMES} of {VOLUMES} volumes",
        got=sum(one == other for one, other in zip(workshop.digests, platform.digests, strict=True)),
        ok=workshop.digests == platform.digests and len(set(platform.digests)) == VOLUMES,
    )
    report.at_least(
        f"input wait over {EPOCHS} epochs, the workshop's against the platform's",
        sum(workshop.waits) / sum(platform.waits),
        TIMES_WORKSHOP,
    )


def _shares(report: Report, platform: Trained) -> None:
    """Rows of the shipped bundle, and the checks of what its network waits for."""
    _rows(report, "platform, the shipped bundle", platform)
    for epoch in range(2, EPOCHS + 1):
        share = _share(platform.epoch(epoch, steps=VOLUMES))
        report.check(
            f"epoch {epoch} of the shipped bundle: share of a step that is input wait",
            wanted=f"< {WAIT_SHARE:g}",
            got=round(share, 4),
            ok=share < WAIT_SHARE,
        )


def _rows(report: Report, way: str, trained: Trained) -> None:
    for epoch in range(1, EPOCHS + 1):
        _wait_row(report, way, str(epoch), trained.epoch(epoch, steps=VOLUMES))
    _wait_row(report, way, _TOTAL, trained.waits)
    report.row(
        "training as a whole",
        way=way,
        steps=len(trained.waits),
        seconds=trained.seconds,
        first_step_after_seconds=trained.first_step_seconds,
    )


def _wait_row(report: Report, way: str, epoch: str, waits: Sequence[float]) -> None:
    report.row(
        _WAITS,
        way=way,
        epoch=epoch,
        wait_seconds_per_step=sum(waits) / len(waits),
        longest=max(waits),
        wait_seconds=sum(waits),
        share_percent=100 * _share(waits),
    )


def _share(waits: Sequence[float]) -> float:
    return sum(waits) / (sum(waits) + STEP_SECONDS * len(waits))


def _memory(
    report: Report, manifests: Mapping[int, Path], endpoint_url: str, *, whole: Trained, item_bytes: int
) -> None:
    """Rows and checks of a cache that is too small, for the data set and for half of it."""
    room = int(CACHED_VOLUMES * item_bytes)
    bounded = {
        count: _platform(manifest, endpoint_url, cache_bytes=room) for count, manifest in manifests.items()
    }
    rows = [(VOLUMES, "as large as it likes", whole)]
    rows += [(count, f"{room / MB:.0f} MB", trained) for count, trained in bounded.items()]
    for count, cache, trained in rows:
        report.row(
            _MEMORY,
            volumes=count,
            data_set_mb=count * item_bytes / MB,
            cache=cache,
            cached_mb=trained.cache_bytes / MB,
            peak_mb=trained.peak_memory / MB,
            in_volumes=trained.peak_memory / item_bytes,
        )
    most = bounded[VOLUMES]
    report.check(
        "a cache that is smaller than the data set keeps its limit",
        wanted=f"<= {room / MB:.0f} MB, some of it used",
        got=round(most.cache_bytes / MB, 1),
        ok=0 < most.cache_bytes <= room,
    )
    report.check(
        "and the same tensors reach the network",
        wanted="as with room for all",
        got=most.digests == whole.digests,
        ok=most.digests == whole.digests,
    )
    report.at_most("memory then, in prepared volumes", most.peak_memory / item_bytes, BOUND_VOLUMES)
    less = bounded[min(bounded)]
    report.at_most(
        "memory that twice the data set costs more, in prepared volumes",
        (most.peak_memory - less.peak_memory) / item_bytes,
        GROWTH_VOLUMES,
    )


def _preparation(report: Report, manifest: Path, endpoint_url: str, folder: Path) -> None:
    """Rows of what a volume costs before the random transforms.

    Without a check: beside a local cloud that shares the cores, two medians may change places by chance.
    """
    with LOG.open("ab") as errors:
        answer = subprocess.run(
            [
                *(MODELS_PYTHON, "-W", "ignore", "-m", "benchmarks.feeding.with_preparation"),
                *(manifest, folder / "preparation"),
            ],
            cwd=REPOSITORY,
            env=aws_environment(endpoint_url) | {"PYTHONPATH": str(REPOSITORY)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=errors,
            check=True,
        ).stdout
    found = json.loads(answer)
    title = "a volume of 48 x 512 x 512 on the grid of the segmentation bundle (4 mm), medians"
    for way, seconds in (
        ("read whole", found["whole"]["prepared"]),
        ("read at half resolution, which is enough for the grid", found["coarse"]["prepared"]),
        ("from the cache", found["coarse"]["cached"]),
    ):
        report.row(title, way=way, seconds=seconds, times=found["whole"]["prepared"] / seconds)


def _ranks(report: Report, manifest: Manifest, *, endpoint_url: str, folder: Path) -> None:
    """Rows and checks of the divisions of one training."""
    found = {
        division: losses(manifest, division, endpoint_url=endpoint_url, folder=folder)
        for division in DIVISIONS
    }
    for division, told in found.items():
        report.row(
            f"training losses of {STEPS} steps, two items a step",
            division=division.name,
            **{f"step_{step}": loss for step, loss in sorted(told.items())},
        )
    for division, told in found.items():
        if division is not DOUBLE_BATCH:
            difference = largest_difference(found[DOUBLE_BATCH], told)
            report.check(
                f"{division.name}: losses as of {DOUBLE_BATCH.name}, relative difference",
                wanted=f"< {LOSS_DIFFERENCE:g}",
                got=difference,
                ok=difference < LOSS_DIFFERENCE,
            )
