"""What the catalog's reconcile function compares: a datastore, the catalog, and the queue between them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from typing import Any

from catalog_world import DATASTORE, START, World, Written
from catalog_world import run as compact

from infra.catalog.tables import CHANGE_TABLES
from runtime.functions.catalog_queries.queries import Queries
from runtime.functions.image_sets.events import image_set_event
from runtime.functions.reconcile_catalog.catalog import Catalog
from runtime.functions.reconcile_catalog.handler import Reconciliation, Report

MINUTE = timedelta(minutes=1)
ROWS = (("CT", date(2023, 5, 1)),)


@dataclass(kw_only=True)
class ImageSet:
    """An image set of the datastore."""

    id: str
    created: datetime
    version: int = 1
    updated: datetime | None = None


@dataclass(kw_only=True)
class Datastore:
    """SearchImageSets, 50 a page, whole seconds in requests as botocore writes them."""

    image_sets: dict[str, ImageSet] = field(default_factory=dict)
    pages: int = 0

    def get_paginator(self, operation: str) -> Datastore:
        assert operation == "search_image_sets"
        return self

    def paginate(self, **params: Any) -> Iterator[dict[str, Any]]:
        (only,) = params["searchCriteria"]["filters"]
        by = params["searchCriteria"]["sort"]["sortField"]
        start, end = (value[by].replace(microsecond=0) for value in only["values"])
        found = [
            summary
            for one in self.image_sets.values()
            for summary in [
                {
                    "imageSetId": one.id,
                    "version": one.version,
                    "createdAt": one.created,
                    "updatedAt": one.updated or one.created,
                }
            ]
            if start <= summary[by] <= end
        ]
        found.sort(key=lambda summary: summary[by])
        size = params["PaginationConfig"]["PageSize"]
        assert size == 50
        for place in range(0, max(len(found), 1), size):
            self.pages += 1
            yield {"imageSetsMetadataSummaries": found[place : place + size]}


@dataclass(kw_only=True)
class Queue:
    """The index function's queue."""

    messages: list[str] = field(default_factory=list)
    refuses: bool = False

    def send_message_batch(self, **params: Any) -> dict[str, Any]:
        assert len(params["Entries"]) <= 10
        if self.refuses:
            return {"Failed": [{"Id": one["Id"], "Code": "Throttled"} for one in params["Entries"]]}
        self.messages += [one["MessageBody"] for one in params["Entries"]]
        return {}

    def asked(self) -> list[str]:
        """The image sets of the messages, as the index function reads them."""
        events = [image_set_event(message) for message in self.messages]
        assert {event.datastore_id for event in events} <= {DATASTORE}
        return sorted(event.image_set_id for event in events)


@dataclass(kw_only=True)
class Setting:
    """All of it."""

    world: World = field(default_factory=World)
    datastore: Datastore = field(default_factory=Datastore)
    queue: Queue = field(default_factory=Queue)

    def add(
        self, number: int, *, version: int = 1, indexed: int | None = 1, at: datetime | None = None
    ) -> str:
        """An image set, and the version that the catalog has of it."""
        id = f"{number:032d}"
        created = at or START + number * timedelta(seconds=7, milliseconds=123)
        self.datastore.image_sets[id] = ImageSet(id=id, created=created, version=version)
        for table in CHANGE_TABLES if indexed else ():
            self.world.write(table, Written(image_set_id=id, version=indexed or 0, rows=ROWS, at=created))
        return id

    def run(self, *, context: Any = None) -> Report:
        """One run."""
        run = self.reconciliation(context=context)
        run.work()
        return run.report

    def reconciliation(self, *, context: Any = None) -> Reconciliation:
        return Reconciliation(
            medical_imaging=self.datastore,
            s3=self.world,
            sqs=self.queue,
            catalog=Catalog(
                queries=Queries(
                    athena=self.world,
                    workgroup="w",
                    database="d",
                    context=context,
                    sleep=lambda seconds: None,
                ),
                datastore_id=DATASTORE,
            ),
            bucket="catalog",
            queue_url="https://queue",
            after=15 * MINUTE,
            clock=lambda: self.world.now,
        )


def compacted(setting: Setting) -> None:
    """All that was written is in the compacted tables, and nowhere else."""
    compact(setting.world)
    setting.world.later(timedelta(hours=1))
    compact(setting.world)
    assert not setting.world.changes


class Context:
    """An invocation that has time for so many looks at the clock."""

    function_name = "reconcile-catalog"

    def __init__(self, *, looks: int) -> None:
        self.looks = looks

    def get_remaining_time_in_millis(self) -> int:
        self.looks -= 1
        return 900_000 if self.looks > 0 else 149_000
