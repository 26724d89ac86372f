"""Ingest: what is the same, what is in already, what the jobs say, and the report that comes of it."""

from __future__ import annotations

import json
import zipfile
from functools import partial
from pathlib import Path

import pytest
from ingest_world import World, fates, study, write

from arrival.importing.pacing import StartPace
from workbench.errors import WorkbenchError
from workbench.ingesting import run
from workbench.ingesting.dry_run import plan
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
    folder = tmp_path / "Doe^Jane"
    folder.mkdir()
    return folder


def test_report_names_files_as_the_person_did(world: World, export: Path) -> None:
    study(export, 2)
    write(export / "b" / "noclass.dcm", SOPClassUID=None)
    (export / "text.txt").write_text("?")
    (export / "no.dcm").write_bytes(b"no")
    report = world.ingest(export)
    assert not report.ok
    assert [one.file for one in report.imported] == [str(export / f"000{n}.dcm") for n in (1, 2)]
    assert {(Path(one.file).name, one.kind) for one in report.failed} == {
        ("noclass.dcm", "ParseError"),
        ("no.dcm", "NotDicom"),
    }
    assert report.skipped == (str(export / "text.txt"),)
    assert report.given == 5
    assert json.loads(json.dumps(report.to_json()))["imported"] == 2


def test_names_of_files_do_not_become_keys(world: World, export: Path) -> None:
    study(export, 1)
    world.ingest(export)
    assert not [key for key in world.s3.objects if "Doe" in key or "0001" in key.rpartition("/")[2]]


def test_what_is_in_is_not_imported_again(world: World, export: Path) -> None:
    study(export, 3)
    assert world.ingest(export).ok
    again = world.ingest(export)
    assert again.ok
    assert (len(again.imported), len(again.already)) == (0, 3)
    assert again.image_sets[0].instances == 3
    assert world.imported_once
    # Another machine knows by the ledger alone.
    study(export, 4)
    elsewhere = world.ingest(export, machine="another")
    assert (len(elsewhere.imported), len(elsewhere.already)) == (1, 3)
    assert world.imported_once
    # Named at the version that it has now, which another job made.
    assert world.ingest(export / "0001.dcm").image_sets[0].version_id == 2


def test_again_imports_what_is_in_as_a_new_version(world: World, export: Path) -> None:
    study(export, 2)
    [first] = world.ingest(export).image_sets
    [second] = world.ingest(export, again=True).image_sets
    assert (first.image_set_id, first.version_id + 1) == (second.image_set_id, second.version_id)
    requests = world.imaging.requests
    for key in ("clientToken", "inputS3Uri", "outputS3Uri"):
        assert len({request[key] for request in requests}) == 2
    assert all(len(request["jobName"]) <= 64 for request in requests)


def test_what_was_deleted_from_the_archive_is_imported_again(world: World, export: Path) -> None:
    study(export, 2)
    [images] = world.ingest(export).image_sets
    world.imaging.delete(images.image_set_id)
    assert len(world.ingest(export).imported) == 2


def test_the_same_file_twice_is_a_duplicate(world: World, export: Path) -> None:
    study(export / "a", 2)
    study(export / "b", 2)
    report = world.ingest(export)
    assert report.ok
    assert sorted(state for _, state in fates(report)) == ["duplicate", "duplicate", "imported", "imported"]
    assert report.duplicates[0].same_as == str(export / "a" / "0001.dcm")
    # One file that two of the given paths lead to is one file.
    assert world.ingest(export, export / "a", export / "a" / "0001.dcm").given == 4


def test_other_content_under_one_uid_is_refused_by_name(world: World, export: Path) -> None:
    write(export / "a.dcm", SOPInstanceUID="1.2.9", PatientID="A")
    write(export / "b.dcm", SOPInstanceUID="1.2.9", PatientID="B")
    report = world.ingest(export)
    assert [one.kind for one in report.failed] == ["ConflictingContent"] * 2
    assert str(export / "b.dcm") in report.failed[0].reason
    assert str(export / "a.dcm") in report.failed[1].reason
    assert not world.imaging.imports


def test_other_content_than_the_archive_s_needs_replace(world: World, export: Path) -> None:
    write(export / "a.dcm", SOPInstanceUID="1.2.9", SeriesInstanceUID="1.2.8", PatientID="A")
    assert world.ingest(export).ok
    write(export / "a.dcm", SOPInstanceUID="1.2.9", SeriesInstanceUID="1.2.8", PatientID="B")
    refused = world.ingest(export)
    assert [one.kind for one in refused.failed] == ["ConflictingContent"]
    assert "--replace" in refused.failed[0].reason
    assert world.ingest(export, replace=True).ok
    assert len(world.imaging.imports["1.2.9"]) == 2
    # From now on the archive holds the new content.
    assert [state for _, state in fates(world.ingest(export))] == ["already"]


