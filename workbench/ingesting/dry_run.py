"""`--dry-run`: what an ingest would do, without doing it."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from arrival.importing.job_output import FailedFile
from workbench.deployment import Deployment
from workbench.ingesting.found import Opener
from workbench.ingesting.journal import Journal
from workbench.ingesting.options import Options
from workbench.ingesting.report import FilesUnaccounted, counts
from workbench.ingesting.run import Ingest
from workbench.ingesting.watching import Watcher

if TYPE_CHECKING:
    from workbench.ingesting.deidentifying import Deidentifying


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What would become of the files that were given."""

    datastore_id: str
    given: int
    to_import: int
    bytes: int
    jobs: int
    already: int
    under_way: int
    """Files that another ingest, or one that was broken off, has in hand."""
    duplicates: int
    failed: tuple[FailedFile, ...]
    quarantined: tuple[FailedFile, ...]
    skipped: tuple[str, ...]
    deidentified: bool

    @property
    def ok(self) -> bool:
        """True if everything that is DICOM would be tried."""
        return not self.failed and not self.quarantined and self.to_import + self.already + self.under_way > 0

    def to_json(self) -> dict[str, Any]:
        return {
            "ok": self.ok,
            "dryRun": True,
            "datastoreId": self.datastore_id,
            "deidentified": self.deidentified,
            "given": self.given,
            "toImport": self.to_import,
            "bytes": self.bytes,
            "jobs": self.jobs,
            "alreadyIn": self.already,
            "underWay": self.under_way,
            "duplicates": self.duplicates,
            "failed": [{"file": one.file, "kind": one.kind, "reason": one.reason} for one in self.failed],
            "quarantined": [{"file": one.file, "reason": one.reason} for one in self.quarantined],
            "skipped": list(self.skipped),
        }

    def lines(self) -> list[str]:
        """For a person."""
        how = ", de-identified" if self.deidentified else ""
        return [
            f"{self.given} files given; nothing was changed",
            f"  would import {self.to_import} files, {self.bytes / 1e6:.1f} MB, in {self.jobs} jobs{how}",
            f"  already in: {self.already}, under way: {self.under_way}, duplicates: {self.duplicates}",
            *(f"  not DICOM, would be skipped: {one}" for one in self.skipped),
            *(f"  WOULD FAIL {one.file}: {one.kind}: {one.reason}" for one in self.failed),
            *(f"  WOULD BE QUARANTINED {one.file}: {one.reason}" for one in self.quarantined),
        ]


def plan(deployment: Deployment, given: Iterable[str], *, options: Options, watcher: Watcher) -> Plan:
    """What `run_ingest` would do with the same arguments; nothing in the account or on disk is changed.

    Quarantine is judged by headers alone: pixel data is not read.
    """
    ingest = Ingest(deployment, options, watcher)
    with ingest.scratch() as journal:
        run = journal.begin_run(now=time.time())
        files = ingest.scan(journal, run, given)
        ingest.learn_what_is_in(journal, run)
        ingest.settle(journal, run)
        if ingest.deidentifying is not None:
            _judge(journal, run, ingest.opener, ingest.deidentifying)
        made = _plan(journal, run, ingest)
        if made.given != files:
            raise FilesUnaccounted(
                f"{files} files were given, and the plan accounts for {made.given}.",
                advice="This is a defect; nothing was changed.",
            )
        journal.end_run(run)
    return made


def _judge(journal: Journal, run: str, opener: Opener, deidentifying: Deidentifying) -> None:
    for row in journal.all("SELECT * FROM given WHERE run = ? AND state = 'sent' ORDER BY number", run):
        etag = row["stamp"] if row["place"] == "s3" else ""
        with opener.open(row["place"], row["path"], row["member"], etag=etag) as stream:
            fate = deidentifying.judge(stream)
        if fate is not None:
            journal.execute(
                "UPDATE given SET state = ?, kind = ?, reason = ? WHERE run = ? AND number = ?",
                *(fate.state, fate.kind, fate.reason, run, row["number"]),
            )


def _plan(journal: Journal, run: str, ingest: Ingest) -> Plan:
    found = counts(journal, run)

    def refused(state: str) -> tuple[FailedFile, ...]:
        rows = journal.all("SELECT * FROM given WHERE run = ? AND state = ? ORDER BY name", run, state)
        return tuple(FailedFile(file=row["name"], kind=row["kind"], reason=row["reason"]) for row in rows)

    size = journal.one("SELECT coalesce(sum(size), 0) FROM given WHERE run = ? AND state = 'sent'", run)
    jobs = journal.one(
        "SELECT count(*) FROM open_chunk c WHERE run = ? AND EXISTS"
        " (SELECT 1 FROM given g WHERE g.run = c.run AND g.chunk = c.id AND g.state = 'sent')",
        run,
    )
    failed, quarantined = refused("failed"), refused("quarantined")
    skipped = tuple(one.file for one in refused("skipped"))
    under_way = found.get("waiting", 0) + found.get("blocked", 0)
    return Plan(
        datastore_id=ingest.archive.datastore_id,
        given=sum(found.values()),
        to_import=found.get("sent", 0),
        bytes=int(size[0]),
        jobs=int(jobs[0]),
        already=found.get("already", 0),
        under_way=under_way,
        duplicates=found.get("duplicate", 0),
        failed=failed,
        quarantined=quarantined,
        skipped=skipped,
        deidentified=ingest.deidentifying is not None,
    )
