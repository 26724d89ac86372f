"""A datastore on the local cloud, filled by an import job as a user would fill it."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from io import BytesIO
from typing import Any

import boto3
from pydicom import Dataset

from healthimaging import DicomWeb, ImageSet, ImageSetRef, connect

IMPORT_SECONDS = 120


@dataclass(frozen=True, kw_only=True)
class Archive:
    """One datastore and the connector's clients for it."""

    datastore_id: str
    bucket: str
    role_arn: str
    s3: Any
    client: Any

    @classmethod
    def create(cls, cloud: Any, **datastore: Any) -> Archive:
        """Makes bucket, import role and datastore anew."""
        name = f"connector-{uuid.uuid4().hex[:12]}"
        s3, iam = cloud.client("s3"), cloud.client("iam")
        s3.create_bucket(Bucket=name)
        trust = {"Effect": "Allow", "Action": "sts:AssumeRole"}
        role = iam.create_role(
            RoleName=name,
            AssumeRolePolicyDocument=_policy(
                {**trust, "Principal": {"Service": "medical-imaging.amazonaws.com"}}
            ),
        )
        allowed = {"Effect": "Allow", "Action": ["s3:ListBucket", "s3:GetObject", "s3:PutObject"]}
        iam.put_role_policy(
            RoleName=name,
            PolicyName="import",
            PolicyDocument=_policy(
                {**allowed, "Resource": [f"arn:aws:s3:::{name}", f"arn:aws:s3:::{name}/*"]}
            ),
        )
        environment = cloud.environment
        session = _session(
            environment["AWS_ACCESS_KEY_ID"], environment["AWS_SECRET_ACCESS_KEY"], cloud.region
        )
        client = connect(session, endpoint_url=cloud.endpoint_url)
        created = client.create_datastore(datastoreName=name, **datastore)
        return cls(
            datastore_id=created["datastoreId"],
            bucket=name,
            role_arn=role["Role"]["Arn"],
            s3=s3,
            client=client,
        )

    def another(self) -> Archive:
        """A second datastore, of the same clients, bucket and role."""
        created = self.client.create_datastore(datastoreName=f"connector-{uuid.uuid4().hex[:12]}")
        return replace(self, datastore_id=created["datastoreId"])

    def import_files(self, files: Mapping[str, bytes]) -> dict[str, ImageSetRef]:
        """Imports files in one job; returns what each one became, without those that were refused."""
        return self.import_report(files)[0]

    def import_report(self, files: Mapping[str, bytes]) -> tuple[dict[str, ImageSetRef], dict[str, str]]:
        """Imports files in one job; returns what each one became, and why each of the others was refused."""
        folder = f"input/{uuid.uuid4().hex[:8]}/"
        for name, data in files.items():
            self.s3.put_object(Bucket=self.bucket, Key=folder + name, Body=data)
        job_id = self.client.start_dicom_import_job(
            datastoreId=self.datastore_id,
            dataAccessRoleArn=self.role_arn,
            inputS3Uri=f"s3://{self.bucket}/{folder}",
            outputS3Uri=f"s3://{self.bucket}/output/",
        )["jobId"]
        named = {"datastoreId": self.datastore_id, "jobId": job_id}
        deadline = time.monotonic() + IMPORT_SECONDS
        while True:
            job = self.client.get_dicom_import_job(**named)["jobProperties"]
            if job["jobStatus"] in ("COMPLETED", "FAILED"):
                break
            assert time.monotonic() < deadline, job
            time.sleep(0.05)
        assert job["jobStatus"] == "COMPLETED", job
        output = f"output/{self.datastore_id}-DicomImport-{job_id}/"
        manifest = json.loads(self._object(output + "job-output-manifest.json"))["jobSummary"]
        failed = manifest["numberOfFilesWithCustomerError"] + manifest["numberOfFilesWithServerError"]
        stored = self._lines(output + "SUCCESS/success.ndjson") if manifest["numberOfImportedFiles"] else []
        refused = self._lines(output + "FAILURE/failure.ndjson") if failed else []
        return {
            line["inputFile"].rsplit("/", 1)[1]: ImageSetRef(
                datastore_id=self.datastore_id,
                image_set_id=line["importResponse"]["imageSetId"],
                version_id=str(line["importResponse"]["imageSetVersion"]),
            )
            for line in stored
        }, {line["inputFile"].rsplit("/", 1)[1]: line["exception"]["message"] for line in refused}

    def _lines(self, key: str) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self._object(key).splitlines()]

    def _object(self, key: str) -> bytes:
        data: bytes = self.s3.get_object(Bucket=self.bucket, Key=key)["Body"].read()
        return data

    def image_set(self, datasets: Sequence[Dataset]) -> ImageSet:
        """Imports datasets, all of which must become one image set, and opens it."""
        found = self.import_files({f"{k:05}.dcm": file_of(dataset) for k, dataset in enumerate(datasets)})
        assert len(found) == len(datasets)
        (ref,) = set(found.values())
        return self.open(ref.image_set_id)

    def open(self, image_set_id: str, version: str | None = None) -> ImageSet:
        return ImageSet.open(self.client, self.datastore_id, image_set_id, version)

    @property
    def web(self) -> DicomWeb:
        return DicomWeb(self.client, self.datastore_id)


@cache
def _session(access_key_id: str, secret_access_key: str, region: str) -> boto3.Session:
    """One for all archives: making one reads the service model anew."""
    return boto3.Session(
        aws_access_key_id=access_key_id, aws_secret_access_key=secret_access_key, region_name=region
    )


def _policy(statement: dict[str, Any]) -> str:
    return json.dumps({"Version": "2012-10-17", "Statement": [statement]})


def file_of(dataset: Dataset) -> bytes:
    """A dataset as a DICOM file."""
    buffer = BytesIO()
    dataset.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()
