"""What the compact function is doing, in one object of the catalog bucket.

Before a statement starts, it stands here with its token; when it has ended, it goes. So whatever happens to
an invocation, the next one knows which statement may be running, and starting it once more with the same
token gives the same execution. Every change is conditional on what was read: of two invocations at once, one
goes on and the other one ends. Two statements never change a table at the same time.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from botocore.exceptions import ClientError

from runtime.functions.batches.errors import FunctionError, code_of

KEY = "compaction/progress.json"


class AnotherRunError(FunctionError):
    """Another invocation compacts at this moment."""


@dataclass(frozen=True, kw_only=True)
class Running:
    """A statement that may be running."""

    name: str
    """What it is for: "insert series"."""
    sql: str
    token: str
    execution_id: str | None = None
    """None: nobody knows whether it has been started."""


@dataclass(frozen=True, kw_only=True)
class Progress:
    """What has been done, and what is being done."""

    running: Running | None = None
    done: Mapping[str, datetime] = field(default_factory=dict)
    """When a statement last succeeded, by its name."""


class ProgressRecord:
    """The object, as this invocation has last seen or written it."""

    def __init__(self, *, s3: Any, bucket: str) -> None:
        self._s3 = s3
        self._bucket = bucket
        self._etag: str | None = None
        self.now = Progress()

    def read(self) -> None:
        """See what there is; nothing before the first run."""
        # Listed first: to a role that may list this prefix only, S3 denies an object that is not there.
        if not self._s3.list_objects_v2(Bucket=self._bucket, Prefix=KEY, MaxKeys=1).get("KeyCount"):
            self._etag, self.now = None, Progress()
            return
        found = self._s3.get_object(Bucket=self._bucket, Key=KEY)
        self._etag, self.now = found["ETag"], _progress(json.loads(found["Body"].read()))

    def begin(self, running: Running) -> None:
        """Note a statement before it starts, or the execution that it has become.

        Raises:
            AnotherRunError: Another invocation has written since this one has read.
        """
        self._write(replace(self.now, running=running))

    def end(self, *, at: datetime | None) -> None:
        """Note that the running statement has ended.

        Args:
            at: When it succeeded; None if it did not.
        """
        running = self.now.running
        done = dict(self.now.done)
        if running is not None and at is not None:
            done[running.name] = at
        self._write(Progress(running=None, done=done))

    def _write(self, progress: Progress) -> None:
        condition = {"IfNoneMatch": "*"} if self._etag is None else {"IfMatch": self._etag}
        try:
            answer = self._s3.put_object(
                Bucket=self._bucket,
                Key=KEY,
                Body=_document(progress),
                ContentType="application/json",
                **condition,
            )
        except ClientError as error:
            if code_of(error) in ("PreconditionFailed", "ConditionalRequestConflict"):
                msg = "another invocation compacts at this moment"
                raise AnotherRunError(msg) from error
            raise
        self._etag, self.now = answer["ETag"], progress


def _document(progress: Progress) -> bytes:
    running = progress.running
    return json.dumps(
        {
            "running": None if running is None else vars(running),
            "done": {name: at.isoformat() for name, at in progress.done.items()},
        }
    ).encode()


def _progress(document: Mapping[str, Any]) -> Progress:
    running = document["running"]
    return Progress(
        running=None if running is None else Running(**running),
        done={name: datetime.fromisoformat(at) for name, at in document["done"].items()},
    )
