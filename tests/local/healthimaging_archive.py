"""A datastore with its buckets and import role on the local cloud, and DICOM files to fill it with."""

from __future__ import annotations

import copy
import gzip
import json
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pydicom
from pydicom.data import get_testdata_file
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

IMPORT_SECONDS = 120

TRUST = {
    "Version": "2012-10-17",
    "Statement": [
        {
            "Effect": "Allow",
            "Principal": {"Service": "medical-imaging.amazonaws.com"},
            "Action": "sts:AssumeRole",
        }
    ],
}


_clients: dict[tuple[str, str], Any] = {}


def client_of(cloud: Any, service: str) -> Any:
    """A root client, made once a cloud: making one takes longer than most calls."""
    key = (cloud.endpoint_url, service)
    if key not in _clients:
        _clients[key] = cloud.client(service)
    return _clients[key]


def statement(actions: Sequence[str], resources: Sequence[str]) -> dict[str, Any]:
    """One statement that allows."""
    return {"Effect": "Allow", "Action": list(actions), "Resource": list(resources)}


@dataclass(frozen=True, kw_only=True)
class Archive:
    """One datastore and what an import into it needs."""

    cloud: Any
    datastore_id: str
    bucket: str
    role_name: str
    role_arn: str

    @classmethod
    def create(cls, cloud: Any, *, read_objects: bool = True, **datastore: Any) -> Archive:
        """Make everything anew, with names of its own. The role lacks s3:GetObject without `read_objects`."""
        name = f"archive-{uuid.uuid4().hex[:12]}"
        client_of(cloud, "s3").create_bucket(Bucket=name)
        role = client_of(cloud, "iam").create_role(RoleName=name, AssumeRolePolicyDocument=json.dumps(TRUST))
        statements = [
            statement(["s3:ListBucket"], [f"arn:aws:s3:::{name}"]),
            statement(["s3:PutObject"], [f"arn:aws:s3:::{name}/output/*"]),
        ]
        if read_objects:
            statements.append(statement(["s3:GetObject"], [f"arn:aws:s3:::{name}/input/*"]))
        client_of(cloud, "iam").put_role_policy(
            RoleName=name,
            PolicyName="import",
            PolicyDocument=json.dumps({"Version": "2012-10-17", "Statement": statements}),
        )
        created = client_of(cloud, "medical-imaging").create_datastore(datastoreName=name, **datastore)
        return cls(
            cloud=cloud,
            datastore_id=created["datastoreId"],
            bucket=name,
            role_name=name,
            role_arn=role["Role"]["Arn"],
        )

    @property
    def client(self) -> Any:
        """A medical-imaging client as root."""
        return client_of(self.cloud, "medical-imaging")

    def upload(self, files: Mapping[str, bytes], folder: str = "") -> str:
        """Put files below `input/`; returns the URI of their folder."""
        folder = folder or uuid.uuid4().hex[:8]
        s3 = client_of(self.cloud, "s3")
        for name, data in files.items():
            s3.put_object(Bucket=self.bucket, Key=f"input/{folder}/{name}", Body=data)
        return f"s3://{self.bucket}/input/{folder}/"

    def start_import(self, files: Mapping[str, bytes], **parameters: Any) -> str:
        """Upload files and start importing them; returns the job's identifier."""
        job = self.client.start_dicom_import_job(
            **{
                "datastoreId": self.datastore_id,
                "dataAccessRoleArn": self.role_arn,
                "inputS3Uri": self.upload(files),
                "outputS3Uri": f"s3://{self.bucket}/output/",
                **parameters,
            }
        )
        return str(job["jobId"])

    def job(self, job_id: str) -> dict[str, Any]:
        """The properties of a job as they are now."""
        answer = self.client.get_dicom_import_job(datastoreId=self.datastore_id, jobId=job_id)
        found: dict[str, Any] = answer["jobProperties"]
        return found

    def finished(self, job_id: str) -> dict[str, Any]:
        """The properties of a job once it has ended."""
        deadline = time.monotonic() + IMPORT_SECONDS
        while True:
            found = self.job(job_id)
            if found["jobStatus"] in ("COMPLETED", "FAILED"):
                return found
            assert time.monotonic() < deadline, f"the job is still {found['jobStatus']}"
            time.sleep(0.05)

    def import_files(self, files: Mapping[str, bytes]) -> Report:
        """Import files to the end and read the job's report."""
        job = self.finished(self.start_import(files))
        assert job["jobStatus"] == "COMPLETED", job
        return self.report(job)

    def report(self, job: Mapping[str, Any]) -> Report:
        """What a completed job wrote."""
        parts = urlsplit(job["outputS3Uri"])
        s3, prefix = client_of(self.cloud, "s3"), parts.path.lstrip("/")
        listed = s3.list_objects_v2(Bucket=parts.netloc, Prefix=prefix).get("Contents", [])
        objects = {
            item["Key"].removeprefix(prefix): s3.get_object(Bucket=parts.netloc, Key=item["Key"])[
                "Body"
            ].read()
            for item in listed
        }

        def lines(name: str) -> list[dict[str, Any]]:
            return [json.loads(line) for line in objects.get(name, b"").splitlines()]

        return Report(
            summary=json.loads(objects["job-output-manifest.json"])["jobSummary"],
            success=lines("SUCCESS/success.ndjson"),
            failure=lines("FAILURE/failure.ndjson"),
            warning=lines("WARNING/warning.ndjson"),
        )

    def metadata(self, image_set_id: str, **parameters: Any) -> dict[str, Any]:
        """The decompressed metadata of an image set."""
        answer = self.client.get_image_set_metadata(
            datastoreId=self.datastore_id, imageSetId=image_set_id, **parameters
        )
        found: dict[str, Any] = json.loads(gzip.decompress(answer["imageSetMetadataBlob"].read()))
        return found

    def frame(self, image_set_id: str, frame_id: str) -> tuple[bytes, str]:
        """The bytes of a frame and their content type."""
        answer = self.client.get_image_frame(
            datastoreId=self.datastore_id,
            imageSetId=image_set_id,
            imageFrameInformation={"imageFrameId": frame_id},
        )
        return answer["imageFrameBlob"].read(), answer["contentType"]

    def search(self, *filters: Mapping[str, Any], **sort: str) -> list[dict[str, Any]]:
        """All image sets that the filters admit."""
        criteria: dict[str, Any] = {"filters": list(filters)} if filters else {}
        if sort:
            criteria["sort"] = sort
        pages = self.client.get_paginator("search_image_sets").paginate(
            datastoreId=self.datastore_id, searchCriteria=criteria
        )
        return [item for page in pages for item in page["imageSetsMetadataSummaries"]]


