"""The output of an import job in S3 (devguide: "Understanding import jobs").

Below `{outputS3Uri}/{datastoreId}-DicomImport-{jobId}/`: `job-output-manifest.json`, and
`SUCCESS/success.ndjson`, `FAILURE/failure.ndjson` and `WARNING/warning.ndjson` where they have lines.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, TypedDict
from urllib.parse import urlsplit

from local.healthimaging.instances import INTERNAL_ERROR


@dataclass(frozen=True, kw_only=True)
class S3Location:
    """A bucket and a key prefix, "" or ending in a slash."""

    bucket: str
    prefix: str

    @property
    def uri(self) -> str:
        """As `s3://bucket/prefix/`."""
        return f"s3://{self.bucket}/{self.prefix}"


def parse_s3_uri(uri: str) -> S3Location:
    """The location of an S3 URI, taken as a folder."""
    parts = urlsplit(uri)
    prefix = parts.path.lstrip("/")
    return S3Location(
        bucket=parts.netloc, prefix=prefix if not prefix or prefix.endswith("/") else f"{prefix}/"
    )


def job_folder(output_uri: str, *, datastore_id: str, job_id: str) -> S3Location:
    """The folder of one job's output."""
    output = parse_s3_uri(output_uri)
    return S3Location(bucket=output.bucket, prefix=f"{output.prefix}{datastore_id}-DicomImport-{job_id}/")


class ImageSetLine(TypedDict):
    """One image set that the job made or changed."""

    imageSetId: str
    imageSetVersion: int
    isPrimary: bool
    numberOfMatchedSOPInstances: int


class FileLine(TypedDict):
    """What became of one input file: an index into the image sets, or an exception."""

    inputFile: str
    imageSet: int | None
    exceptionType: str
    message: str
    warnings: list[dict[str, Any]]


class JobResult(TypedDict):
    """Everything that the report says; stored with the job in the transaction that stores its image sets."""

    files: list[FileLine]
    imageSets: list[ImageSetLine]
    generated: int


def report_objects(
    result: JobResult, *, job_id: str, datastore_id: str, input_uri: str, output_uri: str
) -> dict[str, bytes]:
    """The report's objects by key below the job's folder; the manifest is the last one."""
    folder = job_folder(output_uri, datastore_id=datastore_id, job_id=job_id).uri
    success: list[dict[str, Any]] = []
    failure: list[dict[str, Any]] = []
    warning: list[dict[str, Any]] = []
    for line in result["files"]:
        if line["imageSet"] is None:
            failure.append(
                {
                    "inputFile": line["inputFile"],
                    "exception": {"exceptionType": line["exceptionType"], "message": line["message"]},
                }
            )
            continue
        image_set = result["imageSets"][line["imageSet"]]
        response = {
            "imageSetId": image_set["imageSetId"],
            "imageSetVersion": image_set["imageSetVersion"],
            "isPrimary": image_set["isPrimary"],
        }
        success.append({"inputFile": line["inputFile"], "importResponse": response})
        if line["warnings"]:
            warning.append(
                {"inputFile": line["inputFile"], "importResponse": response, "warnings": line["warnings"]}
            )
    objects = {
        name: "".join(f"{json.dumps(line)}\n" for line in lines).encode("utf-8")
        for name, lines in (
            ("SUCCESS/success.ndjson", success),
            ("FAILURE/failure.ndjson", failure),
            ("WARNING/warning.ndjson", warning),
        )
        if lines
    }
    internal = sum(line["exceptionType"] == INTERNAL_ERROR for line in result["files"])
    manifest = {
        "jobSummary": {
            "jobId": job_id,
            "datastoreId": datastore_id,
            "inputS3Uri": input_uri,
            "outputS3Uri": folder,
            "successOutputS3Uri": f"{folder}SUCCESS/",
            "failureOutputS3Uri": f"{folder}FAILURE/",
            "warningsOutputS3Uri": f"{folder}WARNING/",
            "numberOfScannedFiles": len(result["files"]),
            "numberOfImportedFiles": len(success),
            "numberOfFilesWithCustomerError": len(failure) - internal,
            "numberOfFilesWithServerError": internal,
            "numberOfGeneratedImageSets": result["generated"],
            "imageSetsSummary": result["imageSets"],
        }
    }
    objects["job-output-manifest.json"] = json.dumps(manifest, indent=2).encode("utf-8")
    return objects
