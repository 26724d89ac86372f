"""The direct way of a frame: the same request as boto3's, valid to the service, safe between processes."""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import http.client
import json
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar

import boto3
import pytest
from botocore.config import Config

from healthimaging import connect
from healthimaging.frames.connections import CONNECTIONS, Cancellation, Connections, Endpoint
from healthimaging.frames.retries import Pace, RequestFailedError, retrying
from healthimaging.frames.transport import ClientFrames, DirectFrames, frame_source

DATASTORE, IMAGE_SET, FRAME = "d" * 32, "1" * 32, "f" * 32
SECRET = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"
FRAME_BYTES = b"\xff\x4f" + bytes(range(256)) * 700


class Recorder(BaseHTTPRequestHandler):
    """Answers every request with one frame, and keeps what it was sent."""

    protocol_version = "HTTP/1.1"
    seen: ClassVar[list[tuple[str, dict[str, str], bytes]]] = []
    connections: ClassVar[set[Any]] = set()

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.seen.append((self.path, {name.lower(): value for name, value in self.headers.items()}, body))
        self.connections.add(self.client_address)
        self.send_response(200)
        self.send_header("Content-Type", "image/jph")
        self.send_header("Content-Length", str(len(FRAME_BYTES)))
        self.end_headers()
        self.wfile.write(FRAME_BYTES)

    def log_message(self, format: str, *args: Any) -> None:
        """Silent."""


@pytest.fixture
def endpoint_url() -> Iterator[str]:
    Recorder.seen.clear()
    Recorder.connections.clear()
    server = ThreadingHTTPServer(("127.0.0.1", 0), Recorder)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()
    thread.join()


def client_of(endpoint_url: str, *, token: str | None = None, **options: Any) -> Any:
    session = boto3.Session(
        aws_access_key_id="AKIDEXAMPLE",
        aws_secret_access_key=SECRET,
        aws_session_token=token,
        region_name="eu-west-2",
    )
    return connect(session, endpoint_url=endpoint_url, **options)


def get(source: Any) -> bytes:
    data: bytes = source.get(
        datastore_id=DATASTORE, image_set_id=IMAGE_SET, frame_id=FRAME, until=Cancellation()
    )
    return data


def expected_signature(path: str, headers: dict[str, str], body: bytes) -> str:
    """SigV4 as AWS documents it (IAM user guide, "Create a signed AWS API request")."""
    _, _, fields = headers["authorization"].partition(" ")
    parts = dict(field.strip().split("=", 1) for field in fields.split(","))
    names = parts["SignedHeaders"].split(";")
    canonical = "\n".join(
        [
            "POST",
            path,
            "",
            *(f"{name}:{headers[name]}" for name in names),
            "",
            parts["SignedHeaders"],
            hashlib.sha256(body).hexdigest(),
        ]
    )
    scope = parts["Credential"].split("/", 1)[1]
    text = "\n".join(
        ["AWS4-HMAC-SHA256", headers["x-amz-date"], scope, hashlib.sha256(canonical.encode()).hexdigest()]
    )
    key = f"AWS4{SECRET}".encode()
    for part in scope.split("/"):
        key = hmac.digest(key, part.encode(), "sha256")
    return hmac.digest(key, text.encode(), "sha256").hex()


@pytest.mark.parametrize("token", [None, "a-session-token"])
def test_the_direct_request_is_boto3s_and_its_signature_holds(endpoint_url: str, token: str | None) -> None:
    client = client_of(endpoint_url, token=token)
    source = frame_source(client)
    assert isinstance(source, DirectFrames)
    assert get(source) == get(ClientFrames(client)) == FRAME_BYTES
    (path, headers, body), (boto_path, boto_headers, boto_body) = Recorder.seen
    assert path == boto_path
    assert json.loads(body) == json.loads(boto_body) == {"imageFrameId": FRAME}
    for name in ("host", "content-type", "x-amz-security-token"):
        assert headers.get(name) == boto_headers.get(name)
    for sent_path, sent, sent_body in Recorder.seen:
        assert sent["authorization"].endswith(expected_signature(sent_path, sent, sent_body))


def test_one_connection_serves_many_frames(endpoint_url: str) -> None:
    source = frame_source(client_of(endpoint_url))
    for _ in range(5):
        assert get(source) == FRAME_BYTES
    assert len(Recorder.connections) == 1


