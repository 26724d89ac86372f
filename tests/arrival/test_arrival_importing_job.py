"""Import jobs: their output, late and in both of its forms; how they end; how fast they may be started."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from typing import Any

import pytest
from botocore.exceptions import ClientError

from arrival.errors import ImportFailedError
from arrival.importing.import_job import Archive, JobFailedError, outcome, start_import, wait_for_end
from arrival.importing.job_output import read_job_output
from arrival.importing.pacing import StartPace
from arrival.s3_uri import split_s3_uri

ARCHIVE = Archive(datastore_id="d" * 32, import_role_arn="arn:role", inbox_bucket="in", import_bucket="out")


class Objects:
    """S3 with objects by "bucket/key"; `late` ones are not there for so many looks."""

    def __init__(self, objects: Mapping[str, bytes], late: Mapping[str, int] | None = None) -> None:
        self.objects, self.late = dict(objects), dict(late or {})

    def get_object(self, *, Bucket: str, Key: str) -> dict[str, Any]:
        name = f"{Bucket}/{Key}"
        self.late[name] = self.late.get(name, 0) - 1
        if self.late[name] >= 0 or name not in self.objects:
            raise refusal("NoSuchKey")
        return {"Body": io.BytesIO(self.objects[name])}


class Jobs:
    """One import job that answers with these statuses, one after the other."""

    def __init__(self, *statuses: str) -> None:
        self.statuses = list(statuses)
        self.requests: list[dict[str, Any]] = []

    def start_dicom_import_job(self, **request: Any) -> dict[str, Any]:
        self.requests.append(request)
        return {"jobId": "j"}

    def get_dicom_import_job(self, **_: Any) -> dict[str, Any]:
        status = self.statuses.pop(0)
        return {
            "jobProperties": {"jobStatus": status, "outputS3Uri": "s3://out/run/job/", "message": "no access"}
        }


def refusal(code: str) -> ClientError:
    return ClientError({"Error": {"Code": code, "Message": code}}, "StartDICOMImportJob")


def lines(*documents: Mapping[str, Any]) -> bytes:
    return b"".join(json.dumps(one).encode() + b"\n" for one in documents)


def test_late_manifest_is_waited_for() -> None:
    folder = "imports/run/d-DicomImport-j/"
    summary = {
        "jobSummary": {
            "numberOfScannedFiles": 1,
            # AWS's manifests name the folder of each list.
            "successOutputS3Uri": f"s3://{folder}SUCCESS/",
            "failureOutputS3Uri": f"s3://{folder}FAILURE/",
            "warningsOutputS3Uri": f"s3://{folder}WARNING/",
        }
    }
    s3 = Objects(
        {
            folder + "job-output-manifest.json": json.dumps(summary).encode(),
            folder + "SUCCESS/success.ndjson": lines(
                {"inputFile": "run/0.dcm", "importResponse": {"imageSetId": "a", "imageSetVersion": "3"}}
            ),
            folder + "WARNING/warning.ndjson": lines(
                {"inputFile": "run/0.dcm", "warnings": [{"warning_reason_code": "0xB006", "message": "odd"}]}
            ),
        },
        late={folder + "job-output-manifest.json": 2},
    )
    output = read_job_output(
        s3, job_id="j", input_uri="s3://inbox/run/", output_uri=f"s3://{folder}", every_seconds=0.0
    )
    assert output.scanned == 1
    assert (output.imported[0].file, output.imported[0].version_id) == ("0.dcm", 3)
    assert output.imported[0].is_primary
    assert (output.warnings[0].file, output.warnings[0].code) == ("0.dcm", "0xB006")
    assert output.failed == ()


def test_manifest_that_never_comes_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("arrival.importing.job_output.MANIFEST_TIMEOUT_SECONDS", 0.0)
    with pytest.raises(ImportFailedError, match="no manifest"):
        read_job_output(Objects({}), job_id="j", input_uri="s3://a/b/", output_uri="s3://c/d/")


def test_a_job_is_waited_for_to_its_end() -> None:
    jobs = Jobs("SUBMITTED", "IN_PROGRESS", "COMPLETED")
    started = start_import(jobs, ARCHIVE, prefix="run/", client_token="t", name="x" * 100)
    assert jobs.requests[0]["inputS3Uri"] == "s3://in/run/"
    assert jobs.requests[0]["outputS3Uri"] == "s3://out/run/"
    assert len(jobs.requests[0]["jobName"]) == 64
    s3 = Objects(
        {
            "out/run/job/job-output-manifest.json": b'{"jobSummary": {}}',
            "out/run/job/FAILURE/failure.ndjson": lines(
                {"inputFile": "s3://in/run/1.dcm", "exception": {"exceptionType": "E", "message": "cut"}}
            ),
        }
    )
    found = outcome(jobs, s3, ARCHIVE, started, every_seconds=0.0)
    assert [(one.file, one.kind, one.reason) for one in found.failed] == [("1.dcm", "E", "cut")]


def test_a_job_that_fails_and_one_that_does_not_end() -> None:
    with pytest.raises(JobFailedError, match="no access"):
        wait_for_end(Jobs("FAILED"), ARCHIVE, "j")
    with pytest.raises(ImportFailedError, match="has not ended"):
        wait_for_end(Jobs("IN_PROGRESS"), ARCHIVE, "j", timeout_seconds=0.0)


class Time:
    """A clock that only sleeping moves."""

    def __init__(self) -> None:
        self.now = 100.0

    def clock(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


def test_starts_keep_the_service_s_rate() -> None:
    time = Time()
    pace = StartPace(clock=time.clock, sleep=time.sleep)
    moments = [pace.start(time.clock) for _ in range(5)]
    # A burst of two, then one a second.
    assert [round(moment - 100, 3) for moment in moments] == [0, 0, 1, 2, 3]
    time.sleep(60)
    assert [round(pace.start(time.clock) - time.now, 3) for _ in range(2)] == [0, 0]


def test_a_refused_start_is_asked_for_again_with_patience() -> None:
    time = Time()
    answers = [refusal("ThrottlingException"), refusal("ServiceQuotaExceededException"), None]

    def call() -> str:
        answer = answers.pop(0)
        if answer is not None:
            raise answer
        return "started"

    pace = StartPace(clock=time.clock, sleep=time.sleep)
    assert pace.start(call) == "started"

    def always(code: str) -> None:
        def refuse() -> None:
            raise refusal(code)

        StartPace(clock=time.clock, sleep=time.sleep, patience_seconds=120).start(refuse)

    before = time.now
    with pytest.raises(ClientError, match="Throttling"):
        always("ThrottlingException")
    assert 60 < time.now - before <= 125
    before = time.now
    with pytest.raises(ClientError, match="AccessDenied"):
        always("AccessDeniedException")
    assert time.now == before


def test_s3_uri_with_a_hash_in_its_key() -> None:
    assert split_s3_uri("s3://bucket/a/b#c") == ("bucket", "a/b#c")


def test_lists_of_files_that_are_late_are_waited_for() -> None:
    """A list that is not there yet is not an empty one."""
    folder = "imports/run/ds-DicomImport-j/"
    summary = {"jobSummary": {"jobId": "j", "numberOfScannedFiles": 1, "numberOfImportedFiles": 1}}
    line = {"inputFile": "run/0.dcm", "importResponse": {"imageSetId": "a", "imageSetVersion": "1"}}
    s3 = Objects(
        {
            folder + "job-output-manifest.json": json.dumps(summary).encode(),
            folder + "SUCCESS/success.ndjson": json.dumps(line).encode(),
        },
        late={folder + "SUCCESS/success.ndjson": 2},
    )
    output = read_job_output(
        s3, job_id="j", input_uri="s3://inbox/run/", output_uri=f"s3://{folder}", every_seconds=0.0
    )
    assert [one.file for one in output.imported] == ["0.dcm"]
