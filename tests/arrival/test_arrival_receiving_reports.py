"""What a receiver says about every instance that it acknowledged, and what it does not take."""

from __future__ import annotations

import json
from io import BytesIO
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pydicom
import pytest
from cloud_under_test import CloudUnderTest
from receiving_world import (
    World,
    key_material,
    new_authority,
    new_world,
    statuses,
    until,
    write_study,
)

from arrival.deidentification.deidentifier import Deidentifier
from arrival.deidentification.key import KeyMaterial
from arrival.deidentification.reidentification import unseal
from arrival.receiving.batch import RECORDS
from arrival.receiving.intake import Deidentifying, Intake
from arrival.receiving.objects import Objects
from arrival.receiving.settling import Settled
from arrival.receiving.studies import Studies


@pytest.fixture
def world(cloud: CloudUnderTest) -> World:
    return new_world(cloud)


@pytest.fixture(scope="module")
def authority() -> tuple[str, str]:
    return new_authority()


def capture_of(file: Path) -> Path:
    """A copy of an instance with burned-in annotation, which cannot be de-identified."""
    dataset = pydicom.dcmread(file)
    uid = f"{dataset.StudyInstanceUID}.9"
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = uid
    dataset.BurnedInAnnotation = "YES"
    path = file.with_name(f"{uid}.dcm")
    dataset.save_as(path)
    return path


def documents(world: World, prefix: str, *, ending: str = ".json") -> list[dict[str, Any]]:
    keys = [one.key for one in world.imports.list(prefix) if one.key.endswith(ending)]
    return [json.loads(world.imports.read(key) or b"") for key in keys]


def test_the_reports_outlive_the_receiver_that_took_the_instances(world: World, tmp_path: Path) -> None:
    key = key_material()
    files = write_study(tmp_path, study="1.2.510", count=2, patient="MRN-77")
    files.append(capture_of(files[0]))
    with world.receiver(key=key, quiet_seconds=3600) as first:
        for _ in range(2):
            assert set(statuses(files, port=first.port).values()) == {0}
        assert (first.totals.received, first.totals.repeated, first.totals.quarantined) == (6, 3, 1)
        assert first.totals.pending == 2
    settled: list[Settled] = []
    with world.receiver(settled=settled.append) as next_one:
        until(lambda: settled and next_one.totals.waiting == 0)
        totals = next_one.totals
    assert (totals.taken_over, totals.imported, totals.quarantined, totals.pending) == (3, 2, 1, 0)
    [study] = documents(world, "reports/deidentification/")
    assert (study["instances"], study["quarantined"]) == (2, 1)
    assert study["changesByRule"]
    assert study["datesShifted"]
    [batch] = documents(world, settled[0].batch.prefix, ending="report.json")
    assert batch["received"] == sum(batch["counts"].values()) == 3
    [refused] = batch["quarantined"]
    assert refused["key"] in world.keys("quarantine/")
    assert refused["reasons"]
    for told in (study, batch):
        assert not {"1.2.510", "MRN-77", "Synthetic"} & set(json.dumps(told).replace('"', " ").split())
    assert world.keys("received/") == [], "the records are gone with the batch"


def test_a_study_of_which_all_is_in_quarantine_comes_to_its_end(world: World, tmp_path: Path) -> None:
    (file,) = write_study(tmp_path, study="1.2.520", count=1)
    settled: list[Settled] = []
    with world.receiver(key=key_material(), settled=settled.append) as receiver:
        assert set(statuses([capture_of(file)], port=receiver.port).values()) == {0}
        until(lambda: settled)
        assert (settled[0].imported, settled[0].quarantined, settled[0].left) == (0, 1, None)
        until(lambda: receiver.totals.waiting == 0)
        assert receiver.totals.pending == 0
    [batch] = documents(world, settled[0].batch.prefix, ending="report.json")
    assert batch["jobId"] is None
    assert world.keys(RECORDS) == []


def test_what_somebody_deleted_before_the_import_is_named(world: World, tmp_path: Path) -> None:
    files = write_study(tmp_path, study="1.2.530", count=3)
    settled: list[Settled] = []
    # The study is never quiet: its first batch is closed by the instance that is one too many for it.
    with world.receiver(settled=settled.append, files_per_job=2, quiet_seconds=3600) as receiver:
        assert set(statuses(files[:2], port=receiver.port).values()) == {0}
        gone = world.keys("received/")[0]
        world.s3.delete_object(Bucket=world.archive.inbox_bucket, Key=gone)
        assert set(statuses(files[2:], port=receiver.port).values()) == {0}
        until(lambda: settled and receiver.totals.imported)
        assert (receiver.totals.imported, receiver.totals.missing, receiver.totals.pending) == (1, 1, 1)
    [batch] = documents(world, settled[0].batch.prefix, ending="report.json")
    assert batch["missing"] == [gone.rpartition("/")[2]]


@pytest.mark.parametrize("limit", ["files", "bytes"])
def test_a_study_above_the_limits_of_a_job_is_several_jobs(world: World, tmp_path: Path, limit: str) -> None:
    files = write_study(tmp_path, study="1.2.540", count=5)
    size = max(file.stat().st_size for file in files)
    limits = {"files": {"files_per_job": 2}, "bytes": {"bytes_per_job": 2 * size + 200}}[limit]
    settled: list[Settled] = []
    with world.receiver(settled=settled.append, quiet_seconds=3600, **limits) as receiver:
        assert set(statuses(files, port=receiver.port).values()) == {0}
        until(lambda: receiver.totals.imported == 4)
        # What may still grow is left to who comes next.
        assert receiver.totals.pending == 1
    with world.receiver(settled=settled.append) as next_one:
        until(lambda: next_one.totals.imported == 1)
    assert [one.imported for one in settled] == [2, 2, 1]


def test_one_uid_under_two_patients_leaves_a_sealed_record_of_each(tmp_path: Path) -> None:
    (file,) = write_study(tmp_path, study="1.2.580", count=1)
    key, s3 = KeyMaterial.from_secret("0123456789abcdef" * 2), Mock()
    intake = Intake(
        inbox=Objects(s3=s3, bucket="inbox"),
        imports=Objects(s3=s3, bucket="imports"),
        studies=Studies(receiver="r", quiet_seconds=3600, files_per_batch=9, bytes_per_batch=10**9),
        deidentifying=Deidentifying(deidentifier=Deidentifier(key=key), key=key),
    )
    dataset = pydicom.dcmread(file)
    for patient in ("MRN1", "MRN2"):
        dataset.PatientID = patient
        part10 = BytesIO()
        dataset.save_as(part10)
        intake.take(
            part10.getvalue(), sop_class_uid=dataset.SOPClassUID, sop_instance_uid=dataset.SOPInstanceUID
        )
    stored = {call.kwargs["Key"]: call.kwargs["Body"] for call in s3.put_object.call_args_list}
    sealed = [body for name, body in stored.items() if name.endswith(".sealed")]
    assert sorted(unseal(one, key=key)[0].original_patient_id for one in sealed) == ["MRN1", "MRN2"]
