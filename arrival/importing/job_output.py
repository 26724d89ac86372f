"""Reads what an import job of HealthImaging wrote about itself.

A job that is COMPLETED has not necessarily imported anything: the truth is in its output folder
(developer guide, "Understanding import jobs"): `job-output-manifest.json`, `SUCCESS/success.ndjson`,
`FAILURE/failure.ndjson` and `WARNING/warning.ndjson`. These can appear shortly after the job's last status.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from botocore.exceptions import ClientError

from arrival.errors import ImportFailedError
from arrival.s3_uri import split_s3_uri
from arrival.waiting import poll

_FAILURES = ("numberOfFilesWithCustomerError", "numberOfFilesWithServerError")
MANIFEST_TIMEOUT_SECONDS = 60.0
"""The manifest was seen a few seconds late on AWS; a minute is a generous multiple of that."""


@dataclass(frozen=True, kw_only=True)
class ImportedFile:
    """One file that became part of an image set."""

    file: str
    image_set_id: str
    version_id: int
    is_primary: bool


@dataclass(frozen=True, kw_only=True)
class FailedFile:
    """One file that did not, and why; `kind` is HealthImaging's exception type or "NotDicom"."""

    file: str
    kind: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class FileWarning:
    """One remark of HealthImaging about a file that it imported."""

    file: str
    code: str
    message: str


@dataclass(frozen=True, kw_only=True)
class JobOutput:
    """Everything that one import job says about its files; `file` is the S3 key below the job's input
    prefix.
    """

    job_id: str
    scanned: int
    imported: tuple[ImportedFile, ...]
    failed: tuple[FailedFile, ...]
    warnings: tuple[FileWarning, ...]


def read_job_output(
    s3: Any, *, job_id: str, input_uri: str, output_uri: str, every_seconds: float = 1.0
) -> JobOutput:
    """Read the output folder `output_uri` of a job that has ended, waiting for a late manifest.

    Args:
        s3: boto3 `s3` client.
        job_id: The job, for the error.
        input_uri: Its input prefix, which the names of files are relative to.
        output_uri: Its output folder, as GetDICOMImportJob says it once the job has ended.
        every_seconds: How often a manifest that is late is looked for.

    Raises:
        ImportFailedError: There is no manifest after `MANIFEST_TIMEOUT_SECONDS`, or the lists of files do not
            have as many lines as it counts.
    """
    bucket, folder = split_s3_uri(output_uri)
    folder = folder.rstrip("/") + "/"

    def manifest() -> Mapping[str, Any] | None:
        body = _object(s3, bucket, folder + "job-output-manifest.json")
        return None if body is None else json.loads(body)

    summary: Mapping[str, Any] = poll(
        manifest,
        every_seconds=every_seconds,
        timeout_seconds=MANIFEST_TIMEOUT_SECONDS,
        on_timeout=lambda: ImportFailedError(
            f"Import job {job_id} ended, but wrote no manifest to {output_uri}.",
            advice="Check that the import role may write to that bucket, then ingest again.",
        ),
    )["jobSummary"]

    def lines(which: str, fallback: str) -> Iterator[Mapping[str, Any]]:
        where = summary.get(f"{which}OutputS3Uri") or f"s3://{bucket}/{folder}{fallback}"
        yield from _ndjson(s3, where, fallback)

    def counted(which: str, fallback: str, *numbers: str) -> list[Mapping[str, Any]]:
        """All lines that the manifest counts. A list can be as late as the manifest itself: taken for empty,
        it would make files that are in look as if nobody knew of them.
        """
        wanted = sum(int(summary.get(number, 0)) for number in numbers)

        def complete() -> list[Mapping[str, Any]] | None:
            found = list(lines(which, fallback))
            return found if len(found) >= wanted else None

        return poll(
            complete,
            every_seconds=every_seconds,
            timeout_seconds=MANIFEST_TIMEOUT_SECONDS,
            on_timeout=lambda: ImportFailedError(
                f"Import job {job_id} counts {wanted} files in {fallback}, and lists fewer.",
                advice="Look again in some minutes: the same command reads the job's output once more.",
            ),
        )

    name = _relative_to(input_uri)
    imported = tuple(
        ImportedFile(
            file=name(line["inputFile"]),
            image_set_id=str(line["importResponse"]["imageSetId"]),
            version_id=int(line["importResponse"].get("imageSetVersion", 1)),
            is_primary=_truth(line["importResponse"].get("isPrimary", True)),
        )
        for line in counted("success", "SUCCESS/success.ndjson", "numberOfImportedFiles")
    )
    failed = tuple(
        FailedFile(
            file=name(line["inputFile"]),
            kind=str(line["exception"].get("exceptionType", "Exception")),
            reason=str(line["exception"].get("message", "")),
        )
        for line in counted("failure", "FAILURE/failure.ndjson", *_FAILURES)
    )
    warnings = tuple(
        FileWarning(
            file=name(line["inputFile"]),
            code=str(warning.get("warning_reason_code", "")),
            message=str(warning.get("message", "")),
        )
        for line in lines("warnings", "WARNING/warning.ndjson")
        for warning in line.get("warnings", [])
    )
    return JobOutput(
        job_id=job_id,
        scanned=int(summary.get("numberOfScannedFiles", len(imported) + len(failed))),
        imported=imported,
        failed=failed,
        warnings=warnings,
    )


def _ndjson(s3: Any, uri: str, fallback: str) -> Iterator[Mapping[str, Any]]:
    bucket, key = split_s3_uri(uri)
    if not key.endswith(".ndjson"):
        # The manifest may name the folder (SUCCESS/) instead of the file in it.
        key = f"{key.rstrip('/')}/{fallback.rpartition('/')[2]}"
    body = _object(s3, bucket, key)
    for line in (body or b"").splitlines():
        if line.strip():
            yield json.loads(line)


def _object(s3: Any, bucket: str, key: str) -> bytes | None:
    try:
        return bytes(s3.get_object(Bucket=bucket, Key=key)["Body"].read())
    except ClientError as error:
        if error.response["Error"]["Code"] in {"NoSuchKey", "404"}:
            return None
        raise


def _relative_to(input_uri: str) -> Any:
    """Function from an `inputFile` (an S3 URI, a key, or a key below the prefix) to the key below the
    prefix.
    """
    _, prefix = split_s3_uri(input_uri)
    prefix = prefix.rstrip("/") + "/" if prefix else ""

    def relative(name: str) -> str:
        key = split_s3_uri(name)[1] if name.startswith("s3://") else name
        return key.removeprefix("/").removeprefix(prefix)

    return relative


def _truth(value: Any) -> bool:
    """JSON writers spell this field both as a boolean and as text."""
    return value if isinstance(value, bool) else str(value).lower() == "true"
