"""Image sets as the datastore's search shows them, in windows that one run can compare."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from runtime.functions.image_sets.searching import Moment, image_sets_by


@dataclass(frozen=True, kw_only=True)
class Listed:
    """An image set, as the search shows it."""

    version: int
    """The latest."""
    created: datetime
    updated: datetime

    def at(self, moment: Moment) -> datetime:
        """One of its moments."""
        return self.created if moment == "createdAt" else self.updated


@dataclass(frozen=True, kw_only=True)
class Window:
    """All image sets whose moment is in a part of time, in whole seconds: requests carry no more.

    Attributes:
        start: Included.
        end: Excluded where the window is not complete.
        complete: False: later ones have not been looked at.
    """

    by: Moment
    start: datetime
    end: datetime
    image_sets: Mapping[str, Listed]
    complete: bool


def window(
    medical_imaging: Any,
    datastore_id: str,
    *,
    by: Moment,
    start: datetime,
    end: datetime,
    most: int,
    stop: Callable[[], bool],
) -> Window:
    """Read image sets from `start` on, oldest first, until `end`, or until there are `most`, or until `stop`.

    All of one second are in the same window, and the next one begins with the second that ended this one.
    What is updated meanwhile is found at the end of the order by `updatedAt`.
    """
    start, end = whole_seconds(start), whole_seconds(end)
    found: dict[str, Listed] = {}
    second = start
    for summary in image_sets_by(medical_imaging, datastore_id, by=by, start=start, end=end):
        this = whole_seconds(summary[by])
        if this > second > start and (len(found) >= most or stop()):
            before = {id: one for id, one in found.items() if whole_seconds(one.at(by)) < second}
            return Window(by=by, start=start, end=second, image_sets=before, complete=False)
        second = max(second, this)
        found[summary["imageSetId"]] = Listed(
            version=int(summary["version"]), created=summary["createdAt"], updated=summary["updatedAt"]
        )
    return Window(by=by, start=start, end=end, image_sets=found, complete=True)


def whole_seconds(moment: datetime) -> datetime:
    """The second that a moment is in, UTC."""
    return moment.astimezone(UTC).replace(microsecond=0)
