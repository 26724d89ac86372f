"""MiniStack's state on disk, so that it survives kill -9.

MiniStack keeps its state in memory and writes it when it shuts down; S3 objects it writes at once. Here the
state is written soon after each change instead: a snapshot of every service is taken on the event loop,
what changed is written by a worker thread, and all files of one snapshot are put in place together, by a
journal that a start after a crash completes.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import os
import shutil
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

logger = logging.getLogger(__name__)

_QUIET_SECONDS = 0.25
"""A save waits until nothing changed for so long ..."""
_LATEST_SECONDS = 2.0
"""... but no longer than this after the first change."""
_TRAILING_SECONDS = 3.0
"""One more save so long after the last: functions and queue pollers change state after the request that
woke them."""

_STACKS_SECONDS = 10.0
"""Stacks are saved so long after the last request to CloudFormation, and while it works."""

_COMMIT = "commit"
_SESSIONS = "temporary_credentials"


class Persistence:
    """Saves MiniStack's state into `folder` when `request_save` was called."""

    def __init__(
        self,
        folder: Path,
        *,
        covering: Callable[[], Callable[[], None]],
        covering_stacks: Callable[[], Callable[[], None]],
    ) -> None:
        """`covering` is called at each snapshot, `covering_stacks` at each that contains the stacks; what
        they answer is called once the snapshot is on disk."""
        self._covering = covering
        self._covering_stacks = covering_stacks
        self._folder = folder
        self._journal = _journal_of(folder)
        self._digests: dict[str, str] = {}
        self._wanted = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._writing = threading.RLock()
        self._stacks_touched = float("-inf")
        self.last_seconds = 0.0
        """How long the last snapshot held the event loop."""

    def request_save(self, service: str = "") -> None:
        """Ask for a save soon, after a request that was signed for `service`. From any thread; costs
        nothing."""
        if service == "cloudformation":
            self._stacks_touched = time.monotonic()
        loop = self._loop
        if loop is not None and not self._wanted.is_set():
            loop.call_soon_threadsafe(self._wanted.set)

    async def run(self) -> None:
        """Save whenever asked, until cancelled. Runs on MiniStack's event loop."""
        self._loop = asyncio.get_running_loop()
        while True:
            await self._wanted.wait()
            first = time.monotonic()
            while self._wanted.is_set() and time.monotonic() - first < _LATEST_SECONDS:
                self._wanted.clear()
                await asyncio.sleep(_QUIET_SECONDS)
            self._wanted.clear()
            await self._save()
            try:
                await asyncio.wait_for(self._wanted.wait(), _TRAILING_SECONDS)
            except TimeoutError:
                await self._save()

    async def _save(self) -> None:
        try:
            changed, after = self._snapshot()
        except Exception:
            # Without this the task would end, and nothing would be saved any more, unnoticed.
            logger.exception("no snapshot of the state could be taken; tried again at the next change")
            return
        try:
            await asyncio.to_thread(self._write, changed, after)
        except OSError as error:
            # The cloud goes on in memory; the next change tries again.
            logger.error("the state could not be saved in %s: %s", self._folder, error)
            for name in changed:
                self._digests.pop(name, None)

    def save_now(self) -> None:
        """Save before the process ends, after a save that is still being written."""
        with self._writing:
            self._write(*self._snapshot(everything=True))

    def _snapshot(self, *, everything: bool = False) -> tuple[dict[str, bytes], list[Callable[[], None]]]:
        """Services whose state differs from what is on disk, serialised, and what may be cleaned up
        afterwards."""
        from ministack import app
        from ministack.core import persistence
        from ministack.services import lambda_svc, sts

        started = time.monotonic()
        states: dict[str, Callable[[], Any]] = dict(app._build_persistence_save_dict())
        # MiniStack forgets temporary credentials in a restart; running jobs hold some.
        states[_SESSIONS] = lambda: {"sessions": dict(sts._sessions)}
        after: list[Callable[[], None]] = [self._covering()]
        prune = lambda_svc._prune_orphan_code_blobs
        # The code of functions may go only when no state on disk names it any more.
        lambda_svc._prune_orphan_code_blobs = lambda referenced: after.append(lambda: prune(referenced))
        changed = {}
        if _stacks_work():
            # How the work ends is to be saved too, also when nobody asks CloudFormation about it.
            self._stacks_touched = time.monotonic()
        if everything or time.monotonic() - self._stacks_touched <= _STACKS_SECONDS:
            after.append(self._covering_stacks())
        else:
            # By far the largest state (templates, events), and only CloudFormation itself changes it.
            states.pop("cloudformation", None)
        try:
            for name, get_state in states.items():
                body = _serialise(name, get_state, persistence)
                if body is None:
                    continue
                digest = hashlib.sha256(body).hexdigest()
                if self._digests.get(name) != digest:
                    self._digests[name] = digest
                    changed[name] = body
        finally:
            lambda_svc._prune_orphan_code_blobs = prune
        self.last_seconds = time.monotonic() - started
        logger.debug("snapshot %.3f s, changed: %s", self.last_seconds, sorted(changed))
        return changed, after

    def _write(self, changed: Mapping[str, bytes], after: list[Callable[[], None]]) -> None:
        with self._writing:
            if changed:
                shutil.rmtree(self._journal, ignore_errors=True)
                self._journal.mkdir(parents=True)
                for name, body in changed.items():
                    (self._journal / f"{name}.json").write_bytes(body)
                (self._journal / _COMMIT).touch()
                complete(self._folder)
            for clean in after:
                clean()


