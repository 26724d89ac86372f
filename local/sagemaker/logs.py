"""A container's output on its way to CloudWatch Logs: read from its file and sent in batches, as the role.

As on AWS, a role that may not write logs costs the logs, not the job: the reason is in the cloud's own log.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import botocore.exceptions

logger = logging.getLogger(__name__)

_BATCH_EVENTS = 500
_BATCH_BYTES = 900_000
"""Below PutLogEvents' limits of 10,000 events and 1,048,576 bytes (26 bytes overhead an event)."""
_EVENT_CHARACTERS = 32_000
_INTERVAL_SECONDS = 0.5


class LogShipper:
    """Follows one output file until `close`; every whole line also goes to `on_line`."""

    def __init__(
        self,
        *,
        client: Any,
        group: str,
        stream: str,
        path: Path,
        on_line: Callable[[str], None] | None = None,
    ) -> None:
        self.stream = stream
        self._client = client
        self._group = group
        self._path = path
        self._on_line = on_line
        self._offset = 0
        self._partial = b""
        self._refused = False
        self._created = False
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"logs {stream}", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Send what is left and end."""
        self._closing.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._closing.wait(_INTERVAL_SECONDS):
            self._forward(final=False)
        self._forward(final=True)

    def _forward(self, *, final: bool) -> None:
        lines = self._read(final=final)
        if self._on_line is not None:
            for line in lines:
                self._on_line(line)
        batch: list[str] = []
        size = 0
        for line in lines:
            text = line[:_EVENT_CHARACTERS] or " "
            weight = len(text.encode()) + 26
            if batch and (len(batch) >= _BATCH_EVENTS or size + weight > _BATCH_BYTES):
                self._send(batch)
                batch, size = [], 0
            batch.append(text)
            size += weight
        if batch:
            self._send(batch)

    def _read(self, *, final: bool) -> list[str]:
        if not self._path.exists():
            return []
        with self._path.open("rb") as handle:
            handle.seek(self._offset)
            data = handle.read()
        self._offset += len(data)
        *whole, self._partial = (self._partial + data).split(b"\n")
        if final and self._partial:
            whole.append(self._partial)
            self._partial = b""
        # A progress bar rewrites its line with carriage returns: its last state is what counts.
        return [line.decode(errors="replace").rstrip("\r").rsplit("\r", 1)[-1] for line in whole]

    def _send(self, batch: list[str]) -> None:
        if self._refused:
            return
        moment = int(time.time() * 1000)
        events = [{"timestamp": moment, "message": text} for text in batch]
        try:
            if not self._created:
                self._create()
            self._client.put_log_events(logGroupName=self._group, logStreamName=self.stream, logEvents=events)
        except (botocore.exceptions.ClientError, botocore.exceptions.BotoCoreError) as error:
            # What the role may not do now it may not do later; anything else costs these lines only.
            self._refused = isinstance(error, botocore.exceptions.ClientError) and "Denied" in _code(error)
            lost = "no logs" if self._refused else f"{len(batch)} lines lost"
            logger.warning("%s for %s %s: %s", lost, self._group, self.stream, error)

    def _create(self) -> None:
        """Make the stream, and the group only where nobody made it before (with its key and retention)."""
        try:
            self._create_stream()
        except botocore.exceptions.ClientError as error:
            if _code(error) != "ResourceNotFoundException":
                raise
            try:
                self._client.create_log_group(logGroupName=self._group)
            except botocore.exceptions.ClientError as race:
                if _code(race) != "ResourceAlreadyExistsException":
                    raise
            self._create_stream()
        self._created = True

    def _create_stream(self) -> None:
        try:
            self._client.create_log_stream(logGroupName=self._group, logStreamName=self.stream)
        except botocore.exceptions.ClientError as error:
            if _code(error) != "ResourceAlreadyExistsException":
                raise


def _code(error: botocore.exceptions.ClientError) -> str:
    return str(error.response["Error"]["Code"])
