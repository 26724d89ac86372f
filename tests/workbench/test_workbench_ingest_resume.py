"""Ingests that are broken off, and ingests that overlap: nothing is lost, and nothing goes in twice."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError
from ingest_world import World, fates, study, write
from workbench_fakes import error

from arrival.importing.pacing import StartPace
from workbench.ingesting import run
from workbench.ingesting.jobs import ChunkWork
from workbench.ingesting.journal import Journal
from workbench.ingesting.report import IngestReport
from workbench.ingesting.watching import Lines


class Crash(Exception):
    """What a test raises where the power fails."""


@pytest.fixture(autouse=True)
def no_pace(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "StartPace", partial(StartPace, per_second=1000))


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path / "machine")


@pytest.fixture
def export(tmp_path: Path) -> Path:
    return tmp_path / "export"


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("state", ["uploading", "uploaded", "started", "completed", "read", "done"])
def test_an_ingest_goes_on_where_it_was_broken_off(
    world: World, export: Path, monkeypatch: pytest.MonkeyPatch, state: str, when: str
) -> None:
    study(export, 3)
    advance = ChunkWork.advance

    def crashing(work: ChunkWork, chunk: Any, to: str, **more: Any) -> None:
        if to != state or when == "after":
            advance(work, chunk, to, **more)
        if to == state:
            raise Crash

    with monkeypatch.context() as patch:
        patch.setattr(ChunkWork, "advance", crashing)
        with pytest.raises(Crash):
            world.ingest(export)
    report = world.ingest(export)
    assert report.ok
    assert len(report.present) == 3
    assert world.imported_once
    # One job: its token was kept before it was started.
    assert len(world.imaging.requests) == 1
    assert [state for _, state in fates(world.ingest(export))] == ["already"] * 3


def test_a_broken_upload_goes_on_and_sends_nothing_twice(world: World, export: Path) -> None:
    study(export, 20)
    put: list[str] = []

    def twelfth_fails(key: str) -> None:
        put.append(key)
        if len(put) == 12:
            raise Crash

    world.s3.before_put = twelfth_fails
    with pytest.raises(Crash):
        world.ingest(export)
    there = {name for name in world.s3.objects if name.startswith("inbox/")}
    put.clear()
    world.s3.before_put = put.append
    assert world.ingest(export).ok
    assert len([key for key in put if key.startswith("ingest/")]) == 20 - len(there)
    assert world.imported_once


def test_what_was_planned_and_is_not_given_again_is_not_sent(world: World, export: Path) -> None:
    study(export / "a", 2, uid="1.2.1")
    study(export / "b", 2, uid="1.2.2")

    def crash(_key: str) -> None:
        raise Crash

    world.s3.before_put = crash
    with pytest.raises(Crash):
        world.ingest(export)
    world.s3.before_put = lambda _key: None
    report = world.ingest(export / "a")
    assert len(report.imported) == 2
    assert len(world.imaging.imports) == 2
    assert len(world.ingest(export).imported) == 2
    assert world.imported_once


def test_what_was_sent_and_is_not_given_again_is_told_where_it_fails(
    world: World, export: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The ingest that sent it has made no report, so that nobody else would ever say it."""
    study(export / "a", 1, uid="1.2.1")
    write(export / "b" / "bad.dcm", SOPClassUID=None)

    def crash(**_: object) -> None:
        raise Crash

    with monkeypatch.context() as patched:
        patched.setattr(world.imaging, "start_dicom_import_job", crash)
        with pytest.raises(Crash):
            world.ingest(export)
    report = world.ingest(export / "a")
    assert (len(report.imported), report.given) == (1, 1)
    [note] = report.notes
    assert str(export / "b" / "bad.dcm") in note
    assert "ParseError" in note


def test_a_file_that_changes_on_its_way_is_refused(world: World, export: Path) -> None:
    write(export / "a.dcm", SOPInstanceUID="1.2.9", PatientID="A")

    def change(_key: str) -> None:
        world.s3.before_put = lambda _key: None
        write(export / "a.dcm", SOPInstanceUID="1.2.9", PatientID="B")

    world.s3.before_put = change
    report = world.ingest(export)
    assert [one.kind for one in report.failed] == ["Changed"]
    assert not world.imaging.imports
    assert world.ingest(export).ok


