"""The compact function: whatever arrives and whatever ends a run, people see the highest version of each
image set, once.
"""

from __future__ import annotations

import logging
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import date, timedelta
from typing import Any

import pytest
from catalog_world import SETTLE, START, Crash, Refusal, World, Written, compaction, run
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from infra.catalog.tables import CHANGE_TABLES
from runtime.functions.catalog_queries.change_objects import TOMBSTONE
from runtime.functions.catalog_queries.queries import QueryFailedError
from runtime.functions.compact import handler, statements
from runtime.functions.compact.handler import RemovalError
from runtime.functions.compact.progress import KEY

HOUR = timedelta(hours=1)
CT, MR = ("CT", date(2023, 5, 1)), ("MR", date(2021, 1, 31))


@dataclass(kw_only=True)
class Model:
    """What people should see: of each image set the rows of the highest version that was written, and of one
    version those that were written last.
    """

    highest: dict[tuple[str, str], Written] = field(default_factory=dict)

    def write(self, table: str, written: Written) -> None:
        there = self.highest.get((table, written.image_set_id))
        if there is None or (there.version, there.at) < (written.version, written.at):
            self.highest[(table, written.image_set_id)] = written

    def shown(self, table: str) -> list[tuple[Any, ...]]:
        found = [
            (one.image_set_id, one.version, *row)
            for (where, _), one in self.highest.items()
            if where == table
            for row in one.rows
        ]
        return sorted(found, key=str)


IMAGE_SETS = st.sampled_from(["1" * 32, "2" * 32, "3" * 32])
ROWS = st.lists(st.sampled_from([CT, MR, ("SEG", date(2023, 6, 1)), (None, None)]), max_size=2).map(tuple)
ACTIONS = st.one_of(
    st.tuples(st.just("write"), IMAGE_SETS, st.integers(1, 4)),
    st.tuples(st.just("write"), IMAGE_SETS, st.integers(1, 4)),
    st.tuples(st.just("again"), IMAGE_SETS, st.integers(1, 4)),
    st.tuples(st.just("delete"), IMAGE_SETS),
    st.tuples(st.just("run")),
    st.tuples(st.just("crash"), st.integers(1, 60)),
    st.tuples(st.just("settle")),
    st.tuples(st.just("wait")),
)


@settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)
@given(st.lists(ACTIONS, max_size=14), st.data())
def test_people_see_the_highest_version_once_whatever_happens(
    actions: list[tuple[Any, ...]], data: st.DataObject
) -> None:
    world, model = World(), Model()
    contents: dict[tuple[str, str, int], tuple[Any, ...]] = {}
    for action in actions:
        match action:
            case ("write" | "again" as kind, image_set_id, version):
                world.later(timedelta(seconds=1))
                for table in CHANGE_TABLES:
                    # Whoever read a version before a deletion writes soon.
                    if kind == "again":
                        # An index function that knows other columns.
                        contents.pop((table, image_set_id, version), None)
                    rows = contents.setdefault((table, image_set_id, version), data.draw(ROWS))
                    gone = model.highest.get((table, image_set_id))
                    if gone and gone.version == TOMBSTONE and world.now - gone.at > HOUR:
                        continue
                    written = Written(image_set_id=image_set_id, version=version, rows=rows, at=world.now)
                    world.write(table, written)
                    model.write(table, written)
            case ("delete", image_set_id):
                for table in CHANGE_TABLES:
                    written = Written(image_set_id=image_set_id, version=TOMBSTONE, rows=(), at=world.now)
                    world.write(table, written)
                    model.write(table, written)
            case ("run",):
                run(world)
            case ("crash", calls):
                world.crash_in = calls
                with suppress(Crash):
                    run(world)
                world.crash_in = None
            case ("settle",):
                world.settle()
            case ("wait",):
                world.later(timedelta(hours=13))
        for table in CHANGE_TABLES:
            assert world.shown(table) == model.shown(table), action
    world.settle()
    run(world)
    # What a tombstone hides goes first, and then the tombstone.
    for _ in range(2):
        world.later(timedelta(days=2))
        run(world)
    for table in CHANGE_TABLES:
        assert world.shown(table) == world.compacted(table) == model.shown(table)
    # What is left hides nothing that was forgotten: versions without rows.
    assert not [one for one in world.changes.values() if one.rows or one.version == TOMBSTONE]


