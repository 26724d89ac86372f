"""HealthImaging's data calls over real sockets, with faults that a test declares.

It speaks HTTP/1.1 with connections that stay open, as the service does, so that what a client does with its
sockets, threads and time can be seen. A fault changes the right answer to something else: for one operation
or frame, for the first attempts or all of them, from the start or after so many requests.
"""

from __future__ import annotations

import contextlib
import gzip
import json
import re
import select
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Literal

from fake_healthimaging import DATASTORE

THREAD_NAME = "faulty service"
"""How the server's own threads are named; the others are the client's."""

Operation = Literal["GetImageSet", "GetImageSetMetadata", "GetImageFrame", "SearchImageSets"]

_PATHS: Mapping[str, Operation] = {
    "getImageSet": "GetImageSet",
    "getImageSetMetadata": "GetImageSetMetadata",
    "getImageFrame": "GetImageFrame",
    "searchImageSets": "SearchImageSets",
}
_PATH = re.compile(
    r"/datastore/(?P<datastore>\w+)(?:/imageSet/(?P<image_set>\w+))?/(?P<name>\w+)"
    r"(?:\?(?:.*&)?(?:version=(?P<version>\d+)|maxResults=\d+))?"
)
_CREDENTIAL = re.compile(r"AWS4-HMAC-SHA256 Credential=([^/]+)/\d{8}/[\w-]+/medical-imaging/aws4_request")


@dataclass(frozen=True, kw_only=True)
class Answer:
    """One HTTP answer, and how it is delivered."""

    status: int = 200
    """0 for no answer but RST."""
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    announced: int | None = None
    """Content-Length where it is not that of the body."""
    chunked: bool = False
    delay: float = 0.0
    """Seconds before the first byte."""
    trickle: float = 0.0
    """Seconds before each single byte of the body."""
    ending: Literal["open", "close", "reset", "stall"] = "open"
    """What becomes of the connection after the body."""


Distortion = Callable[[Answer], Answer]


@dataclass(frozen=True, kw_only=True)
class Fault:
    """What goes wrong, and when."""

    distort: Distortion
    """From the right answer to the wrong one."""
    operation: Operation = "GetImageFrame"
    frame_id: str | None = None
    """Only this frame; every one when None."""
    image_set_id: str | None = None
    """Only this image set; every one when None."""
    attempts: int | None = None
    """Only the first so many requests for the same thing; all of them when None."""
    after: int = 0
    """Only after so many requests of the operation, whatever they were for."""


@dataclass(kw_only=True)
class StoredImageSet:
    """One image set of the service; tests change it while it is read."""

    documents: dict[str, dict[str, Any]]
    """Metadata by version."""
    frames: dict[str, bytes]
    latest: str = "1"
    is_primary: bool = True
    state: str = "ACTIVE"


