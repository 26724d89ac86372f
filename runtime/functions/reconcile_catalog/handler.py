"""Reconcile function of the catalog: finds image sets that the catalog does not have as they are, and sends
them to the index function's queue.

Started by a schedule. A run looks at what has changed since the last one, and then goes on with a comparison
of the whole datastore, in windows of the time of creation; when one comes to the end, the next run begins
anew. Of each window it takes the image sets from the search (50 a page, no metadata) and the versions from
the catalog. Three things are sent: an image set that one of the tables does not have, one that a table has in
an older version, and one whose rows people see and that the datastore has no more. Of rows that do not say
when the image set was created, nobody can tell here whether it is gone: they are sent at the end of each
comparison, and are no part of the metric.

Where Athena cannot read a change object, that is put in order first (`damage.py`), and counts as missed.

Invoked by a person with `{"indexedBefore": "2026-11-01T00:00:00Z"}` it does something else: it has all image
sets indexed again whose rows are older than that, for columns that the index function did not know then.

A message has the form of HealthImaging's own events. The index function reads what the datastore has now, so
a message too many does no harm.

Environment:
    CATALOG_BUCKET: Keeps how far it came.
    DATABASE, WORKGROUP: Of Athena.
    DATASTORE_ID: Of the archive.
    QUEUE_URL: Of the index function.
    AFTER_SECONDS: Age of a change from which on its event should have been worked off.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import boto3

from healthimaging.client import connect
from runtime.functions.batches.batch import RESERVE_SECONDS, seconds_left
from runtime.functions.batches.errors import FunctionError
from runtime.functions.batches.metric import emit
from runtime.functions.catalog_queries.queries import OutOfTimeError, Queries, QueryFailedError
from runtime.functions.image_sets.searching import Moment
from runtime.functions.reconcile_catalog.catalog import Catalog
from runtime.functions.reconcile_catalog.cursor import Cursor, read_cursor, write_cursor
from runtime.functions.reconcile_catalog.damage import remove_damaged
from runtime.functions.reconcile_catalog.datastore import Window, whole_seconds, window

logger = logging.getLogger(__name__)
logger.setLevel(logging.INFO)

NAMESPACE = "MONAI/Catalog"
MISSED = "MissedImageSets"
"""Metric: image sets that the catalog did not have as they are. By FunctionName."""

MOST = 5000
"""Image sets in a window, some more where many were created in one second."""

_FOR_ATHENA_SECONDS = 120.0
"""What a run keeps of its time for the queries about a window."""

_MOST_DAMAGED = 20
"""Objects that a run puts in order. More are no accident of single objects."""

_BEGINNING = datetime(2023, 1, 1, tzinfo=UTC)
"""Before HealthImaging's first day: there is no older image set."""

_A_CALL = 10
"""The most messages that SendMessageBatch takes."""


class MomentError(FunctionError):
    """`indexedBefore` is no moment."""


class SendError(FunctionError):
    """The queue did not take messages. The next run finds the same image sets again."""


@dataclass(kw_only=True)
class Report:
    """What a run has found."""

    compared: int = 0
    """Image sets of the datastore."""
    missed: int = 0
    """Those that the catalog did not have, or in an older version."""
    gone: int = 0
    """Those that only the catalog has."""
    damaged: int = 0
    """Change objects that Athena could not read."""
    again: int = 0
    """Those that are indexed again because somebody asked for it."""
    complete: bool = True
    """False: the next run goes on with the comparison."""


def handle(event: dict[str, Any], context: Any) -> dict[str, Any]:
    """Lambda handler for a schedule of EventBridge, whose event says nothing of interest, and for a person.

    Args:
        event: With `indexedBefore`, an ISO 8601 moment with its zone, from a person.
        context: Lambda's context.

    Returns:
        The fields of `Report`.

    Raises:
        MomentError: `indexedBefore` is no moment.
        SendError: The queue did not take messages.
        QueryFailedError: Athena could not say what the catalog has.
    """
    variables = os.environ
    before = _moment(event["indexedBefore"]) if "indexedBefore" in event else None
    run = Reconciliation(
        medical_imaging=connect(),
        s3=boto3.client("s3"),
        sqs=boto3.client("sqs"),
        catalog=Catalog(
            queries=Queries(
                athena=boto3.client("athena"),
                workgroup=variables["WORKGROUP"],
                database=variables["DATABASE"],
                context=context,
            ),
            datastore_id=variables["DATASTORE_ID"],
        ),
        bucket=variables["CATALOG_BUCKET"],
        queue_url=variables["QUEUE_URL"],
        after=timedelta(seconds=int(variables["AFTER_SECONDS"])),
    )
    if before is not None:
        run.index_again(before)
        logger.info(
            "sent to be indexed again: %d image sets, %s",
            run.report.again,
            "all sent" if run.report.complete else "ask again for the rest",
        )
        return vars(run.report)
    try:
        run.work()
    finally:
        # Also of a run that fails: what it has sent was missed.
        found = run.report.missed + run.report.gone + run.report.damaged
        emit(MISSED, found, namespace=NAMESPACE, function=context.function_name)
    logger.info(
        "reconciled: %d image sets compared, %d missed, %d gone, %d objects damaged, %s",
        run.report.compared,
        run.report.missed,
        run.report.gone,
        run.report.damaged,
        "all compared" if run.report.complete else "the next run goes on",
    )
    return vars(run.report)