@dataclass(frozen=True, kw_only=True)
class Report:
    """The files that an import job wrote."""

    summary: dict[str, Any]
    success: list[dict[str, Any]]
    failure: list[dict[str, Any]]
    warning: list[dict[str, Any]]

    @property
    def image_set_id(self) -> str:
        """The only image set of the job."""
        (only,) = self.summary["imageSetsSummary"]
        return str(only["imageSetId"])


def instances(metadata: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """All instances of an image set's metadata."""
    for series in metadata["Study"]["Series"].values():
        yield from series["Instances"].values()


def encoded(dataset: pydicom.Dataset) -> bytes:
    """A dataset as PS3.10 file."""
    buffer = BytesIO()
    dataset.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def ct_series(
    *, slices: int = 3, study_uid: str = "", series_uid: str = "", size: int = 16, **attributes: Any
) -> list[pydicom.Dataset]:
    """A CT series of `size` x `size` slices, 2.5 mm apart; every slice has pixels of its own."""
    study_uid, series_uid = study_uid or generate_uid(), series_uid or generate_uid()
    template = pydicom.dcmread(str(get_testdata_file("CT_small.dcm")))
    del template[0xFFFCFFFC]  # trailing padding, which would end the file instead of the pixels
    made: list[pydicom.Dataset] = []
    for number in range(slices):
        dataset = copy.deepcopy(template)
        dataset.StudyInstanceUID, dataset.SeriesInstanceUID = study_uid, series_uid
        dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = generate_uid()
        dataset.InstanceNumber = number + 1
        dataset.ImagePositionPatient = [0, 0, number * 2.5]
        dataset.Rows = dataset.Columns = size
        pixels = np.random.default_rng(number).integers(-1024, 3072, (size, size), dtype=np.int16)
        dataset.PixelData = pixels.tobytes()
        dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        for keyword, value in attributes.items():
            setattr(dataset, keyword, value)
        made.append(dataset)
    return made


def as_files(datasets: Sequence[pydicom.Dataset]) -> dict[str, bytes]:
    """Datasets as files with names in order."""
    return {f"{number:04}.dcm": encoded(dataset) for number, dataset in enumerate(datasets)}