def test_an_object_that_s3_no_longer_gives_does_not_stop_the_others(
    world: World, export: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Moved to Glacier between the reading and the copy; what was read once is not read again."""
    study(export, 2)
    for file in export.iterdir():
        world.s3.objects[f"partner/x/{file.name}"] = file.read_bytes()
    copy, get = world.s3.copy_object, world.s3.get_object

    def no_copy(**request: Any) -> None:
        if request["CopySource"]["Key"] == "x/0001.dcm":
            raise error("InvalidObjectState")
        copy(**request)

    def no_begin(**request: Any) -> Any:
        if request["Key"] == "x/0001.dcm" and "Range" in request:
            raise error("InvalidObjectState")
        return get(**request)

    monkeypatch.setattr(world.s3, "copy_object", no_copy)
    monkeypatch.setattr(world.s3, "get_object", no_begin)
    report = world.ingest("s3://partner/x")
    assert [one.file for one in report.imported] == ["s3://partner/x/0002.dcm"]
    assert [one.kind for one in report.failed] == ["Unreadable"]
    assert "InvalidObjectState" in report.failed[0].reason
    # A refusal of the inbox is no file's fault, and ends the ingest.
    monkeypatch.setattr(world.s3, "get_object", get)
    with pytest.raises(ClientError):
        world.ingest("s3://partner/x")


def test_a_late_manifest_is_waited_for(world: World, export: Path) -> None:
    study(export, 2)
    world.s3.late["job-output-manifest.json"] = 3
    assert world.ingest(export).ok


def test_a_manifest_that_never_comes_is_asked_for_by_the_next_ingest(
    world: World, export: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study(export, 2)
    world.s3.late["job-output-manifest.json"] = 1
    with monkeypatch.context() as patch:
        patch.setattr("arrival.importing.job_output.MANIFEST_TIMEOUT_SECONDS", 0.0)
        report = world.ingest(export)
    assert {(one.kind, "no manifest" in one.reason) for one in report.failed} == {("ImportFailedError", True)}
    assert world.ingest(export).ok
    assert world.imported_once
    assert len(world.imaging.requests) == 1


def test_a_start_that_is_refused_for_its_rate_is_asked_for_again(world: World, export: Path) -> None:
    study(export, 2)
    world.imaging.refusals = ["ThrottlingException", "ServiceQuotaExceededException", "ThrottlingException"]
    assert world.ingest(export).ok
    assert world.imported_once


def test_a_run_ends_with_its_process(tmp_path: Path) -> None:
    program = (
        "import sys, pathlib; from workbench.ingesting.journal import Journal;"
        " print(Journal(pathlib.Path(sys.argv[1])).begin_run(now=0.0), flush=True); sys.stdin.read()"
    )
    path = tmp_path / "j.sqlite"
    with subprocess.Popen(
        [sys.executable, "-c", program, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        other = process.stdout.readline().strip()
        journal = Journal(path)
        mine = journal.begin_run(now=0.0)
        assert journal.alive(mine)
        assert journal.alive(other)
        process.kill()
        process.wait()
        assert not journal.alive(other)
        journal.close()


def at_once(*ingests: Callable[[], IngestReport]) -> list[IngestReport]:
    with ThreadPoolExecutor(len(ingests)) as pool:
        started: list[Future[IngestReport]] = [pool.submit(one) for one in ingests]
        return [one.result(timeout=60) for one in started]


def test_overlapping_folders_on_one_machine_go_in_once(world: World, export: Path) -> None:
    study(export / "a", 4, uid="1.2.1")
    study(export / "b", 4, uid="1.2.2")
    study(export / "c", 4, uid="1.2.3")
    world.imaging.looks = 3
    one, two = at_once(
        lambda: world.ingest(export / "a", export / "b", files_per_job=4),
        lambda: world.ingest(export / "b", export / "c", files_per_job=4),
    )
    assert one.ok
    assert two.ok
    assert (len(one.present), len(two.present)) == (8, 8)
    # What one of them imported, the other one found to be in.
    assert len(one.imported) + len(two.imported) == 12
    assert len(world.imaging.imports) == 12
    assert world.imported_once


def test_two_machines_at_once_lose_nothing(world: World, export: Path) -> None:
    study(export / "a", 3, uid="1.2.1")
    study(export / "b", 3, uid="1.2.2")
    both = threading.Barrier(2, timeout=20)
    met = threading.local()

    def meet(key: str) -> None:
        # Each machine's first upload waits for the other's: both have planned by then.
        if key.endswith("000000.dcm") and not getattr(met, "once", False):
            met.once = True
            both.wait()

    world.s3.before_put = meet
    one, two = at_once(
        lambda: world.ingest(export / "a", machine="one"),
        lambda: world.ingest(export, machine="two"),
    )
    assert one.ok
    assert two.ok
    assert (len(one.imported), len(two.imported)) == (3, 6)
    assert len(world.imaging.imports) == 6
    third = world.ingest(export, machine="three")
    assert len(third.already) == 6


def test_two_machines_with_other_content_of_one_instance_are_told(world: World, tmp_path: Path) -> None:
    for name in ("A", "B"):
        write(tmp_path / name / "x.dcm", SOPInstanceUID="1.2.9", SeriesInstanceUID="1.2.8", PatientID=name)
    both = threading.Barrier(2, timeout=20)

    def meet(key: str) -> None:
        if key.startswith("ingest/"):
            both.wait()

    world.s3.before_put = meet
    reports = at_once(
        lambda: world.ingest(tmp_path / "A", machine="one"),
        lambda: world.ingest(tmp_path / "B", machine="two"),
    )
    assert all(one.imported for one in reports)
    told = [warning.code for one in reports for warning in one.warnings]
    # Whoever ends last has seen the other's ledger.
    assert told
    assert set(told) == {"ConflictingContent"}


def test_who_waits_for_an_ingest_that_dies_does_its_work(world: World, export: Path) -> None:
    study(export, 3)
    waiting = threading.Event()

    def first(key: str) -> None:
        if key.startswith("ingest/"):
            assert waiting.wait(20)
            world.s3.before_put = lambda _key: None
            raise Crash

    world.s3.before_put = first
    told: list[str] = []

    def tell(line: str) -> None:
        told.append(line)
        if "another ingest" in line:
            waiting.set()

    with ThreadPoolExecutor(2) as pool:
        dying = pool.submit(world.ingest, export)
        while not (world.folder / "this.sqlite").exists() or not _planned(world):
            time.sleep(0.01)
        living = pool.submit(
            lambda: run.run_ingest(
                world.deployment, [str(export)], options=world.options(), watcher=Lines(tell)
            )
        )
        with pytest.raises(Crash):
            dying.result(timeout=30)
        report = living.result(timeout=30)
    assert report.ok
    assert len(report.imported) == 3
    assert world.imported_once


def _planned(world: World) -> bool:
    connection = sqlite3.connect(world.folder / "this.sqlite", timeout=10)
    try:
        return bool(connection.execute("SELECT 1 FROM chunk WHERE state = 'uploading'").fetchone())
    except sqlite3.OperationalError:
        return False
    finally:
        connection.close()
