"""Brings files in as a short script does: `aws s3 cp --recursive`, StartDICOMImportJob, and what it says.

`python -m benchmarks.cataloguing.with_plain_import FOLDER DATASTORE ROLE INBOX IMPORTS`, with the endpoint
and credentials in the environment; prints what happened as JSON. It verifies nothing, remembers nothing, and
starts from the beginning when it is run again.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
import uuid
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import boto3

from healthimaging import connect

EVERY_SECONDS = 0.2
"""How often the job is looked at; as often by the other way."""


def main() -> None:
    """Do it once."""
    folder, datastore_id, role_arn, inbox, imports = sys.argv[1:]
    begin = time.perf_counter()
    # Below what the import's role may read.
    prefix = f"ingest/plain-{uuid.uuid4().hex}/"
    aws = Path(sys.executable).with_name("aws")
    subprocess.run(
        [aws, "s3", "cp", "--recursive", "--quiet", folder, f"s3://{inbox}/{prefix}"],
        stdin=subprocess.DEVNULL,
        check=True,
    )
    client, s3 = connect(), boto3.client("s3")
    job_id = client.start_dicom_import_job(
        datastoreId=datastore_id,
        dataAccessRoleArn=role_arn,
        clientToken=uuid.uuid4().hex,
        inputS3Uri=f"s3://{inbox}/{prefix}",
        outputS3Uri=f"s3://{imports}/{prefix}",
    )["jobId"]
    job = _ended(client, datastore_id, job_id)
    manifest = _manifest(s3, job["outputS3Uri"])
    ok = manifest["numberOfImportedFiles"] == manifest["numberOfScannedFiles"]
    seconds = time.perf_counter() - begin
    print(json.dumps({"ok": ok, "files": manifest["numberOfImportedFiles"], "seconds": seconds}))


def _ended(client: Any, datastore_id: str, job_id: str) -> dict[str, Any]:
    while True:
        job: dict[str, Any] = client.get_dicom_import_job(datastoreId=datastore_id, jobId=job_id)[
            "jobProperties"
        ]
        if job["jobStatus"] == "FAILED":
            raise RuntimeError(f"The import job failed: {job.get('message')}")
        if job["jobStatus"] == "COMPLETED":
            return job
        time.sleep(EVERY_SECONDS)


def _manifest(s3: Any, output_uri: str) -> dict[str, Any]:
    """It can come a little later than the end of the job."""
    output = urlsplit(output_uri)
    key = output.path.removeprefix("/") + "job-output-manifest.json"
    while True:
        try:
            body = s3.get_object(Bucket=output.netloc, Key=key)["Body"].read()
        except s3.exceptions.NoSuchKey:
            time.sleep(EVERY_SECONDS)
        else:
            summary: dict[str, Any] = json.loads(body)["jobSummary"]
            return summary


if __name__ == "__main__":
    main()