def test_a_crash_between_every_two_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    """One state with everything in it to do, and a crash at each place that there is."""
    monkeypatch.setattr(statements, "MOST_GROUPS", 1)
    # The second table is done in the same way, after the first.
    monkeypatch.setattr(handler, "TABLES", ("series",))
    place, finished = 0, False
    while not finished:
        place += 1
        world, model = World(), Model()
        for version, image_sets in {1: "abc", 2: "bd"}.items():
            for name in image_sets:
                rows = (CT, MR) if name == "a" else (MR,)
                written = Written(image_set_id=name * 32, version=version, rows=rows, at=world.now)
                world.write("series", written)
                model.write("series", written)
            if version == 1:
                run(world)
                world.later(HOUR)
        gone = Written(image_set_id="c" * 32, version=TOMBSTONE, rows=(), at=world.now)
        world.write("series", gone)
        model.write("series", gone)
        world.crash_in = place
        try:
            run(world)
            finished = True
        except Crash:
            world.crash_in = None
            assert world.shown("series") == model.shown("series"), f"call {place}"
        world.crash_in = None
        run(world)
        assert world.shown("series") == world.compacted("series") == model.shown("series"), f"call {place}"
    assert place > 40, "every statement has a note before and after it"


def test_objects_stay_until_no_query_can_miss_them() -> None:
    world = World()
    for table in CHANGE_TABLES:
        world.write(table, Written(image_set_id="a" * 32, version=1, rows=(CT,), at=START))
    assert run(world).removed == 0
    world.later(SETTLE - timedelta(seconds=1))
    assert run(world).removed == 0
    world.later(timedelta(seconds=1))
    assert run(world).removed == 2
    assert not world.changes
    assert len(world.shown("series")) == 1


def test_maintenance_is_done_once_a_day() -> None:
    world = World()
    run(world)
    assert not world.done, "there is nothing to keep in order"
    world.write("series", Written(image_set_id="a" * 32, version=1, rows=(CT,), at=START))
    run(world)
    once = ["INSERT INTO compacted_series", "OPTIMIZE compacted_series", "VACUUM compacted_series"]
    assert world.done == once
    run(world)
    assert world.done == once
    world.later(timedelta(days=1))
    run(world)
    assert world.done == [*once, *once[1:]]


@pytest.mark.parametrize("kind", ["OPTIMIZE", "VACUUM"])
def test_maintenance_that_needs_more_runs_gets_them(kind: str) -> None:
    world = World(fails={kind: f"ICEBERG_{kind}_MORE_RUNS_NEEDED: did a part"})
    world.write("series", Written(image_set_id="a" * 32, version=1, rows=(CT,), at=START))
    run(world)
    assert f"{kind} compacted_series" not in world.done
    assert len(world.done) == 2, "the other one is done"
    run(world)
    assert world.done[-1] == f"{kind} compacted_series"


def test_a_table_whose_statements_fail_keeps_the_other_one_back_from_nothing() -> None:
    world = World(fails={"INSERT": "GENERIC_INTERNAL_ERROR: broken"})
    for table in CHANGE_TABLES:
        world.write(table, Written(image_set_id="a" * 32, version=1, rows=(CT,), at=START))
    with pytest.raises(QueryFailedError, match="GENERIC_INTERNAL_ERROR"):
        run(world)
    assert not world.compacted("series")
    assert len(world.compacted("instances")) == 1
    assert world.done[-1] == "VACUUM compacted_instances"


