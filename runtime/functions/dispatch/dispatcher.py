"""Decides where an image set goes, and sends it there.

A study arrives in parts: an import job, or a C-STORE, after the other, each of which makes a new version of
an image set and announces it. Each event waits in the queue for the quiet period (the queue's delivery delay)
and then stands for its own version. If a later version is there by then, and is younger than the period, the
event is passed over: the later one's own event still waits. So the event that starts a run is the last one,
of images that were left alone for the period, and the run is on the whole.

It would be simpler to ask only how old the latest change is. But its own event comes exactly one period after
it, and clocks that differ by a moment would make it pass itself over. Asked by version, it never does.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from healthimaging.reference import ImageSetRef
from runtime.functions.dispatch.decisions import Decisions
from runtime.functions.dispatch.images import candidate_series, images_digest
from runtime.functions.dispatch.rules import Route, destinations
from runtime.functions.dispatch.runs import Requests, Run
from runtime.functions.image_sets.events import ImageSetEvent
from runtime.functions.image_sets.reading import latest, metadata_of

logger = logging.getLogger(__name__)
logger.setLevel(logging.INFO)


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of an event."""

    settled: bool
    """Nothing is left to do about the image set as it is. False: another event of it will come."""
    sent: int = 0
    """Requests that were sent now."""


class Dispatcher:
    """Sends image sets to the endpoints that the rules name."""

    def __init__(
        self,
        *,
        routes: Sequence[Route],
        medical_imaging: Any,
        requests: Requests,
        decisions: Decisions,
        quiet: timedelta,
    ) -> None:
        self._routes = routes
        self._medical_imaging = medical_imaging
        self._requests = requests
        self._decisions = decisions
        self._quiet = quiet
        for route in routes:
            if not route.is_open:
                logger.info("rule %s: endpoint %s is not deployed", route.rule.name, route.endpoint)

    def dispatch(self, event: ImageSetEvent) -> Outcome:
        """Send the image set's latest version wherever it belongs and has not been sent.

        Raises:
            RunUnderWayError: Another invocation is at it.
            runtime.functions.image_sets.reading.MetadataTooLargeError: Its headers do not fit in here.
        """
        properties = latest(self._medical_imaging, event.datastore_id, event.image_set_id)
        if properties is None or not properties.get("isPrimary"):
            return self._gone(event)
        image_set = ImageSetRef(
            datastore_id=event.datastore_id,
            image_set_id=event.image_set_id,
            version_id=str(properties["versionId"]),
        )
        if self._is_growing(event, image_set, changed=properties["updatedAt"]):
            logger.info(
                "passed over: image set %s, version %s, is growing: the event of version %s will come",
                event.image_set_id,
                event.version,
                image_set.version_id,
            )
            return Outcome(settled=False)
        if not any(route.is_open for route in self._routes):
            logger.info("not dispatched: image set %s, no endpoint is deployed", event.image_set_id)
            return self._decided(image_set)
        metadata = metadata_of(self._medical_imaging, image_set)
        if metadata is None:
            return self._gone(event)
        found = destinations(candidate_series(metadata), self._routes)
        if not found:
            logger.info("not dispatched: image set %s, no rule matches", event.image_set_id)
            return self._decided(image_set)
        images = images_digest(metadata)
        sent = [self._send(image_set, images=images, route=route) for route in found]
        return self._decided(image_set, routes=found, sent=sum(sent))

    def _is_growing(self, event: ImageSetEvent, image_set: ImageSetRef, *, changed: datetime) -> bool:
        """Whether another event of the image set still waits in the queue, of a later version."""
        if event.version is None or event.version >= int(image_set.version_id or 0):
            return False
        return datetime.now(UTC) - changed < self._quiet

    def _gone(self, event: ImageSetEvent) -> Outcome:
        logger.info("not dispatched: image set %s is gone, or not primary", event.image_set_id)
        return Outcome(settled=True)

    def _decided(self, image_set: ImageSetRef, *, routes: Sequence[Route] = (), sent: int = 0) -> Outcome:
        self._decisions.note(image_set, endpoints=[route.endpoint for route in routes])
        return Outcome(settled=True, sent=sent)

    def _send(self, image_set: ImageSetRef, *, images: str, route: Route) -> bool:
        run = Run(image_set=image_set, images=images, endpoint=route.endpoint, model=route.model)
        sent = self._requests.send(run)
        logger.info(
            "%s: image set %s, version %s, rule %s, endpoint %s, run %s",
            "dispatched" if sent else "dispatched before",
            image_set.image_set_id,
            image_set.version_id,
            route.rule.name,
            route.endpoint,
            run.id,
        )
        return sent
