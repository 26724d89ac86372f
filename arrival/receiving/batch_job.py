"""The import job of a batch. All about it is in the import bucket, below the batch's prefix.

`job-<attempt>-files.json`: which objects lay there before the job was started; written by whoever comes
    first. Only of these a job's silence says something: what came later it may not have seen.
`job-<attempt>.json`: the job. Who finds it asks what became of that one, however long ago it was started;
    the service does not promise for how long it knows a client token.
`job-failed-<attempt>.json`: it failed as a whole, and the next one has another token.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from arrival.importing.import_job import Archive, ImportJob, JobFailedError, outcome, start_import
from arrival.importing.job_output import JobOutput
from arrival.importing.pacing import StartPace
from arrival.receiving.batch import Batch
from arrival.receiving.objects import Objects

MOST_JOBS = 288
"""Jobs of a batch that failed as a whole before its instances are put to the failed ones: with the pauses of
`receiver` between them some three days, a weekend with a broken role among them.
"""
LOOK_FOR_SECONDS = 600.0
"""For the end of a job. One that takes longer is looked at again later, so that it does not keep others from
their turn.
"""


@dataclass(frozen=True, kw_only=True)
class Said:
    """What a batch's job said, as it stands in the batch's report."""

    document: dict[str, Any]
    """`jobId`, `imported`, `failed`, `warnings`."""
    asked: frozenset[str]
    """The objects that lay there before the job was started."""


NOTHING: dict[str, Any] = {"jobId": None, "imported": [], "failed": [], "warnings": []}
"""What no job says."""


@dataclass(frozen=True, kw_only=True)
class BatchJobs:
    """Starts the jobs of batches, and hears them out. Used by several threads."""

    medical_imaging: Any
    s3: Any
    archive: Archive
    imports: Objects
    pace: StartPace
    every_seconds: float

    def run(self, batch: Batch, held: frozenset[str]) -> Said:
        """Import what is held of a batch.

        Raises:
            JobFailedError: The job failed as a whole; the next attempt is another job.
            JobRunsError: It has not ended yet; the next attempt looks again.
            ImportFailedError: What it said is not there yet; the next attempt looks again.
            ClientError, BotoCoreError: It could not be started or looked at.
        """
        attempt = sum(1 for _ in self.imports.list(f"{batch.prefix}job-failed-"))
        if attempt >= MOST_JOBS:
            why = {"kind": "ImportJobFailed", "reason": f"{attempt} import jobs failed"}
            failed = [{"file": file, **why} for file in sorted(held)]
            return Said(document=NOTHING | {"failed": failed}, asked=held)
        asked = self._asked(batch, attempt, held)
        job = self._job(batch, attempt)
        try:
            output = outcome(
                self.medical_imaging,
                self.s3,
                self.archive,
                job,
                every_seconds=self.every_seconds,
                timeout_seconds=LOOK_FOR_SECONDS,
            )
        except JobFailedError as error:
            document = {"jobId": job.job_id, "message": error.message}
            self.imports.put_json(f"{batch.prefix}job-failed-{attempt}.json", document)
            raise
        return Said(document=_document(output), asked=asked)

    def _asked(self, batch: Batch, attempt: int, held: frozenset[str]) -> frozenset[str]:
        at, body = f"{batch.prefix}job-{attempt}-files.json", json.dumps(sorted(held)).encode()
        if self.imports.put_new(at, body):
            return held
        return frozenset(json.loads(self.imports.read(at) or body))

    def _job(self, batch: Batch, attempt: int) -> ImportJob:
        at = f"{batch.prefix}job-{attempt}.json"
        known = self.imports.read(at)
        if known is not None:
            document = json.loads(known)
            return ImportJob(job_id=document["jobId"], input_uri=document["inputUri"])
        job = self.pace.start(
            lambda: start_import(
                self.medical_imaging,
                self.archive,
                prefix=batch.prefix,
                client_token=batch.client_token(attempt),
                name=f"received-{batch.name}",
            )
        )
        self.imports.put_json(at, {"jobId": job.job_id, "inputUri": job.input_uri})
        return job


def _document(output: JobOutput) -> dict[str, Any]:
    return {
        "jobId": output.job_id,
        "imported": [
            {"file": one.file, "imageSetId": one.image_set_id, "isPrimary": one.is_primary}
            for one in output.imported
        ],
        "failed": [{"file": one.file, "kind": one.kind, "reason": one.reason} for one in output.failed],
        "warnings": [{"file": one.file, "code": one.code, "message": one.message} for one in output.warnings],
    }
