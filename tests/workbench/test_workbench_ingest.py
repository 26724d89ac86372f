"""Ingest: what counts as DICOM, what the import job says, and the report that comes of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from workbench_fakes import FakeS3, deployment, ndjson

from arrival.errors import ImportFailedError
from arrival.importing.job_output import read_job_output
from arrival.s3_uri import split_s3_uri
from workbench.dicom_files import find_files
from workbench.ingest import batches, ingest

DICOM = b"\0" * 128 + b"DICM" + b"rest"


class FakeMedicalImaging:
    """Imports what is in the inbox: files that end in b"bad" fail, the rest becomes one image set."""

    def __init__(self, s3: FakeS3, *, status: str = "COMPLETED") -> None:
        self.s3, self.status = s3, status
        self.requests: list[dict[str, Any]] = []

    def start_dicom_import_job(self, **request: Any) -> dict[str, Any]:
        self.requests.append(request)
        job = f"job{len(self.requests)}"
        source, target = (
            request["inputS3Uri"].removeprefix("s3://"),
            request["outputS3Uri"].removeprefix("s3://"),
        )
        folder = f"{target}{'d' * 32}-DicomImport-{job}/"
        files = [name for name in self.s3.objects if name.startswith(source)]
        good = [name for name in files if not self.s3.objects[name].endswith((b"bad", b"lost"))]
        bad = [name for name in files if self.s3.objects[name].endswith(b"bad")]
        self.s3.objects[folder + "job-output-manifest.json"] = json.dumps(
            {"jobSummary": {"jobId": job, "numberOfScannedFiles": len(files)}}
        ).encode()
        self.s3.objects[folder + "SUCCESS/success.ndjson"] = ndjson(
            *(
                {
                    "inputFile": name.removeprefix("inbox/"),
                    "importResponse": {"imageSetId": "i" * 32, "imageSetVersion": 2, "isPrimary": "false"},
                }
                for name in good
            )
        )
        self.s3.objects[folder + "FAILURE/failure.ndjson"] = ndjson(
            *(
                {"inputFile": f"s3://{n}", "exception": {"exceptionType": "ParseError", "message": "cut"}}
                for n in bad
            )
        )
        self.folder = f"s3://{folder}"
        return {"jobId": job}

    def get_dicom_import_job(self, **_: Any) -> dict[str, Any]:
        return {
            "jobProperties": {"jobStatus": self.status, "outputS3Uri": self.folder, "message": "no access"}
        }


def write(folder: Path, **files: bytes) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name.replace("__", ".")).write_bytes(content)
    return folder


def test_files_are_dicom_damaged_or_something_else(tmp_path: Path) -> None:
    write(
        tmp_path / "export",
        a__dcm=DICOM,
        b__dcm=b"garbage",
        IM0001=b"garbage",
        README=b"text",
        DICOMDIR=DICOM,
        viewer__exe=b"MZ",
        plain=DICOM,
    )
    (tmp_path / "export" / "1.2.840.10008").write_bytes(b"garbage")
    (tmp_path / "export" / ".hidden").write_bytes(DICOM)
    found = find_files([tmp_path / "export", tmp_path / "export" / "a.dcm"])
    assert [path.name for path in found.dicom] == ["a.dcm", "plain"]
    assert sorted(path.name for path in found.damaged) == ["1.2.840.10008", "IM0001", "b.dcm"]
    assert sorted(path.name for path in found.skipped) == [".hidden", "DICOMDIR", "README", "viewer.exe"]


def test_report_names_files_as_the_person_did(tmp_path: Path) -> None:
    folder = write(
        tmp_path / "Doe^Jane", good__dcm=DICOM, broken__dcm=DICOM + b"bad", x__txt=b"?", no__dcm=b"no"
    )
    s3 = FakeS3()
    client = FakeMedicalImaging(s3)
    report = ingest(deployment(s3=s3, medical_imaging=client), [folder])
    assert not report.ok
    assert [one.file for one in report.imported] == [str(folder / "good.dcm")]
    assert {(one.file, one.kind) for one in report.failed} == {
        (str(folder / "broken.dcm"), "ParseError"),
        (str(folder / "no.dcm"), "NotDicom"),
    }
    assert report.skipped == (str(folder / "x.txt"),)
    assert report.non_primary == ("i" * 32,)
    assert report.image_sets[0].version_id == 2
    assert json.loads(json.dumps(report.to_json()))["imported"] == 1


def test_names_of_files_do_not_become_keys(tmp_path: Path) -> None:
    s3 = FakeS3()
    ingest(
        deployment(s3=s3, medical_imaging=FakeMedicalImaging(s3)),
        [write(tmp_path / "Doe^Jane", a__dcm=DICOM)],
    )
    assert not [key for key in s3.objects if "Doe" in key or "a.dcm" in key]


def test_every_run_has_its_own_prefix_and_token(tmp_path: Path) -> None:
    s3 = FakeS3()
    client = FakeMedicalImaging(s3)
    folder = write(tmp_path / "in", a__dcm=DICOM)
    for _ in range(2):
        assert ingest(deployment(s3=s3, medical_imaging=client), [folder]).ok
    for key in ("clientToken", "inputS3Uri", "outputS3Uri"):
        assert len({request[key] for request in client.requests}) == 2
    assert all(len(request["jobName"]) <= 64 for request in client.requests)


def test_a_file_that_the_job_does_not_mention_is_a_failure(tmp_path: Path) -> None:
    folder = write(tmp_path / "in", a__dcm=DICOM, b__dcm=DICOM + b"lost")
    s3 = FakeS3()
    report = ingest(deployment(s3=s3, medical_imaging=FakeMedicalImaging(s3)), [folder])
    assert [(one.file, one.kind) for one in report.failed] == [(str(folder / "b.dcm"), "NotReported")]


def test_a_failed_job_is_an_error(tmp_path: Path) -> None:
    s3 = FakeS3()
    client = FakeMedicalImaging(s3, status="FAILED")
    with pytest.raises(ImportFailedError, match="no access"):
        ingest(deployment(s3=s3, medical_imaging=client), [write(tmp_path / "in", a__dcm=DICOM)])


def test_nothing_to_import_is_not_ok(tmp_path: Path) -> None:
    report = ingest(deployment(s3=FakeS3(), medical_imaging=None), [write(tmp_path / "in", a__txt=b"?")])
    assert not report.ok
    assert report.jobs == ()


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
    s3 = FakeS3(
        {
            folder + "job-output-manifest.json": json.dumps(summary).encode(),
            folder + "SUCCESS/success.ndjson": ndjson(
                {"inputFile": "run/0.dcm", "importResponse": {"imageSetId": "a", "imageSetVersion": "3"}}
            ),
            folder + "WARNING/warning.ndjson": ndjson(
                {"inputFile": "run/0.dcm", "warnings": [{"warning_reason_code": "0xB006", "message": "odd"}]}
            ),
        },
        late={folder + "job-output-manifest.json": 2},
    )
    output = read_job_output(
        s3,
        job_id="j",
        input_uri="s3://inbox/run/",
        output_uri=f"s3://{folder}",
        every_seconds=0.0,
    )
    assert output.scanned == 1
    assert (output.imported[0].file, output.imported[0].version_id) == ("0.dcm", 3)
    assert output.imported[0].is_primary
    assert (output.warnings[0].file, output.warnings[0].code) == ("0.dcm", "0xB006")
    assert output.failed == ()


def test_manifest_that_never_comes_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("arrival.importing.job_output.MANIFEST_TIMEOUT_SECONDS", 0.0)
    with pytest.raises(ImportFailedError, match="no manifest"):
        read_job_output(FakeS3(), job_id="j", input_uri="s3://a/b/", output_uri="s3://c/d/")


def test_batches_respect_both_quotas(tmp_path: Path) -> None:
    files = [tmp_path / f"{n}" for n in range(5)]
    for file in files:
        file.write_bytes(b"x" * 10)
    assert [len(one) for one in batches(files, most_files=2)] == [2, 2, 1]
    assert [len(one) for one in batches(files, most_bytes=30)] == [3, 2]
    assert list(batches([])) == []


def test_s3_uri_with_a_hash_in_its_key() -> None:
    assert split_s3_uri("s3://bucket/a/b#c") == ("bucket", "a/b#c")
