"""A loopback proxy that delays what clients send.

`python -m benchmarks.reading.latency PORT TARGET MILLISECONDS` serves on PORT what is on the port TARGET.

A request reaches the server a fixed time after its first bytes were sent; what arrives meanwhile goes with
them, so requests must be small. Answers pass at once, through the kernel where it can. A request on an open
connection thus takes that much longer, as over a network of that round-trip time and unlimited bandwidth.
Opening a connection costs nothing extra.
"""

from __future__ import annotations

import argparse
import fcntl
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from benchmarks.local_cloud import REPOSITORY, free_port

_START_SECONDS = 15.0
_PIECE = 1024 * 1024


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


def _serve(port: int, target: int, seconds: float) -> None:
    """Two threads a connection: waiting costs nothing, and the cores are for what is measured."""
    with socket.create_server(("127.0.0.1", port), backlog=512) as server:
        while True:
            client, _ = server.accept()
            threading.Thread(target=_connect, args=(client, target, seconds), daemon=True).start()


def _connect(client: socket.socket, target: int, seconds: float) -> None:
    with client, socket.create_connection(("127.0.0.1", target)) as server:
        for end in (client, server):
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        answers = threading.Thread(target=_pass_answers, args=(server, client), daemon=True)
        answers.start()
        try:
            while data := client.recv(_PIECE):
                time.sleep(seconds)
                with suppress(BlockingIOError):
                    data += client.recv(_PIECE, socket.MSG_DONTWAIT)
                server.sendall(data)
        except OSError:
            return  # one of the two is gone
        finally:
            _hang_up(server)
            answers.join()


def _pass_answers(server: socket.socket, client: socket.socket) -> None:
    source, sink = os.pipe()
    fcntl.fcntl(sink, fcntl.F_SETPIPE_SZ, _PIECE)
    try:
        # The kernel moves the bytes; this process does not see them.
        while count := os.splice(server.fileno(), sink, _PIECE):
            while count:
                count -= os.splice(source, client.fileno(), count)
    except OSError:
        return  # one of the two is gone
    finally:
        os.close(source)
        os.close(sink)
        _hang_up(client)


def _hang_up(end: socket.socket) -> None:
    with suppress(OSError):
        end.shutdown(socket.SHUT_RDWR)


def main() -> None:
    """Serve until terminated."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("port", "target", "milliseconds"):
        parser.add_argument(name, type=int)
    options = parser.parse_args()
    _serve(options.port, options.target, options.milliseconds / 1000)


if __name__ == "__main__":
    main()
