"""The server as a background process: start it, find it, stop it."""

from __future__ import annotations

import contextlib
import fcntl
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

import psutil

from local.configuration import STATUS_PATH, Configuration
from local.containers.records import ProcessRecords, is_same_process
from local.server import CannotServeError, not_writable

_START_SECONDS = 120
_STOP_SECONDS = 60
_ASK_SECONDS = 2
_LOG_LINES = 15


def up(configuration: Configuration, *, say: Callable[[str], None]) -> None:
    """Start the cloud unless it runs on this folder already, and wait until it is ready."""
    running = status(configuration)
    if running["running"]:
        if not running["ready"]:
            say(
                f"The local cloud on {configuration.root} does not answer yet (pid {running['pid']}); waiting"
            )
            running = _wait_for_other(configuration)
        say(f"The local cloud is up already: {running['endpointUrl']} (pid {running['pid']})")
        return
    try:
        configuration.root.mkdir(parents=True, exist_ok=True)
        log = configuration.log_file.open("ab")
    except OSError as error:
        raise not_writable(configuration, error) from error
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
            say(f"The local cloud is up after {time.monotonic() - began:.1f} s")
            return
        time.sleep(0.2)
    process.terminate()
    try:
        process.wait(_STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
    raise CannotServeError(
        f"The local cloud was not ready after {_START_SECONDS} s and was stopped. "
        + _last_words(configuration.log_file, start)
    )


def down(configuration: Configuration, *, say: Callable[[str], None]) -> None:
    """Stop the cloud of this folder and wait until it has saved its state."""
    state = status(configuration)
    if not state["running"]:
        say("The local cloud is not running.")
        for name in ProcessRecords(configuration.root).stop_leftovers():
            say(f"Stopped a container that a killed cloud had left running: {name}")
        return
    pid = state["pid"]
    if pid is None:
        raise CannotServeError(
            f"Another process holds the folder {configuration.root} and does not say who it is. "
            f"Find it with `fuser {configuration.root / 'lock'}` and end it."
        )
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGTERM)
    deadline = time.monotonic() + _STOP_SECONDS
    while _alive(pid):
        if time.monotonic() > deadline:
            raise CannotServeError(
                f"The local cloud (pid {pid}) did not stop within {_STOP_SECONDS} s. "
                f"`kill -9 {pid}` ends it; its state survives that. Its log: {configuration.log_file}"
            )
        time.sleep(0.1)
    say("The local cloud is down; its state is kept in " + str(configuration.root))


def status(configuration: Configuration) -> dict[str, Any]:
    """What the running cloud says of itself, that one starts or hangs, or that none runs on this folder."""
    known = _known_process(configuration)
    addresses = [known["endpointUrl"]] if known else []
    for address in (*addresses, configuration.endpoint_url):
        state = _ask(address)
        if state is not None and state["root"] == str(configuration.root):
            return state
    running = _is_held(configuration)
    return {
        "running": running,
        "ready": False,
        "endpointUrl": known["endpointUrl"] if running and known else configuration.endpoint_url,
        "root": str(configuration.root),
        "pid": known["pid"] if running and known else None,
        "recordedOnly": [],
    }


def describe(state: Mapping[str, Any]) -> str:
    """A status for a person."""
    if not state["running"]:
        return f"The local cloud is not running (state in {state['root']})."
    condition = "up" if state["ready"] else "starting, or it hangs"
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
        with opener.open(endpoint_url + STATUS_PATH, timeout=_ASK_SECONDS) as response:
            answer = json.load(response)
    except (OSError, urllib.error.HTTPError, ValueError):
        return None
    return answer if isinstance(answer, dict) and "root" in answer else None


def _known_process(configuration: Configuration) -> dict[str, Any] | None:
    """The process that the folder's last server said it was, if that very process still runs.

    A process id alone is not enough: after a crash it may by now be somebody else's.
    """
    try:
        known: dict[str, Any] = json.loads(configuration.process_file.read_text())
        ours = is_same_process(known["pid"], known["started"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return known if ours else None


def _is_held(configuration: Configuration) -> bool:
    """Whether a server has locked the folder."""
    try:
        with configuration.lock_file.open() as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False  # there is no such file, so nobody has locked it
    return False


def _wait_for_other(configuration: Configuration) -> dict[str, Any]:
    """The status of a server that another command has started, once it is ready."""
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline:
        state = status(configuration)
        if not state["running"]:
            raise CannotServeError(
                f"The local cloud that another command had started ended. Its log: {configuration.log_file}"
            )
        if state["ready"]:
            return state
        time.sleep(0.2)
    raise CannotServeError(
        f"The local cloud on {configuration.root} has not answered for {_START_SECONDS} s. "
        f"Stop it with `down`, then start it again. Its log: {configuration.log_file}"
    )


def _alive(pid: int) -> bool:
    """Whether a process still runs; one that has ended but was not waited for (by whoever) does not."""
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def _last_words(log_file: Path, start: int) -> str:
    with log_file.open("rb") as log:
        log.seek(start)
        lines = log.read().decode(errors="replace").strip().splitlines()
    errors = [line for line in lines if line.startswith("error: ")]
    if errors:
        return errors[-1].removeprefix("error: ")
    tail = "\n".join(f"  {line}" for line in lines[-_LOG_LINES:])
    return f"The local cloud ended while it started. The end of its log {log_file}:\n{tail}"
