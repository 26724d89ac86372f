"""A loopback proxy that delays what clients send.

`python -m benchmarks.reading.latency PORT TARGET MILLISECONDS` serves on PORT what is on the port TARGET.

It is a delay line: bytes from the client arrive at the server a fixed time after they were sent, in order,
whatever their number; answers pass at once. A request on an open connection thus takes that much longer, as
over a network of that round-trip time and unlimited bandwidth. Opening a connection costs nothing extra.
"""

from __future__ import annotations

import argparse
import asyncio
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from benchmarks.local_cloud import REPOSITORY, free_port

_START_SECONDS = 15.0


@contextmanager
def delayed(endpoint_url: str, *, milliseconds: int) -> Iterator[str]:
    """The URL under which the endpoint answers with this much added latency; itself when that is 0."""
    if milliseconds == 0:
        yield endpoint_url
        return
    port = free_port()
    target = endpoint_url.rpartition(":")[2]
    command = [sys.executable, "-m", "benchmarks.reading.latency", str(port), target, str(milliseconds)]
    # A process of its own: it must not take the interpreter of what is measured.
    proxy = subprocess.Popen(command, cwd=REPOSITORY, stdin=subprocess.DEVNULL)
    try:
        _wait_until_open(proxy, port)
        yield f"http://127.0.0.1:{port}"
    finally:
        proxy.terminate()
        proxy.wait()


def _wait_until_open(proxy: subprocess.Popen[bytes], port: int) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except ConnectionRefusedError:
            if proxy.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError("The latency proxy did not start.") from None
            time.sleep(0.05)
        else:
            return


class _FromClient(asyncio.Protocol):
    """A client's connection: what it sends waits for its time."""

    def __init__(self, target: int, seconds: float) -> None:
        self._target, self._seconds = target, seconds
        self._loop = asyncio.get_running_loop()
        self._server: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        if not isinstance(transport, asyncio.Transport):
            raise TypeError("a stream is served")
        transport.pause_reading()
        self._opening = self._loop.create_task(self._open(transport))

    async def _open(self, client: asyncio.Transport) -> None:
        try:
            self._server, _ = await self._loop.create_connection(
                lambda: _FromServer(client), "127.0.0.1", self._target
            )
        except OSError:
            client.abort()
            return
        client.resume_reading()

    def data_received(self, data: bytes) -> None:
        self._loop.call_later(self._seconds, self._deliver, data)

    def _deliver(self, data: bytes) -> None:
        if self._server is not None and not self._server.is_closing():
            self._server.write(data)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._server is not None:
            self._server.close()


class _FromServer(asyncio.Protocol):
    """The connection that belongs to a client's: answers pass at once."""

    def __init__(self, client: asyncio.Transport) -> None:
        self._client = client

    def data_received(self, data: bytes) -> None:
        self._client.write(data)

    def connection_lost(self, exc: Exception | None) -> None:
        self._client.close()


async def _serve(port: int, target: int, seconds: float) -> None:
    server = await asyncio.get_running_loop().create_server(
        lambda: _FromClient(target, seconds), "127.0.0.1", port
    )
    await server.serve_forever()


def main() -> None:
    """Serve until terminated."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("port", "target", "milliseconds"):
        parser.add_argument(name, type=int)
    options = parser.parse_args()
    asyncio.run(_serve(options.port, options.target, options.milliseconds / 1000))


if __name__ == "__main__":
    main()
