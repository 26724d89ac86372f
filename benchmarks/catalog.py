"""Arrival and catalog: ingest, the index function, event to row, and the named queries over a million rows.

All of it runs over the deployed stacks of the environment `local`, on the same cores as the local cloud.

**Ingest** (`benchmarks.cataloguing.ingest_speed`): `monai-aws ingest`, which hashes, verifies and keeps a
journal, beside `aws s3 cp` and an import job by a short script.

**The indexer** (`benchmarks.cataloguing.with_indexer`): the index function's own code on an image set of 200
instances, with stand-ins for HealthImaging and S3 in its process.

**Event to row** (`benchmarks.cataloguing.lag`): from an image set's creation until a query of the view
`series` has its row, with nothing else to do, and while the compact function moves a million rows.

**Queries** (`benchmarks.cataloguing.query_costs`): over a synthetic archive of a million instances
(`synthetic_archive`), once in the catalog (change objects, then compacted by the deployed function, asked
through the views), and once as the workshop stores headers (`workshop_documents`, `workshop_questions`). Both
are asked through the local Athena and must give the same answers.
"""

from __future__ import annotations

import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import duckdb

from benchmarks.cataloguing.arriving_files import write_small_files
from benchmarks.cataloguing.athena import Athena
from benchmarks.cataloguing.catalog_files import write_catalog_files
from benchmarks.cataloguing.filled_catalog import put_changes, remove_changes, start_compaction
from benchmarks.cataloguing.ingest_speed import LOG, measure_ingest, program
from benchmarks.cataloguing.lag import Lag, lag_rows
from benchmarks.cataloguing.platform import deploy_into, nobody_told
from benchmarks.cataloguing.query_costs import measure_queries
from benchmarks.cataloguing.synthetic_archive import make_archive
from benchmarks.cataloguing.workshop_documents import Documents, write_documents
from benchmarks.cataloguing.workshop_tables import make_tables
from benchmarks.local_cloud import local_cloud
from benchmarks.reading.series import chest_ct
from benchmarks.report import FOLDER, Progress, Report
from workbench.demo.nrrd_volume import CtVolume
from workbench.deployment import Deployment
from workbench.ingest import Options, ingest

INSTANCES = 1_000_000
ARRIVALS = 6
INDEXED_INSTANCES = 200
INDEXED_TIMES = 30
MB = 1e6


def run(progress: Progress) -> Report:
    """Everything above, in one run."""
    report = Report(name="catalog")
    FOLDER.mkdir(parents=True, exist_ok=True)
    LOG.unlink(missing_ok=True)
    volume = chest_ct("lung1", progress)
    with tempfile.TemporaryDirectory(dir=FOLDER, prefix="catalog-") as name, local_cloud(FOLDER) as cloud:
        progress("deploying the stacks")
        measure(report, deploy_into(cloud), volume, folder=Path(name), progress=progress)
    return report


def measure(
    report: Report, deployment: Deployment, volume: CtVolume, *, folder: Path, progress: Progress
) -> None:
    """All parts over stacks that are deployed already and empty."""
    with nobody_told(deployment):
        measure_ingest(report, deployment, volume, progress)
        progress(f"indexing an image set of {INDEXED_INSTANCES} instances, {INDEXED_TIMES} times")
        _indexer(report, deployment, volume, folder)
    athena = Athena(deployment=deployment)
    lag = Lag(athena=athena, volume=volume)
    progress(f"{ARRIVALS} image sets arrive")
    arrived = list(lag.arrivals(until=lambda number: number == ARRIVALS))
    lag_rows(report, "arrival, nothing else to do", [seconds for _, seconds in arrived])
    progress(f"making {INSTANCES} rows")
    documents, changes, rows = _rows(folder)
    while_compacting = _compaction(report, deployment, lag, changes, rows, progress)
    image_sets = [image_set for image_set, _ in (*arrived, *while_compacting)]
    lag_rows(report, "deletion, from the call until no query sees it", lag.delete(image_sets))
    progress("storing the workshop's documents")
    make_tables(deployment, documents)
    measure_queries(report, athena, documents, rows=INSTANCES, progress=progress)


def _indexer(report: Report, deployment: Deployment, volume: CtVolume, folder: Path) -> None:
    write_small_files(volume, folder / "indexed", name="indexed", count=INDEXED_INSTANCES)
    options = Options(journal=folder / "indexed.sqlite", deidentify=False, every_seconds=0.1)
    stored = ingest(deployment, [folder / "indexed"], options=options)
    (image_set,) = stored.image_sets
    found = program(
        [
            "benchmarks.cataloguing.with_indexer",
            *(stored.datastore_id, image_set.image_set_id, str(INDEXED_TIMES)),
        ],
        deployment,
    )
    seconds = float(found["seconds"]) / INDEXED_TIMES
    report.row(
        f"the index function, an image set of {INDEXED_INSTANCES} instances",
        rows=found["rows"],
        milliseconds=1000 * seconds,
        rows_per_second=float(found["rows"]) / seconds,
        written_kb=float(found["written_bytes"]) / 1000,
        peak_mb=float(found["peak_bytes"]) / MB,
        peak_after_the_first_mb=float(found["peak_after_first_bytes"]) / MB,
    )
    report.check(
        "the index function writes a row for each series and instance",
        wanted=str(INDEXED_INSTANCES + 1),
        got=found["rows"],
        ok=found["rows"] == INDEXED_INSTANCES + 1,
    )


def _rows(folder: Path) -> tuple[dict[str, Documents], dict[str, list[Path]], dict[str, int]]:
    """The synthetic archive in both layouts, and how many rows the catalog's tables have of it."""
    with duckdb.connect(folder / "archive.duckdb") as connection:
        # Its bars would hide what the benchmark says.
        connection.execute("SET enable_progress_bar = false")
        series = make_archive(connection, instances=INSTANCES)
        changes = write_catalog_files(connection, folder)
        documents = write_documents(connection, folder)
    (folder / "archive.duckdb").unlink()
    return documents, changes, {"series": series, "instances": INSTANCES}


def _compaction(
    report: Report,
    deployment: Deployment,
    lag: Lag,
    changes: dict[str, list[Path]],
    rows: dict[str, int],
    progress: Progress,
) -> list[tuple[str, float]]:
    """Compact all, while image sets arrive."""
    keys = put_changes(deployment, changes)
    progress(f"compacting {rows['instances']} rows, while image sets arrive")
    with ThreadPoolExecutor(1) as pool:
        compacting = start_compaction(deployment, pool)
        # As many as before, or as arrive until the function has ended.
        arrived = list(
            lag.arrivals(until=lambda number: number == ARRIVALS or (number > 0 and compacting.done()))
        )
        compacted = compacting.result()
    remove_changes(deployment, keys, athena=lag.athena, rows=rows)
    lag_rows(report, "arrival, while the compact function works", [seconds for _, seconds in arrived])
    report.row(
        "the compact function, in one run",
        series_rows=rows["series"],
        instance_rows=rows["instances"],
        statements=compacted.statements,
        seconds=compacted.seconds,
        rows_per_second=sum(rows.values()) / compacted.seconds,
    )
    return arrived
