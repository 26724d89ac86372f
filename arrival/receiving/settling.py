"""From a closed batch to the archive: the import job, and what becomes of every object.

Nothing is known here that S3 does not know. Whatever ends this in between, whoever does it again, even two at
once, comes to the same: the client token is the batch's, so it is one job; the first report that is written
holds; an object goes only when that report says that it is imported, or when it has been copied to where
failures wait.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from arrival.receiving import records
from arrival.receiving.batch import FAILED, Batch
from arrival.receiving.batch_job import NOTHING, BatchJobs, Said
from arrival.receiving.objects import Objects
from arrival.receiving.records import Record
from arrival.receiving.studies import Closed

INSTANCE_COMES_WITHIN = timedelta(hours=1)
"""After its record, if it comes at all: a request to S3 takes seconds, a process that was frozen longer."""

REPORTS = "reports/deidentification/"
"""Of de-identification, in the import bucket: one a study and batch."""

NOT_REPORTED = "NotReported"


@dataclass(frozen=True, kw_only=True)
class Settled:
    """What became of the instances of a batch."""

    batch: Batch
    imported: int = 0
    failed: int = 0
    quarantined: int = 0
    missing: int = 0
    """Acknowledged, and not in S3 any more: somebody else has deleted them."""
    again: frozenset[str] = frozenset()
    """Names of those that the job says nothing about."""
    left: Batch | None = None
    """Where those are now."""

    @property
    def ended(self) -> int:
        """Instances that came to their end here."""
        return self.imported + self.failed + self.quarantined + self.missing


@dataclass(frozen=True, kw_only=True)
class Settling:
    """Imports batches. Used by several threads."""

    jobs: BatchJobs
    inbox: Objects
    imports: Objects

    def settle(self, closed: Closed) -> Settled:
        """Import a batch, write its report, and clear it away.

        Raises:
            ImportFailedError: The job failed as a whole or has not ended. The batch stays for another
                attempt.
            ClientError, BotoCoreError: S3 or HealthImaging did not answer. The batch stays, too.
        """
        batch = closed.batch
        keys = [one.key for one in self.inbox.list(batch.prefix)]
        if not keys and not closed.kept and not records.are_there(self.inbox, batch):
            return Settled(batch=batch)
        at = f"{batch.prefix}report.json"
        written = self.imports.read(at)
        if written is None:
            held = frozenset(key.removeprefix(batch.prefix) for key in keys)
            said = self.jobs.run(batch, held) if held else Said(document=NOTHING, asked=held)
            # Only now: an instance that came late may be among those that the job found.
            known = records.read(self.inbox, batch)
            body = json.dumps(_report(closed, held, known, said), indent=2).encode()
            # Two at once: the first one's holds for both.
            written = body if self.imports.put_new(at, body) else self.imports.read(at) or body
        else:
            known = records.read(self.inbox, batch)
        return self._clear(closed, keys, known, json.loads(written))

    def _clear(self, closed: Closed, keys: list[str], known: list[Record], report: dict[str, Any]) -> Settled:
        batch = closed.batch
        failed = {one["file"]: {"kind": one["kind"], "reason": one["reason"]} for one in report["failed"]}
        imported = {one["file"] for one in report["imported"]} - set(failed)
        quarantined = {one["file"] for one in report["quarantined"]}
        ended = {*failed, *imported, *quarantined}
        self._report_deidentification(batch, [one for one in known if one.file in ended])
        # A process that was taken for dead may have gone on: what the report does not name goes on, too.
        again = set(report["again"])
        again |= {one.file for one in known if one.quarantine_key and one.file not in quarantined}
        again |= {key.removeprefix(batch.prefix) for key in keys} - {*failed, *imported}
        for record in known:
            if record.file in again:
                records.write(self.inbox, batch.again, record)
        for key in keys:
            name = key.removeprefix(batch.prefix)
            if name in failed:
                self._fail(batch, key, failed[name])
            elif name in imported:
                self.inbox.delete(key)
            else:
                self.inbox.move(key, f"{batch.again.prefix}{name}")
        records.delete(
            self.inbox, batch, [one for one in known if one.file in ended | again or _is_stale(one)]
        )
        left = batch.again if again else None
        # Who took the batch over counts it unless somebody has: late instances bring it up once more, and all
        # of the report would count again.
        if not self.imports.put_new(f"{batch.prefix}settled", b"") and closed.kept is None:
            return Settled(batch=batch, again=frozenset(again), left=left)
        return Settled(
            batch=batch,
            imported=len(imported),
            failed=len(failed),
            quarantined=len(quarantined),
            missing=len(report["missing"]),
            again=frozenset(again),
            left=left,
        )

    def _report_deidentification(self, batch: Batch, known: list[Record]) -> None:
        """The first one is written before any record goes, and after the job: so it is the complete one."""
        for study, document in records.study_documents(known).items():
            self.imports.put_new(
                f"{REPORTS}{study}/{batch.name}.json", json.dumps(document, indent=2).encode()
            )

    def _fail(self, batch: Batch, key: str, reason: dict[str, str]) -> None:
        """To where failures wait for a person: the reason first, then the object."""
        to = f"{FAILED}{batch.study}/{batch.name}/{key.removeprefix(batch.prefix)}"
        self.inbox.put_json(f"{to}.json", reason)
        self.inbox.move(key, to)


def _is_stale(record: Record) -> bool:
    """Whether the instance of a record without one will not come any more: a process ended in between."""
    return record.written is not None and datetime.now(UTC) - record.written > INSTANCE_COMES_WITHIN


def _report(closed: Closed, held: frozenset[str], known: list[Record], said: Said) -> dict[str, Any]:
    """The outcome of a batch. Every instance that was received is in exactly one of `imported`, `failed`,
    `quarantined`, `again` and `missing`; received is what S3 has, and what this process remembers to have
    acknowledged.
    """
    output = said.document
    quarantined = [
        {"file": one.file, "key": one.quarantine_key, "reasons": one.reasons}
        for one in known
        if one.quarantine_key is not None
    ]
    failed = {one["file"] for one in output["failed"]}
    imported = {one["file"] for one in output["imported"]} - failed
    silent = held - imported - failed
    if closed.batch.is_second_try:
        why = {"kind": NOT_REPORTED, "reason": "two import jobs say nothing of it"}
        twice = silent & said.asked
        output = output | {"failed": [*output["failed"], *({"file": file, **why} for file in sorted(twice))]}
        failed, silent = failed | twice, silent - twice
    found = imported | failed | silent | {str(one["file"]) for one in quarantined}
    missing = sorted((closed.kept or frozenset()) - found)
    return {
        **output,
        "received": len(found) + len(missing),
        "quarantined": quarantined,
        "again": sorted(silent),
        "missing": missing,
        "counts": {
            "imported": len(imported),
            "failed": len(failed),
            "quarantined": len(quarantined),
            "again": len(silent),
            "missing": len(missing),
        },
    }
