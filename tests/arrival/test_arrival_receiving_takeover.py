"""A receiver and what it finds: what others left, attempts that fail, and threads of its own that end."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import Mock

import pytest
from botocore.exceptions import ClientError
from pynetdicom import AE
from pynetdicom.sop_class import Verification
from receiving_world import TITLE, until
from settling_world import ARCHIVE, Cloud

from arrival import __main__ as container
from arrival.importing.import_job import JobRunsError
from arrival.receiving import receiver as receiving
from arrival.receiving.access import Access
from arrival.receiving.association import PROCESSING_FAILURE
from arrival.receiving.batch import Batch
from arrival.receiving.metrics import Metrics
from arrival.receiving.receiver import Receiver
from arrival.receiving.settling import Settled

LEFT = Batch(study="s", name="dead.000001")


@contextmanager
def listening(
    cloud: Cloud, *, settled: list[Settled], emitted: list[str], port: int = 0
) -> Iterator[Receiver]:
    receiver = Receiver(
        archive=ARCHIVE,
        access=Access(ae_title=TITLE, callers=()),
        s3=cloud.client(),
        medical_imaging=cloud.client(),
        quiet_seconds=0.0,
        address=("127.0.0.1", port),
        metrics=Metrics(receiver=TITLE, write=emitted.append),
        settled=settled.append,
        look_seconds=0.01,
        every_seconds=0.0,
    )
    receiver.start()
    try:
        yield receiver
    finally:
        receiver.stop(within_seconds=0.0)


def test_a_second_try_waits_until_the_first_has_come_to_its_end() -> None:
    cloud, settled = Cloud(), list[Settled]()
    cloud.arrive(LEFT, "a.dcm")
    cloud.arrive(LEFT.again, "b.dcm")
    with listening(cloud, settled=settled, emitted=[]) as receiver:
        until(lambda: receiver.totals.taken_over == 1)
        assert cloud.waiting == {f"{LEFT.again.prefix}b.dcm", f"{LEFT.again.records}b.dcm.json"}
    # It looks for what others left twice in `silent_seconds`; the next one looks at once.
    with listening(cloud, settled=settled, emitted=[]) as receiver:
        until(lambda: receiver.totals.taken_over == 1)
    assert [one.batch for one in settled] == [LEFT, LEFT.again]
    assert cloud.waiting == set()


def test_attempts_that_fail_are_counted_and_made_again(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(receiving, "RETRY_SECONDS", 0.01)
    monkeypatch.setattr(receiving, "LONGEST_RETRY_SECONDS", 0.02)
    cloud, emitted, refusals = Cloud(statuses=["FAILED"]), list[str](), iter(range(3))

    def refuse(name: str) -> None:
        if name == "start_dicom_import_job" and next(refusals, None) is not None:
            raise ClientError({"Error": {"Code": "AccessDeniedException"}}, name)

    cloud.before_call = refuse
    cloud.arrive(LEFT, "a.dcm")
    with listening(cloud, settled=[], emitted=emitted) as receiver:
        until(lambda: receiver.totals.imported == 1)
    failures = sum(json.loads(line).get("ImportAttemptsFailed", 0) for line in emitted)
    assert failures == 4
    assert [record.args[1] for record in caplog.records if "attempt" in record.msg] == [
        *["AccessDeniedException"] * 3,
        "Import job job0 failed: the role.",
    ]


def test_pauses_between_attempts_double_up_to_a_quarter_of_an_hour() -> None:
    with listening(Cloud(), settled=[], emitted=[]) as receiver:
        pauses = [receiver.pause_after(LEFT, OSError()) for _ in range(12)]
    assert pauses == [300, 600, *[900] * 10]


def test_a_job_that_runs_is_looked_at_for_an_hour_before_people_are_told() -> None:
    emitted = list[str]()
    with listening(Cloud(), settled=[], emitted=emitted) as receiver:
        for _ in range(5):
            receiver.pause_after(LEFT, JobRunsError("Import job j has not ended after 10 minutes."))
    assert [json.loads(line)["ImportAttemptsFailed"] for line in emitted] == [1, 1]


def test_a_receiver_that_cannot_listen_imports_nothing() -> None:
    cloud = Cloud()
    cloud.arrive(LEFT, "a.dcm")
    with listening(Cloud(), settled=[], emitted=[]) as first:
        before = threading.active_count()
        with (
            pytest.raises(OSError, match="in use"),
            listening(cloud, settled=[], emitted=[], port=first.port),
        ):
            pytest.fail("the port is taken")
        assert threading.active_count() == before
    assert f"{LEFT.prefix}a.dcm" in cloud.waiting


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_receiver_without_one_of_its_threads_says_that_it_is_ill(monkeypatch: pytest.MonkeyPatch) -> None:
    def end(_self: Receiver, _closed: Any) -> None:
        raise SystemExit

    monkeypatch.setattr(Receiver, "_settle", end)
    cloud = Cloud()
    with listening(cloud, settled=[], emitted=[]) as receiver:
        entity = AE(ae_title=TITLE)
        entity.add_requested_context(Verification)
        association = entity.associate("127.0.0.1", receiver.port, ae_title=TITLE)
        assert association.send_c_echo().Status == 0
        cloud.arrive(LEFT, "a.dcm")
        receiver._take_over()
        until(lambda: not receiver.healthy)
        assert association.send_c_echo().Status == PROCESSING_FAILURE
        association.release()
        # Nor does it take over what others left: they take over what it has.
        until(lambda: all(not one.name.startswith("_work") for one in threading.enumerate()))


def test_a_container_whose_receiver_is_ill_ends_and_is_started_again(monkeypatch: pytest.MonkeyPatch) -> None:
    receiver = Mock(healthy=False)
    monkeypatch.setattr(container, "Receiver", Mock(return_value=receiver))
    monkeypatch.setattr(container, "connect", Mock())
    monkeypatch.setattr(container.boto3, "client", Mock())
    monkeypatch.setattr(container.signal, "signal", Mock())
    settings = Mock(deidentification_key_secret_arn=None, tls_secret_arn=None)
    assert container.receive(settings) == 1
    receiver.stop.assert_called_once_with()
