"""STOW: every instance gets an outcome, or the error says which have one and which may have been stored."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from copy import deepcopy

import pytest
from fake_healthimaging import DATASTORE, IMAGE_SET, ct_series
from pydicom import Dataset
from scripted_web import JSON, Reply, Request, ScriptedWeb, sent_instances, session, store_answer

from healthimaging import DicomWeb, ImageSet, connect
from healthimaging.dicomweb import stow
from healthimaging.errors import DicomWebAnswerError, DicomWebError, StoreInterruptedError

ONE_A_REQUEST = 1
"""Bytes a request: every instance is larger, so each has one of its own."""


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[ScriptedWeb]:
    monkeypatch.setattr(time, "sleep", lambda _seconds: None)
    with ScriptedWeb() as running:
        running.answer = lambda request: Reply(body=store_answer(sent_instances(request), []))
        yield running


@pytest.fixture
def web(server: ScriptedWeb) -> Iterator[DicomWeb]:
    with DicomWeb(connect(session(), endpoint_url=server.url), DATASTORE) as made:
        yield made


@pytest.fixture(scope="module")
def source() -> list[Dataset]:
    return ImageSet.open(ct_series()[0], DATASTORE, IMAGE_SET).datasets()


def uids(datasets: list[Dataset]) -> list[str]:
    return [str(dataset.SOPInstanceUID) for dataset in datasets]


def test_a_request_that_fails_leaves_the_outcomes_of_those_before_it(
    server: ScriptedWeb, web: DicomWeb, source: list[Dataset], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stow, "REQUEST_BYTES", ONE_A_REQUEST)

    def answer(request: Request) -> Reply:
        if len(server.requests) == 4:
            return Reply(status=403, body=b"{}", headers={"x-amzn-ErrorType": "AccessDeniedException"})
        return Reply(body=store_answer(sent_instances(request), []))

    server.answer = answer
    with pytest.raises(StoreInterruptedError) as caught:
        web.store(source)
    assert [outcome.sop_instance_uid for outcome in caught.value.outcomes] == uids(source[:3])
    assert all(outcome.stored for outcome in caught.value.outcomes)
    assert list(caught.value.unanswered) == uids(source[3:4])
    assert (caught.value.status, caught.value.code) == (403, "AccessDeniedException")
    assert len(server.requests) == 4


def test_outcomes_beside_an_instance_that_the_answer_forgets_are_kept(
    server: ScriptedWeb, web: DicomWeb, source: list[Dataset]
) -> None:
    server.answer = lambda request: Reply(body=store_answer(sent_instances(request)[1:], []))
    with pytest.raises(StoreInterruptedError, match="says nothing of 1") as caught:
        web.store(source)
    assert [outcome.sop_instance_uid for outcome in caught.value.outcomes] == uids(source[1:])
    assert list(caught.value.unanswered) == uids(source[:1])


def test_a_lost_answer_says_which_instances_may_be_stored(
    server: ScriptedWeb, web: DicomWeb, source: list[Dataset]
) -> None:
    server.answer = lambda _request: Reply(body=b"{", announced=100, ending="close")
    with pytest.raises(StoreInterruptedError, match="StoreDICOM got no answer") as caught:
        web.store(source)
    assert list(caught.value.unanswered) == uids(source)
    assert caught.value.status is None


@pytest.mark.parametrize("status", [200, 202, 409])
def test_refused_instances_are_outcomes(
    server: ScriptedWeb, web: DicomWeb, source: list[Dataset], status: int
) -> None:
    server.answer = lambda request: Reply(
        status=status, body=store_answer([], [(one, 0xA700 + k) for k, one in enumerate(source)])
    )
    outcomes = web.store(source)
    assert [outcome.failure_reason for outcome in outcomes] == [0xA700 + k for k in range(len(source))]
    assert not any(outcome.stored for outcome in outcomes)


def test_warnings_are_told(server: ScriptedWeb, web: DicomWeb, source: list[Dataset]) -> None:
    def answer(request: Request) -> Reply:
        told = json.loads(store_answer(sent_instances(request), []))
        told["00081199"]["Value"][0]["00081196"] = {"vr": "US", "Value": [0xB000]}
        return Reply(status=202, body=json.dumps(told).encode())

    server.answer = answer
    assert [outcome.warning_reason for outcome in web.store(source[:2])] == [0xB000, None]


def test_an_instance_that_the_service_cannot_read_has_no_name_in_the_answer(
    server: ScriptedWeb, web: DicomWeb, source: list[Dataset]
) -> None:
    def answer(request: Request) -> Reply:
        told = json.loads(store_answer(sent_instances(request)[1:], []))
        told["00081198"] = {"vr": "SQ", "Value": [{"00081197": {"vr": "US", "Value": [0xC000]}}]}
        return Reply(status=409, body=json.dumps(told).encode())

    server.answer = answer
    outcomes = web.store(source)
    assert [outcome.stored for outcome in outcomes] == [False] + [True] * (len(source) - 1)
    assert outcomes[0].failure_reason == 0xC000
    assert outcomes[0].sop_instance_uid == source[0].SOPInstanceUID


def test_a_conflict_without_outcomes_is_an_error(
    server: ScriptedWeb, web: DicomWeb, source: list[Dataset]
) -> None:
    server.answer = lambda _request: Reply(status=409, body=b'{"code": "ConflictException", "message": "x"}')
    with pytest.raises(StoreInterruptedError) as caught:
        web.store(source)
    assert (caught.value.status, caught.value.code) == (409, "ConflictException")


@pytest.mark.parametrize(
    "body", [b"<html>", b"[1]", b'{"00081199": 1}', b'{"00081199": {"vr": "SQ", "Value": [7]}}', b"[" * 9000]
)
def test_answers_of_another_shape_are_errors(
    server: ScriptedWeb, web: DicomWeb, source: list[Dataset], body: bytes
) -> None:
    server.answer = lambda _request: Reply(body=body)
    with pytest.raises(StoreInterruptedError) as caught:
        web.store(source)
    assert isinstance(caught.value.__cause__, DicomWebAnswerError)
    assert caught.value.__cause__.__cause__ is None
    assert list(caught.value.unanswered) == uids(source)


def test_instances_are_taken_from_a_generator_a_request_at_a_time(
    server: ScriptedWeb, web: DicomWeb, source: list[Dataset], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stow, "REQUEST_BYTES", ONE_A_REQUEST)
    taken: list[int] = []

    def instances() -> Iterator[Dataset]:
        for k, dataset in enumerate(source):
            taken.append(k)
            yield dataset

    outcomes = web.store_each(instances())
    assert next(outcomes).sop_instance_uid == source[0].SOPInstanceUID
    assert len(taken) == 2  # the second told that the first request was full
    assert len(list(outcomes)) == len(source) - 1
    assert len(server.requests) == len(source)


def test_nothing_to_store_needs_no_request(server: ScriptedWeb, web: DicomWeb) -> None:
    assert web.store([]) == []
    assert server.requests == []


def test_an_instance_that_cannot_be_written_is_named_and_those_before_it_are_stored(
    server: ScriptedWeb, web: DicomWeb, source: list[Dataset]
) -> None:
    broken = deepcopy(source[2])
    del broken.file_meta.TransferSyntaxUID
    with pytest.raises(StoreInterruptedError, match="cannot be written") as caught:
        web.store([*source[:2], broken, *source[3:]])
    assert caught.value.sop_instance_uid == broken.SOPInstanceUID
    assert [outcome.sop_instance_uid for outcome in caught.value.outcomes] == uids(source[:2])
    assert caught.value.unanswered == ()
    nameless = Dataset()
    with pytest.raises(StoreInterruptedError, match="no SOPInstanceUID"):
        web.store([nameless])


def test_an_instance_larger_than_the_service_takes_is_not_sent(
    server: ScriptedWeb, web: DicomWeb, source: list[Dataset], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stow, "SERVICE_BYTES", 100)
    with pytest.raises(DicomWebError, match="at most 100") as caught:
        web.store(source)
    assert caught.value.sop_instance_uid == source[0].SOPInstanceUID
    assert server.requests == []


def test_instances_can_be_stored_into_one_study(
    server: ScriptedWeb, web: DicomWeb, source: list[Dataset]
) -> None:
    web.store(source, study="1.2.3")
    (request,) = server.requests
    assert request.path == f"/datastore/{DATASTORE}/studies/1.2.3"
    assert request.headers["Accept"] == JSON


def test_an_instance_that_is_given_twice_has_two_outcomes(
    server: ScriptedWeb, web: DicomWeb, source: list[Dataset]
) -> None:
    outcomes = web.store([source[0], source[1], source[0]])
    assert [outcome.sop_instance_uid for outcome in outcomes] == uids([source[0], source[1], source[0]])
