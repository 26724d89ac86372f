"""S3 and HealthImaging in memory, in which a process can be killed at any call."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from botocore.exceptions import ClientError

from arrival.importing.import_job import Archive
from arrival.importing.pacing import StartPace
from arrival.receiving import records
from arrival.receiving.batch import RECEIVED, Batch
from arrival.receiving.batch_job import BatchJobs
from arrival.receiving.objects import Objects
from arrival.receiving.records import Record
from arrival.receiving.settling import INSTANCE_COMES_WITHIN, REPORTS, Settled, Settling
from arrival.receiving.studies import Closed

ARCHIVE = Archive(
    datastore_id="d" * 32, import_role_arn="role", inbox_bucket="inbox", import_bucket="imports"
)
STUDY = "1.2.3"


class Killed(BaseException):
    """The process is no more: nothing handles it."""


@dataclass(kw_only=True)
class Cloud:
    """What survives processes."""

    inbox: dict[str, bytes] = field(default_factory=dict)
    imports: dict[str, bytes] = field(default_factory=dict)
    refused: set[str] = field(default_factory=set)
    """Names of files that HealthImaging refuses."""
    silent: dict[str, int] = field(default_factory=dict)
    """Of how many more jobs' outputs a file is left out."""
    archive: set[str] = field(default_factory=set)
    """Names of files that jobs imported."""
    jobs: dict[str, str] = field(default_factory=dict)
    """By client token."""
    statuses: list[str] = field(default_factory=list)
    """How the next jobs end; COMPLETED when there is none."""
    modified: datetime = field(default_factory=lambda: datetime.now(UTC))
    """Of every object."""
    before_call: Callable[[str], None] = lambda _name: None
    after_call: Callable[[str], None] = lambda _name: None

    def client(self) -> Any:
        """S3 and HealthImaging, as a process calls them."""
        return _Client(cloud=self)

    def settling(self) -> Settling:
        """A process."""
        client = self.client()
        imports = Objects(s3=client, bucket="imports")
        jobs = BatchJobs(
            medical_imaging=client,
            s3=client,
            archive=ARCHIVE,
            imports=imports,
            pace=StartPace(per_second=1e9),
            every_seconds=0.0,
        )
        return Settling(jobs=jobs, inbox=Objects(s3=client, bucket="inbox"), imports=imports)

    def arrive(self, batch: Batch, file: str) -> None:
        """An instance, as the intake stores it: its record first."""
        document = {"studyInstanceUid": STUDY, "datesShifted": True, "changes": []}
        records.write(self._objects("inbox"), batch, Record(file=file, document=document))
        self.inbox[f"{batch.prefix}{file}"] = file.encode()

    def settle_all(self, *, in_order: bool = True) -> list[Settled]:
        """What other receivers do with what lies there, until nothing does.

        Args:
            in_order: First what comes before a second try. A receiver that was taken for dead may not.
        """
        done = []
        for _ in range(20):
            batches = {batch for key in self.inbox if (batch := Batch.of_key(key)) is not None}
            if not batches:
                return done
            if not any(key.endswith(".dcm") for key in self.waiting):
                # Records are left of instances that might come yet; they do not.
                self.modified -= INSTANCE_COMES_WITHIN + timedelta(seconds=1)
            for batch in sorted(batches, key=lambda one: one.prefix):
                if in_order and batch.first_try in batches:
                    continue
                done.append(self.settling().settle(Closed(batch=batch, kept=None, last=0.0)))
        message = f"it does not come to an end: {sorted(self.inbox)}"
        raise AssertionError(message)

    @property
    def reported(self) -> int:
        """Instances that the reports of de-identification count."""
        return sum(
            json.loads(body)["instances"] for key, body in self.imports.items() if key.startswith(REPORTS)
        )

    @property
    def waiting(self) -> set[str]:
        """Names of instances that are still to be imported."""
        return {key for key in self.inbox if key.startswith(RECEIVED)}

    def _objects(self, bucket: str) -> Objects:
        return Objects(s3=_Client(cloud=self, silent=True), bucket=bucket)


