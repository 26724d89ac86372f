"""DICOMweb when something goes wrong: a typed error within a stated time, or the right answer after all."""

from __future__ import annotations

import socket
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime, formatdate
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.config import Config
from botocore.credentials import ReadOnlyCredentials
from botocore.exceptions import CredentialRetrievalError
from fake_healthimaging import DATASTORE
from pydicom import Dataset
from scripted_web import Reply, Request, ScriptedWeb, session

from healthimaging import DicomWeb, connect
from healthimaging.dicomweb import signed_requests
from healthimaging.errors import DicomWebError
from healthimaging.frames.retries import ATTEMPTS

PATIENT = "DOE^JANE"
NAMED: dict[str, Any] = {"study": "1.2", "series": "1.2.3", "instance": "1.2.3.4"}
MULTIPART = 'multipart/related; type="application/octet-stream"; boundary=B'
FRAME = b"--B\r\nContent-Type: application/octet-stream\r\n\r\n" + bytes(range(256)) + b"\r\n--B--"


@pytest.fixture
def server() -> Iterator[ScriptedWeb]:
    with ScriptedWeb() as running:
        yield running


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Pauses between attempts, which are not taken."""
    taken: list[float] = []
    monkeypatch.setattr(time, "sleep", taken.append)
    return taken


def dicomweb(server: ScriptedWeb, **options: float) -> DicomWeb:
    return DicomWeb(connect(session(), endpoint_url=server.url), DATASTORE, **options)


def frames(web: DicomWeb) -> bytes:
    (frame,) = web.retrieve_frames([1], **NAMED)
    return frame.data


def printed(error: BaseException) -> str:
    """What a log has of it, without the lines of code."""
    lines = traceback.TracebackException.from_exception(error).format()
    return "".join(line for line in lines if not line.startswith("  File"))


CALLS: dict[str, Callable[[DicomWeb], object]] = {
    "SearchDICOMStudies": lambda web: list(web.search()),
    "GetDICOMInstance": lambda web: web.retrieve(**NAMED),
    "GetDICOMSeriesMetadata": lambda web: web.retrieve_metadata(study="1.2", series="1.2.3"),
    "GetDICOMInstanceFrames": frames,
    "GetDICOMBulkdata": lambda web: web.retrieve_bulk_data("/studies/1/series/2/instances/3/bulkdata/4"),
    "StoreDICOM": lambda web: web.store([instance()]),
}


def instance() -> Dataset:
    from fake_healthimaging import IMAGE_SET, ct_series

    from healthimaging import ImageSet

    return ImageSet.open(ct_series()[0], DATASTORE, IMAGE_SET).datasets()[0]


DENIED, MISSING = "AccessDeniedException", "ResourceNotFoundException"
REFUSALS: dict[str, tuple[int, dict[str, str], bytes, str | None]] = {
    "code in the header": (403, {"x-amzn-ErrorType": f"{DENIED}:http://x/"}, b"{}", DENIED),
    "__type": (403, {}, b'{"__type": "com.amazon.x#AccessDeniedException"}', DENIED),
    "code": (404, {}, b'{"code": "ResourceNotFoundException", "message": "DOE^JANE"}', MISSING),
    "message alone": (400, {}, b'{"message": "DOE^JANE"}', None),
    "a page": (403, {}, b"<html>DOE^JANE</html>", None),
    "a name as code": (400, {}, b'{"code": "DOE^JANE"}', None),
    "a list": (400, {}, b"[1]", None),
    "nothing": (404, {}, b"", None),
    "elsewhere": (302, {"Location": "http://127.0.0.1:1/"}, b"", None),
}


@pytest.mark.parametrize("operation", CALLS)
@pytest.mark.parametrize("kind", REFUSALS)
def test_a_refusal_has_the_services_code_and_nothing_of_its_message(
    server: ScriptedWeb, operation: str, kind: str
) -> None:
    status, headers, body, code = REFUSALS[kind]
    server.answer = lambda _request: Reply(status=status, headers=headers, body=body)
    with pytest.raises(DicomWebError) as caught, dicomweb(server) as web:
        CALLS[operation](web)
    assert (caught.value.status, caught.value.code) == (status, code)
    assert operation in str(caught.value)
    assert PATIENT not in printed(caught.value)
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    "reply",
    [
        Reply(status=400, body=b'{"message": "DOE^JANE is no date"}'),
        Reply(body=b'[{"00100010": "DOE^JANE"}]'),
        Reply(body=b'[{"00200013": {"vr": "IS", "Value": ["DOE^JANE"]}}]'),
        Reply(body=b"DOE^JANE"),
        Reply(body=b"[", announced=9, ending="close"),
        Reply(body=b"[", announced=9, ending="reset"),
    ],
    ids=["refusal", "shape", "value", "page", "closed", "reset"],
)
def test_no_traceback_shows_what_was_searched_for_or_found(
    server: ScriptedWeb, pauses: list[float], reply: Reply
) -> None:
    server.answer = lambda _request: reply
    web = dicomweb(server)
    with pytest.raises(DicomWebError) as caught:
        list(web.search(filters={"PatientName": PATIENT}))
    shown = printed(caught.value)
    assert "SearchDICOMStudies" in shown
    assert "JANE" not in shown


@pytest.mark.parametrize(
    "refusal",
    [
        Reply(status=503),
        Reply(status=429, body=b'{"__type": "ThrottlingException"}'),
        Reply(status=400, body=b'{"__type": "ThrottlingException"}'),
        Reply(status=500),
        Reply(status=502, content_type="text/html", body=b"<html>"),
    ],
    ids=["503", "429", "throttling as 400", "500", "502"],
)
def test_a_storm_of_refusals_is_waited_out(server: ScriptedWeb, pauses: list[float], refusal: Reply) -> None:
    def answer(_request: Request) -> Reply:
        return refusal if len(server.requests) < ATTEMPTS else Reply(content_type=MULTIPART, body=FRAME)

    server.answer = answer
    assert frames(dicomweb(server)) == bytes(range(256))
    assert len(pauses) == ATTEMPTS - 1
    assert all(0 <= pause <= 0.1 * 2**attempt for attempt, pause in enumerate(pauses, start=1))
    assert len(set(pauses)) > 1  # they are drawn


def test_a_storm_that_does_not_end_is_an_error(server: ScriptedWeb, pauses: list[float]) -> None:
    server.answer = lambda _request: Reply(status=503, headers={"x-amzn-ErrorType": "ServiceUnavailable"})
    with pytest.raises(DicomWebError) as caught:
        frames(dicomweb(server))
    assert (caught.value.status, caught.value.code) == (503, "ServiceUnavailable")
    assert len(server.requests) == ATTEMPTS


def in_a_minute() -> datetime:
    return datetime.now(UTC) + timedelta(seconds=60)


@pytest.mark.parametrize(
    ("header", "low", "high"),
    [
        ("7", 7, 8),
        (lambda: format_datetime(in_a_minute(), usegmt=True), 50, 62),
        (lambda: formatdate(0, usegmt=True), 0, 1),
        ("soon", 0, 1),
        ("-5", 0, 1),
    ],
    ids=["seconds", "date", "past", "word", "negative"],
)
def test_retry_after_is_kept(
    server: ScriptedWeb, pauses: list[float], header: Any, low: float, high: float
) -> None:
    asked = header() if callable(header) else header

    def answer(_request: Request) -> Reply:
        if len(server.requests) == 1:
            return Reply(status=429, headers={"Retry-After": asked})
        return Reply(content_type=MULTIPART, body=FRAME)

    server.answer = answer
    frames(dicomweb(server))
    (pause,) = pauses
    assert low <= pause <= high


def test_a_pause_longer_than_the_time_that_is_left_is_not_begun(server: ScriptedWeb) -> None:
    server.answer = lambda _request: Reply(status=429, headers={"Retry-After": "3600"})
    begin = time.monotonic()
    with pytest.raises(DicomWebError) as caught:
        frames(dicomweb(server))
    assert caught.value.status == 429
    assert time.monotonic() - begin < 20


@pytest.mark.parametrize("ending", ["close", "reset"])
def test_a_connection_that_breaks_in_the_body_is_tried_again(
    server: ScriptedWeb, pauses: list[float], ending: Any
) -> None:
    def answer(_request: Request) -> Reply:
        if len(server.requests) < 3:
            return Reply(content_type=MULTIPART, body=FRAME[:99], announced=len(FRAME), ending=ending)
        return Reply(content_type=MULTIPART, body=FRAME)

    server.answer = answer
    assert frames(dicomweb(server)) == bytes(range(256))
    assert len(server.requests) == 3
    server.answer = lambda _request: Reply(
        content_type=MULTIPART, body=FRAME[:99], announced=len(FRAME), ending=ending
    )
    with pytest.raises(DicomWebError, match="got no answer") as caught:
        frames(dicomweb(server))
    assert caught.value.status is None
    assert caught.value.code is not None


def test_a_body_that_stalls_ends_in_bounded_time(server: ScriptedWeb) -> None:
    server.answer = lambda _request: Reply(
        content_type=MULTIPART, body=FRAME[:99], announced=len(FRAME), ending="stall"
    )
    begin = time.monotonic()
    with pytest.raises(DicomWebError, match="got no answer"):
        frames(dicomweb(server, read_timeout=0.2, total_timeout=1.5))
    assert time.monotonic() - begin < 20
    assert len(server.requests) > 1


def test_a_body_that_trickles_in_ends_in_bounded_time(server: ScriptedWeb) -> None:
    server.answer = lambda _request: Reply(content_type=MULTIPART, body=FRAME, trickle=0.1)
    begin = time.monotonic()
    with pytest.raises(DicomWebError, match=r"took longer than 0\.5 seconds"):
        frames(dicomweb(server, read_timeout=5, total_timeout=0.5))
    assert time.monotonic() - begin < 20


def test_a_large_body_may_be_sent_slowly(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each piece of a request has the timeout, not all of them together."""
    monkeypatch.setattr(signed_requests, "CONNECT_TIMEOUT", 0.5)
    listener = socket.create_server(("127.0.0.1", 0))
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 64 * 1024)
    body = bytes(7 * 1024 * 1024)
    received = 0

    def serve() -> None:
        nonlocal received
        connection, _ = listener.accept()
        with connection:
            head, _, rest = connection.recv(64 * 1024).partition(b"\r\n\r\n")
            assert b"Content-Length" in head
            received = len(rest)
            while received < len(body):
                time.sleep(0.01)
                received += len(connection.recv(64 * 1024))
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n[]")

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    client = connect(session(), endpoint_url="http://127.0.0.1:1")
    requests = signed_requests.SignedRequests(
        client, f"http://127.0.0.1:{listener.getsockname()[1]}", read_timeout=10, total_timeout=60
    )
    begin = time.monotonic()
    answer = requests.send("StoreDICOM", "POST", "/studies", headers={}, body=body)
    taken = time.monotonic() - begin
    thread.join()
    listener.close()
    requests.close()
    assert answer.body == b"[]"
    assert received == len(body)
    assert taken > 0.5  # longer than the timeout, or this test shows nothing


