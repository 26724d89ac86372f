"""`--dry-run`: what an ingest would do, without doing it."""

from __future__ import annotations

import time
import zipfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from botocore.exceptions import BotoCoreError, ClientError

from arrival.importing.job_output import FailedFile
from workbench.deployment import Deployment
from workbench.ingesting.fate import CHANGED, NOT_THE_FILES, NOT_THE_SAME, Fate, no_longer_readable
from workbench.ingesting.found import Opener
from workbench.ingesting.journal import Journal
from workbench.ingesting.options import Options
from workbench.ingesting.report import FilesUnaccounted, counts
from workbench.ingesting.report_file import WriteLine
from workbench.ingesting.run import Ingest
from workbench.ingesting.watching import Watcher

if TYPE_CHECKING:
    from workbench.ingesting.deidentifying import Deidentifying

_PAGE = 500
_STATES = {"sent": "wouldImport", "already": "alreadyIn", "waiting": "underWay", "blocked": "underWay"}
"""States of a plan as its report names them; the others have the same name in both."""


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


def plan(
    deployment: Deployment,
    given: Iterable[str],
    *,
    options: Options,
    watcher: Watcher,
    write: WriteLine | None = None,
    leave_out: Callable[[str], bool] = lambda _path: False,
) -> Plan:
    """What `run_ingest` would do with the same arguments; nothing in the account or on disk is changed.

    Quarantine is judged by headers alone: pixel data is not read. `write` gets the totals, then one line a
    file. `leave_out` as for `run_ingest`.
    """
    ingest = Ingest(deployment, options, watcher, leave_out=leave_out)
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
        if write is not None:
            _write(journal, run, made, write)
        journal.end_run(run)
    return made


def _judge(journal: Journal, run: str, opener: Opener, deidentifying: Deidentifying) -> None:
    number = 0
    # Page by page: a cursor would see the rows that the loop changes.
    while rows := journal.all(
        "SELECT * FROM given WHERE run = ? AND state = 'sent' AND number > ? ORDER BY number LIMIT ?",
        *(run, number, _PAGE),
    ):
        for row in rows:
            fate = _fate(row, opener, deidentifying)
            if fate is not None:
                journal.execute(
                    "UPDATE given SET state = ?, kind = ?, reason = ? WHERE run = ? AND number = ?",
                    *(fate.state, fate.kind, fate.reason, run, row["number"]),
                )
        number = rows[-1]["number"]


def _fate(row: Any, opener: Opener, deidentifying: Deidentifying) -> Fate | None:
    """What would keep a file from going up; also one that was readable a moment ago may be no more."""
    etag = row["stamp"] if row["place"] == "s3" else ""
    try:
        with opener.open(row["place"], row["path"], row["member"], etag=etag) as stream:
            return deidentifying.judge(stream)
    except BotoCoreError:
        # Of the network; some are an OSError as well, and are not the file's fault.
        raise
    except (OSError, zipfile.BadZipFile) as error:
        return no_longer_readable(type(error).__name__)
    except ClientError as error:
        code = str(error.response["Error"].get("Code"))
        if code in NOT_THE_FILES:
            raise
        return CHANGED if code in NOT_THE_SAME else no_longer_readable(code)


def _write(journal: Journal, run: str, made: Plan, write: WriteLine) -> None:
    totals = made.to_json()
    for key in ("failed", "quarantined", "skipped"):
        totals[key] = len(totals[key])
    write(totals)
    # Nothing changes the rows any more.
    for row in journal.each("SELECT * FROM given WHERE run = ? ORDER BY number", run):
        state = _STATES.get(row["state"], row["state"])
        line: dict[str, object] = {"file": row["name"], "state": state}
        if state == "duplicate":
            line["sameAs"] = row["reason"]
        elif state in ("failed", "quarantined"):
            line |= {"kind": row["kind"], "reason": row["reason"]}
        elif state == "alreadyIn":
            line |= {"imageSetId": row["image_set_id"], "versionId": str(row["version_id"])}
        write(line)


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
