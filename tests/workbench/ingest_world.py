"""An account that keeps objects and imports DICOM in memory, for tests of ingest.

It counts what each instance was imported with, so that a test can say: nothing lost, nothing twice.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pydicom
from made_files import encoded, header
from pydicom.uid import UID
from workbench_fakes import FakePaginator, deployment, error, ndjson

from workbench.ingest import Options, ingest
from workbench.ingesting.report import IngestReport


class MemoryS3:
    """Objects by "bucket/key". Bodies are compared with the checksum that comes with them, as S3 does."""

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}
        self.moments: dict[str, datetime] = {}
        self.lock = threading.Lock()
        self.late: dict[str, int] = {}
        """By end of the key: how many looks an object is not there for."""
        self.before_put: Callable[[str], None] = lambda _key: None

    def put_object(
        self, *, Bucket: str, Key: str, Body: Any, ChecksumSHA256: str | None = None, **_: Any
    ) -> None:
        self.before_put(Key)
        body = Body if isinstance(Body, bytes) else Body.read()
        digest = base64.b64encode(hashlib.sha256(body).digest()).decode()
        if ChecksumSHA256 is not None and digest != ChecksumSHA256:
            raise error("BadDigest")
        with self.lock:
            self.objects[f"{Bucket}/{Key}"] = body
            self.moments[f"{Bucket}/{Key}"] = datetime.now(UTC)

    def copy_object(
        self, *, Bucket: str, Key: str, CopySource: dict[str, str], CopySourceIfMatch: str, **_: Any
    ) -> None:
        source = self.objects[f"{CopySource['Bucket']}/{CopySource['Key']}"]
        if _etag(source) != CopySourceIfMatch:
            raise error("PreconditionFailed")
        self.objects[f"{Bucket}/{Key}"] = source

    def get_object(
        self, *, Bucket: str, Key: str, IfMatch: str | None = None, Range: str = "bytes=0-"
    ) -> dict[str, Any]:
        name = f"{Bucket}/{Key}"
        for end, looks in self.late.items():
            if Key.endswith(end) and looks > 0:
                self.late[end] -= 1
                raise error("NoSuchKey")
        if name not in self.objects:
            raise error("NoSuchKey")
        if IfMatch and _etag(self.objects[name]) != IfMatch:
            raise error("PreconditionFailed")
        last = int(Range.rpartition("-")[2] or len(self.objects[name]))
        return {"Body": io.BytesIO(self.objects[name][: last + 1])}

    def get_paginator(self, name: str) -> FakePaginator:
        assert name == "list_objects_v2"
        return FakePaginator(self._pages)

    def _pages(self, *, Bucket: str, Prefix: str) -> list[dict[str, Any]]:
        with self.lock:
            found = sorted(name for name in self.objects if name.startswith(f"{Bucket}/{Prefix}"))
        contents = [
            {
                "Key": name.partition("/")[2],
                "Size": len(self.objects[name]),
                "ETag": _etag(self.objects[name]),
                "LastModified": self.moments.get(name, datetime(2026, 1, 1, tzinfo=UTC)),
            }
            for name in found
        ]
        return [{"Contents": contents}] if contents else [{}]


class MemoryImaging:
    """Import jobs, done at once: a series is an image set, and what has no SOP Class UID fails."""

    def __init__(self, s3: MemoryS3) -> None:
        self.s3 = s3
        self.jobs: dict[str, dict[str, Any]] = {}
        self.tokens: dict[str, str] = {}
        self.requests: list[dict[str, Any]] = []
        self.imports: dict[str, list[str]] = {}
        """SHA-256 of the contents that each SOP Instance UID was imported with, in their order."""
        self.image_sets: dict[str, str] = {}
        """Series Instance UID by image set."""
        self.versions: dict[str, int] = {}
        self.refusals: list[str] = []
        """Error codes of the next starts."""
        self.fails: Callable[[dict[str, Any]], bool] = lambda _request: False
        self.looks = 0
        """Looks at a job before it has ended."""
        self.silent: set[str] = set()
        """SOP Instance UIDs that jobs do not mention."""
        self.primary = True
        """Whether image sets agree with their study."""
        self.lock = threading.RLock()

    def start_dicom_import_job(self, **request: Any) -> dict[str, Any]:
        with self.lock:
            if self.refusals:
                raise error(self.refusals.pop(0))
            token = request["clientToken"]
            if token in self.tokens:
                assert self.jobs[self.tokens[token]]["request"] == request
                return {"jobId": self.tokens[token]}
            job = f"job{len(self.jobs) + 1}"
            self.tokens[token] = job
            self.requests.append(request)
            failed = self.fails(request)
            self.jobs[job] = {"request": request, "failed": failed, "looks": self.looks}
            if not failed:
                self._import(job, request)
            return {"jobId": job}

    def _folder(self, job: str) -> str:
        return f"{self.jobs[job]['request']['outputS3Uri']}{'d' * 32}-DicomImport-{job}/"

    def _import(self, job: str, request: dict[str, Any]) -> None:
        source = request["inputS3Uri"].removeprefix("s3://")
        success, failure = [], []
        names = sorted(name for name in self.s3.objects if name.startswith(source))
        assert 0 < len(names) <= 5000
        touched: set[str] = set()
        for name in names:
            body, file = self.s3.objects[name], name.partition("/")[2]
            dataset = pydicom.dcmread(io.BytesIO(body), stop_before_pixels=True)
            lacking = [
                keyword
                for keyword in ("SOPClassUID", "StudyInstanceUID", "SeriesInstanceUID")
                if not dataset.get(keyword)
            ]
            if lacking:
                exception = {"exceptionType": "ParseError", "message": f"{lacking[0]} does not exist"}
                failure.append({"inputFile": file, "exception": exception})
                continue
            series = str(dataset.SeriesInstanceUID)
            image_set = hashlib.sha256(series.encode()).hexdigest()[:32]
            if image_set not in touched:
                touched.add(image_set)
                self.versions[image_set] = self.versions.get(image_set, 0) + 1
            self.image_sets[image_set] = series
            uid = str(dataset.SOPInstanceUID)
            self.imports.setdefault(uid, []).append(hashlib.sha256(body).hexdigest())
            if uid in self.silent:
                continue
            response = {
                "imageSetId": image_set,
                "imageSetVersion": self.versions[image_set],
                "isPrimary": self.primary,
            }
            success.append({"inputFile": file, "importResponse": response})
        folder = self._folder(job).removeprefix("s3://")
        self.s3.objects[f"{folder}job-output-manifest.json"] = json.dumps(
            {"jobSummary": {"jobId": job, "numberOfScannedFiles": len(names)}}
        ).encode()
        self.s3.objects[f"{folder}SUCCESS/success.ndjson"] = ndjson(*success)
        self.s3.objects[f"{folder}FAILURE/failure.ndjson"] = ndjson(*failure)

    def get_dicom_import_job(self, *, datastoreId: str, jobId: str) -> dict[str, Any]:
        job = self.jobs[jobId]
        if job["looks"] > 0:
            job["looks"] -= 1
            return {"jobProperties": {"jobStatus": "IN_PROGRESS"}}
        status = "FAILED" if job["failed"] else "COMPLETED"
        return {
            "jobProperties": {
                "jobStatus": status,
                "outputS3Uri": self._folder(jobId),
                "message": "no access",
            }
        }

    def get_image_set(self, *, datastoreId: str, imageSetId: str) -> dict[str, Any]:
        if imageSetId not in self.image_sets:
            raise error("ResourceNotFoundException")
        version = str(self.versions[imageSetId])
        return {"imageSetState": "ACTIVE", "versionId": version, "isPrimary": True}

    def delete(self, image_set: str) -> None:
        """As DeleteImageSet does."""
        del self.image_sets[image_set]


class World:
    """An account, and a machine with a journal."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.s3 = MemoryS3()
        self.imaging = MemoryImaging(self.s3)
        self.deployment = deployment(s3=self.s3, medical_imaging=self.imaging)

    def options(self, machine: str = "this", **choices: Any) -> Options:
        return Options(journal=self.folder / f"{machine}.sqlite", every_seconds=0.01, **choices)

    def ingest(self, *given: Path | str, machine: str = "this", **choices: Any) -> IngestReport:
        return ingest(self.deployment, given, options=self.options(machine, **choices))

    @property
    def imported_once(self) -> bool:
        """Whether no instance was imported twice."""
        return all(len(contents) == 1 for contents in self.imaging.imports.values())


