"""Reconcile function: finds image sets that should have been dispatched and were not, and dispatches them.

Started by a schedule. It searches the primary image sets that changed in the last days, oldest first, and
compares them with what the dispatch function has recorded (`runtime/functions/dispatch/decisions.py`): a list
of keys, no metadata. What nobody has decided about goes through the same code as an event would, with the
same idempotence, so that events which are only late do no harm.

A run does as much as its time allows and at most `MOST` image sets, and records how far it came: the next
one goes on there, and the one that comes to the end lets the next begin anew. So neither an archive in which
the search alone takes longer than a run, nor image sets that fail again and again, keep the others from being
found.

Nothing is dispatched that changed before the event path was there: the first run records from when on it
looks (one period of the schedule before itself).

Environment: that of the dispatch function, and
    DATASTORE_ID: Of the archive.
    EVERY_SECONDS: The period of the schedule.
    AFTER_SECONDS: Age of a change from which on its event should have been worked off.
    DAYS: How far it looks back. Less than what is recorded is kept (30 days).
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import boto3

from healthimaging.client import connect
from healthimaging.errors import HealthImagingError
from runtime.functions.batches.batch import RESERVE_SECONDS, seconds_left
from runtime.functions.batches.errors import FunctionError, describe
from runtime.functions.batches.metric import emit
from runtime.functions.dispatch.decisions import Decided, Decisions
from runtime.functions.dispatch.dispatcher import Dispatcher
from runtime.functions.dispatch.errors import RunUnderWayError
from runtime.functions.dispatch.handler import dispatcher_of
from runtime.functions.dispatch.rules import read_routes
from runtime.functions.image_sets.events import ImageSetEvent
from runtime.functions.image_sets.searching import image_sets_by

logger = logging.getLogger(__name__)
logger.setLevel(logging.INFO)

NAMESPACE = "MONAI/Events"
MISSED = "MissedRuns"
"""Metric: requests that no event led to. By FunctionName."""

MOST = 200
"""Undecided image sets in one run: with a third of a second each, about a minute."""


class ReconcileError(FunctionError):
    """Image sets that were missed could not be dispatched; the log names them. The next run tries again."""


@dataclass(frozen=True, kw_only=True)
class Window:
    """Changes that are looked at."""

    start: datetime
    end: datetime


@dataclass(kw_only=True)
class Report:
    """What a run has found."""

    undecided: int = 0
    """Image sets about which nobody had decided."""
    missed: int = 0
    """Requests that were sent for them."""
    failed: int = 0
    complete: bool = True
    """False: there was more to do than time."""


@dataclass(frozen=True, kw_only=True)
class Found:
    """A primary image set, as the search shows it."""

    image_set_id: str
    version: str
    """The latest."""
    changed: datetime


def handle(event: dict[str, Any], context: Any) -> dict[str, Any]:
    """Lambda handler for a schedule of EventBridge; the event says nothing of interest.

    Returns:
        The fields of `Report`.

    Raises:
        ReconcileError: Something of what was missed could not be dispatched.
    """
    variables = os.environ
    if not read_routes(variables["DISPATCH_ROUTES"]):
        # Without rules nothing can have been missed.
        return vars(Report())
    s3, medical_imaging = boto3.client("s3"), connect()
    decisions = Decisions(s3=s3, bucket=variables["RESULT_BUCKET"], prefix=variables["REQUEST_PREFIX"])
    datastore_id = variables["DATASTORE_ID"]
    decided = decisions.of(datastore_id)
    now = datetime.now(UTC)
    since = decided.since or now - timedelta(seconds=int(variables["EVERY_SECONDS"]))
    decisions.keep(datastore_id, since=since, resume=decided.resume)
    window = Window(
        start=max(since, now - timedelta(days=int(variables["DAYS"])), decided.resume or since),
        end=now - timedelta(seconds=int(variables["AFTER_SECONDS"])),
    )
    report, resume = reconcile(
        changed(medical_imaging, datastore_id, window),
        datastore_id=datastore_id,
        decided=decided,
        dispatcher=dispatcher_of(variables, medical_imaging=medical_imaging, s3=s3),
        context=context,
    )
    decisions.keep(datastore_id, since=since, resume=resume)
    logger.info(
        "reconciled: %d image sets undecided, %d requests sent, %d failed, %s",
        report.undecided,
        report.missed,
        report.failed,
        "all seen" if report.complete else "the next run goes on",
    )
    emit(MISSED, report.missed, namespace=NAMESPACE, function=context.function_name)
    if report.failed:
        msg = f"{report.failed} image sets could not be dispatched"
        raise ReconcileError(msg)
    return vars(report)


def changed(medical_imaging: Any, datastore_id: str, window: Window) -> Iterator[Found]:
    """The primary image sets that changed in the window, oldest first."""
    if window.start >= window.end:
        return
    for summary in image_sets_by(
        medical_imaging, datastore_id, by="updatedAt", start=window.start, end=window.end
    ):
        if summary.get("isPrimary"):
            yield Found(
                image_set_id=summary["imageSetId"],
                version=str(summary["version"]),
                changed=summary["updatedAt"],
            )


def reconcile(
    found: Iterable[Found], *, datastore_id: str, decided: Decided, dispatcher: Dispatcher, context: Any
) -> tuple[Report, datetime | None]:
    """Dispatch those that nobody has decided about, as far as the time allows.

    Returns:
        The report, and from which change on the next run has to look; None: from the beginning.
    """
    report = Report()
    for one in found:
        # Asked for each, decided or not: searching takes time, too.
        if report.undecided == MOST or seconds_left(context) < RESERVE_SECONDS:
            report.complete = False
            return report, one.changed
        if decided.has(one.image_set_id, one.version):
            continue
        report.undecided += 1
        # With its version: if it has grown since the search, the event of what came is on its way.
        event = ImageSetEvent(
            datastore_id=datastore_id, image_set_id=one.image_set_id, version=int(one.version)
        )
        try:
            report.missed += dispatcher.dispatch(event).sent
        except RunUnderWayError:
            # Its event was late, not lost.
            logger.info("being dispatched: %s", event.subject)
        # One image set that cannot be dispatched must not keep the others from it.
        except Exception as error:  # noqa: BLE001 - counted, and raised when the others are done
            report.failed += 1
            said = describe(error, speaking=(HealthImagingError,))
            logger.error("reconciling failed: %s, %s", event.subject, said)
    return report, None