@dataclass(frozen=True, kw_only=True)
class _Client:
    """S3 and HealthImaging, as one process calls them."""

    cloud: Cloud
    silent: bool = False
    """The call is no process's: nobody is killed at it."""

    def __getattr__(self, name: str) -> Any:
        call = getattr(_Calls(cloud=self.cloud), name)

        def one(**request: Any) -> Any:
            if self.silent:
                return call(**request)
            self.cloud.before_call(name)
            try:
                return call(**request)
            finally:
                self.cloud.after_call(name)

        return one

    def get_paginator(self, _operation: str) -> Any:
        return self

    def paginate(self, *, Bucket: str, Prefix: str) -> Iterator[dict[str, Any]]:
        yield {"Contents": self.list_objects(bucket=Bucket, prefix=Prefix)}


@dataclass(frozen=True, kw_only=True)
class _Calls:
    cloud: Cloud

    def _bucket(self, name: str) -> dict[str, bytes]:
        return self.cloud.inbox if name == "inbox" else self.cloud.imports

    def list_objects(self, *, bucket: str, prefix: str) -> list[dict[str, Any]]:
        return [
            {"Key": key, "Size": len(body), "LastModified": self.cloud.modified}
            for key, body in sorted(self._bucket(bucket).items())
            if key.startswith(prefix)
        ]

    def put_object(self, *, Bucket: str, Key: str, Body: bytes, **request: Any) -> None:
        if "IfNoneMatch" in request and Key in self._bucket(Bucket):
            raise ClientError({"Error": {"Code": "PreconditionFailed"}}, "PutObject")
        self._bucket(Bucket)[Key] = Body

    def get_object(self, *, Bucket: str, Key: str) -> dict[str, Any]:
        if Key not in self._bucket(Bucket):
            raise ClientError({"Error": {"Code": "NoSuchKey"}}, "GetObject")
        return {"Body": io.BytesIO(self._bucket(Bucket)[Key])}

    def copy_object(self, *, Bucket: str, Key: str, CopySource: dict[str, str]) -> None:
        found = self._bucket(CopySource["Bucket"])
        if CopySource["Key"] not in found:
            raise ClientError({"Error": {"Code": "NoSuchKey"}}, "CopyObject")
        self._bucket(Bucket)[Key] = found[CopySource["Key"]]

    def delete_object(self, *, Bucket: str, Key: str) -> None:
        self._bucket(Bucket).pop(Key, None)

    def start_dicom_import_job(self, *, clientToken: str, inputS3Uri: str, **_request: Any) -> dict[str, str]:
        cloud = self.cloud
        if clientToken not in cloud.jobs:
            cloud.jobs[clientToken] = f"job{len(cloud.jobs)}"
            self._import(cloud.jobs[clientToken], inputS3Uri)
        return {"jobId": cloud.jobs[clientToken]}

    def _import(self, job: str, uri: str) -> None:
        """The job happens at its start, over what is there then."""
        cloud = self.cloud
        status = cloud.statuses.pop(0) if cloud.statuses else "COMPLETED"
        cloud.imports[f"status/{job}"] = status.encode()
        if status != "COMPLETED":
            return
        success, failure = [], []
        for key in sorted(cloud.inbox):
            if not key.startswith(uri.removeprefix("s3://inbox/")):
                continue
            name = key.rpartition("/")[2]
            if cloud.silent.get(name, 0) > 0:
                cloud.silent[name] -= 1
                continue
            line: dict[str, Any] = {"inputFile": f"s3://inbox/{key}"}
            if name in cloud.refused:
                failure.append(line | {"exception": {"exceptionType": "Bad", "message": "refused"}})
            else:
                cloud.archive.add(name)
                success.append(line | {"importResponse": {"imageSetId": "i", "isPrimary": True}})
        counts = {"numberOfImportedFiles": len(success), "numberOfFilesWithCustomerError": len(failure)}
        for name, document in (
            ("job-output-manifest.json", json.dumps({"jobSummary": counts})),
            ("SUCCESS/success.ndjson", "\n".join(map(json.dumps, success))),
            ("FAILURE/failure.ndjson", "\n".join(map(json.dumps, failure))),
        ):
            cloud.imports[f"output/{job}/{name}"] = document.encode()

    def get_dicom_import_job(self, *, jobId: str, **_request: Any) -> dict[str, Any]:
        status = self.cloud.imports[f"status/{jobId}"].decode()
        return {
            "jobProperties": {
                "jobStatus": status,
                "outputS3Uri": f"s3://imports/output/{jobId}/",
                "message": "the role",
            }
        }