def test_chunks_respect_both_quotas_and_keep_studies_together(world: World, export: Path) -> None:
    for number in range(3):
        study(export / str(number), 3, uid=f"1.2.{number + 1}")
    report = world.ingest(export, files_per_job=5)
    assert (len(report.jobs), len(report.imported)) == (3, 9)
    size = (export / "0" / "0001.dcm").stat().st_size
    world.ingest(export, machine="two", again=True, bytes_per_job=7 * size)
    # Two studies, and the third.
    assert len(world.imaging.requests) == 5
    world.ingest(export, machine="three", again=True, files_per_job=2)
    assert len(world.imaging.requests) == 10


def test_a_file_that_the_job_does_not_mention_is_a_failure(world: World, export: Path) -> None:
    world.imaging.silent.add(study(export, 2)[1])
    report = world.ingest(export)
    assert [(one.file, one.kind) for one in report.failed] == [(str(export / "0002.dcm"), "NotReported")]


def test_a_job_that_fails_as_a_whole_fails_its_files_and_no_others(world: World, export: Path) -> None:
    study(export / "1", 2, uid="1.2.1")
    study(export / "2", 2, uid="1.2.2")
    world.imaging.fails = lambda request: request["inputS3Uri"].endswith("/0001/")
    report = world.ingest(export, files_per_job=2)
    assert len(report.imported) == 2
    assert {(one.kind, "no access" in one.reason) for one in report.failed} == {("ImportJobFailed", True)}
    world.imaging.fails = lambda _request: False
    assert [state for _, state in fates(world.ingest(export))] == ["imported"] * 2 + ["already"] * 2
    assert world.imported_once


def test_nothing_to_import_is_not_ok(world: World, export: Path) -> None:
    (export / "a.txt").write_text("?")
    report = world.ingest(export)
    assert not report.ok
    assert report.jobs == ()
    with pytest.raises(WorkbenchError, match="does not exist"):
        world.ingest(export / "nowhere")


def test_a_prefix_in_s3_is_copied_within_s3(world: World, export: Path) -> None:
    study(export, 2)
    for file in export.iterdir():
        world.s3.objects[f"partner/export/{file.name}"] = file.read_bytes()
        world.s3.objects[f"partner/exported/{file.name}"] = b"another folder"
    world.s3.objects["partner/export/viewer.exe"] = b"MZ"
    report = world.ingest("s3://partner/export")
    assert [one.file for one in report.imported] == [f"s3://partner/export/000{n}.dcm" for n in (1, 2)]
    assert report.skipped == ("s3://partner/export/viewer.exe",)
    assert [state for _, state in fates(world.ingest(export))] == ["already"] * 2
    with pytest.raises(WorkbenchError, match="nothing below"):
        world.ingest("s3://partner/nowhere")


def test_a_dry_run_says_what_would_be_done_and_changes_nothing(world: World, export: Path) -> None:
    study(export, 3)
    world.ingest(export / "0001.dcm")
    write(export / "bad.dcm", SOPInstanceUID="")
    with zipfile.ZipFile(export / "copy.zip", "w") as archive:
        archive.write(export / "0002.dcm", "0002.dcm")
    before = dict(world.s3.objects), (world.folder / "this.sqlite").read_bytes()
    planned = plan(world.deployment, [str(export)], options=world.options(), watcher=Lines(silent))
    assert (planned.to_import, planned.jobs, planned.already, planned.duplicates) == (2, 1, 1, 1)
    assert [one.kind for one in planned.failed] == ["NoSopInstanceUid"]
    assert planned.given == 5
    assert not planned.ok
    assert before == (world.s3.objects, (world.folder / "this.sqlite").read_bytes())
    assert any("would import 2 files" in line for line in planned.lines())
    # Where there is no journal yet, none is made.
    plan(world.deployment, [str(export)], options=world.options("new"), watcher=Lines(silent))
    assert not (world.folder / "new.sqlite").exists()


def test_the_journal_is_its_owner_s_alone(world: World, export: Path) -> None:
    study(export, 1)
    world.ingest(export)
    assert [
        oct(path.stat().st_mode & 0o777) for path in world.folder.glob("this.sqlite*") if path.is_file()
    ] == ["0o600"]
    assert not list((world.folder / "this.sqlite.runs").iterdir())
