"""Ingest against the local cloud: real S3, real import jobs, real secrets."""

from __future__ import annotations

import json
import secrets
import threading
import uuid
from pathlib import Path
from typing import Any

import pytest
from cloud_under_test import CloudUnderTest
from ingest_world import fates, write
from workbench_fakes import OUTPUTS, FakeDeployment

from arrival.deidentification.key import KeyMaterial
from arrival.deidentification.reidentification import unseal
from arrival.importing.pacing import StartPace
from healthimaging import ImageSet
from workbench.deployment import Deployment
from workbench.environment import Environment, LocalEndpoint
from workbench.ingest import Options, ingest
from workbench.ingesting import run
from workbench.ingesting.command import report_lines
from workbench.ingesting.deidentifying import Deidentifying
from workbench.ingesting.dry_run import plan
from workbench.ingesting.fate import CHANGED
from workbench.ingesting.jobs import ChunkWork
from workbench.ingesting.report_file import report_file, write_report
from workbench.ingesting.run import run_ingest
from workbench.ingesting.watching import Lines
from workbench.progress import silent
from workbench.session import Session

KEY = secrets.token_hex(32)


@pytest.fixture(scope="module")
def deployed(cloud: CloudUnderTest) -> Deployment:
    """The data stack's part that ingest needs, under names of its own."""
    name = f"ingest-{uuid.uuid4().hex[:12]}"
    s3, iam = cloud.client("s3"), cloud.client("iam")
    for bucket in (f"{name}-inbox", f"{name}-imports", f"{name}-partner"):
        s3.create_bucket(Bucket=bucket)
    trust = {
        "Effect": "Allow",
        "Action": "sts:AssumeRole",
        "Principal": {"Service": "medical-imaging.amazonaws.com"},
    }
    role = iam.create_role(RoleName=name, AssumeRolePolicyDocument=json.dumps({"Statement": [trust]}))["Role"]
    allowed = {
        "Effect": "Allow",
        "Action": ["s3:ListBucket", "s3:GetObject", "s3:PutObject"],
        "Resource": [f"arn:aws:s3:::{name}-*"],
    }
    iam.put_role_policy(
        RoleName=name, PolicyName="import", PolicyDocument=json.dumps({"Statement": [allowed]})
    )
    secret = cloud.client("secretsmanager").create_secret(Name=name, SecretString=KEY)["ARN"]
    session = Session(
        Environment(
            name="test",
            account=cloud.account_id,
            region=cloud.region,
            local=LocalEndpoint(
                endpoint_url=cloud.endpoint_url,
                access_key_id=cloud.access_key_id,
                secret_access_key=cloud.secret_access_key,
                docker=None,
            ),
        )
    )
    datastore = session.client("medical-imaging").create_datastore(datastoreName=name)["datastoreId"]
    outputs = {
        **OUTPUTS["data"],
        "DatastoreId": datastore,
        "ImportRoleArn": role["Arn"],
        "InboxBucketName": f"{name}-inbox",
        "ImportBucketName": f"{name}-imports",
        "DeidentificationKeySecretArn": secret,
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(OUTPUTS, "data", outputs)
        made = FakeDeployment(session)
        stack = made.stack("data")

    class Deployed(FakeDeployment):
        def stack(self, part: str) -> object:  # type: ignore[override]  # outputs of this cloud
            assert part == "data"
            return stack

    return Deployed(session)


def series(folder: Path, study: str, *, patient: str, date: str = "20240102", count: int = 2) -> None:
    for number in range(count):
        write(
            folder / f"{number}.dcm",
            SOPInstanceUID=f"{study}.1.{number}",
            StudyInstanceUID=study,
            SeriesInstanceUID=f"{study}.1",
            PatientID=patient,
            PatientName=f"{patient}^Jane",
            StudyDate=date,
            Modality="CT",
            SOPClassUID="1.2.840.10008.5.1.4.1.1.2",
            ImageType=["ORIGINAL", "PRIMARY", "AXIAL"],
            BurnedInAnnotation="NO",
        )


def test_ingest_of_files_and_of_a_prefix(deployed: Deployment, tmp_path: Path) -> None:
    options = Options(journal=tmp_path / "j.sqlite", every_seconds=0.1)
    series(tmp_path / "in" / "a", "1.2.77", patient="HELGA")
    series(tmp_path / "in" / "b", "1.2.78", patient="OTTO")
    write(tmp_path / "in" / "refused.dcm", SOPClassUID=None)
    report = ingest(deployed, [tmp_path / "in"], options=options)
    assert [state for _, state in fates(report)] == ["imported"] * 4 + ["failed"]
    assert "SOPClassUID" in report.failed[0].reason
    assert len(report.image_sets) == 2

    # Another patient's file under the same study: in, and not primary, with what contradicts the study.
    inbox = deployed.stack("data")["InboxBucketName"].removesuffix("inbox")
    write(
        tmp_path / "odd.dcm",
        SOPInstanceUID="1.2.77.9",
        StudyInstanceUID="1.2.77",
        SeriesInstanceUID="1.2.77.1",
        PatientID="HEINZ",
        StudyDate="20240102",
    )
    s3 = deployed.session.client("s3")
    s3.upload_file(str(tmp_path / "odd.dcm"), f"{inbox}partner", "out/odd.dcm")
    report = run_ingest(
        deployed, [f"s3://{inbox}partner/out"], options=options, watcher=Lines(silent), values=True
    )
    assert report.ok
    [conflict] = report.conflicts
    assert "PatientID" in conflict.attributes
    assert "StudyDate" not in conflict.attributes
    assert conflict.values["PatientID"] == ("HEINZ", "HELGA")
    assert any("'HEINZ', not 'HELGA'" in line for line in report_lines(report))
    again = ingest(
        deployed,
        [tmp_path / "in", tmp_path / "odd.dcm"],
        options=Options(journal=tmp_path / "elsewhere.sqlite"),
    )
    assert (len(again.already), len(again.imported), len(again.failed)) == (5, 0, 1)
    assert "HEINZ" not in json.dumps(again.to_json())
    with report_file(tmp_path / "report.jsonl") as to:
        write_report(again, to)
    lines = [json.loads(line) for line in (tmp_path / "report.jsonl").read_text().splitlines()]
    assert lines[0]["given"] == len([line for line in lines[1:] if line["state"] != "warning"])


def test_several_jobs_at_once(deployed: Deployment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "StartPace", lambda sleep: StartPace(per_second=1000, sleep=sleep))
    for number in range(3):
        series(tmp_path / "in" / str(number), f"1.2.9{number}", patient=f"P{number}")
    options = Options(journal=tmp_path / "j.sqlite", every_seconds=0.1, files_per_job=2)
    report = ingest(deployed, [tmp_path / "in"], options=options)
    assert report.ok
    assert len(report.jobs) == len(set(report.jobs)) == 3


def test_deidentified(deployed: Deployment, tmp_path: Path) -> None:
    options = Options(journal=tmp_path / "j.sqlite", every_seconds=0.1, deidentify=True)
    series(tmp_path / "in", "1.2.79", patient="GRETEL")
    write(tmp_path / "in" / "screen.dcm", StudyInstanceUID="1.2.79", BurnedInAnnotation="YES")
    write(tmp_path / "in" / "gone.dcm", StudyInstanceUID="1.2.79")

    read_now: list[int] = []

    class Reading(Lines):
        def read(self, files: int, bytes_: int) -> None:
            # A plan reads headers a second time, and one of the files is gone by then.
            read_now.append(files)
            if len(read_now) == 4:
                (tmp_path / "in" / "gone.dcm").unlink()

    planned = plan(deployed, [str(tmp_path / "in")], options=options, watcher=Reading(silent))
    assert (planned.to_import, len(planned.quarantined)) == (2, 1)
    assert [one.kind for one in planned.failed] == ["Unreadable"]
    report = ingest(deployed, [tmp_path / "in"], options=options)
    assert not report.ok
    assert len(report.imported) == 2
    assert [one.file for one in report.quarantined] == [str(tmp_path / "in" / "screen.dcm")]
    assert "BurnedInAnnotation" in report.quarantined[0].reason
    [images] = report.image_sets
    header = ImageSet.open(
        deployed.session.client("medical-imaging"), report.datastore_id, images.image_set_id
    ).metadata
    study = str(header.study_instance_uid)
    assert study.startswith("2.25.")
    # Nothing of the original is in the account, but for the sealed record.
    data, s3 = deployed.stack("data"), deployed.session.client("s3")
    seen = {}
    for bucket in (data["InboxBucketName"], data["ImportBucketName"]):
        for page in s3.get_paginator("list_objects_v2").paginate(Bucket=bucket):
            for one in page.get("Contents", []):
                seen[one["Key"]] = s3.get_object(Bucket=bucket, Key=one["Key"])["Body"].read()
    assert not [key for key, body in seen.items() if b"GRETEL" in body or b"1.2.79" in body]
    [sealed] = [key for key in seen if key.startswith(f"reidentification/{study}/")]
    identities = unseal(seen[sealed], key=KeyMaterial.from_secret(KEY))
    assert {one.original_patient_id for one in identities} == {"GRETEL"}
    [document] = [key for key in seen if key.startswith(f"reports/deidentification/{study}/")]
    assert json.loads(seen[document])["instances"] == 2
    # Another machine with the key knows what is in; the same files as they are, are others.
    elsewhere = Options(journal=tmp_path / "elsewhere.sqlite", every_seconds=0.1, deidentify=True)
    assert len(ingest(deployed, [tmp_path / "in"], options=elsewhere).already) == 2


def test_what_an_interrupted_upload_left_is_not_imported(
    deployed: Deployment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An original that changes after it was uploaded de-identified has no sealed record any more."""
    options = Options(journal=tmp_path / "j.sqlite", every_seconds=0.1, deidentify=True)
    series(tmp_path / "in", "1.2.83", patient="LENE")
    advance = ChunkWork.advance

    def crashing(work: ChunkWork, chunk: Any, to: str, **more: Any) -> None:
        if to == "uploaded":
            raise KeyboardInterrupt
        advance(work, chunk, to, **more)

    with monkeypatch.context() as patch:
        patch.setattr(ChunkWork, "advance", crashing)
        with pytest.raises(KeyboardInterrupt):
            ingest(deployed, [tmp_path / "in"], options=options)
    make = Deidentifying.make

    def changing(work: Deidentifying, stream: Any, *, planned: str, records: Any) -> Any:
        # One original changes between the look at it and its upload.
        made = make(work, stream, planned=planned, records=records)
        return CHANGED if changed.acquire(blocking=False) else made

    changed = threading.Semaphore(1)
    monkeypatch.setattr(Deidentifying, "make", changing)
    report = ingest(deployed, [tmp_path / "in"], options=options)
    assert (len(report.imported), [one.kind for one in report.failed]) == (1, ["Changed"])
    [images] = report.image_sets
    header = ImageSet.open(
        deployed.session.client("medical-imaging"), report.datastore_id, images.image_set_id
    ).metadata
    assert len(header.instances) == 1