def test_a_forked_process_does_not_use_its_parents_connections(endpoint_url: str) -> None:
    source = frame_source(client_of(endpoint_url))
    get(source)
    child = os.fork()
    if child == 0:
        os._exit(0 if get(source) == FRAME_BYTES else 1)
    _, status = os.waitpid(child, 0)
    assert status == 0
    assert get(source) == FRAME_BYTES
    # The parent's connection, which it used again, and the child's own.
    assert len(Recorder.connections) == 2


def test_other_clients_are_asked_through_their_own_method(endpoint_url: str) -> None:
    plain = boto3.client(
        "medical-imaging",
        endpoint_url=endpoint_url,
        region_name="us-east-1",
        aws_access_key_id="k",
        aws_secret_access_key=SECRET,
        config=Config(inject_host_prefix=False),
    )
    assert isinstance(frame_source(plain), ClientFrames)


def test_a_proxy_is_left_to_boto3(endpoint_url: str) -> None:
    proxied = client_of(
        "http://archive.example", config=Config(proxies={"http": endpoint_url, "https": endpoint_url})
    )
    assert isinstance(frame_source(proxied), ClientFrames)
    assert get(frame_source(proxied)) == FRAME_BYTES


def test_the_services_own_host_gets_its_prefix() -> None:
    client = connect(boto3.Session(aws_access_key_id="k", aws_secret_access_key="s", region_name="us-east-1"))
    source = frame_source(client)
    assert isinstance(source, DirectFrames)
    assert source._connections.endpoint.url == "https://runtime-medical-imaging.us-east-1.amazonaws.com"
    assert source._connections.endpoint.tls is not None


def test_a_request_that_stalls_ends_with_the_read() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        connections = Connections(
            Endpoint(
                host="127.0.0.1",
                port=silent.getsockname()[1],
                tls=None,
                connect_timeout=5,
                read_timeout=60,
            )
        )
        until = Cancellation()
        threading.Timer(0.2, until.set).start()
        begin = time.monotonic()
        with pytest.raises((OSError, http.client.HTTPException)):
            connections.post("/", body=b"{}", headers={}, until=until)
        assert time.monotonic() - begin < 10


def test_a_request_that_begins_as_the_read_ends_does_not_wait_for_its_answer() -> None:
    with answering(lambda _connection, _count: time.sleep(3)) as connections:
        until = Cancellation()
        until.set()
        begin = time.monotonic()
        with pytest.raises((OSError, http.client.HTTPException)) as caught:
            connections.post("/", body=b"{}", headers={}, until=until)
        assert not isinstance(caught.value, TimeoutError)
        assert time.monotonic() - begin < 3


