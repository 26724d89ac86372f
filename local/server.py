"""The server process: lock the folder, bind the port, serve until a signal, leave nothing half written."""

from __future__ import annotations

import asyncio
import fcntl
import json
import logging
import resource
import shutil
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import psutil

from local.configuration import HOST, Configuration, configure
from local.persistence import DamagedStateError, check, complete

if TYPE_CHECKING:
    from local.cloud import LocalCloud

_STOP_SECONDS = 5
"""How long open requests may take when the server stops."""


_LOCK_SECONDS = 0.5
"""`status` holds the lock for a moment to see whether somebody has it."""


class CannotServeError(Exception):
    """The cloud cannot start; the message says why, for a person to read."""


def serve(configuration: Configuration) -> None:
    """Serve until SIGTERM or SIGINT. Raises `CannotServeError`."""
    with _locked(configuration), _bound(configuration) as listener:
        try:
            # What a killed server had unpacked there; it would pile up.
            shutil.rmtree(configuration.temporary_folder, ignore_errors=True)
            configure(configuration)
            complete(configuration.state_folder)
            check(configuration.state_folder)
            _announce(configuration)
        except OSError as error:
            raise not_writable(configuration, error) from error
        except DamagedStateError as error:
            raise CannotServeError(str(error)) from error
        _raise_file_limit()
        logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s [%(name)s] %(message)s")
        # Imported here: MiniStack reads its settings, made by configure, when it is imported.
        from local.cloud import LocalCloud
        from local.http_server import StartupError

        try:
            asyncio.run(_serve(LocalCloud(configuration), listener))
        except StartupError as error:
            raise CannotServeError("The state could not be restored; the log above says why.") from error
        configuration.process_file.unlink(missing_ok=True)


def not_writable(configuration: Configuration, error: OSError) -> CannotServeError:
    """The error of a folder that cannot hold the state, with what stands in the way."""
    return CannotServeError(
        f"The folder {configuration.root} is not writable ({error.strerror}: {error.filename}). "
        "Choose another with --root, or remove what is in the way."
    )


def _announce(configuration: Configuration) -> None:
    """Say on disk which process serves this folder, and where, so that `status` and `down` find it."""
    new = configuration.process_file.with_suffix(".new")
    process = psutil.Process()
    document = {
        "pid": process.pid,
        "started": process.create_time(),
        "endpointUrl": configuration.endpoint_url,
    }
    new.write_text(json.dumps(document))
    new.replace(configuration.process_file)


async def _serve(cloud: LocalCloud, listener: socket.socket) -> None:
    from local.http_server import serve_http

    stopping = asyncio.Event()
    for received in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(received, stopping.set)
    closing = asyncio.Event()
    http = asyncio.create_task(serve_http(cloud.app, listener, closing=closing, stop_seconds=_STOP_SECONDS))
    services = asyncio.create_task(cloud.run_services(stopping))
    try:
        await asyncio.wait({http, services}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        stopping.set()
        # Services stop first: what they run may still call the cloud.
        try:
            await services
        finally:
            closing.set()
            await http


@contextmanager
def _locked(configuration: Configuration) -> Iterator[None]:
    """Hold the folder: two clouds on one folder would overwrite each other's state."""
    try:
        configuration.root.mkdir(parents=True, exist_ok=True)
        file = configuration.lock_file.open("a")
    except OSError as error:
        raise not_writable(configuration, error) from error
    with file:
        deadline = time.monotonic() + _LOCK_SECONDS
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() < deadline:
                    time.sleep(0.05)
                    continue
                raise CannotServeError(
                    f"Another local cloud uses the folder {configuration.root}. Stop it with `down`."
                ) from None
            break
        yield


@contextmanager
def _bound(configuration: Configuration) -> Iterator[socket.socket]:
    # Named TCP, asyncio sends a short answer at once; else it waits for the client to confirm its head.
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((HOST, configuration.port))
        except OSError as error:
            raise CannotServeError(
                f"Port {configuration.port} on {HOST} cannot be used ({error.strerror}). "
                "Stop the program that has it, or choose another with --port."
            ) from error
        yield listener


def _raise_file_limit() -> None:
    """Bursts of connections need more open files than the usual soft limit of 1024."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
