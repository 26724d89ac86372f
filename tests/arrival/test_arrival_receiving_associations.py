"""Who is let in, how many at a time, and what is not taken: a receiver's DICOM side, with S3 in memory."""

from __future__ import annotations

import ipaddress
import logging
import socket
import ssl
import struct
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pydicom
import pytest
from pynetdicom import _config
from receiving_world import (
    DEVICE,
    HERE,
    TITLE,
    Front,
    associated,
    front,
    new_authority,
    statuses,
    until,
    write_study,
)

from arrival.__main__ import echo
from arrival.importing.import_job import Archive
from arrival.receiving import association as associations
from arrival.receiving.access import Access, Caller
from arrival.receiving.association import NOT_OF_THE_SOP_CLASS, OUT_OF_RESOURCES, PROCESSING_FAILURE
from arrival.receiving.tls import Certificate
from arrival.settings import Settings


@pytest.fixture(scope="module")
def authority() -> tuple[str, str]:
    return new_authority()


def settings(port: int) -> Settings:
    return Settings(
        archive=Archive(datastore_id="d", import_role_arn="r", inbox_bucket="i", import_bucket="m"),
        access=Access(ae_title=TITLE, callers=(Caller(ae_title=DEVICE, network=HERE),)),
        port=port,
        quiet_seconds=1,
        deidentification_key_secret_arn=None,
        tls_secret_arn=None,
    )


def rejection(association: Any) -> tuple[int, int, int]:
    """Result, source and reason."""
    assert association.is_rejected
    answer = association.acceptor.primitive
    return (answer.result, answer.result_source, answer.diagnostic)


@pytest.mark.parametrize(
    ("title", "called", "network", "reason"),
    [
        ("STRANGER", TITLE, "127.0.0.0/8", 3),
        (DEVICE, TITLE, "10.0.0.0/8", 3),
        (DEVICE, "OTHER", "127.0.0.0/8", 7),
    ],
)
def test_strangers_are_rejected_with_the_standards_reason(
    title: str, called: str, network: str, reason: int
) -> None:
    access = Access(ae_title=TITLE, callers=(Caller(ae_title=DEVICE, network=ipaddress.ip_network(network)),))
    with front(access=access) as receiver, associated(receiver.port, title=title, called=called) as one:
        assert rejection(one) == (1, 1, reason)
        until(lambda: receiver.server.associations == 0)
    assert ["RejectedAssociations" in line for line in receiver.emitted] == [True]


def test_the_receivers_own_title_opens_nothing_from_elsewhere() -> None:
    access = settings(port=1).access
    for address, allowed in (("127.0.0.1", True), ("::1", True), ("10.0.0.1", False), ("?", False)):
        assert access.allows(calling_ae_title=TITLE, address=address) is allowed
        assert access.is_itself(calling_ae_title=TITLE, address=address) is allowed
    assert not access.is_itself(calling_ae_title=DEVICE, address="127.0.0.1")


