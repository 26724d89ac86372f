"""The receiver with real clients and the local cloud: what it acknowledges is never lost."""

from __future__ import annotations

import os
import signal
import socket
import ssl
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pydicom
import pytest
from botocore.exceptions import EndpointConnectionError
from cloud_under_test import REPOSITORY, CloudUnderTest, free_port
from pynetdicom import AE
from receiving_world import (
    DEVICE,
    TITLE,
    World,
    data_set_bytes,
    key_material,
    new_authority,
    new_world,
    send,
    statuses,
    until,
    write_study,
)

from arrival.__main__ import echo
from arrival.deidentification.reidentification import unseal
from arrival.receiving.association import OUT_OF_RESOURCES
from arrival.receiving.batch import Batch
from arrival.receiving.lives import Lives
from arrival.receiving.tls import Certificate, TlsError
from arrival.settings import Settings, SettingsError


@pytest.fixture
def world(cloud: CloudUnderTest) -> World:
    return new_world(cloud)


def settled(receiver: Any) -> bool:
    return receiver.totals.waiting == 0


def test_several_devices_at_once_and_every_instance_is_imported(world: World, tmp_path: Path) -> None:
    studies = {f"1.2.40{n}": write_study(tmp_path, study=f"1.2.40{n}", count=4) for n in range(4)}
    real, *others = studies.values()
    with world.receiver() as receiver, ThreadPoolExecutor(3) as devices:
        answered = devices.map(lambda files: statuses(files, port=receiver.port), others)
        assert send(real, port=receiver.port) == 0
        assert all(set(one.values()) == {0} for one in answered)
        assert receiver.totals.received == 16
        until(lambda: receiver.totals.imported + receiver.totals.failed == 16 and settled(receiver))
        assert receiver.totals.failed == 0
    assert {f"{study}.1.{n}" for study in studies for n in range(4)} == world.instances()
    assert world.keys("received/") == []


@pytest.mark.filterwarnings("ignore:The value length:UserWarning")
def test_what_healthimaging_refuses_is_kept_with_the_reason(world: World, tmp_path: Path) -> None:
    good = write_study(tmp_path, study="1.2.405", count=1)
    # HealthImaging takes identifiers of up to 256 characters.
    (bad,) = write_study(tmp_path, study="1.2.406", count=1, patient="X" * 300)
    with world.receiver() as receiver:
        assert set(statuses([*good, bad], port=receiver.port).values()) == {0}
        until(lambda: (receiver.totals.imported, receiver.totals.failed) == (1, 1) and settled(receiver))
    reason, kept = sorted(world.keys("failed/"), key=lambda key: key.endswith(".dcm"))
    assert reason == f"{kept}.json"
    assert "PatientID" in world.body(reason).decode()
    assert data_set_bytes(world.body(kept)) == data_set_bytes(bad.read_bytes())
    assert world.keys("received/") == []


def test_an_instance_sent_twice_is_one(world: World, tmp_path: Path) -> None:
    files = write_study(tmp_path, study="1.2.410", count=2)
    with world.receiver(quiet_seconds=3600) as receiver:
        for _ in range(2):
            assert set(statuses(files, port=receiver.port).values()) == {0}
        names = {key.rpartition("/")[2] for key in world.keys("received/")}
        assert len(names) == len(world.keys("received/")) == 2
        (body, *_) = [world.body(key) for key in world.keys("received/")]
    assert data_set_bytes(body) in {data_set_bytes(file.read_bytes()) for file in files}
    with world.receiver() as next_one:
        until(lambda: next_one.totals.imported == 2)