def test_an_older_version_stays_until_no_query_can_miss_the_newer_one() -> None:
    world = World()
    for version in (1, 2):
        world.write("series", Written(image_set_id="a" * 32, version=version, rows=(), at=world.now))
        world.later(timedelta(seconds=1))
    world.later(SETTLE - timedelta(seconds=2))
    assert run(world).removed == 0
    world.later(timedelta(seconds=1))
    assert run(world).removed == 1


def test_two_at_once(caplog: pytest.LogCaptureFixture) -> None:
    """The second one finds the first one's statement, and does not start its own."""
    world = World()
    world.write("series", Written(image_set_id="a" * 32, version=1, rows=(CT,), at=START))
    first = compaction(world)
    start = world.start_query_execution

    def overtaken(**params: Any) -> dict[str, str]:
        if params["QueryString"].startswith("INSERT"):
            world.start_query_execution = start  # type: ignore[method-assign] - once
            assert run(world).complete
        return start(**params)

    world.start_query_execution = overtaken  # type: ignore[method-assign] - a fake's own method
    with caplog.at_level(logging.INFO):
        assert not first.work().complete
    assert "another invocation compacts at this moment" in caplog.text
    assert len(world.compacted("series")) == 1


def test_a_statement_that_fails_is_told_and_begun_anew() -> None:
    world = World(fails={"INSERT": "ICEBERG_COMMIT_ERROR: Doe^John of Ward 7"})
    world.write("series", Written(image_set_id="a" * 32, version=1, rows=(CT,), at=START))
    with pytest.raises(QueryFailedError, match=r"^query execution-\d+ failed: ICEBERG_COMMIT_ERROR$"):
        run(world)
    run(world)
    assert len(world.compacted("series")) == 1


@pytest.mark.parametrize(
    ("reason", "word"),
    [
        ("HIVE_BAD_DATA: 'DOE^JOHN' is no number", "HIVE_BAD_DATA"),
        ("[ErrorCode: INTERNAL_ERROR_QUERY_ENGINE] Amazon Athena experienced", "INTERNAL_ERROR_QUERY_ENGINE"),
        ("Value 'DOE_JOHN' of ROW cannot be read", "UNKNOWN"),
        ("DOE_JOHN is no number", "UNKNOWN"),
        ("", "UNKNOWN"),
    ],
)
def test_of_a_reason_only_athena_s_word_is_told(reason: str, word: str) -> None:
    error = QueryFailedError(execution_id="q-1", state="failed", reason=reason)
    assert str(error) == f"query q-1 failed: {word}"


def test_an_execution_that_athena_has_forgotten_does_not_stop_it_for_ever() -> None:
    world = World(crash_in=None)
    world.notes[KEY] = (
        b'{"running": {"name": "insert series", "sql": "INSERT", "token": "t", "execution_id": "old"}, '
        b'"done": {}}'
    )
    with pytest.raises(Refusal):
        run(world)
    assert run(world).complete


def test_what_arrives_while_it_runs_waits_for_the_next_run() -> None:
    """Else a run that follows steady arrivals comes neither to the other table nor to its end."""
    world = World()
    start, arrived = world.start_query_execution, 0

    def arriving(**params: Any) -> dict[str, str]:
        nonlocal arrived
        # Before each look at what waits.
        if params["QueryString"].startswith("WITH") and arrived < 20:
            arrived += 1
            for table in CHANGE_TABLES:
                late = Written(image_set_id=f"{arrived:032d}", version=1, rows=(CT,), at=START)
                world.write(table, late)
        return start(**params)

    for table in CHANGE_TABLES:
        world.write(table, Written(image_set_id="a" * 32, version=1, rows=(CT,), at=START))
    world.start_query_execution = arriving  # type: ignore[method-assign] - a fake's own method
    assert run(world).complete
    assert [one for one in world.done if one.startswith("INSERT")] == [
        f"INSERT INTO compacted_{table}" for table in CHANGE_TABLES
    ]
    for table in CHANGE_TABLES:
        assert len(world.shown(table)) == 1 + arrived


