"""The catalog's reconcile function: what the catalog has otherwise than the datastore reaches the queue."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import pytest
from catalog_world import DATASTORE, START, Refusal, Written
from comparison_world import MINUTE, ROWS, Context, Setting, compacted

from infra.catalog.tables import CHANGE_TABLES
from infra.observability.catalog_upkeep import CATALOG_METRICS
from runtime.functions.catalog_queries.change_objects import TOMBSTONE
from runtime.functions.image_sets.events import image_set_event
from runtime.functions.reconcile_catalog import handler
from runtime.functions.reconcile_catalog.handler import Report, SendError


@pytest.fixture
def setting() -> Setting:
    found = Setting()
    found.world.later(timedelta(days=1))
    return found


def test_three_hundred_image_sets_in_windows(setting: Setting, monkeypatch: pytest.MonkeyPatch) -> None:
    """Windows end in the midst of pages; each kind of difference is found in whichever window it is."""
    monkeypatch.setattr(handler, "MOST", 70)
    for number in range(300):
        setting.add(number)
    missing = [setting.add(number, indexed=None) for number in (0, 69, 70, 71, 150, 299)]
    for table in CHANGE_TABLES:
        for one in missing:
            setting.world.changes.pop(f"changes/{table}/{DATASTORE}/{one}/1.parquet", None)
    older = [setting.add(number, version=3, indexed=2) for number in (5, 140)]
    half = setting.add(200)
    del setting.world.changes[f"changes/instances/{DATASTORE}/{half}/1.parquet"]
    gone = [f"{number:032d}" for number in (1, 139, 298)]
    for one in gone:
        del setting.datastore.image_sets[one]
    report = setting.run()
    assert setting.queue.asked() == sorted([*missing, *older, half, *gone])
    assert report == Report(compared=297, missed=9, gone=3, complete=True)
    assert setting.datastore.pages > 297 / 50


def test_a_catalog_that_is_right_sends_nothing(setting: Setting) -> None:
    setting.add(1, version=4, indexed=4)
    deleted = setting.add(2)
    del setting.datastore.image_sets[deleted]
    for table in CHANGE_TABLES:
        setting.world.write(table, Written(image_set_id=deleted, version=TOMBSTONE, rows=(), at=START))
    # A version without rows is known to the catalog, too.
    empty = setting.add(3, indexed=None)
    for table in CHANGE_TABLES:
        setting.world.write(table, Written(image_set_id=empty, version=1, rows=(), at=START))
    assert setting.run() == Report(compared=2)
    assert not setting.queue.messages


def test_what_is_compacted_counts(setting: Setting) -> None:
    setting.add(1)
    setting.add(2, version=2)
    compacted(setting)
    assert setting.run().missed == 1
    assert setting.queue.asked() == [f"{2:032d}"]


def test_rows_without_moments_are_not_missed_and_their_image_sets_looked_at(setting: Setting) -> None:
    """Else each run reports them again, and a deletion that was lost stays unseen."""
    there, gone, older = setting.add(1), setting.add(2), setting.add(3, version=2)
    for table in CHANGE_TABLES:
        for id in (there, gone, older):
            undated = Written(image_set_id=id, version=1, rows=ROWS, at=START, dated=False)
            setting.world.write(table, undated)
    compacted(setting)
    del setting.datastore.image_sets[gone]
    report = setting.run()
    assert (report.missed, report.gone) == (1, 0), "the older version only"
    assert set(setting.queue.asked()) == {there, gone, older}
    events = [image_set_event(message) for message in setting.queue.messages]
    assert [event.deleted for event in events if event.image_set_id == gone] == [True], "no version of it"


def test_moments_that_the_search_gives_otherwise_are_no_difference(setting: Setting) -> None:
    there = setting.add(1)
    compacted(setting)
    setting.datastore.image_sets[there].updated = setting.world.now - timedelta(hours=1)
    report = setting.run()
    assert (report.compared, report.missed, report.gone) == (1, 0, 0)
    setting.world.later(timedelta(hours=6))
    setting.datastore.image_sets[there].updated = setting.world.now - timedelta(hours=1)
    report = setting.run()
    assert (report.compared, report.missed) == (2, 0), "as changed, and as created"
    assert not setting.queue.messages


def test_what_changed_lately_is_left_to_its_event(setting: Setting) -> None:
    now = setting.world.now
    setting.add(1, indexed=None, at=now - 14 * MINUTE)
    setting.add(2, indexed=None, at=now - 16 * MINUTE)
    changed = setting.add(3, version=2)
    setting.datastore.image_sets[changed].updated = now - MINUTE
    setting.run()
    assert setting.queue.asked() == [f"{2:032d}"]


def test_old_image_sets_that_changed_are_found_before_the_comparison_comes_to_them(
    setting: Setting, monkeypatch: pytest.MonkeyPatch
) -> None:
    changed = setting.add(1)
    setting.run()
    setting.world.later(timedelta(hours=6))
    setting.datastore.image_sets[changed].version = 2
    setting.datastore.image_sets[changed].updated = setting.world.now - timedelta(hours=1)
    monkeypatch.setattr(handler, "_BEGINNING", setting.world.now)
    setting.run()
    assert setting.queue.asked() == [changed]


def test_a_comparison_that_is_longer_than_a_run_comes_to_its_end(setting: Setting) -> None:
    for number in range(120):
        setting.add(number)
    last = setting.add(120, indexed=None)
    complete = []
    while not setting.queue.messages:
        complete.append(setting.run(context=Context(looks=40)).complete)
        assert len(complete) < 20
    assert complete[:-1] == [False] * (len(complete) - 1)
    assert len(complete) > 2
    assert setting.queue.asked() == [last]


def test_messages_that_the_queue_does_not_take_are_found_again(setting: Setting) -> None:
    setting.add(1, indexed=None)
    setting.queue.refuses = True
    with pytest.raises(SendError, match="did not take 1 of 1 messages: Throttled"):
        setting.run()
    setting.queue.refuses = False
    assert setting.run().missed == 1


def test_when_athena_refuses_nothing_is_passed_over(setting: Setting) -> None:
    setting.add(1, indexed=None)

    def refuse(**params: Any) -> dict[str, str]:
        raise Refusal("TooManyRequestsException", "StartQueryExecution")

    start, setting.world.start_query_execution = setting.world.start_query_execution, refuse  # type: ignore[method-assign] - a fake's own method
    with pytest.raises(Refusal):
        setting.run()
    setting.world.start_query_execution = start  # type: ignore[method-assign] - and back
    assert setting.run().missed == 1


def test_the_metric_counts_what_was_missed(
    setting: Setting, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    gone = setting.add(3)
    del setting.datastore.image_sets[gone]
    for number in (1, 2):
        setting.add(number, indexed=None)
    for name, value in {
        "CATALOG_BUCKET": "catalog", "WORKGROUP": "w", "DATABASE": "d", "AFTER_SECONDS": "900",
        "DATASTORE_ID": DATASTORE, "QUEUE_URL": "https://queue",
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    clients = {"s3": setting.world, "athena": setting.world, "sqs": setting.queue}
    monkeypatch.setattr(handler.boto3, "client", lambda name: clients[name])
    monkeypatch.setattr(handler, "connect", lambda: setting.datastore)
    found = handler.handle({}, Context(looks=1000))
    assert Report(**found) == Report(compared=2, missed=2, gone=1)
    document = json.loads(capsys.readouterr().out)
    (directive,) = document["_aws"]["CloudWatchMetrics"]
    found = {
        (directive["Namespace"], metric["Name"], tuple(names))
        for metric in directive["Metrics"]
        for names in directive["Dimensions"]
    }
    assert found == {(one.namespace, one.name, one.dimensions) for one in CATALOG_METRICS}
    assert document["MissedImageSets"] == 3
    assert document["FunctionName"] == "reconcile-catalog"