def test_nobody_who_listens_is_an_error(pauses: list[float]) -> None:
    web = DicomWeb(connect(session(), endpoint_url="http://127.0.0.1:1"), DATASTORE)
    with pytest.raises(DicomWebError) as caught:
        list(web.search())
    assert (caught.value.status, caught.value.code) == (None, "EndpointConnectionError")


def test_missing_credentials_are_an_error_before_any_request(
    server: ScriptedWeb, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = connect(session(), endpoint_url=server.url)
    client._request_signer._credentials = None
    with pytest.raises(DicomWebError, match="cannot be signed") as caught:
        list(DicomWeb(client, DATASTORE).search())
    assert caught.value.code == "NoCredentialsError"

    class Expired:
        def get_frozen_credentials(self) -> object:
            raise CredentialRetrievalError(provider="test", error_msg="secret words")

    client._request_signer._credentials = Expired()
    with pytest.raises(DicomWebError) as caught:
        list(DicomWeb(client, DATASTORE).search())
    assert caught.value.code == "CredentialRetrievalError"
    assert "secret" not in str(caught.value)
    assert server.requests == []


def test_each_attempt_is_signed_with_the_credentials_of_its_moment(
    server: ScriptedWeb, pauses: list[float]
) -> None:
    client = connect(session(), endpoint_url=server.url)

    class Rotating:
        count = 0

        def get_frozen_credentials(self) -> ReadOnlyCredentials:
            self.count += 1
            return ReadOnlyCredentials(f"KEY{self.count}", "secret", f"token {self.count}")

    client._request_signer._credentials = Rotating()
    server.answer = lambda _request: (
        Reply(status=503) if len(server.requests) < 3 else Reply(content_type=MULTIPART, body=FRAME)
    )
    frames(DicomWeb(client, DATASTORE))
    keys = [
        request.headers["Authorization"].split("Credential=")[1].split("/")[0] for request in server.requests
    ]
    assert keys == ["KEY1", "KEY2", "KEY3"]
    assert server.requests[2].headers["X-Amz-Security-Token"] == "token 3"


def test_proxy_and_certificates_are_those_of_the_client(server: ScriptedWeb, tmp_path: Path) -> None:
    server.answer = lambda _request: Reply(body=b"[]")
    authority = tmp_path / "authority.pem"
    client = connect(
        session(),
        endpoint_url="http://archive.example",
        config=Config(proxies={"http": server.url}),
        verify=str(authority),
    )
    with DicomWeb(client, DATASTORE) as web:
        assert list(web.search()) == []
        assert web._requests._http._verify == str(authority)
    (request,) = server.requests
    assert request.headers["Host"] == "archive.example"


def test_connections_are_closed_and_no_threads_remain(server: ScriptedWeb) -> None:
    server.answer = lambda _request: Reply(content_type=MULTIPART, body=FRAME)
    before = {thread for thread in threading.enumerate() if thread.name.startswith("dicomweb")}
    with dicomweb(server) as web:
        frames(web)
        frames(web)
        pools = web._requests._http._manager.pools
        assert len(pools) == 1
    assert len(pools) == 0
    assert {thread for thread in threading.enumerate() if thread.name.startswith("dicomweb")} == before


def test_a_session_is_enough(server: ScriptedWeb, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", server.url)
    server.answer = lambda _request: Reply(body=b"[]")
    made: boto3.Session = session()
    with DicomWeb(made, DATASTORE) as web:
        assert list(web.search("series", image_set_id="abc")) == []
    assert server.requests[0].query["imageSetId"] == ["abc"]