@dataclass(kw_only=True)
class FaultyService:
    """The service on a loopback port while its context is entered."""

    image_sets: dict[str, StoredImageSet]
    faults: list[Fault] = field(default_factory=list)
    accepted_keys: set[str] | None = None
    """Access key ids that are valid; every one when None."""
    on_request: Callable[[Operation, int], None] = lambda _operation, _count: None
    """Called with the operation and how many of it there were, before it is answered."""
    requests: Counter[tuple[Operation, str]] = field(default_factory=Counter)
    """How often each thing was asked for: by operation, and frame or image set."""
    keys: list[str] = field(default_factory=list)
    """Access key id of each request for a frame."""
    connections: int = 0
    """Connections that were ever opened."""
    strays: list[str] = field(default_factory=list)
    """Paths of requests that no client of the service makes on its own, as after a redirect."""

    def __enter__(self) -> FaultyService:
        self._lock = threading.Lock()
        self._operations: Counter[Operation] = Counter()
        self._released = threading.Event()
        self._server = _Server(self)
        self._thread = threading.Thread(target=self._serve, name=THREAD_NAME)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._released.set()
        self._server.shutdown()
        self._server.close_connections()
        self._server.server_close()  # waits for the threads of the connections
        self._thread.join()

    def _serve(self) -> None:
        self._server.serve_forever(poll_interval=0.01)

    @property
    def port(self) -> int:
        return int(self._server.server_address[1])

    @property
    def endpoint_url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def frame_requests(self) -> int:
        return sum(count for (operation, _), count in self.requests.items() if operation == "GetImageFrame")

    def forget(self) -> None:
        """Counts requests anew: what is only for the first ones begins again."""
        with self._lock:
            self._operations.clear()
            self.requests.clear()
            self.keys.clear()

    def wait_for(self, condition: Callable[[], bool], seconds: float = 10) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, "it did not come to this"
            time.sleep(0.005)

    def answer(self, path: str, headers: Mapping[str, str], body: bytes) -> Answer:
        """The answer to a request, faults included."""
        match = _PATH.fullmatch(path)
        if match is None or match["name"] not in _PATHS:
            self.strays.append(path)
            return refusal(404, "UnknownOperationException")
        operation = _PATHS[match["name"]]
        sent = json.loads(body or b"{}")
        subject = sent["imageFrameId"] if operation == "GetImageFrame" else match["image_set"] or "search"
        with self._lock:
            self._operations[operation] += 1
            self.requests[operation, subject] += 1
            count, attempt = self._operations[operation], self.requests[operation, subject]
        self.on_request(operation, count)
        right = self._right_answer(operation, match, sent, headers)
        for fault in self.faults:
            if (
                fault.operation == operation
                and fault.frame_id in (None, subject)
                and fault.image_set_id in (None, match["image_set"])
                and (fault.attempts is None or attempt <= fault.attempts)
                and count > fault.after
            ):
                return fault.distort(right)
        return right

    def _right_answer(
        self, operation: Operation, match: re.Match[str], sent: Any, headers: Mapping[str, str]
    ) -> Answer:
        credential = _CREDENTIAL.match(headers.get("Authorization", ""))
        if credential is None:
            return refusal(403, "MissingAuthenticationTokenException")
        if operation == "GetImageFrame":
            self.keys.append(credential[1])
        if self.accepted_keys is not None and credential[1] not in self.accepted_keys:
            return refusal(403, "ExpiredTokenException")
        if operation == "SearchImageSets":
            return _json({"imageSetsMetadataSummaries": [self._summary(key) for key in self.image_sets]})
        stored = self.image_sets.get(match["image_set"])
        if stored is None or match["datastore"] != DATASTORE:
            return refusal(404, "ResourceNotFoundException")
        if operation == "GetImageFrame":
            data = stored.frames.get(sent["imageFrameId"])
            if data is None or stored.state == "DELETED":
                return refusal(404, "ResourceNotFoundException")
            return Answer(headers={"Content-Type": "image/jph"}, body=data)
        version = match["version"] or stored.latest
        if version not in stored.documents:
            return refusal(404, "ResourceNotFoundException")
        if operation == "GetImageSet":
            return _json(
                {
                    "datastoreId": DATASTORE,
                    "imageSetId": match["image_set"],
                    "versionId": version,
                    "imageSetState": stored.state,
                    "imageSetWorkflowStatus": "DELETED" if stored.state == "DELETED" else "CREATED",
                    "isPrimary": stored.is_primary,
                }
            )
        if stored.state == "DELETED":
            return refusal(404, "ResourceNotFoundException")
        return Answer(
            headers={"Content-Type": "application/json", "Content-Encoding": "gzip"},
            body=gzip.compress(json.dumps(stored.documents[version]).encode()),
        )

    def _summary(self, image_set_id: str) -> dict[str, Any]:
        stored = self.image_sets[image_set_id]
        study = stored.documents[stored.latest]["Study"]
        return {
            "imageSetId": image_set_id,
            "version": int(stored.latest),
            "isPrimary": stored.is_primary,
            "DICOMTags": {
                "DICOMStudyInstanceUID": study["DICOM"]["StudyInstanceUID"],
                "DICOMSeriesInstanceUID": next(iter(study["Series"])),
            },
        }