def test_what_waits_at_the_beginning_is_done_in_one_run_a_part_at_a_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(statements, "MOST_IMAGE_SETS", 3)
    monkeypatch.setattr(statements, "MOST_GROUPS", 2)
    world = World()
    for number in range(10):
        rows = (("CT", date(2015 + number // 4, 5, 1)), MR)
        world.write("series", Written(image_set_id=f"{number:032d}", version=1, rows=rows, at=START))
    run(world)
    assert len(world.compacted("series")) == 20
    assert len([one for one in world.done if one.startswith("INSERT")]) == 4


def test_what_is_superfluous_goes_in_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(statements, "MOST_REMOVED", 5)
    monkeypatch.setattr(handler, "_A_CALL", 2)
    world = World()
    for number in range(8):
        world.write("series", Written(image_set_id=f"{number:032d}", version=1, rows=(CT,), at=START))
    run(world)
    world.later(HOUR)
    first, second = run(world), run(world)
    assert (first.removed, first.complete) == (5, False)
    assert (second.removed, second.complete) == (3, True)


def test_what_cannot_be_removed_keeps_nothing_else_from_being_done() -> None:
    world = World()
    world.write("series", Written(image_set_id="a" * 32, version=1, rows=(CT,), at=START))
    run(world)
    world.later(HOUR)
    world.write("instances", Written(image_set_id="a" * 32, version=1, rows=(CT,), at=START))
    remove = world.delete_objects
    world.delete_objects = lambda **params: {  # type: ignore[method-assign] - a fake's own method
        "Errors": [{"Key": one["Key"], "Code": "AccessDenied"} for one in params["Delete"]["Objects"]]
    }
    with pytest.raises(RemovalError, match="1 change objects could not be removed"):
        run(world)
    assert len(world.compacted("instances")) == 1
    world.delete_objects = remove  # type: ignore[method-assign] - and back
    assert run(world).removed == 1


class Context:
    """An invocation with little time."""

    def __init__(self, *, seconds: float) -> None:
        self.seconds = seconds

    def get_remaining_time_in_millis(self) -> int:
        self.seconds -= 1
        return int(self.seconds * 1000)


def test_without_time_a_run_ends_and_the_next_one_goes_on() -> None:
    world = World()
    for name in "abc":
        world.write("series", Written(image_set_id=name * 32, version=1, rows=(CT,), at=START))
    assert not run(world, context=Context(seconds=30)).complete
    assert run(world).complete
    assert len(world.compacted("series")) == 3


def test_a_statement_longer_than_a_run_is_waited_for_by_the_next_one() -> None:
    """Lambda ends the invocation; Athena goes on with the statement, which is not started again."""
    world = World()
    world.write("series", Written(image_set_id="a" * 32, version=1, rows=(CT,), at=START))
    look, busy = world.get_query_execution, True

    def slow(**params: str) -> dict[str, Any]:
        if busy and world.executions[params["QueryExecutionId"]].sql.startswith("INSERT"):
            return {"QueryExecution": {"Status": {"State": "RUNNING"}}}
        return look(**params)

    world.get_query_execution = slow  # type: ignore[method-assign] - a fake's own method
    for _ in range(2):
        assert not run(world, context=Context(seconds=90)).complete
    assert len(world.pending) == 1
    busy = False
    assert run(world).complete
    assert world.done.count("INSERT INTO compacted_series") == 1
    assert len(world.compacted("series")) == 1


def test_the_function_answers_with_what_it_did(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World()
    world.write("series", Written(image_set_id="a" * 32, version=1, rows=(CT,), at=START))
    for name, value in {
        "CATALOG_BUCKET": "catalog", "WORKGROUP": "w", "DATABASE": "d", "SETTLE_SECONDS": "600",
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(handler.boto3, "client", lambda name: world)
    assert handler.handle({}, None) == {"removed": 0, "statements": 3, "complete": True}
