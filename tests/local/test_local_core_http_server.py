"""The HTTP server around the app: how it starts and how it stops."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

import pytest

from local.http_server import StartupError, serve_http

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]


def listening() -> socket.socket:
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.bind(("127.0.0.1", 0))
    return listener


def serve(app: Any, client: Callable[[int], Awaitable[None]], *, stop_seconds: int = 5) -> None:
    """Serve while `client` runs, then close."""

    async def run() -> None:
        listener, closing = listening(), asyncio.Event()
        port = listener.getsockname()[1]
        serving = asyncio.create_task(serve_http(app, listener, closing=closing, stop_seconds=stop_seconds))
        try:
            await asyncio.wait({serving, asyncio.create_task(client(port))}, return_when="FIRST_COMPLETED")
        finally:
            closing.set()
            await asyncio.wait_for(serving, 20)

    asyncio.run(run())


async def connect(port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A connection once the server listens."""
    for _ in range(100):
        try:
            return await asyncio.open_connection("127.0.0.1", port)
        except ConnectionRefusedError:
            await asyncio.sleep(0.05)
    raise AssertionError("the server did not listen")


class App:
    """Answers every request after `seconds`; refuses to start where `broken`."""

    def __init__(self, *, broken: bool = False, seconds: float = 0.0) -> None:
        self.broken = broken
        self.seconds = seconds
        self.stopped = False
        self.answered = 0

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await receive()
            if self.broken:
                await send({"type": "lifespan.startup.failed", "message": "no state"})
                return
            await send({"type": "lifespan.startup.complete"})
            await receive()
            self.stopped = True
            await send({"type": "lifespan.shutdown.complete"})
            return
        await asyncio.sleep(self.seconds)
        self.answered += 1
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
        await send({"type": "http.response.body", "body": b"ok"})


def test_app_that_cannot_start_ends_the_server() -> None:
    async def nobody(port: int) -> None:
        await asyncio.sleep(10)

    with pytest.raises(StartupError):
        serve(App(broken=True), nobody)


def test_open_request_is_answered_before_the_server_stops() -> None:
    app = App(seconds=0.5)
    answers: list[bytes] = []
    reading: list[asyncio.Task[None]] = []

    async def client(port: int) -> None:
        reader, writer = await connect(port)
        writer.write(b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")

        async def read() -> None:
            answers.append(await reader.read())
            writer.close()

        reading.append(asyncio.create_task(read()))
        await asyncio.sleep(0.2)  # the request is under way, and the server is told to stop

    serve(app, client)
    assert [answer[-2:] for answer in answers] == [b"ok"]
    assert app.stopped


def test_idle_connection_does_not_keep_the_server() -> None:
    app = App()

    async def client(port: int) -> None:
        reader, writer = await connect(port)
        writer.write(b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        assert (await reader.readuntil(b"ok")).startswith(b"HTTP/1.1 200 OK\r\n")

    serve(app, client)
    assert app.stopped


def test_answer_says_neither_date_nor_server_of_its_own() -> None:
    heads = []

    async def client(port: int) -> None:
        reader, writer = await connect(port)
        writer.write(b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n")
        heads.append(await reader.read())
        writer.close()

    serve(App(), client)
    assert heads == [b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok"]
