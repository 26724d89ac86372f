"""Takes a batch from where S3 says it is to its end.

    claim -> records of de-identification -> job -> manifest -> report -> refused ones to failed/, imported ones
    removed -> look again: what is left gets another job -> records and claim removed

Every step may be done again after a crash at any point, by this receiver or by another, also by two at once:
an object is removed only when a job's manifest says that this very content is imported, or when a copy of it
lies in failed/; whatever came late is simply still there at the next look.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from arrival.errors import ClaimLostError, ImportFailedError
from arrival.importing.import_job import (
    Archive,
    ImportJob,
    JobFailedError,
    start_import,
    wait_for_end,
)
from arrival.importing.job_output import FailedFile, JobOutput, read_job_output
from arrival.importing.pacing import StartPace
from arrival.receiving.claims import Claim, Claims
from arrival.receiving.deidentifying import Deidentifying
from arrival.receiving.durable import keep_bytes, keep_json
from arrival.receiving.events import BatchResult, Observer
from arrival.receiving.object_names import BatchName
from arrival.receiving.shelf import Shelf, Shelved

ROUNDS = 3
"""After so many jobs that say nothing about a file it counts as refused."""

_FIRST_PAUSE_SECONDS = 60.0
_LONGEST_PAUSE_SECONDS = 1800.0
_RENEWALS = 4
"""In the time that a claim holds."""
_DELETED_AT_ONCE = 1000


class StoppedError(Exception):
    """The receiver ends: what it was doing is handed over."""


@dataclass(frozen=True, kw_only=True)
class BatchImport:
    """What the work on batches needs; used by several threads, one batch each.

    Attributes:
        s3: boto3 client.
        medical_imaging: boto3 client.
        archive: Where to.
        claims: Who has a batch.
        shelf: What is in it.
        deidentifying: Makes the records' documents; None without de-identification.
        pace: When a job may be started.
        observer: Is told.
        stopping: Set when the receiver ends.
        every_seconds: How often a job is looked at.
        clock: Seconds that only grow.
    """

    s3: Any
    medical_imaging: Any
    archive: Archive
    claims: Claims
    shelf: Shelf
    deidentifying: Deidentifying | None
    pace: StartPace
    observer: Observer
    stopping: threading.Event
    every_seconds: float = 2.0
    clock: Callable[[], float] = time.monotonic

    def work(self, name: BatchName) -> None:
        """Import a batch, if nobody else is at it.

        Raises:
            ImportFailedError: A job does not end, or left no manifest. The batch stays, and its claim lapses.
            ClientError: A service refused. As above.
        """
        claim = self.claims.take(name)
        if claim is None:
            return
        holding = _Holding(self.claims, claim, clock=self.clock)
        try:
            while self._round(holding):
                pass
        except ClaimLostError:
            self.observer.trouble("importing", kind="ClaimLostError", batch=name)
        except StoppedError:
            holding.write(replace(holding.claim.work, lease_seconds=0))

    def _round(self, holding: _Holding) -> bool:
        """One job over what is in the batch; False if the batch is done with, for now or for good."""
        name = holding.claim.name
        batch, _ = self.shelf.batch(name)
        work = holding.claim.work
        if not batch.instances and not work.job_id:
            self._write_records(batch, work.token)
            self._delete(batch.records)
            self.claims.give_back(holding.claim)
            return False
        # What came after the start of a job that another receiver began, this one cannot tell.
        before: frozenset[str] = frozenset()
        if not work.job_id:
            before = frozenset(batch.instances)
            self._write_records(batch, work.token)
            self._start(holding, instances=len(before))
        work = holding.claim.work
        try:
            output = self._output(holding)
        except JobFailedError:
            pause = min(_FIRST_PAUSE_SECONDS * 2**work.failures, _LONGEST_PAUSE_SECONDS)
            self.observer.job_failed(name, job_id=work.job_id)
            again = work.next_round(failures=work.failures + 1, lease_seconds=pause)
            holding.write(replace(again, round=work.round))
            return False
        self._settle(holding, output, before=before)
        holding.write(work.next_round(lease_seconds=self.claims.lease_seconds))
        return True

    def _start(self, holding: _Holding, *, instances: int) -> None:
        work, name = holding.claim.work, holding.claim.name
        job = self.pace.start(
            lambda: start_import(
                self.medical_imaging,
                self.archive,
                prefix=name.prefix,
                client_token=work.token,
                name=f"receive-{name.batch}",
            )
        )
        holding.write(replace(work, job_id=job.job_id))
        self.observer.started(name, job_id=job.job_id, instances=instances)

    def _output(self, holding: _Holding) -> JobOutput:
        name, job_id = holding.claim.name, holding.claim.work.job_id

        def sleep(seconds: float) -> None:
            if self.stopping.wait(seconds):
                raise StoppedError
            holding.renew()

        output_uri = wait_for_end(
            self.medical_imaging, self.archive, job_id, every_seconds=self.every_seconds, sleep=sleep
        )
        holding.renew()
        job = ImportJob(job_id=job_id, input_uri=f"s3://{self.archive.inbox_bucket}/{name.prefix}")
        return read_job_output(self.s3, job_id=job_id, input_uri=job.input_uri, output_uri=output_uri)

    def _settle(self, holding: _Holding, output: JobOutput, *, before: frozenset[str]) -> None:
        """Put away what a job's manifest names.

        Args:
            holding: The claim on the batch.
            output: Of the job.
            before: What was certainly in the batch when the job was started.
        """
        name, work = holding.claim.name, holding.claim.work
        batch, moment = self.shelf.batch(name)
        there = frozenset(batch.instances)
        imported = {name.prefix + one.file for one in output.imported}
        failed = {name.prefix + one.file: one for one in output.failed}
        if work.round >= ROUNDS:
            failed |= {
                key: FailedFile(
                    file=key.removeprefix(name.prefix),
                    kind="NotReported",
                    reason=f"{work.round} import jobs say nothing about this file",
                )
                for key in (before & there) - imported - failed.keys()
            }
        self._report(name, work.round, output, failed)
        refused = sorted(there & failed.keys())
        for key in refused:
            self._move_to_failed(name, failed[key], key)
            holding.renew()
        done = sorted(there & imported)
        self._delete(done)
        seconds = (moment - batch.newest).total_seconds() if there else 0.0
        self.observer.imported(
            BatchResult(
                batch=name,
                job_id=output.job_id,
                imported=len(done),
                failed=len(refused),
                seconds=max(seconds, 0.0),
                image_sets=tuple(sorted({one.image_set_id for one in output.imported})),
            )
        )

    def _report(self, name: BatchName, round_: int, output: JobOutput, failed: dict[str, FailedFile]) -> None:
        sets = sorted({(one.image_set_id, one.version_id, one.is_primary) for one in output.imported})
        keep_json(
            self.s3,
            bucket=self.archive.import_bucket,
            key=f"{name.prefix}report-{round_}.json",
            document={
                "datastoreId": self.archive.datastore_id,
                "jobId": output.job_id,
                "scanned": output.scanned,
                "imported": len(output.imported),
                "imageSets": [
                    {"imageSetId": id_, "versionId": str(version), "isPrimary": primary}
                    for id_, version, primary in sets
                ],
                "failed": [
                    {"file": one.file, "kind": one.kind, "reason": one.reason} for one in failed.values()
                ],
                "warnings": [
                    {"file": one.file, "code": one.code, "message": one.message} for one in output.warnings
                ],
            },
        )

    def _move_to_failed(self, name: BatchName, file: FailedFile, key: str) -> None:
        target = name.failed + key.removeprefix(name.prefix)
        keep_json(
            self.s3,
            bucket=self.archive.inbox_bucket,
            key=target.removesuffix(".dcm") + ".json",
            document={"kind": file.kind, "reason": file.reason},
        )
        self.s3.copy_object(
            Bucket=self.archive.inbox_bucket,
            Key=target,
            CopySource={"Bucket": self.archive.inbox_bucket, "Key": key},
            TaggingDirective="REPLACE",
        )
        self._delete([key])

    def _write_records(self, batch: Shelved, token: str) -> None:
        """Reports and sealed records, before the instances are in the archive."""
        if self.deidentifying is None or not batch.records:
            return
        bodies = (
            self.s3.get_object(Bucket=self.archive.inbox_bucket, Key=key)["Body"].read()
            for key in batch.records
        )
        name = f"{batch.name.batch}-{token[:8]}"
        for key, body in self.deidentifying.documents(bodies, name=name):
            keep_bytes(self.s3, bucket=self.archive.import_bucket, key=key, body=body)

    def _delete(self, keys: list[str]) -> None:
        for start in range(0, len(keys), _DELETED_AT_ONCE):
            answer = self.s3.delete_objects(
                Bucket=self.archive.inbox_bucket,
                Delete={
                    "Objects": [{"Key": key} for key in keys[start : start + _DELETED_AT_ONCE]],
                    "Quiet": True,
                },
            )
            if answer.get("Errors"):
                raise ImportFailedError(
                    f"S3 did not remove {len(answer['Errors'])} objects that are imported: "
                    f"{answer['Errors'][0].get('Code')}.",
                    advice="They are imported again; check that the receiver may delete below received/.",
                )


class _Holding:
    """A claim, renewed while the work goes on."""

    def __init__(self, claims: Claims, claim: Claim, *, clock: Callable[[], float]) -> None:
        self._claims = claims
        self._clock = clock
        self.claim = claim
        self._renewed = clock()

    def write(self, work: Any) -> None:
        """Note how far the work is. Raises ClaimLostError."""
        self.claim = self._claims.write(self.claim, work)
        self._renewed = self._clock()

    def renew(self) -> None:
        """Write the claim again if it is time. Raises ClaimLostError."""
        if self._clock() - self._renewed >= self._claims.lease_seconds / _RENEWALS:
            self.write(self.claim.work)