def write(path: Path, **attributes: Any) -> str:
    """A small DICOM file of its own; its SOP Instance UID. An attribute that is None is left out."""
    path.parent.mkdir(parents=True, exist_ok=True)
    dataset = header()
    body = io.BytesIO(encoded(dataset))
    dataset = pydicom.dcmread(body)
    for keyword, value in attributes.items():
        if value is None:
            del dataset[keyword]
        else:
            setattr(dataset, keyword, value)
    # Not that of the dataset: a writer would not do without one.
    dataset.file_meta.MediaStorageSOPInstanceUID = UID("1.2.3.4")
    pydicom.dcmwrite(path, dataset)
    return str(dataset.get("SOPInstanceUID", ""))


def study(folder: Path, count: int, *, uid: str = "1.2.3") -> list[str]:
    """A series of `count` files; their SOP Instance UIDs in the order of their names."""
    return [
        write(
            folder / f"{number:04d}.dcm",
            SOPInstanceUID=f"{uid}.{number}",
            StudyInstanceUID=uid,
            SeriesInstanceUID=f"{uid}.0",
        )
        for number in range(1, count + 1)
    ]


def fates(report: IngestReport) -> Iterator[tuple[str, str]]:
    """(file name, what became of it), each file once."""
    for state, files in (
        ("imported", report.imported),
        ("already", report.already),
        ("duplicate", report.duplicates),
        ("failed", report.failed),
        ("quarantined", report.quarantined),
    ):
        for one in files:
            yield one.file, state
    for name in report.skipped:
        yield name, "skipped"


def _etag(body: bytes) -> str:
    return f'"{hashlib.sha256(body).hexdigest()[:32]}"'