def _stacks_work() -> bool:
    """Whether CloudFormation is working on a stack."""
    from ministack.services import cloudformation

    return any(
        stack["StackStatus"].endswith("_IN_PROGRESS") for stack in cloudformation._stacks._data.values()
    )


def _serialise(name: str, get_state: Callable[[], Any], persistence: Any) -> bytes | None:
    """One service's file. A worker thread may be changing a dictionary at this moment: then once more."""
    for attempt in range(3):
        try:
            state = get_state()
            if state is None:
                return None
            document = {"__ministack_format__": persistence._state_format_version(name), "payload": state}
            return json.dumps(document, default=persistence._json_default).encode()
        except RuntimeError as error:
            logger.debug("state of %s changed while it was read (%s), attempt %d", name, error, attempt + 1)
        except (TypeError, ValueError):
            logger.exception("state of %s cannot be written as JSON; what is on disk stays", name)
            return None
    logger.warning("state of %s kept changing while it was read; saved next time", name)
    return None


def complete(folder: Path) -> None:
    """Put the files of a committed snapshot in place; drop one that was never committed.

    Also run at the start, before MiniStack reads `folder`, to finish what a crash interrupted.
    """
    journal = _journal_of(folder)
    if not (journal / _COMMIT).exists():
        shutil.rmtree(journal, ignore_errors=True)
        return
    for file in journal.glob("*.json"):
        os.replace(file, folder / file.name)
    shutil.rmtree(journal)


class DamagedStateError(Exception):
    """A file of the state cannot be read; MiniStack would go on without it and then write over it."""


def check(folder: Path) -> None:
    """Raise `DamagedStateError` unless every file of the state can be read."""
    for file in sorted(folder.glob("*.json")):
        try:
            json.loads(file.read_bytes())
        except ValueError as error:
            raise DamagedStateError(
                f"{file} is damaged ({error}). Move it away to go on without the state of {file.stem}, "
                "or the whole folder to begin anew."
            ) from error


def restore_sessions(folder: Path) -> None:
    """Bring back the temporary credentials that were known before a restart."""
    from ministack.core import persistence
    from ministack.services import sts

    file = folder / f"{_SESSIONS}.json"
    if file.exists():
        saved = json.loads(file.read_text(), object_hook=persistence._json_object_hook)
        for key, session in saved["payload"]["sessions"].items():
            sts._sessions.setdefault(key, session)


def _journal_of(folder: Path) -> Path:
    return folder.with_name(folder.name + ".journal")
