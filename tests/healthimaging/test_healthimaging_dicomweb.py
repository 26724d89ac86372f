"""DICOMweb against a small HTTP server: signatures, multipart both ways, outcomes, pages and retries."""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from typing import Any
from urllib.parse import parse_qs, urlsplit

import boto3
import pydicom
import pytest
from fake_healthimaging import DATASTORE, IMAGE_SET, ct_series
from pydicom import Dataset

from healthimaging import DicomWeb, ImageSet, connect, dicomweb
from healthimaging.client import is_service_host
from healthimaging.errors import DicomWebError


@dataclass
class Request:
    method: str
    path: str
    query: dict[str, list[str]]
    headers: dict[str, str]
    body: bytes


Answer = tuple[int, str, bytes]


@dataclass
class Server:
    """Answers every request by a function, and remembers them."""

    answer: Callable[[Request], Answer] = lambda _request: (404, "text/plain", b"")
    requests: list[Request] = field(default_factory=list)
    url: str = ""


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setattr(time, "sleep", lambda _seconds: None)
    state = Server()

    class Handler(BaseHTTPRequestHandler):
        def _serve(self) -> None:
            parts = urlsplit(self.path)
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            request = Request(self.command, parts.path, parse_qs(parts.query), dict(self.headers), body)
            state.requests.append(request)
            status, content_type, data = state.answer(request)
            self.send_response(status)
            self.send_header("Content-Type", content_type)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        do_GET = do_POST = _serve

        def log_message(self, *_arguments: Any) -> None:
            pass

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=http.serve_forever, daemon=True)
    thread.start()
    state.url = f"http://127.0.0.1:{http.server_port}"
    yield state
    http.shutdown()
    http.server_close()


def session() -> boto3.Session:
    return boto3.Session(
        aws_access_key_id="AKIDEXAMPLE",
        aws_secret_access_key="secret",
        aws_session_token="token",
        region_name="eu-west-1",
    )


def web(server: Server) -> DicomWeb:
    return DicomWeb(connect(session(), endpoint_url=server.url), DATASTORE)


def datasets() -> list[Dataset]:
    return ImageSet.open(ct_series()[0], DATASTORE, IMAGE_SET).datasets()


def parts(request: Request) -> list[Dataset]:
    match = re.search(r'boundary="?([^";]+)', request.headers["Content-Type"])
    assert match is not None
    pieces = request.body.split(b"--" + match[1].encode())[1:-1]
    return [pydicom.dcmread(BytesIO(piece.split(b"\r\n\r\n", 1)[1][:-2])) for piece in pieces]


def store_answer(stored: list[Dataset], failed: list[tuple[Dataset, int]]) -> bytes:
    response = Dataset()
    response.ReferencedSOPSequence = []
    response.FailedSOPSequence = []
    for dataset in stored:
        item = Dataset()
        item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = (
            dataset.SOPClassUID,
            dataset.SOPInstanceUID,
        )
        item.RetrieveURL = f"https://example/{dataset.SOPInstanceUID}"
        response.ReferencedSOPSequence.append(item)
    for dataset, reason in failed:
        item = Dataset()
        item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = (
            dataset.SOPClassUID,
            dataset.SOPInstanceUID,
        )
        item.FailureReason = reason
        response.FailedSOPSequence.append(item)
    return json.dumps(response.to_json_dict()).encode()


def test_store_sends_every_instance_and_reports_each(server: Server) -> None:
    source = datasets()
    server.answer = lambda request: (
        409,
        "application/dicom+json",
        store_answer(parts(request)[:-1], [(parts(request)[-1], 0xA900)]),
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
    sent = parts(request)
    assert sent[0].PixelData == source[0].PixelData


def test_requests_are_signed_for_the_service(server: Server) -> None:
    server.answer = lambda _request: (200, "application/dicom+json", b"[]")
    list(web(server).search("studies", filters={"PatientID": "A B/é"}))
    (request,) = server.requests
    authorization = request.headers["Authorization"]
    assert authorization.startswith("AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/")
    assert "/eu-west-1/medical-imaging/aws4_request" in authorization
    assert request.headers["X-Amz-Security-Token"] == "token"
    assert request.query["PatientID"] == ["A B/é"]


def test_large_series_are_stored_in_several_requests(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dicomweb, "REQUEST_BYTES", 4000)
    server.answer = lambda request: (200, "application/dicom+json", store_answer(parts(request), []))
    outcomes = web(server).store(datasets())
    assert len(outcomes) == 7
    assert 1 < len(server.requests) <= 7


def test_instance_that_the_answer_forgets_is_an_error(server: Server) -> None:
    server.answer = lambda request: (200, "application/dicom+json", store_answer(parts(request)[1:], []))
    with pytest.raises(DicomWebError, match="says nothing of 1") as caught:
        web(server).store(datasets())
    assert caught.value.sop_instance_uid is not None


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b"[1]"])
def test_answer_that_is_no_outcome_is_an_error(server: Server, body: bytes) -> None:
    server.answer = lambda _request: (200, "application/dicom+json", body)
    with pytest.raises(DicomWebError):
        web(server).store(datasets())


@pytest.mark.parametrize("status", [429, 503])
def test_throttling_is_waited_out(server: Server, status: int) -> None:
    def answer(request: Request) -> Answer:
        if len(server.requests) < 3:
            return status, "text/plain", b""
        return 200, "application/dicom+json", store_answer(parts(request), [])

    server.answer = answer
    assert all(outcome.stored for outcome in web(server).store(datasets()))
    assert len(server.requests) == 3


@pytest.mark.parametrize(("status", "requests"), [(429, dicomweb.ATTEMPTS), (400, 1), (403, 1)])
def test_request_that_stays_refused_is_an_error(server: Server, status: int, requests: int) -> None:
    server.answer = lambda _request: (status, "text/plain", b"")
    with pytest.raises(DicomWebError) as caught:
        web(server).store(datasets())
    assert caught.value.status == status
    assert len(server.requests) == requests


def test_nobody_there_is_an_error(server: Server) -> None:
    found = DicomWeb(connect(session(), endpoint_url="http://127.0.0.1:1"), DATASTORE)
    with pytest.raises(DicomWebError, match="No answer") as caught:
        list(found.search())
    assert caught.value.status is None


def test_search_follows_the_pages_to_the_end(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dicomweb, "PAGE", 10)

    def answer(request: Request) -> Answer:
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
def test_retrieve(server: Server, multipart: bool) -> None:
    source = datasets()[0]
    uid = str(source.SOPInstanceUID)
    buffer = BytesIO()
    source.save_as(buffer, enforce_file_format=True)

    def answer(_request: Request) -> Answer:
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
def test_answer_that_is_no_instance_is_an_error(server: Server, content_type: str, body: bytes) -> None:
    server.answer = lambda _request: (200, content_type, body)
    with pytest.raises(DicomWebError):
        web(server).retrieve(study="1.2", series="1.2.3", instance="1.2.3.4")


def test_retrieve_metadata(server: Server) -> None:
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
