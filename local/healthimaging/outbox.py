"""Events for EventBridge (devguide: "Using Amazon EventBridge with HealthImaging").

An event is written in the transaction of the change that it tells of, and published afterwards by one thread:
a change that happened is told, also when the cloud is killed in between (then perhaps twice, as EventBridge
itself may).
"""

from __future__ import annotations

import json
import logging
import sqlite3
import threading
from typing import Any

from local.healthimaging.database import Database
from local.healthimaging.errors import failure_place
from local.service import Cloud

_log = logging.getLogger(__name__)

IMAGING_VERSION = "1.0"
_RETRY_SECONDS = 1.0


def record(
    connection: sqlite3.Connection, *, detail_type: str, detail: dict[str, Any], resource: str
) -> None:
    """Add an event to the transaction. `resource` is the ARN that the event is about."""
    connection.execute(
        "INSERT INTO outbox (detail_type, detail, resource) VALUES (?, ?, ?)",
        (detail_type, json.dumps({"imagingVersion": IMAGING_VERSION, **detail}), resource),
    )


def record_datastore(
    connection: sqlite3.Connection, *, detail_type: str, datastore_id: str, name: str, status: str, arn: str
) -> None:
    """ "Data Store Created" and its like."""
    detail = {"datastoreId": datastore_id, "datastoreName": name, "datastoreStatus": status}
    record(connection, detail_type=detail_type, detail=detail, resource=arn)


def record_image_set(
    connection: sqlite3.Connection,
    *,
    detail_type: str,
    datastore_id: str,
    image_set_id: str,
    version: int,
    is_primary: bool,
    state: str,
    workflow_status: str,
    arn: str,
    source_arn: str | None = None,
) -> None:
    """ "Image Set Created" and its like. AWS writes `imagesetId` with a lower-case s, and the version as a
    string."""
    detail: dict[str, Any] = {
        "isPrimary": is_primary,
        "imageSetVersion": str(version),
        "datastoreId": datastore_id,
        "imagesetId": image_set_id,
        "imageSetState": state,
        "imageSetWorkflowStatus": workflow_status,
    }
    if source_arn is not None:
        detail["sourceImageSetArn"] = source_arn
    record(connection, detail_type=detail_type, detail=detail, resource=arn)


class Publisher:
    """Publishes what the outbox holds, in order, from a thread of its own."""

    def __init__(self, database: Database, cloud: Cloud) -> None:
        self._database = database
        self._cloud = cloud
        self._wake = threading.Event()
        self._stopping = False
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin, with what an earlier process left unpublished."""
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="healthimaging-events", daemon=True)
        self._thread.start()
        self.wake()

    def stop(self) -> None:
        """End after the event at hand; the others are published after the next start."""
        self._stopping = True
        self._wake.set()
        if self._thread is not None:
            self._thread.join(timeout=10)

    def wake(self) -> None:
        """Say that a transaction with events was committed."""
        self._wake.set()

    def _run(self) -> None:
        while not self._stopping:
            self._wake.wait()
            self._wake.clear()
            while not self._stopping and self._publish_next_or_wait():
                pass

    def _publish_next_or_wait(self) -> bool:
        """Whether there may be more; where the event could not be published or taken off, it stays."""
        try:
            return self._publish_next()
        except Exception as error:  # noqa: BLE001 - a full disk, a bus that does not answer: tried again
            _log.error("An event waits to be published: %s", failure_place(error))
            threading.Event().wait(_RETRY_SECONDS)
            return True

    def _publish_next(self) -> bool:
        row = self._database.reader().execute("SELECT * FROM outbox ORDER BY position LIMIT 1").fetchone()
        if row is None:
            return False
        self._cloud.publish(
            source="aws.medical-imaging",
            detail_type=row["detail_type"],
            detail=json.loads(row["detail"]),
            resources=[row["resource"]],
        )
        with self._database.transaction() as connection:
            connection.execute("DELETE FROM outbox WHERE position = ?", (row["position"],))
        return True
