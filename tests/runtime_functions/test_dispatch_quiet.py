"""A study that arrives in parts is run once, on the whole: events of versions that are still growing."""

from __future__ import annotations

import itertools
import json
import logging
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest
from dispatch_documents import DATASTORE, IMAGE_SET, Bucket, Datastore, Endpoints, document, route

from runtime.functions.dispatch.decisions import Decisions
from runtime.functions.dispatch.dispatcher import Dispatcher
from runtime.functions.dispatch.rules import read_routes
from runtime.functions.dispatch.runs import Requests
from runtime.functions.image_sets.events import ImageSetEvent

QUIET = timedelta(seconds=60)


class World:
    """An archive, a bucket, an endpoint, and the function between them."""

    def __init__(self) -> None:
        self.datastore, self.bucket = Datastore(), Bucket()
        self.endpoints = Endpoints(self.bucket)
        self.dispatcher = Dispatcher(
            routes=read_routes(json.dumps([route()])),
            medical_imaging=self.datastore,
            requests=Requests(
                s3=self.bucket, sagemaker_runtime=self.endpoints, bucket="results", prefix="requests/"
            ),
            decisions=Decisions(s3=self.bucket, bucket="results", prefix="requests/"),
            quiet=QUIET,
        )

    def grow(self, *, images: int, ago: timedelta) -> None:
        self.datastore.add_version(document(images=images))
        self.datastore.changed = datetime.now(UTC) - ago

    def event(self, version: int | None) -> bool:
        """Whether the image set is settled after the event of a version."""
        event = ImageSetEvent(datastore_id=DATASTORE, image_set_id=IMAGE_SET, version=version)
        return self.dispatcher.dispatch(event).settled

    @property
    def sent(self) -> list[str]:
        return [request["versionId"] for request in self.endpoints.requests]

    @property
    def decided(self) -> list[str]:
        return self.bucket.under(f"requests/decided/{DATASTORE}/{IMAGE_SET}/")


@pytest.fixture
def world() -> World:
    return World()


def test_the_first_part_waits_for_the_second(world: World, caplog: pytest.LogCaptureFixture) -> None:
    world.grow(images=5, ago=timedelta(seconds=40))
    with caplog.at_level(logging.INFO):
        assert not world.event(1)
    assert not world.sent
    assert not world.decided
    assert "is growing: the event of version 2 will come" in caplog.text
    # Its own event comes exactly after the period, by a clock that may be a moment behind.
    world.datastore.changed = datetime.now(UTC) - QUIET + timedelta(seconds=0.2)
    assert world.event(2)
    assert world.sent == ["2"]
    assert world.decided == ["2"]


def test_an_event_that_is_late_is_acted_on_with_the_whole(world: World) -> None:
    """The later version's event may have been lost: it is due, and has not been seen."""
    world.grow(images=5, ago=QUIET + timedelta(seconds=1))
    assert world.event(1)
    assert world.sent == ["2"]
    assert world.event(2)
    assert world.sent == ["2"]


@pytest.mark.parametrize("version", [None, 2, 3], ids=["of no version", "the latest", "of the future"])
def test_events_that_nothing_follows_are_never_passed_over(world: World, version: int | None) -> None:
    world.grow(images=5, ago=timedelta(0))
    assert world.event(version)
    assert world.sent == ["2"]


@pytest.mark.parametrize("order", list(itertools.permutations([1, 2, 3])), ids=str)
@pytest.mark.parametrize("age", [timedelta(seconds=10), timedelta(hours=1)], ids=["growing", "settled"])
def test_three_parts_in_any_order_and_twice_are_one_run_on_the_whole(
    world: World, order: tuple[int, ...], age: timedelta
) -> None:
    world.grow(images=4, ago=age)
    world.grow(images=6, ago=age)
    for version in (*order, *order):
        world.event(version)
    assert world.sent == ["3"]
    assert world.decided == ["3"]


def test_a_decision_is_recorded_only_when_all_is_done(world: World) -> None:
    world.endpoints.fails = "ThrottlingException"
    with pytest.raises(Exception, match="ThrottlingException"):
        world.event(1)
    assert not world.decided
    world.bucket.age(600)
    world.endpoints.fails = None
    assert world.event(1)
    (record,) = (world.bucket.objects[f"requests/decided/{DATASTORE}/{IMAGE_SET}/1"]["Body"],)
    assert json.loads(record) == {"endpoints": ["monai-test-lung"]}


@pytest.mark.parametrize(
    "prepare",
    [
        lambda world: world.datastore.properties.update(isPrimary=False),
        lambda world: world.datastore.properties.update(imageSetState="DELETED"),
    ],
    ids=["in conflict", "gone"],
)
def test_nothing_is_recorded_of_what_cannot_be_run(world: World, prepare: Callable[[World], None]) -> None:
    """A person may still make it primary, and then it has to be seen."""
    prepare(world)
    assert world.event(1)
    assert not world.bucket.objects
