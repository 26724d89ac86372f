"""Which processes this cloud started, on disk, so that a next life can stop what a killed one left running.

A process id alone may name somebody else's process by then: only one with the same start time is ours.
"""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psutil

_SAME_START = 0.05
"""Seconds: start times are given in clock ticks (0.01 s), so ours reads back the same within a few."""


class ProcessRecords:
    """One file a process, `<state root>/containers/<pid>.json`."""

    def __init__(self, root: Path) -> None:
        self._folder = root / "containers"

    def write(self, pid: int, name: str) -> None:
        """Remember a process that was just started."""
        self._folder.mkdir(parents=True, exist_ok=True)
        try:
            started = psutil.Process(pid).create_time()
        except psutil.NoSuchProcess:
            return  # it ended already: nothing can be left over
        new = self._folder / f"{pid}.new"
        new.write_text(json.dumps({"pid": pid, "started": started, "name": name}))
        os.replace(new, self._folder / f"{pid}.json")

    def forget(self, pid: int) -> None:
        """The process is gone."""
        (self._folder / f"{pid}.json").unlink(missing_ok=True)

    def stop_leftovers(self, *, grace: float = 5.0) -> list[str]:
        """End the process groups that are recorded; the names of those that still ran."""
        stopped = []
        for path in sorted(self._folder.glob("*.json")):
            record = json.loads(path.read_text())
            if is_same_process(record["pid"], record["started"]) or _left_alone(record):
                end_group(record["pid"], grace=grace)
                stopped.append(record["name"])
            path.unlink(missing_ok=True)
        return stopped


def is_same_process(pid: int, started: float) -> bool:
    """Whether the process that had this id and start time still runs."""
    try:
        return abs(psutil.Process(pid).create_time() - started) <= _SAME_START
    except psutil.NoSuchProcess:
        return False


def _left_alone(record: Mapping[str, Any]) -> bool:
    """Whether the entry point has ended and left processes of its group behind.

    While a group has members the system gives its number to no new process, so with the leader gone they
    are the container's, unless they are older than it.
    """
    if psutil.pid_exists(record["pid"]):
        return False
    members = group_members(record["pid"])
    return bool(members) and all(
        member.create_time() >= record["started"] - _SAME_START for member in members
    )


def group_members(leader: int) -> list[psutil.Process]:
    """The living processes of a process group."""
    members = []
    for process in psutil.process_iter():
        try:
            if os.getpgid(process.pid) == leader and process.status() != psutil.STATUS_ZOMBIE:
                members.append(process)
        except (ProcessLookupError, psutil.NoSuchProcess):
            continue
    return members


def end_group(leader: int, *, grace: float) -> None:
    """SIGTERM to a process group, SIGKILL to what is left of it after `grace` seconds."""
    if not signal_group(leader, signal.SIGTERM):
        return
    deadline = time.monotonic() + grace
    while time.monotonic() < deadline:
        if not group_members(leader):
            return
        time.sleep(0.1)
    signal_group(leader, signal.SIGKILL)


def signal_group(leader: int, number: signal.Signals) -> bool:
    """Send a signal to a process group; whether there was one."""
    try:
        os.killpg(leader, number)
    except ProcessLookupError:
        return False
    return True