class _Server(ThreadingHTTPServer):
    daemon_threads = False
    block_on_close = True
    request_queue_size = 128

    def __init__(self, service: FaultyService) -> None:
        super().__init__(("127.0.0.1", 0), _Connection)
        self.service = service
        self._open: set[socket.socket] = set()
        self._reset: set[socket.socket] = set()
        self._guard = threading.Lock()

    def process_request(self, request: Any, client_address: Any) -> None:
        with self._guard:
            self._open.add(request)
            self.service.connections += 1
        super().process_request(request, client_address)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        threading.current_thread().name = THREAD_NAME
        super().process_request_thread(request, client_address)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that go away are part of the tests."""

    def reset(self, request: socket.socket) -> None:
        """Ends the connection with RST instead of FIN."""
        with self._guard:
            self._reset.add(request)

    def shutdown_request(self, request: Any) -> None:
        with self._guard:
            self._open.discard(request)
            resetting = request in self._reset
            self._reset.discard(request)
        if resetting:
            request.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.close_request(request)
        else:
            super().shutdown_request(request)

    def close_connections(self) -> None:
        with self._guard:
            for request in self._open:
                with contextlib.suppress(OSError):
                    request.shutdown(socket.SHUT_RDWR)


class _Connection(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _Server

    def log_message(self, format: str, *args: Any) -> None:
        """Silent."""

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self._send(self.server.service.answer(self.path, self.headers, body))

    def do_GET(self) -> None:
        self.server.service.strays.append(self.path)
        self._send(Answer(status=200, headers={"Content-Type": "text/html"}, body=b"<html>elsewhere</html>"))

    def _pause(self, seconds: float) -> bool:
        """Waits, shorter when the client goes or the service ends; answers whether it did."""
        latest = time.monotonic() + seconds
        while (left := latest - time.monotonic()) > 0:
            if self.server.service._released.wait(min(left, 0.02)) or self._client_is_gone():
                return True
        return False

    def _client_is_gone(self) -> bool:
        if not select.select([self.connection], [], [], 0)[0]:
            return False
        try:
            return self.connection.recv(1, socket.MSG_PEEK) == b""
        except OSError:
            return True

    def _send(self, answer: Answer) -> None:
        self._pause(answer.delay)
        if answer.status == 0:
            self.server.reset(self.connection)
            self.close_connection = True
            return
        self.send_response(answer.status)
        self.send_header("x-amzn-RequestId", "00000000-0000-0000-0000-000000000000")
        for name, value in answer.headers.items():
            self.send_header(name, value)
        if answer.chunked:
            self.send_header("Transfer-Encoding", "chunked")
        else:
            length = len(answer.body) if answer.announced is None else answer.announced
            self.send_header("Content-Length", str(length))
        self.end_headers()
        if answer.chunked:
            self._send_chunks(answer)
        elif answer.trickle:
            for value in answer.body:
                if self._pause(answer.trickle):
                    break
                self.wfile.write(bytes([value]))
        else:
            self.wfile.write(answer.body)
        if answer.ending == "stall":
            self._pause(3600.0)
        if answer.ending == "reset":
            # What was sent is to arrive before the RST, which discards what waits to be read.
            time.sleep(0.02)
            self.server.reset(self.connection)
        if answer.ending != "open":
            self.close_connection = True

    def _send_chunks(self, answer: Answer) -> None:
        size = max(len(answer.body) // 3, 1)
        for start in range(0, len(answer.body), size):
            chunk = answer.body[start : start + size]
            self.wfile.write(b"%x\r\n%b\r\n" % (len(chunk), chunk))
        if answer.ending == "open":
            self.wfile.write(b"0\r\n\r\n")


# Answers
# ----------------------------------------------------------------------------------------------------------


def _json(document: Any, status: int = 200, **headers: str) -> Answer:
    return Answer(
        status=status,
        headers={"Content-Type": "application/json", **headers},
        body=json.dumps(document).encode(),
    )


def refusal(status: int, code: str) -> Answer:
    """An error as the service writes it (rest-json)."""
    return _json({"message": "refused"}, status, **{"x-amzn-ErrorType": code})


def refused(status: int, code: str) -> Distortion:
    return lambda _right: refusal(status, code)


def page(status: int, **headers: str) -> Distortion:
    """What a proxy or load balancer says in the service's place."""
    content = {"Content-Type": "text/html", **headers}
    return lambda _right: Answer(status=status, headers=content, body=b"<html><h1>no</h1></html>")


def cut(ending: Literal["close", "reset", "stall"]) -> Distortion:
    """Half of the body that is announced, and then that."""
    return lambda right: replace(
        right, announced=len(right.body), body=right.body[: len(right.body) // 2], ending=ending
    )


def announced(difference: int) -> Distortion:
    """A Content-Length that is wrong by so many bytes, after which the connection closes."""
    return lambda right: replace(right, announced=len(right.body) + difference, ending="close")


def body(change: Callable[[bytes], bytes]) -> Distortion:
    """Other content, delivered as it should be."""
    return lambda right: replace(right, body=change(right.body))


def header(name: str, value: str) -> Distortion:
    return lambda right: replace(right, headers={**right.headers, name: value})


def silence(right: Answer) -> Answer:
    """No answer at all, on a connection that stays open."""
    return replace(right, delay=3600.0)


def hang_up(_right: Answer) -> Answer:
    """RST instead of an answer."""
    return Answer(status=0)


def trickling(seconds: float) -> Distortion:
    """Byte after byte, each soon enough that no read times out."""
    return lambda right: replace(right, trickle=seconds)


def in_chunks(right: Answer) -> Answer:
    return replace(right, chunked=True)


def chunks_cut(right: Answer) -> Answer:
    """Chunks without the last one, and the connection closed."""
    return replace(right, chunked=True, ending="close")


def really_compressed(right: Answer) -> Answer:
    """Compressed by something between, which says so."""
    return replace(
        right, body=gzip.compress(right.body), headers={**right.headers, "Content-Encoding": "gzip"}
    )


def after(*distortions: Distortion) -> Distortion:
    """One distortion after the other."""

    def all_of_them(right: Answer) -> Answer:
        for distort in distortions:
            right = distort(right)
        return right

    return all_of_them