@contextlib.contextmanager
def answering(answer: Callable[[socket.socket, int], None]) -> Iterator[Connections]:
    """Connections to a server that answers each request as told, given the connection and its number."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        accepted: list[socket.socket] = []

        def serve() -> None:
            count = 0
            while True:
                try:
                    connection, _ = listening.accept()
                except OSError:  # the test is over
                    return
                accepted.append(connection)
                received = b""
                with contextlib.suppress(OSError):
                    while piece := connection.recv(65536):
                        received += piece
                        if received.endswith(b"{}"):  # the body of a request
                            received, count = b"", count + 1
                            answer(connection, count)

        thread = threading.Thread(target=serve)
        thread.start()
        connections = Connections(
            Endpoint(
                host="127.0.0.1",
                port=listening.getsockname()[1],
                tls=None,
                connect_timeout=5,
                read_timeout=0.5,
            )
        )
        try:
            yield connections
        finally:
            connections.close()
            for connection in accepted:
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)
            listening.shutdown(socket.SHUT_RDWR)
            thread.join()
            for connection in accepted:
                connection.close()


@pytest.mark.parametrize("status", ["103 Early Hints", "199 Soon"])
def test_an_answer_that_comes_after_an_interim_one_is_never_read_for_another_request(status: str) -> None:
    def answer(connection: socket.socket, count: int) -> None:
        if count == 1:
            connection.sendall(f"HTTP/1.1 {status}\r\n\r\n".encode())
            time.sleep(0.2)
        body = f"answer {count}".encode()
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))

    with answering(answer) as connections:
        interim = connections.post("/", body=b"{}", headers={}, until=Cancellation())
        assert interim.status < 200
        later = connections.post("/", body=b"{}", headers={}, until=Cancellation())
        assert later.body == b"answer 2"


def test_bytes_that_nobody_asked_for_are_never_read_for_an_answer() -> None:
    def answer(connection: socket.socket, count: int) -> None:
        for body in (f"answer {count}", "stray"):
            head = f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\n\r\n"
            connection.sendall((head + body).encode())
            time.sleep(0.1)

    with answering(answer) as connections:
        for count in (1, 2, 3):
            answered = connections.post("/", body=b"{}", headers={}, until=Cancellation())
            assert answered.body == f"answer {count}".encode()
            time.sleep(0.3)


@pytest.mark.parametrize(
    "piece",
    [b"HTTP/1.1 100 Continue\r\n\r\n", b"X-Header: more\r\n"],
    ids=["interim answers", "headers"],
)
def test_an_answer_that_never_gets_to_its_body_ends(piece: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("healthimaging.frames.connections.BODY_SECONDS", 0.5)

    def answer(connection: socket.socket, count: int) -> None:
        if piece.startswith(b"X"):
            connection.sendall(b"HTTP/1.1 200 OK\r\n")
        for _ in range(80):  # each in time, and less than the limits on headers
            time.sleep(0.1)
            connection.sendall(piece)

    with answering(answer) as connections:
        begin = time.monotonic()
        with pytest.raises(TimeoutError):
            connections.post("/", body=b"{}", headers={}, until=Cancellation())
        assert time.monotonic() - begin < 5


def test_a_process_that_is_forked_while_a_read_holds_every_place_has_its_own(endpoint_url: str) -> None:
    client = client_of(endpoint_url)
    source = frame_source(client)
    with contextlib.ExitStack() as held:
        for _ in range(CONNECTIONS):
            held.enter_context(source.pace.request())
        held.enter_context(source._connections._lock)
        child = os.fork()
        if child == 0:
            threading.Timer(10, os._exit, [3]).start()
            again = retrying(lambda: get(source), pace=source.pace, until=Cancellation())
            os._exit(0 if again == FRAME_BYTES else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


# Retries
# ----------------------------------------------------------------------------------------------------------


def failing(*failures: RequestFailedError) -> Any:
    left = list(failures)

    def attempt() -> str:
        if left:
            raise left.pop(0)
        return "answer"

    return attempt


def throttled(retry_after: float | None = None) -> RequestFailedError:
    return RequestFailedError("ThrottlingException", transient=True, throttled=True, retry_after=retry_after)


def test_throttling_halves_the_pace_and_success_restores_it() -> None:
    pace = Pace(16)
    assert retrying(failing(throttled()), pace=pace, until=Cancellation()) == "answer"
    assert pace.allowed == 8
    for _ in range(200):
        retrying(failing(), pace=pace, until=Cancellation())
    assert pace.allowed == 16


def test_a_burst_of_refusals_halves_once_and_one_request_is_always_allowed() -> None:
    pace = Pace(16)
    for _ in range(10):
        pace.throttled()
    assert pace.allowed == 8
    for _ in range(5):
        time.sleep(0.06)
        pace.throttled()
    assert pace.allowed == 1


def test_no_more_requests_are_under_way_than_the_pace_allows() -> None:
    pace = Pace(16)
    pace._allowed = 2
    under_way, most, lock = 0, 0, threading.Lock()

    def attempt() -> None:
        nonlocal under_way, most
        with lock:
            under_way += 1
            most = max(most, under_way)
        time.sleep(0.01)
        with lock:
            under_way -= 1

    threads = [threading.Thread(target=lambda: pace_once(pace, attempt)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert 1 <= most <= 2


def pace_once(pace: Pace, attempt: Any) -> None:
    with pace.request():
        attempt()


def test_the_service_says_how_long_to_wait() -> None:
    begin = time.monotonic()
    retrying(failing(throttled(retry_after=0.3)), pace=Pace(4), until=Cancellation())
    assert time.monotonic() - begin >= 0.3  # the longest pause of its own would be 0.1


@pytest.mark.parametrize(
    ("failures", "attempts", "seconds"),
    [
        ([RequestFailedError("AccessDeniedException", transient=False)], 8, 60),
        ([throttled()] * 3, 3, 60),
        ([throttled(retry_after=5)], 8, 0.1),
    ],
)
def test_there_is_an_end_to_it(failures: list[RequestFailedError], attempts: int, seconds: float) -> None:
    with pytest.raises(RequestFailedError) as caught:
        retrying(failing(*failures), pace=Pace(4), until=Cancellation(), attempts=attempts, seconds=seconds)
    assert caught.value.code == failures[-1].code


def test_cancelling_ends_the_waiting() -> None:
    until = Cancellation()
    threading.Timer(0.1, until.set).start()
    begin = time.monotonic()
    with pytest.raises(RequestFailedError):
        retrying(failing(*[throttled(retry_after=5)] * 8), pace=Pace(4), until=until)
    assert time.monotonic() - begin < 4
