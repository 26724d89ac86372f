"""The paths that events take through the platform, as they are watched."""

from __future__ import annotations

from infra.catalog.index_path import IndexPath
from infra.inference.announcements import Announcements
from infra.inference.event_path import EventPath
from infra.observability.queues import WorkQueue
from infra.promotion.intake import Intake

_LATE_SECONDS = 900


def watched_paths(
    *,
    index: IndexPath,
    dispatch: EventPath | None,
    quiet_seconds: int,
    announcements: Announcements | None,
    candidates: Intake | None,
) -> list[WorkQueue]:
    """Into the catalog; where the environment has rules, to endpoints; where it has asynchronous endpoints,
    from them to whoever waits for results; where there is an environment before it, from its approved models
    to candidates.

    Args:
        quiet_seconds: What every message to the dispatch function waits in any case.
    """
    paths = [
        WorkQueue(
            id="Index",
            title="Index",
            text="Every image set that arrives, changes or goes is a message; the function brings the "
            "catalog up to date.",
            queue=index.queue,
            dead_letters=index.dead_letters,
            function=index.function,
            late_seconds=_LATE_SECONDS,
            consequence="queries miss image sets",
        )
    ]
    if dispatch is not None:
        paths.append(
            WorkQueue(
                id="Dispatch",
                title="Dispatch",
                text="Every new image set is a message; the function sends those that a rule names to their "
                "endpoint.",
                queue=dispatch.queue,
                dead_letters=dispatch.dead_letters,
                function=dispatch.function,
                late_seconds=quiet_seconds + _LATE_SECONDS,
                consequence="arriving studies get no result",
            )
        )
    if announcements is not None:
        paths.append(
            WorkQueue(
                id="Announce",
                title="Announce",
                text="Every asynchronous inference that ends is a message; the function says on the event "
                "bus what came of it.",
                queue=announcements.queue,
                dead_letters=announcements.dead_letters,
                function=announcements.function,
                late_seconds=_LATE_SECONDS,
                consequence="whoever waits for results is not told of them",
            )
        )
    if candidates is not None:
        paths.append(
            WorkQueue(
                id="Candidates",
                title="Candidates",
                text=f"Every model that {candidates.before.name} approves is a message; the function makes a "
                "candidate of it.",
                queue=candidates.queue,
                dead_letters=candidates.dead_letters,
                function=candidates.function,
                late_seconds=_LATE_SECONDS,
                consequence=f"models that {candidates.before.name} approved are missing here",
            )
        )
    return paths
