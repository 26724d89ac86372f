"""What the catalog's reconcile function has indexed again: damaged objects, and what somebody asks for."""

from __future__ import annotations

from datetime import date, timedelta

import pytest
from catalog_world import DATASTORE, START, Written
from comparison_world import ROWS, Context, Setting, compacted

from infra.catalog.tables import CHANGE_TABLES
from runtime.functions.catalog_queries.change_objects import TOMBSTONE, change_key
from runtime.functions.catalog_queries.queries import QueryFailedError
from runtime.functions.image_sets.events import image_set_event
from runtime.functions.reconcile_catalog import handler
from runtime.functions.reconcile_catalog.handler import MomentError, Report

WHOLE = b"PAR1" + b"rows" + (4).to_bytes(4, "little") + b"PAR1"


@pytest.fixture
def setting() -> Setting:
    found = Setting()
    found.world.later(timedelta(days=1))
    return found


@pytest.mark.parametrize("body", [b"", b"no Parquet file", WHOLE[:-6], WHOLE[:4] + WHOLE[-8:]])
def test_an_object_that_athena_cannot_read_goes_and_its_image_set_is_indexed_again(
    setting: Setting, body: bytes
) -> None:
    """Both tables have one; the comparison goes on behind them, and finds what else is missing."""
    damaged, missing = setting.add(1), setting.add(2, indexed=None)
    for table in CHANGE_TABLES:
        key = change_key(table, DATASTORE, damaged, version=1)
        setting.world.damaged[key] = body
    report = setting.run()
    assert (report.damaged, report.complete) == (2, True)
    assert not setting.world.damaged
    assert set(setting.queue.asked()) == {damaged, missing}


def test_a_deletion_that_cannot_be_read_is_asked_for_as_a_deletion(setting: Setting) -> None:
    gone = setting.add(1)
    del setting.datastore.image_sets[gone]
    key = change_key("series", DATASTORE, gone, version=TOMBSTONE)
    setting.world.write("series", Written(image_set_id=gone, version=TOMBSTONE, rows=(), at=START))
    setting.world.damaged[key] = b"PAR1"
    setting.run()
    assert image_set_event(setting.queue.messages[0]).deleted
    assert key not in setting.world.changes


@pytest.mark.parametrize(
    ("key", "body", "said"),
    [
        (change_key("series", DATASTORE, "1" * 32, version=1), WHOLE, "though it is a whole file: changes/"),
        ("changes/series/notes.txt", b"mine", "not written by the index function: changes/series/notes.txt"),
        (f"changes/series/{DATASTORE}/{'1' * 32}/1.csv", b"", "not written by the index function"),
    ],
)
def test_what_is_whole_or_somebody_elses_stays_and_is_named(
    setting: Setting, key: str, body: bytes, said: str, caplog: pytest.LogCaptureFixture
) -> None:
    setting.world.damaged[key] = body
    with pytest.raises(QueryFailedError, match=f"HIVE_BAD_DATA, in s3://catalog/{key}$"):
        setting.run()
    assert said in caplog.text
    assert setting.world.damaged == {key: body}
    assert not setting.queue.messages


def test_an_object_that_has_gone_meanwhile_is_no_damage_that_stays(setting: Setting) -> None:
    """The compact function removed it while the query ran."""
    there = setting.add(1)
    look = setting.world.get_query_execution
    key = change_key("series", DATASTORE, there, version=1)
    setting.world.damaged[key] = b""

    def later(**params: str) -> dict[str, object]:
        answer = look(**params)
        setting.world.damaged.clear()
        return answer

    setting.world.get_query_execution = later  # type: ignore[method-assign] - a fake's own method
    assert setting.run().complete
    assert setting.queue.asked() == [there]


def test_many_damaged_objects_are_left_to_a_person(setting: Setting, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(handler, "_MOST_DAMAGED", 2)
    for number in range(4):
        setting.world.damaged[change_key("series", DATASTORE, f"{number:032d}", version=1)] = b""
    with pytest.raises(QueryFailedError):
        setting.run()
    assert len(setting.world.damaged) == 2


def test_rows_that_are_older_than_asked_for_are_indexed_again(setting: Setting) -> None:
    """Compacted or not; deleted image sets have no rows to write again."""
    old, both = setting.add(1), setting.add(2)
    compacted(setting)
    moment = setting.world.now
    setting.add(3, at=moment)
    gone = setting.add(4)
    for table in CHANGE_TABLES:
        again = Written(image_set_id=both, version=1, rows=(("CT", date(2024, 1, 1)),), at=moment)
        setting.world.write(table, again)
        setting.world.write(table, Written(image_set_id=gone, version=TOMBSTONE, rows=(), at=START))
    waiting = setting.add(5)
    run = setting.reconciliation()
    run.index_again(moment)
    assert setting.queue.asked() == [old, waiting]
    assert run.report == Report(again=2)


def test_rows_of_one_table_alone_are_enough(setting: Setting) -> None:
    half = f"{1:032d}"
    for table, at in zip(CHANGE_TABLES, (START, START + timedelta(hours=1)), strict=True):
        setting.world.write(table, Written(image_set_id=half, version=1, rows=ROWS, at=at, dated=False))
    run = setting.reconciliation()
    run.index_again(START + timedelta(minutes=1))
    assert setting.queue.asked() == [half]


def test_without_time_the_rest_is_left_to_who_asks_again(setting: Setting) -> None:
    for number in range(25):
        setting.add(number)
    run = setting.reconciliation(context=Context(looks=3))
    run.index_again(setting.world.now)
    assert (len(setting.queue.messages), run.report.again, run.report.complete) == (20, 20, False)


@pytest.mark.parametrize("text", ["yesterday", "2026-11-01", "2026-11-01T00:00:00", None, 7])
def test_a_moment_without_a_zone_is_none(text: object) -> None:
    with pytest.raises(MomentError, match="write it as 2026-11-01T00:00:00Z"):
        handler.handle({"indexedBefore": text}, None)
