"""Brings DICOM files into the datastore: S3, an import job, and what the job says became of every file."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from arrival.importing.import_job import BYTES_PER_JOB, FILES_PER_JOB, Archive, outcome, start_import
from arrival.importing.job_output import FailedFile, FileWarning, ImportedFile, JobOutput
from workbench.deployment import Deployment
from workbench.dicom_files import find_files
from workbench.progress import Progress, silent

UPLOAD_THREADS = 8


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
    archive = archive_of(deployment)
    medical_imaging = deployment.session.client("medical-imaging")
    jobs: list[JobOutput] = []
    names: dict[str, str] = {}
    run = uuid.uuid4().hex
    for number, batch in enumerate(batches(export.dicom)):
        keys = {f"{index:06d}.dcm": path for index, path in enumerate(batch)}
        prefix = f"{run}/{number:03d}/"
        progress(f"uploading {len(batch)} files")
        _upload(deployment, bucket=archive.inbox_bucket, prefix=prefix, files=keys)
        started = start_import(
            medical_imaging,
            archive,
            prefix=prefix,
            client_token=uuid.uuid4().hex,
            name=prefix.replace("/", "-").rstrip("-"),
        )
        progress(f"import job {started.job_id} started")
        job = outcome(medical_imaging, deployment.session.client("s3"), archive, started)
        progress(f"import job {job.job_id} completed")
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
    return _report(archive.datastore_id, jobs, names, damaged, tuple(str(path) for path in export.skipped))


def archive_of(deployment: Deployment) -> Archive:
    """Where files of the environment go to."""
    data = deployment.stack("data")
    return Archive(
        datastore_id=data["DatastoreId"],
        import_role_arn=data["ImportRoleArn"],
        inbox_bucket=data["InboxBucketName"],
        import_bucket=data["ImportBucketName"],
    )


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
