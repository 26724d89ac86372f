"""DICOMweb against a small HTTP server: signatures, multipart both ways, outcomes, pages and retries."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from io import BytesIO

import pytest
from fake_healthimaging import DATASTORE, IMAGE_SET, ct_series
from pydicom import Dataset
from scripted_web import Request, ScriptedWeb, sent_instances, session, store_answer

from healthimaging import DicomWeb, ImageSet, connect
from healthimaging.client import is_service_host
from healthimaging.dicomweb import client as dicomweb
from healthimaging.dicomweb import qido, signed_requests, stow
from healthimaging.errors import DicomWebError


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[ScriptedWeb]:
    monkeypatch.setattr(time, "sleep", lambda _seconds: None)
    with ScriptedWeb() as running:
        yield running


def web(server: ScriptedWeb) -> DicomWeb:
    return DicomWeb(connect(session(), endpoint_url=server.url), DATASTORE)


def datasets() -> list[Dataset]:
    return ImageSet.open(ct_series()[0], DATASTORE, IMAGE_SET).datasets()


def test_store_sends_every_instance_and_reports_each(server: ScriptedWeb) -> None:
    source = datasets()
    server.answer = lambda request: (
        409,
        "application/dicom+json",
        store_answer(sent_instances(request)[:-1], [(sent_instances(request)[-1], 0xA900)]),
    )
    outcomes = web(server).store(source)
    assert [o.sop_instance_uid for o in outcomes] == [d.SOPInstanceUID for d in source]
    assert [o.stored for o in outcomes] == [True] * 6 + [False]
    assert outcomes[-1].failure_reason == 0xA900
    assert outcomes[0].retrieve_url is not None
    (request,) = server.requests
    assert request.path == f"/datastore/{DATASTORE}/studies"
    assert request.headers["Content-Type"].startswith(
        'multipart/related; type="application/dicom"; boundary='
    )
    assert request.headers["Accept"] == "application/dicom+json"
    sent = sent_instances(request)
    assert sent[0].PixelData == source[0].PixelData


def test_requests_are_signed_for_the_service(server: ScriptedWeb) -> None:
    server.answer = lambda _request: (200, "application/dicom+json", b"[]")
    list(web(server).search("studies", filters={"PatientID": "A B/é"}))
    (request,) = server.requests
    authorization = request.headers["Authorization"]
    assert authorization.startswith("AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/")
    assert "/eu-west-1/medical-imaging/aws4_request" in authorization
    assert request.headers["X-Amz-Security-Token"] == "token"
    assert request.query["PatientID"] == ["A B/é"]


def test_large_series_are_stored_in_several_requests(
    server: ScriptedWeb, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stow, "REQUEST_BYTES", 4000)
    server.answer = lambda request: (200, "application/dicom+json", store_answer(sent_instances(request), []))
    outcomes = web(server).store(datasets())
    assert len(outcomes) == 7
    assert 1 < len(server.requests) <= 7


def test_instance_that_the_answer_forgets_is_an_error(server: ScriptedWeb) -> None:
    server.answer = lambda request: (
        200,
        "application/dicom+json",
        store_answer(sent_instances(request)[1:], []),
    )
    with pytest.raises(DicomWebError, match="says nothing of 1") as caught:
        web(server).store(datasets())
    assert caught.value.sop_instance_uid is not None


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b"[1]"])
def test_answer_that_is_no_outcome_is_an_error(server: ScriptedWeb, body: bytes) -> None:
    server.answer = lambda _request: (200, "application/dicom+json", body)
    with pytest.raises(DicomWebError):
        web(server).store(datasets())


@pytest.mark.parametrize("status", [429, 503])
def test_throttling_is_waited_out(server: ScriptedWeb, status: int) -> None:
    def answer(request: Request) -> tuple[int, str, bytes]:
        if len(server.requests) < 3:
            return status, "text/plain", b""
        return 200, "application/dicom+json", store_answer(sent_instances(request), [])

    server.answer = answer
    assert all(outcome.stored for outcome in web(server).store(datasets()))
    assert len(server.requests) == 3


@pytest.mark.parametrize(("status", "requests"), [(429, signed_requests.ATTEMPTS), (400, 1), (403, 1)])
def test_request_that_stays_refused_is_an_error(server: ScriptedWeb, status: int, requests: int) -> None:
    server.answer = lambda _request: (status, "text/plain", b"")
    with pytest.raises(DicomWebError) as caught:
        web(server).store(datasets())
    assert caught.value.status == status
    assert len(server.requests) == requests


def test_nobody_there_is_an_error(server: ScriptedWeb) -> None:
    found = DicomWeb(connect(session(), endpoint_url="http://127.0.0.1:1"), DATASTORE)
    with pytest.raises(DicomWebError, match="got no answer") as caught:
        list(found.search())
    assert caught.value.status is None


def test_search_follows_the_pages_to_the_end(server: ScriptedWeb, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(qido, "PAGE", 10)

    def answer(request: Request) -> tuple[int, str, bytes]:
        offset, limit = int(request.query["offset"][0]), int(request.query["limit"][0])
        found = [
            {"0020000D": {"vr": "UI", "Value": [f"1.{k}"]}} for k in range(offset, min(offset + limit, 25))
        ]
        return (200, "application/dicom+json", json.dumps(found).encode()) if found else (204, "", b"")

    server.answer = answer
    found = list(web(server).search("series", study="1.2", fields=("SeriesDescription",)))
    assert [d.StudyInstanceUID for d in found] == [f"1.{k}" for k in range(25)]
    assert server.requests[0].path.endswith("/studies/1.2/series")
    assert server.requests[0].query["includefield"] == ["SeriesDescription"]
    assert len(list(web(server).search(limit=12))) == 12


@pytest.mark.parametrize("multipart", [True, False])
def test_retrieve(server: ScriptedWeb, multipart: bool) -> None:
    source = datasets()[0]
    uid = str(source.SOPInstanceUID)
    buffer = BytesIO()
    source.save_as(buffer, enforce_file_format=True)

    def answer(_request: Request) -> tuple[int, str, bytes]:
        if not multipart:
            return 200, "application/dicom", buffer.getvalue()
        body = b"--XX\r\nContent-Type: application/dicom\r\n\r\n" + buffer.getvalue() + b"\r\n--XX--"
        return 200, 'multipart/related; type="application/dicom"; boundary=XX', body

    server.answer = answer
    got = web(server).retrieve(study="1.2", series="1.2.3", instance=uid, image_set_id="abc")
    assert got.PixelData == source.PixelData
    (request,) = server.requests
    assert request.path.endswith(f"/studies/1.2/series/1.2.3/instances/{uid}")
    assert request.headers["Accept"] == "application/dicom; transfer-syntax=*"
    assert request.query["imageSetId"] == ["abc"]
    with pytest.raises(DicomWebError, match=f"another instance, {uid}"):
        web(server).retrieve(study="1.2", series="1.2.3", instance="1.2.3.4.99")


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        ("application/dicom", b"not dicom"),
        ("multipart/related", b""),
        ("multipart/related; boundary=X", b"--X--"),
        ("multipart/related; boundary=X", b"--X\r\n\r\na\r\n--X\r\n\r\nb\r\n--X--"),
    ],
)
def test_answer_that_is_no_instance_is_an_error(server: ScriptedWeb, content_type: str, body: bytes) -> None:
    server.answer = lambda _request: (200, content_type, body)
    with pytest.raises(DicomWebError):
        web(server).retrieve(study="1.2", series="1.2.3", instance="1.2.3.4")


def test_retrieve_metadata(server: ScriptedWeb) -> None:
    found = [{"00100020": {"vr": "LO", "Value": ["P"]}, "00091010": {"vr": "OB", "BulkDataURI": "x"}}]
    server.answer = lambda _request: (200, "application/dicom+json", json.dumps(found).encode())
    (header,) = web(server).retrieve_metadata(study="1.2", series="1.2.3")
    assert header.PatientID == "P"
    assert server.requests[0].path.endswith("/studies/1.2/series/1.2.3/metadata")


@pytest.mark.parametrize(
    ("endpoint", "expected"),
    [
        (
            "https://medical-imaging.us-east-1.amazonaws.com",
            "https://dicom-medical-imaging.us-east-1.amazonaws.com",
        ),
        ("http://127.0.0.1:4566/", "http://127.0.0.1:4566"),
        (
            "https://vpce-1.medical-imaging.us-east-1.vpce.amazonaws.com",
            "https://vpce-1.medical-imaging.us-east-1.vpce.amazonaws.com",
        ),
    ],
)
def test_host_of_dicomweb(endpoint: str, expected: str) -> None:
    assert dicomweb.dicomweb_endpoint(endpoint) == expected


def test_host_prefix_is_only_for_the_service_itself() -> None:
    own = connect(session())
    assert is_service_host(own.meta.endpoint_url)
    assert own.meta.config.inject_host_prefix is not False
    custom = connect(session(), endpoint_url="http://127.0.0.1:1")
    assert custom.meta.config.inject_host_prefix is False
    assert custom.meta.config.retries["mode"] == "adaptive"
