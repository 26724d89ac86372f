"""From a closed batch to the archive: the import job, and what becomes of every object.

Nothing is known here that S3 does not know. Whatever ends this in between, whoever does it again, even two at
once, comes to the same: the client token is the batch's, so it is one job; the first report that is written
holds; an object goes only when that report says that it is imported, or when it has been copied to where
failures wait.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from arrival.importing.import_job import Archive, JobFailedError, outcome, start_import
from arrival.importing.job_output import JobOutput
from arrival.importing.pacing import StartPace
from arrival.receiving import records
from arrival.receiving.batch import FAILED, Batch
from arrival.receiving.objects import Objects
from arrival.receiving.records import Record
from arrival.receiving.studies import Closed

MOST_JOBS = 288
"""Jobs of a batch that failed as a whole before its instances are put to the failed ones."""

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

    medical_imaging: Any
    s3: Any
    archive: Archive
    inbox: Objects
    imports: Objects
    pace: StartPace
    every_seconds: float = 1.0

    def settle(self, closed: Closed) -> Settled:
        """Import a batch, write its report, and clear it away.

        Raises:
            ImportFailedError: The job failed as a whole or does not end. The batch stays for another attempt.
        """
        batch = closed.batch
        keys = [one.key for one in self.inbox.list(batch.prefix)]
        known = records.read(self.inbox, batch)
        if not keys and not known and not closed.kept:
            return Settled(batch=batch)
        at = f"{batch.prefix}report.json"
        said = self.imports.read(at)
        if said is None:
            held = {key.removeprefix(batch.prefix) for key in keys}
            output = self._import(batch, held) if held else _NOTHING
            body = json.dumps(_report(closed, held, known, output), indent=2).encode()
            # Two at once: the first one's holds for both.
            said = body if self.imports.put_new(at, body) else self.imports.read(at) or body
        return self._clear(batch, keys, known, json.loads(said))

    def _import(self, batch: Batch, held: set[str]) -> dict[str, Any]:
        attempt = sum(1 for _ in self.imports.list(f"{batch.prefix}job-failed-"))
        if attempt >= MOST_JOBS:
            reason = {"kind": "ImportJobFailed", "reason": f"{attempt} import jobs failed"}
            return _NOTHING | {"failed": [{"file": file, **reason} for file in sorted(held)]}
        job = self.pace.start(
            lambda: start_import(
                self.medical_imaging,
                self.archive,
                prefix=batch.prefix,
                client_token=batch.client_token(attempt),
                name=f"received-{batch.name}",
            )
        )
        try:
            output = outcome(
                self.medical_imaging, self.s3, self.archive, job, every_seconds=self.every_seconds
            )
        except JobFailedError as error:
            document = {"jobId": job.job_id, "message": error.message}
            self.imports.put_json(f"{batch.prefix}job-failed-{attempt}.json", document)
            raise
        return _said(output)

    def _clear(self, batch: Batch, keys: list[str], known: list[Record], report: dict[str, Any]) -> Settled:
        failed = {one["file"]: {"kind": one["kind"], "reason": one["reason"]} for one in report["failed"]}
        imported = {one["file"] for one in report["imported"]} - set(failed)
        quarantined = {one["file"] for one in report["quarantined"]}
        self._report_deidentification(batch, known, {*failed, *imported, *quarantined})
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
        records.delete(self.inbox, batch, known)
        return Settled(
            batch=batch,
            imported=len(imported),
            failed=len(failed),
            quarantined=len(quarantined),
            missing=len(report["missing"]),
            again=frozenset(again),
            left=batch.again if again else None,
        )

    def _report_deidentification(self, batch: Batch, known: list[Record], settled: set[str]) -> None:
        """The first one is written before any record goes, so it is the complete one."""
        documents = records.study_documents(one for one in known if one.file in settled)
        for study, document in documents.items():
            at = f"reports/deidentification/{study}/{batch.name}.json"
            self.imports.put_new(at, json.dumps(document, indent=2).encode())

    def _fail(self, batch: Batch, key: str, reason: dict[str, str]) -> None:
        """To where failures wait for a person: the reason first, then the object."""
        to = f"{FAILED}{batch.study}/{batch.name}/{key.removeprefix(batch.prefix)}"
        self.inbox.put_json(f"{to}.json", reason)
        self.inbox.move(key, to)


_NOTHING: dict[str, Any] = {"jobId": None, "imported": [], "failed": [], "warnings": []}
"""What no job says."""


def _said(output: JobOutput) -> dict[str, Any]:
    return {
        "jobId": output.job_id,
        "imported": [
            {"file": one.file, "imageSetId": one.image_set_id, "isPrimary": one.is_primary}
            for one in output.imported
        ],
        "failed": [{"file": one.file, "kind": one.kind, "reason": one.reason} for one in output.failed],
        "warnings": [{"file": one.file, "code": one.code, "message": one.message} for one in output.warnings],
    }


def _report(closed: Closed, held: set[str], known: list[Record], output: dict[str, Any]) -> dict[str, Any]:
    """The outcome of a batch. Every instance that was received is in exactly one of `imported`, `failed`,
    `quarantined`, `again` and `missing`; received is what S3 has, and what this process remembers to have
    acknowledged.
    """
    quarantined = [
        {"file": one.file, "key": one.quarantine_key, "reasons": one.reasons}
        for one in known
        if one.quarantine_key is not None
    ]
    failed = {one["file"] for one in output["failed"]}
    imported = {one["file"] for one in output["imported"]} - failed
    silent = sorted(held - imported - failed)
    if closed.batch.is_second_try:
        why = {"kind": NOT_REPORTED, "reason": "two import jobs say nothing of it"}
        output = output | {"failed": [*output["failed"], *({"file": file, **why} for file in silent)]}
        failed, silent = failed | set(silent), []
    found = imported | failed | set(silent) | {str(one["file"]) for one in quarantined}
    missing = sorted((closed.kept or frozenset()) - found)
    return {
        **output,
        "received": len(found) + len(missing),
        "quarantined": quarantined,
        "again": silent,
        "missing": missing,
        "counts": {
            "imported": len(imported),
            "failed": len(failed),
            "quarantined": len(quarantined),
            "again": len(silent),
            "missing": len(missing),
        },
    }
