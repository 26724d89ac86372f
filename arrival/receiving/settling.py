"""From a closed batch to the archive: the import job, and what becomes of every object.

Nothing is known here that S3 does not know. Whatever ends this in between, whoever does it again, even two at
once, comes to the same: the client token is the batch's, so it is one job; an object goes only when the job
says that it is imported, or when it has been copied to where failures wait.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from arrival.importing.import_job import Archive, JobFailedError, outcome, start_import
from arrival.importing.job_output import JobOutput
from arrival.importing.pacing import StartPace
from arrival.receiving.batch import FAILED, Batch
from arrival.receiving.objects import Objects
from arrival.receiving.studies import Closed, Studies

MOST_JOBS = 288
"""Jobs of a batch that failed as a whole before its instances are put to the failed ones."""

NOT_REPORTED = "NotReported"
_AGAIN = "-again"
"""In the name of a batch with what no job has reported; not reported a second time, it has failed."""


@dataclass(frozen=True, kw_only=True)
class Settled:
    """What became of a batch."""

    batch: Batch
    imported: int
    failed: int
    left: Batch | None
    """What the job says nothing about is in this new batch."""
    job_id: str | None
    """None: there was nothing to import."""


@dataclass(frozen=True, kw_only=True)
class Settling:
    """Imports batches. Used by several threads."""

    medical_imaging: Any
    s3: Any
    archive: Archive
    inbox: Objects
    imports: Objects
    studies: Studies
    pace: StartPace
    every_seconds: float = 1.0

    def settle(self, closed: Closed) -> Settled:
        """Import a batch, and clear it away.

        Raises:
            ImportFailedError: The job failed as a whole or does not end. The batch stays for another attempt.
        """
        batch = closed.batch
        keys = [one.key for one in self.inbox.list(batch.prefix)]
        if not keys:
            return Settled(batch=batch, imported=0, failed=0, left=None, job_id=None)
        attempt = sum(1 for _ in self.imports.list(f"{batch.prefix}job-failed-"))
        if attempt >= MOST_JOBS:
            return self._give_up(batch, keys, attempts=attempt)
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
        return self._clear(batch, keys, output, closed)

    def _clear(self, batch: Batch, keys: list[str], output: JobOutput, closed: Closed) -> Settled:
        imported = {one.file for one in output.imported}
        reasons = {one.file: {"kind": one.kind, "reason": one.reason} for one in output.failed}
        counts = {"imported": 0, "failed": 0}
        left: Batch | None = None
        self._report(batch, output, closed)
        for key in keys:
            name = key.removeprefix(batch.prefix)
            if name in reasons:
                self._fail(batch, key, reasons[name])
                counts["failed"] += 1
            elif name in imported:
                self.inbox.delete(key)
                counts["imported"] += 1
            elif batch.name.endswith(_AGAIN):
                self._fail(batch, key, {"kind": NOT_REPORTED, "reason": "two import jobs say nothing of it"})
                counts["failed"] += 1
            else:
                if left is None:
                    new = self.studies.new_batch(batch.study)
                    left = Batch(study=new.study, name=f"{new.name}{_AGAIN}")
                self.inbox.move(key, f"{left.prefix}{name}")
        return Settled(
            batch=batch,
            imported=counts["imported"],
            failed=counts["failed"],
            left=left,
            job_id=output.job_id,
        )

    def _report(self, batch: Batch, output: JobOutput, closed: Closed) -> None:
        """Keep what the job says, before the objects go that it is about."""
        self.imports.put_json(
            f"{batch.prefix}report.json",
            {
                "jobId": output.job_id,
                "imported": [
                    {"file": one.file, "imageSetId": one.image_set_id, "isPrimary": one.is_primary}
                    for one in output.imported
                ],
                "failed": [
                    {"file": one.file, "kind": one.kind, "reason": one.reason} for one in output.failed
                ],
                "warnings": [
                    {"file": one.file, "code": one.code, "message": one.message} for one in output.warnings
                ],
            },
        )
        for study, document in closed.reports.documents().items():
            self.imports.put_json(f"reports/deidentification/{study}/{batch.name}.json", document)

    def _fail(self, batch: Batch, key: str, reason: dict[str, str]) -> None:
        """To where failures wait for a person: the reason first, then the object."""
        to = f"{FAILED}{batch.study}/{batch.name}/{key.removeprefix(batch.prefix)}"
        self.inbox.put_json(f"{to}.json", reason)
        self.inbox.move(key, to)

    def _give_up(self, batch: Batch, keys: list[str], *, attempts: int) -> Settled:
        for key in keys:
            self._fail(batch, key, {"kind": "ImportJobFailed", "reason": f"{attempts} import jobs failed"})
        return Settled(batch=batch, imported=0, failed=len(keys), left=None, job_id=None)