class Reconciliation:
    """One run."""

    def __init__(
        self,
        *,
        medical_imaging: Any,
        s3: Any,
        sqs: Any,
        catalog: Catalog,
        bucket: str,
        queue_url: str,
        after: timedelta,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self.report = Report()
        self._medical_imaging = medical_imaging
        self._s3 = s3
        self._sqs = sqs
        self._catalog = catalog
        self._bucket = bucket
        self._queue_url = queue_url
        self._end = whole_seconds(clock() - after)

    def work(self) -> None:
        """Do as much as the time allows."""
        while True:
            try:
                self._go_on()
            except QueryFailedError as error:
                if self.report.damaged == _MOST_DAMAGED or not self._put_in_order(error):
                    raise
            else:
                return

    def index_again(self, before: datetime) -> None:
        """Have all image sets indexed whose rows were written before a moment.

        Who asks again before the queue is worked off sends them again, which does no harm.
        """
        try:
            wanted = sorted(self._catalog.written_before(before))
            for start in range(0, len(wanted), _A_CALL):
                self._hurry()
                batch = wanted[start : start + _A_CALL]
                self._send(batch)
                self.report.again += len(batch)
        except OutOfTimeError as reason:
            logger.info("stopped: %s", reason)
            self.report.complete = False

    def _put_in_order(self, error: QueryFailedError) -> bool:
        change = remove_damaged(error, s3=self._s3, bucket=self._bucket)
        if change is None:
            return False
        self.report.damaged += 1
        if change.datastore_id == self._catalog.datastore_id:
            self._send([change.image_set_id])
        return True

    def _go_on(self) -> None:
        """From where the last run, or this one, has come to."""
        try:
            self._hurry()
            cursor = read_cursor(s3=self._s3, bucket=self._bucket)
            if cursor.updated is None:
                # The first run compares everything, and has nothing to look back to.
                cursor = self._advance(replace(cursor, updated=self._end))
            for seen in self._windows("updatedAt", start=cursor.updated or self._end):
                cursor = self._advance(replace(cursor, updated=seen.end))
            for seen in self._windows("createdAt", start=cursor.created or _BEGINNING):
                if seen.complete:
                    # No window has them. Whether they are gone, the index function finds out.
                    self._send(sorted(self._catalog.undated()), seen)
                cursor = self._advance(replace(cursor, created=None if seen.complete else seen.end))
        except OutOfTimeError as reason:
            logger.info("stopped: %s", reason)
            self.report.complete = False

    def _windows(self, by: Moment, *, start: datetime) -> Iterator[Window]:
        """Windows that have been compared, and whose differences are in the queue."""
        complete = start >= self._end
        while not complete:
            self._hurry()
            seen = window(
                self._medical_imaging,
                self._catalog.datastore_id,
                by=by,
                start=start,
                end=self._end,
                most=MOST,
                stop=self._late,
            )
            self._compare(seen)
            yield seen
            start, complete = seen.end, seen.complete

    def _compare(self, seen: Window) -> None:
        # What has changed since may be on its way.
        due = {id: one.version for id, one in seen.image_sets.items() if one.updated <= self._end}
        known = self._catalog.versions(seen)
        missed = [id for id, version in due.items() if known.get(id, 0) < version]
        if missed:
            # Few, and asked for again by name: rows without the moment are no reason for an alarm.
            known = self._catalog.versions_of(missed)
            missed = [id for id in missed if known.get(id, 0) < due[id]]
        # What was updated in the window and again since is in a later one: only the time of creation says
        # that an image set is gone.
        gone = self._catalog.shown(seen) - set(seen.image_sets) if seen.by == "createdAt" else set()
        self._send([*missed, *sorted(gone)], seen)
        self.report.compared += len(seen.image_sets)
        self.report.missed += len(missed)
        self.report.gone += len(gone)

    def _send(self, image_set_ids: Sequence[str], seen: Window | None = None) -> None:
        for start in range(0, len(image_set_ids), _A_CALL):
            batch = image_set_ids[start : start + _A_CALL]
            answer = self._sqs.send_message_batch(
                QueueUrl=self._queue_url,
                Entries=[
                    {"Id": str(place), "MessageBody": self._message(one, seen)}
                    for place, one in enumerate(batch)
                ],
            )
            if failed := answer.get("Failed"):
                msg = f"the queue did not take {len(failed)} of {len(batch)} messages: {failed[0]['Code']}"
                raise SendError(msg)
            for one in batch:
                logger.info("sent to be indexed: image set %s", one)

    def _message(self, image_set_id: str, seen: Window | None) -> str:
        """In the form of HealthImaging's events (runtime/functions/image_sets/events.py)."""
        detail = {"datastoreId": self._catalog.datastore_id, "imageSetId": image_set_id}
        listed = seen.image_sets.get(image_set_id) if seen is not None else None
        if listed is not None:
            detail["imageSetVersion"] = str(listed.version)
        return json.dumps(
            {"source": "monai.catalog", "detail-type": "Image Set Not In Catalog", "detail": detail}
        )

    def _advance(self, cursor: Cursor) -> Cursor:
        write_cursor(cursor, s3=self._s3, bucket=self._bucket)
        return cursor

    def _hurry(self) -> None:
        if self._late():
            msg = "no time left for another window"
            raise OutOfTimeError(msg)

    def _late(self) -> bool:
        return seconds_left(self._catalog.queries.context) < RESERVE_SECONDS + _FOR_ATHENA_SECONDS


def _moment(text: object) -> datetime:
    try:
        moment = datetime.fromisoformat(str(text))
    except ValueError:
        moment = None
    if moment is None or moment.tzinfo is None:
        msg = "indexedBefore is no moment with its zone: write it as 2026-11-01T00:00:00Z"
        raise MomentError(msg)
    return moment