def test_a_busy_receiver_puts_off_devices_and_is_well(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """One that is killed for being busy breaks off the studies that it was busy with."""
    monkeypatch.setattr(associations, "MOST_ASSOCIATIONS", 2)
    with front() as receiver, ExitStack() as held, caplog.at_level(logging.WARNING):
        busy = [held.enter_context(associated(receiver.port)) for _ in range(2)]
        with associated(receiver.port) as one_more:
            assert rejection(one_more) == (2, 3, 2), "local limit exceeded, come again"
        until(lambda: receiver.server.associations == 2)
        assert echo(settings(receiver.port)) == 0
        assert [one.send_c_echo().Status for one in busy] == [0, 0]
    assert receiver.emitted == [], "nobody is called for a device that comes again"
    assert DEVICE in caplog.text


def test_a_receiver_that_is_not_well_says_so_however_busy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(associations, "MOST_ASSOCIATIONS", 1)
    well = True
    with front(healthy=lambda: well) as receiver, associated(receiver.port) as device:
        assert (device.send_c_echo().Status, echo(settings(receiver.port))) == (0, 0)
        well = False
        assert device.send_c_echo().Status == PROCESSING_FAILURE
        assert echo(settings(receiver.port)) == 1


def half_a_handshake() -> bytes:
    """Of TLS: the first half of what a client says first."""
    context, into, out = ssl.create_default_context(), ssl.MemoryBIO(), ssl.MemoryBIO()
    client = context.wrap_bio(into, out, server_hostname="localhost")
    with pytest.raises(ssl.SSLWantReadError):
        client.do_handshake()
    hello = out.read()
    return hello[: len(hello) // 2]


def silent_connections(port: int, said: bytes) -> list[socket.socket]:
    """One that says nothing, and some that stop in the midst of their first words."""
    connections = [socket.create_connection(("127.0.0.1", port)) for _ in range(4)]
    for one in connections[:3]:
        one.sendall(said)
    return connections


@pytest.mark.parametrize("encrypted", [True, False], ids=["tls", "plain"])
def test_connections_that_stop_keep_nobody_out(authority: tuple[str, str], encrypted: bool) -> None:
    certificate, key = authority
    context, device = None, None
    if encrypted:
        context = Certificate(certificate=certificate, key=key, ca=None).context()
        device = ssl.create_default_context(cadata=certificate)
    said = half_a_handshake() if encrypted else struct.pack(">BBL", 1, 0, 500) + b"\0" * 9
    with front(tls=context, silent_seconds=3600) as receiver:
        silent = silent_connections(receiver.port, said)
        with associated(receiver.port, tls=device) as association:
            assert association.send_c_echo().Status == 0
        until(lambda: receiver.server.associations == len(silent))
        for one in silent:
            one.setblocking(False)
            with pytest.raises(BlockingIOError):
                # It is still open, and has been waited for by nobody.
                one.recv(1)
            one.close()
        # Whoever is gone is not waited for.
        until(lambda: receiver.server.associations == 0)
    with front(tls=context, silent_seconds=0.5) as receiver:
        for one in silent_connections(receiver.port, said):
            one.settimeout(30)
            while one.recv(1000):
                pass
            one.close()
        until(lambda: receiver.server.associations == 0)


def test_a_device_that_is_gone_in_the_midst_of_an_instance_keeps_no_place(tmp_path: Path) -> None:
    with front(silent_seconds=3600) as receiver, associated(receiver.port) as association:
        assert association.is_established
        connection = association.dul.socket.socket
        connection.sendall(struct.pack(">BBL", 4, 0, 5000) + b"\0" * 99)
        connection.shutdown(socket.SHUT_RDWR)
        until(lambda: receiver.server.associations == 0 and not association.is_established)
    assert receiver.stored == {}


@pytest.fixture(scope="module")
def receiver() -> Any:
    with front(bytes_per_file=100_000) as listening:
        yield listening


def test_an_instance_that_no_job_would_take_is_refused(receiver: Front, tmp_path: Path) -> None:
    (file,) = write_study(tmp_path, study="1.2.550", count=1)
    dataset = pydicom.dcmread(file)
    dataset.EncapsulatedDocument = bytes(100_000)
    dataset.save_as(file)
    assert set(statuses([file], port=receiver.port).values()) == {OUT_OF_RESOURCES}
    assert receiver.stored == {}


def test_an_instance_of_no_study_is_refused(receiver: Front, tmp_path: Path) -> None:
    (file,) = write_study(tmp_path, study="1.2.450", count=1)
    dataset = pydicom.dcmread(file)
    del dataset.StudyInstanceUID
    dataset.save_as(file)
    assert set(statuses([file], port=receiver.port).values()) == {NOT_OF_THE_SOP_CLASS}
    assert receiver.stored == {}


def test_another_instance_than_the_request_names_is_refused(
    receiver: Front, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (file,) = write_study(tmp_path, study="1.2.560", count=1)
    dataset = pydicom.dcmread(file)
    # In pieces, the client takes the request's UIDs from the file meta information of the file.
    monkeypatch.setattr(_config, "STORE_SEND_CHUNKED_DATASET", True)
    dataset.file_meta.MediaStorageSOPInstanceUID = "1.2.560.77"
    pydicom.dcmwrite(file, dataset, enforce_file_format=False)
    proposed = (str(dataset.SOPClassUID), [str(dataset.file_meta.TransferSyntaxUID)])
    with associated(receiver.port, proposed) as association:
        assert association.send_c_store(file).Status == NOT_OF_THE_SOP_CLASS
    assert receiver.stored == {}
