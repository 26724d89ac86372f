"""Ingest: what ledgers say, what becomes of the report where they cannot be read, and many repeats."""

from __future__ import annotations

import fcntl
import json
import os
import sqlite3
import time
from contextlib import closing
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import pytest
from ingest_world import World, study, write
from workbench_fakes import error

from arrival.importing.pacing import StartPace
from arrival.s3_uri import split_s3_uri
from workbench.errors import WorkbenchError
from workbench.ingesting import run
from workbench.ingesting.command import report_lines
from workbench.ingesting.dry_run import plan
from workbench.ingesting.journal import Journal
from workbench.ingesting.settling import sort_out_repeats
from workbench.ingesting.watching import Lines
from workbench.progress import silent


@pytest.fixture(autouse=True)
def no_pace(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "StartPace", partial(StartPace, per_second=1000))


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path / "machine")


@pytest.fixture
def export(tmp_path: Path) -> Path:
    return tmp_path / "export"


def test_what_cannot_be_looked_up_afterwards_does_not_cost_the_report(
    world: World, export: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study(export / "a", 1, uid="1.2.1")
    study(export / "b", 1, uid="1.2.2")
    world.imaging.primary = False
    asked = []

    def no_metadata(**request: str) -> None:
        asked.append(request)
        raise error("AccessDeniedException")

    pages = world.s3.get_paginator

    def no_listing(name: str) -> object:
        if any("/ledger/" in key for key in world.s3.objects):
            raise error("SlowDown")
        return pages(name)

    monkeypatch.setattr(world.imaging, "get_image_set_metadata", no_metadata, raising=False)
    monkeypatch.setattr(world.s3, "get_paginator", no_listing)
    report = world.ingest(export)
    assert len(report.imported) == 2
    assert [len(one.unknown) > 0 for one in report.conflicts] == [True, True]
    assert asked
    assert "SlowDown" in report.notes[0]
    lines = "\n".join(report_lines(report))
    assert "could not be looked up" in lines
    assert json.loads(json.dumps(report.to_json()))["conflicts"][0]["unknown"]


@pytest.mark.parametrize("same_series", [True, False])
def test_of_two_ledgers_the_higher_version_counts_and_else_the_later(
    world: World, export: Path, same_series: bool
) -> None:
    """S3 may take the ledger of the job that was imported first last."""
    for name in ("A", "B"):
        series = "1.2.8" if same_series else f"1.2.8.{ord(name)}"
        write(export / name / "x.dcm", SOPInstanceUID="1.2.9", SeriesInstanceUID=series, PatientID=name)
    assert world.ingest(export / "A", machine="one").ok
    assert world.ingest(export / "B", machine="two", replace=True).ok
    [first] = [key for key in world.s3.objects if key.endswith("/job1.ndjson")]
    world.s3.moments[first] = datetime.now(UTC) + timedelta(hours=1)
    held, other = ("B", "A") if same_series else ("A", "B")
    assert len(world.ingest(export / held, machine="three").already) == 1
    assert [one.kind for one in world.ingest(export / other, machine="three").failed] == [
        "ConflictingContent"
    ]
    # A journal of the first version did not keep what decides: it reads the ledgers again.
    with closing(sqlite3.connect(world.folder / "three.sqlite")) as old:
        old.execute("DROP VIEW held")
        old.execute("ALTER TABLE ledger DROP COLUMN newest_version_id")
        old.execute("UPDATE ledger SET content = 'wrong'")
        old.execute("CREATE VIEW held AS SELECT * FROM ledger")
        old.execute("PRAGMA user_version = 1")
        old.commit()
    # A dry run only reads it.
    path = world.folder / "three.sqlite"
    plan(world.deployment, [str(export / held)], options=world.options("three"), watcher=Lines(silent))
    with closing(sqlite3.connect(path)) as old:
        assert old.execute("PRAGMA user_version").fetchone() == (1,)
        old.execute("INSERT INTO run VALUES ('of an earlier program', 0)")
        old.commit()
    # And nobody changes its tables under the program that wrote it.
    lock = os.open(path.with_name(f"{path.name}.runs") / "of an earlier program", os.O_CREAT | os.O_RDWR)
    fcntl.flock(lock, fcntl.LOCK_EX)
    with pytest.raises(WorkbenchError, match="earlier version of this program is working"):
        world.ingest(export / held, machine="three")
    os.close(lock)
    assert len(world.ingest(export / held, machine="three").already) == 1


def test_a_journal_where_nobody_may_write_is_a_failure_with_advice(world: World, export: Path) -> None:
    study(export, 1)
    (world.folder / "taken").parent.mkdir(exist_ok=True, parents=True)
    (world.folder / "taken").touch()
    with pytest.raises(WorkbenchError, match=r"cannot be written") as refused:
        Journal(world.folder / "taken" / "j.sqlite")
    assert "--journal" in refused.value.advice


def test_one_uid_in_thousands_of_files_is_told_of_quickly(world: World, tmp_path: Path) -> None:
    """As devices do that write one UID into every file; comparing all with all took a minute."""
    count = 10_000
    journal = Journal(tmp_path / "j.sqlite")
    try:
        journal.many(
            "INSERT INTO given (run, number, place, path, member, name, stamp, size, instance, content,"
            " state) VALUES ('r', ?, 'file', ?, '', ?, '', 1, '1.2', ?, 'pending')",
            # Each content twice.
            [(n, f"/{n:05d}", f"{n:05d}", f"c{n // 2}") for n in range(count)],
        )
        begun = time.process_time()
        sort_out_repeats(journal, "r")
        assert time.process_time() - begun < 5
        named = {
            row["name"]: row["reason"].rpartition(" ")[2]
            for row in journal.all("SELECT * FROM given WHERE state = 'failed'")
        }
    finally:
        journal.close()
    # The first other content, by its first name.
    assert named == {f"{n:05d}": "00002" if n < 2 else "00000" for n in range(count)}


def test_what_a_job_imported_is_known_to_the_journal_before_any_ledger_is_read(
    world: World, export: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else another run of the same journal finds an instance neither under way nor in, and sends it again."""
    study(export, 1)
    monkeypatch.setattr(run, "merge_ledgers", lambda *_: None)
    world.ingest(export)
    again = world.ingest(export)
    assert len(again.already) == 1
    assert len(world.imaging.imports) == 1


def test_a_key_of_s3_is_no_url() -> None:
    assert split_s3_uri("s3://bucket/in/a?1#2.dcm") == ("bucket", "in/a?1#2.dcm")
    assert split_s3_uri("s3://bucket") == ("bucket", "")
