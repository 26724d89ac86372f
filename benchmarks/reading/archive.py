"""A datastore of the local cloud, filled as datastores are: by import jobs."""

from __future__ import annotations

import io
import json
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import boto3
from botocore.config import Config
from pydicom import Dataset

from benchmarks.local_cloud import ACCESS_KEY, REGION, SECRET_KEY, LocalCloud
from healthimaging import connect

IMPORT_SECONDS = 120.0
BUCKET = "benchmark"
"""Where files to import, output of imports, and what a benchmark writes itself lie."""
_NAME = BUCKET


@dataclass(frozen=True, kw_only=True)
class Archive:
    """A datastore, with a bucket and a role to import from it."""

    client: Any
    """From `healthimaging.connect`."""
    s3: Any
    datastore_id: str
    role_arn: str

    @classmethod
    def create(cls, cloud: LocalCloud) -> Archive:
        """A new datastore in an empty cloud."""
        session = boto3.Session(
            aws_access_key_id=ACCESS_KEY, aws_secret_access_key=SECRET_KEY, region_name=REGION
        )
        options: dict[str, Any] = {"endpoint_url": cloud.endpoint_url, "config": Config(proxies={})}
        client = connect(session, **options)
        s3, iam = session.client("s3", **options), session.client("iam", **options)
        s3.create_bucket(Bucket=_NAME)
        role = iam.create_role(
            RoleName=_NAME,
            AssumeRolePolicyDocument=_policy(
                "sts:AssumeRole", Principal={"Service": "medical-imaging.amazonaws.com"}
            ),
        )
        access = _policy("s3:GetObject", "s3:ListBucket", "s3:PutObject", Resource="*")
        iam.put_role_policy(RoleName=_NAME, PolicyName=_NAME, PolicyDocument=access)
        return cls(
            client=client,
            s3=s3,
            datastore_id=str(client.create_datastore(datastoreName=_NAME)["datastoreId"]),
            role_arn=role["Role"]["Arn"],
        )

    def import_series(self, datasets: Sequence[Dataset]) -> str:
        """Imports the instances of one series in one job; answers the image set id."""
        folder = uuid.uuid4().hex
        for dataset in datasets:
            file = io.BytesIO()
            dataset.save_as(file, enforce_file_format=True)
            self.s3.put_object(
                Bucket=_NAME, Key=f"{folder}/{dataset.SOPInstanceUID}.dcm", Body=file.getvalue()
            )
        job_id = self.client.start_dicom_import_job(
            datastoreId=self.datastore_id,
            dataAccessRoleArn=self.role_arn,
            clientToken=folder,
            inputS3Uri=f"s3://{_NAME}/{folder}/",
            outputS3Uri=f"s3://{_NAME}/output/",
        )["jobId"]
        summary = self._summary(str(job_id))
        if summary["numberOfImportedFiles"] != len(datasets):
            raise RuntimeError(f"Of {len(datasets)} files were imported: {summary}")
        (image_set,) = summary["imageSetsSummary"]
        return str(image_set["imageSetId"])

    def _summary(self, job_id: str) -> dict[str, Any]:
        """Of the manifest, when the job is done."""
        deadline = time.monotonic() + IMPORT_SECONDS
        while True:
            job = self.client.get_dicom_import_job(datastoreId=self.datastore_id, jobId=job_id)[
                "jobProperties"
            ]
            if job["jobStatus"] == "COMPLETED":
                break
            if job["jobStatus"] == "FAILED" or time.monotonic() > deadline:
                raise RuntimeError(f"The import job did not complete: {job}")
            time.sleep(0.1)
        key = job["outputS3Uri"].removeprefix(f"s3://{_NAME}/") + "job-output-manifest.json"
        manifest = json.loads(self.s3.get_object(Bucket=_NAME, Key=key)["Body"].read())
        summary: dict[str, Any] = manifest["jobSummary"]
        return summary


def _policy(*actions: str, **about: Any) -> str:
    statement = {"Effect": "Allow", "Action": list(actions), **about}
    return json.dumps({"Version": "2012-10-17", "Statement": [statement]})