def test_killed_receivers_lose_nothing_that_they_acknowledged(world: World, tmp_path: Path) -> None:
    """A receiver is killed while a device is sending; another one takes over."""
    files = write_study(tmp_path, study="1.2.420", count=30)
    port = free_port()
    program = subprocess.Popen(
        [sys.executable, "-m", "arrival", "receive"],
        cwd=REPOSITORY,
        env=os.environ | world.variables | {"ARRIVAL_PORT": str(port), "ARRIVAL_QUIET_SECONDS": "3600"},
        stdout=subprocess.PIPE,
        text=True,
    )
    acknowledged: list[str] = []
    try:
        assert program.stdout is not None
        assert "listens" in program.stdout.readline()
        threading.Thread(target=program.stdout.read, daemon=True).start()
        assert echo(_settings(world, port)) == 0
        entity = AE(ae_title=DEVICE)
        first = pydicom.dcmread(files[0])
        entity.add_requested_context(first.SOPClassUID, first.file_meta.TransferSyntaxUID)
        association = entity.associate("127.0.0.1", port, ae_title=TITLE)
        for number, file in enumerate(files):
            if number == 12:
                # The dead answer nothing.
                association.dimse_timeout = 0.5
                os.kill(program.pid, signal.SIGKILL)
            try:
                answer = association.send_c_store(dataset := pydicom.dcmread(file))
            except RuntimeError:  # the client's word for an association that is gone
                break
            if getattr(answer, "Status", None) == 0:
                acknowledged.append(str(dataset.SOPInstanceUID))
        association.abort()
    finally:
        program.kill()
        program.wait()
    assert len(acknowledged) >= 12
    with world.receiver(silent_seconds=1.0) as other:
        until(lambda: set(acknowledged) <= world.instances())
        assert other.totals.failed == 0


def test_a_device_that_breaks_off_has_what_was_acknowledged(world: World, tmp_path: Path) -> None:
    files = write_study(tmp_path, study="1.2.430", count=3)
    with world.receiver() as receiver:
        first = pydicom.dcmread(files[0])
        entity = AE(ae_title=DEVICE)
        entity.add_requested_context(first.SOPClassUID, first.file_meta.TransferSyntaxUID)
        association = entity.associate("127.0.0.1", receiver.port, ae_title=TITLE)
        assert association.send_c_store(first).Status == 0
        association.abort()
        until(lambda: receiver.totals.imported == 1)
    assert world.instances() & {f"1.2.430.1.{n}" for n in range(3)} == {"1.2.430.1.0"}


def test_what_s3_did_not_take_is_not_acknowledged(world: World, tmp_path: Path) -> None:
    files = write_study(tmp_path, study="1.2.440", count=3)

    class Failing:
        """S3 that fails for every second instance."""

        def __init__(self, s3: Any) -> None:
            self.s3, self.puts = s3, 0

        def __getattr__(self, name: str) -> Any:
            return getattr(self.s3, name)

        def put_object(self, **request: Any) -> Any:
            if request["Key"].endswith(".dcm"):
                self.puts += 1
                if self.puts == 2:
                    raise EndpointConnectionError(endpoint_url="s3")
            return self.s3.put_object(**request)

    with world.receiver(s3=Failing(world.s3)) as receiver:
        answered = statuses(files, port=receiver.port)
        assert answered == {"1.2.440.1.0": 0, "1.2.440.1.1": OUT_OF_RESOURCES, "1.2.440.1.2": 0}
        until(lambda: receiver.totals.imported == 2)
        # The device sends again what was refused.
        assert statuses(files[1:2], port=receiver.port) == {"1.2.440.1.1": 0}
        until(lambda: receiver.totals.imported == 3)


def test_deidentified_before_anything_is_stored(world: World, tmp_path: Path) -> None:
    key = key_material()
    files = write_study(tmp_path, study="1.2.460", count=2, patient="MRN-77")
    capture = pydicom.dcmread(files[0])
    capture.SOPInstanceUID = capture.file_meta.MediaStorageSOPInstanceUID = "1.2.460.9"
    capture.BurnedInAnnotation = "YES"
    capture.save_as(tmp_path / "capture.dcm")
    with world.receiver(key=key) as receiver:
        assert set(statuses([*files, tmp_path / "capture.dcm"], port=receiver.port).values()) == {0}
        assert receiver.totals.quarantined == 1
        until(lambda: receiver.totals.imported == 2)
    assert not {"1.2.460.1.0", "1.2.460.1.1", "1.2.460.9"} & world.instances()
    assert len([one for one in world.keys("quarantine/") if one.endswith(".dcm")]) == 1
    sealed = [one.key for one in world.imports.list("reidentification/")]
    identities = {one for at in sealed for one in unseal(world.imports.read(at) or b"", key=key)}
    assert {one.original_sop_instance_uid for one in identities} == {"1.2.460.1.0", "1.2.460.1.1"}
    assert {one.sop_instance_uid for one in identities} <= world.instances()
    assert list(world.imports.list("reports/deidentification/"))


