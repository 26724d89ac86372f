"""Where CloudFormation waits for the answer of a custom resource, as a test sees it."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any


@dataclass(kw_only=True)
class Listener:
    """Takes answers; the first `refused` of them are refused."""

    refused: int = 0
    url: str = ""
    answers: list[dict[str, Any]] = field(default_factory=list)
    content_types: list[str | None] = field(default_factory=list)


@contextmanager
def listening(*, refused: int = 0) -> Iterator[Listener]:
    listener = Listener(refused=refused)

    class Handler(BaseHTTPRequestHandler):
        def do_PUT(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if listener.refused:
                listener.refused -= 1
                self.send_error(503)
                return
            listener.content_types.append(self.headers.get("Content-Type"))
            listener.answers.append(json.loads(body))
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *arguments: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    listener.url = f"http://127.0.0.1:{server.server_port}/answer?signature=s"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield listener
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
