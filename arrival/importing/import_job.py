"""One import job of HealthImaging, from its start to what it says about every file.

Source: https://docs.aws.amazon.com/healthimaging/latest/devguide/importing-images.html
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from arrival.errors import ImportFailedError
from arrival.importing.job_output import JobOutput, read_job_output
from arrival.waiting import poll

FILES_PER_JOB = 5_000
BYTES_PER_JOB = 10 * 10**9
BYTES_PER_FILE = 4 * 10**9
"""HealthImaging's quotas: files and bytes of one import job, and bytes of one file
(https://docs.aws.amazon.com/general/latest/gr/healthimaging-quotas.html).
"""

JOB_TIMEOUT_SECONDS = 3600.0

_NAME_LENGTH = 64


class JobFailedError(ImportFailedError):
    """A job ended as FAILED: for its role, its buckets or its quotas. None of its files was imported."""


class JobRunsError(ImportFailedError):
    """A job has not ended yet. It goes on in HealthImaging."""


@dataclass(frozen=True, kw_only=True)
class Archive:
    """The datastore that files go to, and the buckets on the way there (outputs of stack `data`)."""

    datastore_id: str
    import_role_arn: str
    inbox_bucket: str
    """DICOM files as they arrive."""
    import_bucket: str
    """What import jobs report, and what is kept about arrivals."""


@dataclass(frozen=True, kw_only=True)
class ImportJob:
    """A job that has been started."""

    job_id: str
    input_uri: str


def start_import(
    medical_imaging: Any, archive: Archive, *, prefix: str, client_token: str, name: str
) -> ImportJob:
    """Start a job over every object below `prefix` of the inbox bucket.

    Args:
        medical_imaging: boto3 `medical-imaging` client, whose retries wait where the service throttles
            (StartDICOMImportJob: one a second).
        archive: Where to.
        prefix: Ends with a slash. The output is written below the same prefix of the import bucket.
        client_token: Fresh for every job; the same one again gives the same job, which is how a start whose
            answer was lost is asked for again.
        name: Shown in lists of jobs.
    """
    input_uri = f"s3://{archive.inbox_bucket}/{prefix}"
    job_id = medical_imaging.start_dicom_import_job(
        jobName=name[:_NAME_LENGTH],
        datastoreId=archive.datastore_id,
        dataAccessRoleArn=archive.import_role_arn,
        clientToken=client_token,
        inputS3Uri=input_uri,
        outputS3Uri=f"s3://{archive.import_bucket}/{prefix}",
    )["jobId"]
    return ImportJob(job_id=str(job_id), input_uri=input_uri)


def outcome(
    medical_imaging: Any,
    s3: Any,
    archive: Archive,
    job: ImportJob,
    *,
    every_seconds: float = 1.0,
    timeout_seconds: float = JOB_TIMEOUT_SECONDS,
) -> JobOutput:
    """Wait until a job has ended, and read what it says about its files.

    Raises:
        JobFailedError: The job as a whole failed.
        JobRunsError: It has not ended yet.
        ImportFailedError: It left no manifest.
    """
    output_uri = wait_for_end(
        medical_imaging, archive, job.job_id, every_seconds=every_seconds, timeout_seconds=timeout_seconds
    )
    return read_job_output(
        s3,
        job_id=job.job_id,
        input_uri=job.input_uri,
        output_uri=output_uri,
        every_seconds=every_seconds,
    )


def wait_for_end(
    medical_imaging: Any,
    archive: Archive,
    job_id: str,
    *,
    every_seconds: float = 1.0,
    timeout_seconds: float = JOB_TIMEOUT_SECONDS,
    sleep: Callable[[float], None] = time.sleep,
) -> str:
    """Wait until a job is COMPLETED, and return the S3 URI of its output folder.

    Args:
        medical_imaging: boto3 `medical-imaging` client.
        archive: Whose datastore the job imports to.
        job_id: The job.
        every_seconds: How often it is looked at (GetDICOMImportJob: 25 a second for the account).
        timeout_seconds: How long.
        sleep: Waits between two looks; may raise, to end the waiting.

    Raises:
        JobFailedError: The job as a whole failed.
        JobRunsError: It has not ended after `timeout_seconds`.
    """

    def ended() -> Mapping[str, Any] | None:
        properties: Mapping[str, Any] = medical_imaging.get_dicom_import_job(
            datastoreId=archive.datastore_id, jobId=job_id
        )["jobProperties"]
        return properties if properties["jobStatus"] in {"COMPLETED", "FAILED"} else None

    properties = poll(
        ended,
        every_seconds=every_seconds,
        timeout_seconds=timeout_seconds,
        on_timeout=_does_not_end(job_id, timeout_seconds),
        sleep=sleep,
    )
    if properties["jobStatus"] == "FAILED":
        raise JobFailedError(
            f"Import job {job_id} failed: {properties.get('message', 'no message')}.",
            advice="A whole job fails for its role, its buckets or its quotas, not for one file: "
            "correct that first.",
        )
    return str(properties["outputS3Uri"])


def _does_not_end(job_id: str, seconds: float) -> Callable[[], ImportFailedError]:
    return lambda: JobRunsError(
        f"Import job {job_id} has not ended after {seconds / 60:.0f} minutes.",
        advice="It goes on in HealthImaging; look at it with GetDICOMImportJob.",
    )
