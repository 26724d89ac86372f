"""HTTP/1.1 connections to one host, kept open between requests.

Of the standard library, because nothing that was measured takes less of an interpreter that only one thread
can have (`benchmarks/NOTES.md`), and because a connection that is owned can be broken when its read ends.
"""

from __future__ import annotations

import http.client
import io
import select
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

CONNECTIONS = 32
"""Connections of a client that stay open, and the most requests for frames that it has under way at once."""

BODY_SECONDS = 30.0
"""The longest that the body of one answer may take; the read timeout is for each piece of it."""

_PIECE = 64 * 1024


class Cancellation:
    """Ends a read: the waiting between attempts, and the requests that are under way."""

    def __init__(self) -> None:
        self._event = threading.Event()
        self._sockets: set[socket.socket] = set()
        self._lock = threading.Lock()

    def is_set(self) -> bool:
        """Whether the read has ended."""
        return self._event.is_set()

    def wait(self, seconds: float) -> bool:
        """Waits, shorter when the read ends meanwhile; answers whether it has ended."""
        return self._event.wait(seconds)

    def set(self) -> None:
        """Ends the read."""
        with self._lock:
            self._event.set()
            for under_way in self._sockets:
                _hang_up(under_way)

    @contextmanager
    def breaks(self, connection: socket.socket) -> Iterator[None]:
        """While it is used, the connection breaks when the read ends."""
        with self._lock:
            if self._event.is_set():
                _hang_up(connection)
            self._sockets.add(connection)
        try:
            yield
        finally:
            with self._lock:
                self._sockets.discard(connection)


def _hang_up(connection: socket.socket) -> None:
    try:
        # Of the socket below TLS: the TLS object must not be touched while another thread reads from it.
        socket.socket.shutdown(connection, socket.SHUT_RDWR)
    except OSError:
        return  # closed already


@dataclass(frozen=True, kw_only=True)
class Endpoint:
    """Where connections go, and how long they may take."""

    host: str
    port: int | None
    """None is the scheme's own."""
    tls: ssl.SSLContext | None
    """None is plain HTTP."""
    connect_timeout: float
    read_timeout: float

    @property
    def url(self) -> str:
        """Scheme, host and port."""
        address = f"[{self.host}]" if ":" in self.host else self.host
        return f"http{'s' if self.tls else ''}://{address}" + (f":{self.port}" if self.port else "")


@dataclass(frozen=True, kw_only=True)
class Answer:
    """A whole answer."""

    status: int
    headers: http.client.HTTPMessage
    """To be looked up in any case; not made a dictionary of, which takes as long as sending."""
    body: bytes = field(repr=False)


class Connections:
    """Connections to an endpoint, for any number of threads.

    Args:
        endpoint: Where they go.
    """

    def __init__(self, endpoint: Endpoint) -> None:
        self.endpoint = endpoint
        self._idle: list[http.client.HTTPConnection] = []
        self._lock = threading.Lock()

    def post(self, path: str, *, body: bytes, headers: Mapping[str, str], until: Cancellation) -> Answer:
        """Sends one request and reads its answer.

        Args:
            path: With its query, encoded.
            body: Of the request.
            headers: Of the request; Host and Content-Length are added.
            until: Breaks the connection when it is set.

        Raises:
            OSError: No connection, a broken one, or no answer in time.
            http.client.HTTPException: The answer is not HTTP, or shorter than announced.
        """
        connection = self._take()
        try:
            with until.breaks(connection.sock):
                connection.request("POST", path, body=body, headers=dict(headers))
                response = connection.getresponse()
                data = _body(response)
        except BaseException:
            connection.close()
            raise
        if response.will_close or response.status < 200:
            # After an interim answer comes another one, which is to the same request.
            connection.close()
        else:
            self._give(connection)
        return Answer(
            status=response.status,
            headers=response.headers,
            body=data,
        )

    def close(self) -> None:
        """Closes the connections that nobody uses."""
        with self._lock:
            idle, self._idle = self._idle, []
        for connection in idle:
            connection.close()

    def after_fork(self) -> None:
        """To be called in a forked process: two must not read answers from one connection.

        What a thread of the parent held, the lock included, nobody gives back here.
        """
        self._idle, self._lock = [], threading.Lock()

    def _take(self) -> http.client.HTTPConnection:
        with self._lock:
            # The one that was used last: it is the least likely to have been closed.
            while self._idle:
                connection = self._idle.pop()
                if not _closed_by_peer(connection.sock):
                    return connection
                connection.close()
        return self._connect()

    def _give(self, connection: http.client.HTTPConnection) -> None:
        with self._lock:
            if len(self._idle) < CONNECTIONS:
                self._idle.append(connection)
                return
        connection.close()

    def _connect(self) -> http.client.HTTPConnection:
        at = self.endpoint
        connection = (
            http.client.HTTPConnection(at.host, at.port, timeout=at.connect_timeout)
            if at.tls is None
            else http.client.HTTPSConnection(at.host, at.port, timeout=at.connect_timeout, context=at.tls)
        )
        connection.response_class = _Response
        try:
            connection.connect()
            connection.sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            connection.sock.settimeout(at.read_timeout)
        except BaseException:
            connection.close()
            raise
        return connection


class _Response(http.client.HTTPResponse):
    """An answer that is there within the read timeout and `BODY_SECONDS`, or is an error."""

    def __init__(self, connection: socket.socket, *args: Any, **options: Any) -> None:
        limited = _Limited(connection)
        super().__init__(limited, *args, **options)  # type: ignore[arg-type]  # it makes a file of it only


class _Limited(io.RawIOBase):
    """What arrives over a connection until a moment at the latest.

    The timeout of a socket is for each piece, and whoever reads status, headers or trailers waits for as many
    pieces as come.
    """

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        # As a file of its own, which keeps the socket open until the body is read.
        self._received = connection.makefile("rb", buffering=0)
        self._timeout = float(connection.gettimeout() or 0)
        self._latest = time.monotonic() + self._timeout + BODY_SECONDS

    def makefile(self, _mode: str) -> io.BufferedReader:
        """What `http.client` reads from."""
        return io.BufferedReader(self)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        left = self._latest - time.monotonic()
        if left <= 0:
            raise TimeoutError("An answer takes too long")
        self._connection.settimeout(min(left, self._timeout))
        return self._received.readinto(buffer)

    def close(self) -> None:
        self._received.close()
        super().close()


def _closed_by_peer(idle: socket.socket) -> bool:
    """Whether an idle connection has ended, or holds bytes that nobody asked for."""
    poll = select.poll()
    poll.register(idle, select.POLLIN)
    return bool(poll.poll(0))


def read_pieces(read1: Callable[[int], bytes]) -> bytes:
    """Reads a body to its end. The read timeout is for each piece of it: one that trickles in must end, too.

    Args:
        read1: Gives what has arrived, at most so many bytes, and nothing at the end.

    Raises:
        TimeoutError: It takes longer than `BODY_SECONDS`.
    """
    latest = time.monotonic() + BODY_SECONDS
    pieces = []
    while piece := read1(_PIECE):
        pieces.append(piece)
        if time.monotonic() > latest:
            raise TimeoutError("The body of an answer takes too long")
    return b"".join(pieces)


def _body(response: http.client.HTTPResponse) -> bytes:
    body = read_pieces(response.read1)
    if response.length:  # what is missing of the length that was announced
        raise http.client.IncompleteRead(b"", response.length)
    response.close()  # lets the connection take the next request
    return body
