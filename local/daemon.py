"""The server as a background process: start it, find it, stop it."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from local.configuration import STATUS_PATH, Configuration
from local.server import CannotServeError

_START_SECONDS = 120
_STOP_SECONDS = 60
_LOG_LINES = 15


def up(configuration: Configuration, *, say: Callable[[str], None]) -> None:
    """Start the cloud unless it runs on this folder already, and wait until it is ready."""
    running = status(configuration)
    if running["running"]:
        say(f"The local cloud is up already: {running['endpointUrl']} (pid {running['pid']})")
        return
    try:
        configuration.root.mkdir(parents=True, exist_ok=True)
        log = configuration.log_file.open("ab")
    except OSError as error:
        raise CannotServeError(
            f"The folder {configuration.root} is not writable ({error.strerror}). Choose another with --root."
        ) from error
    with log:
        start = log.tell()
        process = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "local",
                "serve",
                "--root",
                str(configuration.root),
                "--port",
                str(configuration.port),
            ],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            cwd=Path(__file__).resolve().parent.parent,
        )
    say(f"Starting the local cloud on {configuration.endpoint_url} (log: {configuration.log_file})")
    began = time.monotonic()
    while time.monotonic() - began < _START_SECONDS:
        if process.poll() is not None:
            raise CannotServeError(_last_words(configuration.log_file, start))
        state = _ask(configuration.endpoint_url)
        if state is not None and state["pid"] == process.pid and state["ready"]:
            _pid_file(configuration).write_text(
                json.dumps({"pid": process.pid, "endpointUrl": configuration.endpoint_url})
            )
            say(f"The local cloud is up after {time.monotonic() - began:.1f} s")
            return
        time.sleep(0.2)
    process.terminate()
    raise CannotServeError(
        f"The local cloud was not ready after {_START_SECONDS} s. "
        + _last_words(configuration.log_file, start)
    )


def down(configuration: Configuration, *, say: Callable[[str], None]) -> None:
    """Stop the cloud of this folder and wait until it has saved its state."""
    state = status(configuration)
    if not state["running"]:
        say("The local cloud is not running.")
        return
    pid = state["pid"]
    os.kill(pid, signal.SIGTERM)
    deadline = time.monotonic() + _STOP_SECONDS
    while _alive(pid):
        if time.monotonic() > deadline:
            raise CannotServeError(f"The local cloud (pid {pid}) did not stop within {_STOP_SECONDS} s.")
        time.sleep(0.1)
    _pid_file(configuration).unlink(missing_ok=True)
    say("The local cloud is down; its state is kept in " + str(configuration.root))


def status(configuration: Configuration) -> dict[str, Any]:
    """What the running cloud says of itself, or that none runs on this folder."""
    addresses = [configuration.endpoint_url]
    file = _pid_file(configuration)
    if file.exists():
        addresses.insert(0, json.loads(file.read_text())["endpointUrl"])
    for address in addresses:
        state = _ask(address)
        if state is not None and state["root"] == str(configuration.root):
            return state
    return {
        "running": False,
        "ready": False,
        "endpointUrl": configuration.endpoint_url,
        "root": str(configuration.root),
        "pid": None,
        "recordedOnly": [],
    }


def describe(state: Mapping[str, Any]) -> str:
    """A status for a person."""
    if not state["running"]:
        return f"The local cloud is not running (state in {state['root']})."
    condition = "up" if state["ready"] else "starting"
    lines = [
        f"The local cloud is {condition}: {state['endpointUrl']} (pid {state['pid']})",
        f"State in {state['root']}",
    ]
    if state["recordedOnly"]:
        lines.append("Deployed but only recorded: " + ", ".join(state["recordedOnly"]))
    return "\n".join(lines)


def _ask(endpoint_url: str) -> dict[str, Any] | None:
    """The status page of whatever listens there; None if nothing, or something else, answers."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(endpoint_url + STATUS_PATH, timeout=5) as response:
            answer = json.load(response)
    except (OSError, urllib.error.HTTPError, ValueError):
        return None
    return answer if isinstance(answer, dict) and "root" in answer else None


def _pid_file(configuration: Configuration) -> Path:
    return configuration.root / "cloud.json"


def _alive(pid: int) -> bool:
    """Whether a process still runs; one that has ended but was not waited for has not."""
    with contextlib.suppress(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def _last_words(log_file: Path, start: int) -> str:
    with log_file.open("rb") as log:
        log.seek(start)
        lines = log.read().decode(errors="replace").strip().splitlines()
    errors = [line for line in lines if line.startswith("error: ")]
    if errors:
        return errors[-1].removeprefix("error: ")
    tail = "\n".join(f"  {line}" for line in lines[-_LOG_LINES:])
    return f"The local cloud ended while it started. The end of its log {log_file}:\n{tail}"
