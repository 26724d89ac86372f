"""An HTTP server that answers every request as a test says, and remembers them."""

from __future__ import annotations

import json
import re
import socket
import struct
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from typing import Any, Literal
from urllib.parse import parse_qs, urlsplit

import boto3
import pydicom
from pydicom import Dataset

JSON = "application/dicom+json"


@dataclass(frozen=True)
class Request:
    method: str
    path: str
    query: dict[str, list[str]]
    headers: dict[str, str]
    body: bytes


@dataclass(frozen=True, kw_only=True)
class Reply:
    """One answer, and how it is delivered."""

    status: int = 200
    content_type: str = JSON
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    announced: int | None = None
    """Content-Length where it is not that of the body; -1 for none at all."""
    trickle: float = 0.0
    """Seconds before each byte of the body."""
    ending: Literal["open", "close", "reset", "stall"] = "open"
    """What becomes of the connection after the body."""


@dataclass
class ScriptedWeb:
    """The server; runs while its context is entered."""

    answer: Callable[[Request], Reply | tuple[int, str, bytes]] = lambda _request: Reply(status=404)
    requests: list[Request] = field(default_factory=list)
    url: str = ""

    def __enter__(self) -> ScriptedWeb:
        self._released = threading.Event()
        web = self

        class Connection(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def _serve(self) -> None:
                parts = urlsplit(self.path)
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                request = Request(self.command, parts.path, parse_qs(parts.query), dict(self.headers), body)
                web.requests.append(request)
                found = web.answer(request)
                if isinstance(found, tuple):
                    found = Reply(status=found[0], content_type=found[1], body=found[2])
                self._send(found)

            do_GET = do_POST = _serve

            def _send(self, reply: Reply) -> None:
                self.send_response(reply.status)
                self.send_header("Content-Type", reply.content_type)
                for name, value in reply.headers.items():
                    self.send_header(name, value)
                if reply.announced != -1:
                    length = len(reply.body) if reply.announced is None else reply.announced
                    self.send_header("Content-Length", str(length))
                self.end_headers()
                if reply.trickle:
                    for value in reply.body:
                        if web._released.wait(reply.trickle):
                            break
                        self.wfile.write(bytes([value]))
                else:
                    self.wfile.write(reply.body)
                if reply.ending == "stall":
                    web._released.wait()
                if reply.ending == "reset":
                    linger = struct.pack("ii", 1, 0)
                    self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                self.close_connection = reply.ending != "open"

            def log_message(self, *_arguments: Any) -> None:
                """Silent."""

        class Server(ThreadingHTTPServer):
            def handle_error(self, *_arguments: Any) -> None:
                """Clients that go away are part of the tests."""

            def shutdown_request(self, request: Any) -> None:
                # Without the FIN that would come first, so that a reset is one.
                self.close_request(request)

        self._http = Server(("127.0.0.1", 0), Connection)
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.01,), daemon=True)
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._http.server_port}"
        return self

    def __exit__(self, *_: object) -> None:
        self._released.set()
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()


@cache
def session() -> boto3.Session:
    """One for all: making one reads the service model anew."""
    return boto3.Session(
        aws_access_key_id="AKIDEXAMPLE",
        aws_secret_access_key="secret",
        aws_session_token="token",
        region_name="eu-west-1",
    )


def sent_instances(request: Request) -> list[Dataset]:
    """The instances of a request that stores."""
    match = re.search(r'boundary="?([^";]+)', request.headers["Content-Type"])
    assert match is not None
    pieces = request.body.split(b"--" + match[1].encode())[1:-1]
    return [pydicom.dcmread(BytesIO(piece.split(b"\r\n\r\n", 1)[1][:-2])) for piece in pieces]


def store_answer(stored: list[Dataset], failed: list[tuple[Dataset, int]]) -> bytes:
    """The body of an answer to storing."""
    response = Dataset()
    response.ReferencedSOPSequence = []
    response.FailedSOPSequence = []
    for dataset in stored:
        item = _referenced(dataset)
        item.RetrieveURL = f"https://example/{dataset.SOPInstanceUID}"
        response.ReferencedSOPSequence.append(item)
    for dataset, reason in failed:
        item = _referenced(dataset)
        item.FailureReason = reason
        response.FailedSOPSequence.append(item)
    return json.dumps(response.to_json_dict()).encode()


def _referenced(dataset: Dataset) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID = dataset.SOPClassUID
    item.ReferencedSOPInstanceUID = dataset.SOPInstanceUID
    return item
