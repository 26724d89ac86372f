"""What a receiver says about every instance that it acknowledged, and what it does not take."""

from __future__ import annotations

import json
import logging
import socket
import ssl
import struct
from io import BytesIO
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pydicom
import pytest
from cloud_under_test import CloudUnderTest
from pynetdicom import AE, _config
from pynetdicom.sop_class import ModalityWorklistInformationFind, Verification
from receiving_world import (
    DEVICE,
    TITLE,
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
from arrival.receiving.association import NOT_OF_THE_SOP_CLASS, OUT_OF_RESOURCES
from arrival.receiving.batch import RECORDS
from arrival.receiving.intake import Deidentifying, Intake
from arrival.receiving.objects import Objects
from arrival.receiving.settling import Settled
from arrival.receiving.studies import Studies
from arrival.receiving.tls import Certificate


@pytest.fixture(scope="module")
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
    imports = Objects(s3=world.cloud.client("s3"), bucket=world.archive.import_bucket)
    keys = [one.key for one in imports.list(prefix) if one.key.endswith(ending)]
    return [json.loads(imports.read(key) or b"") for key in keys]


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
    files = write_study(tmp_path, study="1.2.530", count=2)
    settled: list[Settled] = []
    # Time enough to delete it before the import looks.
    with world.receiver(settled=settled.append, quiet_seconds=4) as receiver:
        assert set(statuses(files, port=receiver.port).values()) == {0}
        gone = world.keys("received/")[0]
        world.cloud.client("s3").delete_object(Bucket=world.archive.inbox_bucket, Key=gone)
        until(lambda: settled and receiver.totals.waiting == 0)
        assert (receiver.totals.imported, receiver.totals.missing, receiver.totals.pending) == (1, 1, 0)
    [batch] = documents(world, settled[0].batch.prefix, ending="report.json")
    assert batch["missing"] == [gone.rpartition("/")[2]]


def test_a_study_above_the_limits_of_a_job_is_several_jobs(world: World, tmp_path: Path) -> None:
    files = write_study(tmp_path, study="1.2.540", count=5)
    settled: list[Settled] = []
    with world.receiver(settled=settled.append, files_per_job=2) as receiver:
        assert set(statuses(files, port=receiver.port).values()) == {0}
        until(lambda: receiver.totals.imported == 5 and receiver.totals.waiting == 0)
    assert sorted(one.imported for one in settled) == [1, 2, 2]
    size = max(file.stat().st_size for file in files)
    settled.clear()
    with world.receiver(settled=settled.append, bytes_per_job=2 * size + 200) as receiver:
        assert set(statuses(files[:3], port=receiver.port).values()) == {0}
        until(lambda: receiver.totals.waiting == 0 and receiver.totals.pending == 0)
    assert sorted(one.imported + one.failed for one in settled) == [1, 2]


def test_an_instance_that_no_job_would_take_is_refused(world: World, tmp_path: Path) -> None:
    (file,) = write_study(tmp_path, study="1.2.550", count=1)
    with world.receiver(bytes_per_file=file.stat().st_size // 2) as receiver:
        assert set(statuses([file], port=receiver.port).values()) == {OUT_OF_RESOURCES}
        assert receiver.totals.received == 0
    assert world.keys("received/") == []


def test_another_instance_than_the_request_names_is_refused(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (file,) = write_study(tmp_path, study="1.2.560", count=1)
    dataset = pydicom.dcmread(file)
    with world.receiver(quiet_seconds=3600) as receiver:
        entity = AE(ae_title=DEVICE)
        entity.add_requested_context(dataset.SOPClassUID, dataset.file_meta.TransferSyntaxUID)
        # In pieces, the client takes the request's UIDs from the file meta information of the file.
        monkeypatch.setattr(_config, "STORE_SEND_CHUNKED_DATASET", True)
        dataset.file_meta.MediaStorageSOPInstanceUID = "1.2.560.77"
        pydicom.dcmwrite(file, dataset, enforce_file_format=False)
        association = entity.associate("127.0.0.1", receiver.port, ae_title=TITLE)
        assert association.send_c_store(file).Status == NOT_OF_THE_SOP_CLASS
        association.release()
        assert receiver.totals.received == 0
    assert world.keys("received/") == []


def test_what_is_no_storage_is_refused_and_told(
    world: World, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with world.receiver() as receiver, caplog.at_level(logging.WARNING):
        entity = AE(ae_title=DEVICE)
        entity.add_requested_context(Verification)
        entity.add_requested_context(ModalityWorklistInformationFind)
        association = entity.associate("127.0.0.1", receiver.port, ae_title=TITLE)
        assert association.send_c_echo().Status == 0
        assert [one.abstract_syntax for one in association.rejected_contexts] == [
            ModalityWorklistInformationFind
        ]
        association.release()
    assert str(ModalityWorklistInformationFind) in caplog.text


def half_a_handshake() -> bytes:
    """Of TLS: the first half of what a client says first."""
    context, into, out = ssl.create_default_context(), ssl.MemoryBIO(), ssl.MemoryBIO()
    client = context.wrap_bio(into, out, server_hostname="localhost")
    with pytest.raises(ssl.SSLWantReadError):
        client.do_handshake()
    hello = out.read()
    return hello[: len(hello) // 2]


@pytest.mark.parametrize("encrypted", [True, False], ids=["tls", "plain"])
def test_connections_that_stop_keep_nobody_out(
    world: World, authority: tuple[str, str], encrypted: bool
) -> None:
    certificate, key = authority
    context = None
    if encrypted:
        context = Certificate(certificate=certificate, key=key, ca=None).context()
    said = half_a_handshake() if encrypted else struct.pack(">BBL", 1, 0, 500) + b"\0" * 9
    with world.receiver(tls=context, silent_connection_seconds=60) as receiver:
        silent = silent_connections(receiver.port, said)
        entity = AE(ae_title=DEVICE)
        entity.add_requested_context(Verification)
        device = ssl.create_default_context(cadata=certificate)
        association = entity.associate(
            "127.0.0.1", receiver.port, ae_title=TITLE, tls_args=(device, "localhost") if encrypted else None
        )
        assert association.send_c_echo().Status == 0
        association.release()
        for one in silent:
            one.setblocking(False)
            with pytest.raises(BlockingIOError):
                # It is still open, and has been waited for by nobody.
                one.recv(1)
            one.close()
    with world.receiver(tls=context, silent_connection_seconds=0.5) as receiver:
        silent = silent_connections(receiver.port, said)
        for one in silent:
            one.settimeout(30)
            while one.recv(1000):
                pass
            one.close()
        until(lambda: receiver.associations == 0, seconds=30)


def silent_connections(port: int, said: bytes) -> list[socket.socket]:
    """One that says nothing, and some that stop in the midst of their first words."""
    connections = [socket.create_connection(("127.0.0.1", port)) for _ in range(4)]
    for one in connections[:3]:
        one.sendall(said)
    return connections


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
