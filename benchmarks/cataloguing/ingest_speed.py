"""`monai-aws ingest` beside `aws s3 cp` and an import job, over the same stacks.

Each run is a program of its own, measured from its start to its end, and has files of its own: the same
pixels under UIDs that the datastore does not know yet. The ways take turns. Events of HealthImaging start
nothing meanwhile.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from benchmarks.cataloguing.arriving_files import write_slices, write_small_files
from benchmarks.local_cloud import REPOSITORY, aws_environment
from benchmarks.report import FOLDER, Progress, Report
from workbench.demo.nrrd_volume import CtVolume
from workbench.deployment import Deployment

PLAIN = "aws s3 cp, import job, manifest"
INGEST = "ingest"
DEIDENTIFIED = "ingest, de-identified"

REPEATS = 3
SERIES = 2
SMALL_FILES = 500
PLANNED_FILES = 20_000
AT_MOST = 1.5
"""Times as long as the plain way, for everything that it does not do."""
PLANNED_MB = 30.0
"""More memory for ten times the files: what a plan needs does not grow with the folder."""
LOG = FOLDER / "catalog.log"
"""What the programs print besides their figures."""
MB = 1e6


@dataclass(frozen=True, kw_only=True)
class _Run:
    seconds: float
    files: int
    bytes: int
    ok: bool


def measure_ingest(report: Report, deployment: Deployment, volume: CtVolume, progress: Progress) -> None:
    """Rows and checks of throughput."""
    slices = f"{SERIES * len(volume.array)} CT slices of 512 x 512"
    _compare(
        report,
        deployment,
        what=slices,
        make=lambda folder, name: write_slices(volume, folder, name=name, series=SERIES),
        progress=progress,
    )
    _compare(
        report,
        deployment,
        what=f"{SMALL_FILES} instances of 64 x 64",
        make=lambda folder, name: write_small_files(volume, folder, name=name, count=SMALL_FILES),
        progress=progress,
    )
    progress(f"planning {PLANNED_FILES} files")
    _planning(report, deployment, volume)


def _compare(
    report: Report,
    deployment: Deployment,
    *,
    what: str,
    make: Callable[[Path, str], int],
    progress: Progress,
) -> None:
    runs: dict[str, list[_Run]] = {PLAIN: [], INGEST: [], DEIDENTIFIED: []}
    for number in range(REPEATS):
        for way, done in runs.items():
            progress(f"{what}, {way}, {number + 1} of {REPEATS}")
            with tempfile.TemporaryDirectory(dir=FOLDER, prefix="arriving-") as folder:
                make(Path(folder) / "files", f"{what}-{way}-{number}")
                done.append(_run(deployment, Path(folder), way=way))
    title = f"bringing in {what}, medians of {REPEATS} in turns"
    plain = median(run.seconds for run in runs[PLAIN])
    for way, done in runs.items():
        seconds = median(run.seconds for run in done)
        report.row(
            title,
            way=way,
            seconds=seconds,
            fastest=min(run.seconds for run in done),
            slowest=max(run.seconds for run in done),
            files_per_second=done[0].files / seconds,
            mb_per_second=done[0].bytes / MB / seconds,
            times_the_plain_way=seconds / plain,
        )
    report.check(
        f"{what}: everything is in, every time",
        wanted="yes",
        got=all(run.ok for done in runs.values() for run in done),
        ok=all(run.ok for done in runs.values() for run in done),
    )
    report.at_most(
        f"{what}: ingest, times as long as the plain way",
        median(run.seconds for run in runs[INGEST]) / plain,
        AT_MOST,
    )


def _run(deployment: Deployment, folder: Path, *, way: str) -> _Run:
    files = [path for path in (folder / "files").rglob("*") if path.is_file()]
    size = sum(path.stat().st_size for path in files)
    data = deployment.stack("data")
    if way == PLAIN:
        arguments = [
            "benchmarks.cataloguing.with_plain_import",
            str(folder / "files"),
            *(data[name] for name in ("DatastoreId", "ImportRoleArn", "InboxBucketName", "ImportBucketName")),
        ]
    else:
        how = "deidentify" if way == DEIDENTIFIED else "as-is"
        arguments = [
            "benchmarks.cataloguing.with_ingest",
            *(str(folder / "files"), str(folder / "journal.sqlite"), how),
        ]
    begin = time.perf_counter()
    answer = program(arguments, deployment)
    return _Run(
        seconds=time.perf_counter() - begin,
        files=len(files),
        bytes=size,
        ok=answer["ok"] is True and answer["files"] == len(files),
    )


def _planning(report: Report, deployment: Deployment, volume: CtVolume) -> None:
    with tempfile.TemporaryDirectory(dir=FOLDER, prefix="arriving-") as name:
        folder = Path(name)
        rows = []
        for count in (PLANNED_FILES // 10, PLANNED_FILES):
            files = folder / str(count)
            write_small_files(volume, files, name=f"planned-{count}", count=count)
            answer = program(
                ["benchmarks.cataloguing.with_ingest", str(files), str(folder / f"{count}.sqlite"), "plan"],
                deployment,
            )
            rows.append(answer)
            report.row(
                "planning small files (--dry-run), each of which is read and hashed",
                files=count,
                seconds=answer["seconds"],
                files_per_second=count / float(answer["seconds"]),
                peak_mb=int(answer["peak_bytes"]) / MB,
                peak_before_mb=int(answer["peak_before_bytes"]) / MB,
            )
            report.check(
                f"{count} small files: all are planned",
                wanted=str(count),
                got=answer["files"],
                ok=answer["files"] == count and answer["ok"] is True,
            )
    few, many = rows
    report.at_most(
        f"memory that {PLANNED_FILES} files take more than {PLANNED_FILES // 10}, MB",
        (int(many["peak_bytes"]) - int(few["peak_bytes"])) / MB,
        PLANNED_MB,
    )


def program(arguments: list[str], deployment: Deployment) -> dict[str, float | int | bool]:
    """Run a module with the cloud's endpoint in its environment; the JSON that it prints."""
    local = deployment.session.environment.local
    if local is None:
        raise AssertionError("the environment is the local one")
    with LOG.open("ab") as errors:
        printed = subprocess.run(
            [sys.executable, "-m", *arguments],
            cwd=REPOSITORY,
            env=aws_environment(local.endpoint_url) | {"PYTHONPATH": str(REPOSITORY)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=errors,
            check=True,
        ).stdout
    found: dict[str, float | int | bool] = json.loads(printed.splitlines()[-1])
    return found