def test_one_of_two_claims_a_dead_receivers_batch(world: World) -> None:
    one, other = (Lives(imports=world.imports, receiver=name) for name in ("one", "other"))
    batch = Batch(study="a" * 32, name="dead.000001")
    for lives in (one, other):
        lives.beat()
    alive = one.alive()
    assert {"one", "other"} <= alive
    assert "dead" not in alive
    assert one.claim(batch, alive=alive)
    assert not other.claim(batch, alive=other.alive())
    assert one.claim(batch, alive=alive), "its own claim holds"
    one.beat(ended=True)
    assert other.claim(batch, alive=other.alive()), "whoever claimed it has ended"


@pytest.fixture(scope="module")
def authority() -> tuple[str, str]:
    return new_authority()


def test_tls_with_certificates_of_both_sides(
    world: World, authority: tuple[str, str], tmp_path: Path
) -> None:
    certificate, key = authority
    (file,) = write_study(tmp_path, study="1.2.470", count=1)
    pem = tmp_path / "device.pem"
    pem.write_text(f"{certificate}\n{key}")
    device = ssl.create_default_context(cadata=certificate)
    device.load_cert_chain(pem)
    context = Certificate(certificate=certificate, key=key, ca=certificate).context()
    with world.receiver(tls=context) as receiver:
        assert set(statuses([file], port=receiver.port, tls=device).values()) == {0}
        assert send([file], port=receiver.port) != 0, "without TLS nobody is heard"
        stranger = ssl.create_default_context(cadata=certificate)
        with pytest.raises((ssl.SSLError, ConnectionError)):
            _talk(stranger, port=receiver.port)
        assert context.minimum_version is ssl.TLSVersion.TLSv1_2
        until(lambda: receiver.totals.imported == 1)


def test_a_certificate_without_its_key_is_refused(authority: tuple[str, str]) -> None:
    certificate, _ = authority
    with pytest.raises(TlsError):
        Certificate(certificate=certificate, key="none", ca=None).context()


def test_all_problems_of_the_settings_are_told_at_once(world: World) -> None:
    variables = world.variables | {
        "ARRIVAL_PORT": "70000",
        "ARRIVAL_QUIET_SECONDS": "soon",
        "ARRIVAL_ALLOWED": "[]",
        "ARRIVAL_DEIDENTIFY": "true",
        "ARRIVAL_DATASTORE_ID": "",
        "ARRIVAL_AE_TITLE": "A\\B",
    }
    with pytest.raises(SettingsError) as raised:
        Settings.from_variables(variables)
    for name in (
        *("ARRIVAL_PORT", "ARRIVAL_QUIET_SECONDS", "ARRIVAL_ALLOWED", "ARRIVAL_DATASTORE_ID"),
        *("ARRIVAL_DEIDENTIFICATION_KEY_SECRET_ARN", "ARRIVAL_AE_TITLE"),
    ):
        assert name in raised.value.message


def _settings(world: World, port: int) -> Settings:
    return Settings.from_variables(
        world.variables | {"ARRIVAL_PORT": str(port), "ARRIVAL_QUIET_SECONDS": "1"}
    )


def _talk(context: ssl.SSLContext, *, port: int) -> None:
    """TLS 1.3 tells a client that lacks a certificate when it first reads."""
    with (
        socket.create_connection(("127.0.0.1", port)) as plain,
        context.wrap_socket(plain, server_hostname="localhost") as wrapped,
    ):
        if not wrapped.recv(1):
            raise ConnectionError
