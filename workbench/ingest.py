"""Brings DICOM files into the datastore: S3, an import job, and what the job says became of every file."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from workbench.deployment import Deployment, StackOutputs
from workbench.dicom_files import find_files
from workbench.errors import ImportFailed
from workbench.import_report import FailedFile, FileWarning, ImportedFile, JobOutput, read_job_output
from workbench.progress import Progress, silent
from workbench.waiting import poll

FILES_PER_JOB = 5_000
BYTES_PER_JOB = 10 * 10**9
"""HealthImaging's quotas for one import job: 5,000 files and 10 GB (developer guide, "Endpoints and
quotas").
"""
UPLOAD_THREADS = 8
JOB_TIMEOUT_SECONDS = 3600.0


@dataclass(frozen=True, kw_only=True)
class ImageSetSummary:
    """One image set that an ingest made or extended."""

    image_set_id: str
    version_id: int
    is_primary: bool
    instances: int


@dataclass(frozen=True, kw_only=True)
class IngestReport:
    """What became of every file that was given; files are named as the person named them."""

    datastore_id: str
    jobs: tuple[str, ...]
    imported: tuple[ImportedFile, ...]
    failed: tuple[FailedFile, ...]
    skipped: tuple[str, ...]
    """Files that are not DICOM and do not claim to be."""
    warnings: tuple[FileWarning, ...]

    @property
    def ok(self) -> bool:
        """True if something was imported and nothing failed."""
        return bool(self.imported) and not self.failed

    @property
    def image_sets(self) -> tuple[ImageSetSummary, ...]:
        """The image sets of the imported files, each at its newest version."""
        newest: dict[str, ImportedFile] = {}
        counts: dict[str, int] = {}
        for file in self.imported:
            counts[file.image_set_id] = counts.get(file.image_set_id, 0) + 1
            known = newest.get(file.image_set_id)
            if known is None or file.version_id > known.version_id:
                newest[file.image_set_id] = file
        return tuple(
            ImageSetSummary(
                image_set_id=key,
                version_id=file.version_id,
                is_primary=file.is_primary,
                instances=counts[key],
            )
            for key, file in newest.items()
        )

    @property
    def non_primary(self) -> tuple[str, ...]:
        """Image sets that conflict with the rest of their study: DICOMweb does not show them."""
        return tuple(one.image_set_id for one in self.image_sets if not one.is_primary)

    def to_json(self) -> dict[str, object]:
        return {
            "ok": self.ok,
            "datastoreId": self.datastore_id,
            "jobs": list(self.jobs),
            "imported": len(self.imported),
            "imageSets": [
                {
                    "imageSetId": one.image_set_id,
                    "versionId": str(one.version_id),
                    "isPrimary": one.is_primary,
                    "instances": one.instances,
                }
                for one in self.image_sets
            ],
            "nonPrimary": list(self.non_primary),
            "failed": [{"file": one.file, "kind": one.kind, "reason": one.reason} for one in self.failed],
            "skipped": list(self.skipped),
            "warnings": [
                {"file": one.file, "code": one.code, "message": one.message} for one in self.warnings
            ],
        }


def ingest(deployment: Deployment, paths: Iterable[Path], *, progress: Progress = silent) -> IngestReport:
    """Import every DICOM file below `paths`; files that fail are in the report, not an exception.

    Keys in S3 are numbers, not the given names: exports carry patients' names in folders and files, and a
    key is seen in access logs and import manifests.
    """
    export = find_files(paths)
    data = deployment.stack("data")
    jobs: list[JobOutput] = []
    names: dict[str, str] = {}
    run = uuid.uuid4().hex
    for number, batch in enumerate(batches(export.dicom)):
        keys = {f"{index:06d}.dcm": path for index, path in enumerate(batch)}
        prefix = f"{run}/{number:03d}/"
        progress(f"uploading {len(batch)} files")
        _upload(deployment, bucket=data["InboxBucketName"], prefix=prefix, files=keys)
        job = _import(deployment, data=data, prefix=prefix, progress=progress)
        names.update({f"{job.job_id}/{key}": str(path) for key, path in keys.items()})
        jobs.append(job)
    damaged = tuple(
        FailedFile(
            file=str(path),
            kind="NotDicom",
            reason="named like an image, but without the prefix DICM (PS3.10)",
        )
        for path in export.damaged
    )
    return _report(data["DatastoreId"], jobs, names, damaged, tuple(str(path) for path in export.skipped))


def batches(
    files: Sequence[Path], *, most_files: int = FILES_PER_JOB, most_bytes: int = BYTES_PER_JOB
) -> Iterable[list[Path]]:
    """Split files into lists that one import job takes each."""
    batch: list[Path] = []
    size = 0
    for file in files:
        bytes_ = file.stat().st_size
        if batch and (len(batch) >= most_files or size + bytes_ > most_bytes):
            yield batch
            batch, size = [], 0
        batch.append(file)
        size += bytes_
    if batch:
        yield batch


def _upload(deployment: Deployment, *, bucket: str, prefix: str, files: Mapping[str, Path]) -> None:
    s3 = deployment.session.client("s3")
    with ThreadPoolExecutor(UPLOAD_THREADS) as pool:
        uploads = [
            pool.submit(s3.upload_file, str(path), bucket, prefix + key) for key, path in files.items()
        ]
        for upload in uploads:
            upload.result()


def _import(deployment: Deployment, *, data: StackOutputs, prefix: str, progress: Progress) -> JobOutput:
    client = deployment.session.client("medical-imaging")
    datastore = data["DatastoreId"]
    input_uri = f"s3://{data['InboxBucketName']}/{prefix}"
    job_id = str(
        client.start_dicom_import_job(
            jobName=prefix.replace("/", "-").rstrip("-")[:64],
            datastoreId=datastore,
            dataAccessRoleArn=data["ImportRoleArn"],
            # A fresh token for every run: a constant one would return an old job as if it were this one.
            clientToken=uuid.uuid4().hex,
            inputS3Uri=input_uri,
            outputS3Uri=f"s3://{data['ImportBucketName']}/{prefix}",
        )["jobId"]
    )
    progress(f"import job {job_id} started")

    def ended() -> Mapping[str, Any] | None:
        properties: Mapping[str, Any] = client.get_dicom_import_job(datastoreId=datastore, jobId=job_id)[
            "jobProperties"
        ]
        return properties if properties["jobStatus"] in {"COMPLETED", "FAILED"} else None

    job = poll(
        ended,
        every_seconds=1.0,
        timeout_seconds=JOB_TIMEOUT_SECONDS,
        on_timeout=lambda: ImportFailed(
            f"Import job {job_id} has not ended after {JOB_TIMEOUT_SECONDS / 60:.0f} minutes.",
            advice="It goes on in HealthImaging; look at it with GetDICOMImportJob.",
        ),
    )
    if job["jobStatus"] == "FAILED":
        raise ImportFailed(
            f"Import job {job_id} failed: {job.get('message', 'no message')}.",
            advice="A whole job fails for its role, its buckets or its quotas, not for one file: "
            "correct that first.",
        )
    progress(f"import job {job_id} completed")
    return read_job_output(
        deployment.session, job_id=job_id, input_uri=input_uri, output_uri=job["outputS3Uri"]
    )


def _report(
    datastore_id: str,
    jobs: Sequence[JobOutput],
    names: Mapping[str, str],
    damaged: tuple[FailedFile, ...],
    skipped: tuple[str, ...],
) -> IngestReport:
    def named(job: JobOutput, file: str) -> str:
        return names.get(f"{job.job_id}/{file}", file)

    mentioned = {f"{job.job_id}/{one.file}" for job in jobs for one in job.imported}
    mentioned |= {f"{job.job_id}/{one.file}" for job in jobs for one in job.failed}
    unmentioned = tuple(
        FailedFile(file=path, kind="NotReported", reason="the import job says nothing about this file")
        for key, path in names.items()
        if key not in mentioned
    )
    return IngestReport(
        datastore_id=datastore_id,
        jobs=tuple(job.job_id for job in jobs),
        imported=tuple(
            ImportedFile(
                file=named(job, one.file),
                image_set_id=one.image_set_id,
                version_id=one.version_id,
                is_primary=one.is_primary,
            )
            for job in jobs
            for one in job.imported
        ),
        failed=damaged
        + unmentioned
        + tuple(
            FailedFile(file=named(job, one.file), kind=one.kind, reason=one.reason)
            for job in jobs
            for one in job.failed
        ),
        skipped=skipped,
        warnings=tuple(
            FileWarning(file=named(job, one.file), code=one.code, message=one.message)
            for job in jobs
            for one in job.warnings
        ),
    )
