"""Ingest: where files come from, and whose fault it is when they cannot be read."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
from botocore.exceptions import ClientError, ReadTimeoutError
from ingest_world import World, study, write
from pydicom.fileset import FileSet
from typer.testing import CliRunner
from workbench_fakes import error

from arrival.importing.pacing import StartPace
from workbench import main
from workbench.ingesting import command, dry_run, run
from workbench.ingesting.found import Opener


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    monkeypatch.setattr(run, "StartPace", partial(StartPace, per_second=1000))
    return World(tmp_path / "machine")


def test_a_dicomdir_that_is_a_link_names_what_lies_beside_the_link(world: World, tmp_path: Path) -> None:
    write(
        tmp_path / "made.dcm",
        StudyDate="20240102",
        StudyTime="120000",
        StudyID="1",
        SeriesNumber=1,
        InstanceNumber=1,
    )
    files = FileSet()
    files.add(tmp_path / "made.dcm")
    files.write(tmp_path / "cd")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "cd" / "DICOMDIR").rename(tmp_path / "elsewhere" / "index")
    (tmp_path / "cd" / "DICOMDIR").symlink_to(tmp_path / "elsewhere" / "index")
    report = world.ingest(tmp_path / "cd")
    assert (len(report.imported), report.failed) == (1, ())


def test_a_member_that_looks_like_a_folder_and_has_content_is_a_file(world: World, tmp_path: Path) -> None:
    write(tmp_path / "a.dcm")
    with zipfile.ZipFile(tmp_path / "export.zip", "w") as archive:
        archive.writestr("folder/", b"")
        archive.writestr("X/", (tmp_path / "a.dcm").read_bytes())
    report = world.ingest(tmp_path / "export.zip")
    assert (report.given, len(report.imported)) == (1, 1)


def timed_out() -> Exception:
    return ReadTimeoutError(endpoint_url="https://s3")


@pytest.mark.parametrize("failure", [timed_out, partial(error, "ExpiredToken"), partial(error, "SlowDown")])
def test_what_is_not_a_files_fault_ends_the_ingest_and_the_next_one_goes_on(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failure: Any
) -> None:
    study(tmp_path / "in", 2)
    plain = Opener.open
    opened: list[str] = []

    @contextmanager
    def fails_later(self: Opener, place: Any, path: Any, member: str, **more: str) -> Iterator[Any]:
        opened.append(str(path))
        if len(opened) > 2:
            # Both have been read; now they are sent.
            raise failure()
        with plain(self, place, path, member, **more) as stream:
            yield stream

    with monkeypatch.context() as patched:
        patched.setattr(Opener, "open", fails_later)
        with pytest.raises((ReadTimeoutError, ClientError)):
            world.ingest(tmp_path / "in")
    again = world.ingest(tmp_path / "in")
    assert (len(again.imported), again.failed) == (2, ())
    assert world.imported_once
    # In S3 already the reading asks the network.
    world.s3.objects["partner/a.dcm"] = b"x"
    monkeypatch.setattr(world.s3, "get_object", Mock(side_effect=failure()))
    with pytest.raises((ReadTimeoutError, ClientError)):
        world.ingest("s3://partner/")
    row = {"place": "s3", "path": "s3://partner/a.dcm", "member": "", "stamp": "x"}
    with pytest.raises((ReadTimeoutError, ClientError)):
        dry_run._fate(row, Opener(world.s3), Mock())


def test_credentials_that_expire_while_objects_are_copied_are_not_the_objects_fault(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "a.dcm")
    world.s3.objects["partner/a.dcm"] = (tmp_path / "a.dcm").read_bytes()

    def expired(**_request: Any) -> None:
        patched.setattr(world.s3, "get_object", Mock(side_effect=error("ExpiredToken")))
        raise error("ExpiredToken")

    with monkeypatch.context() as patched:
        patched.setattr(world.s3, "copy_object", expired)
        with pytest.raises(ClientError, match="ExpiredToken"):
            world.ingest("s3://partner/")
    assert len(world.ingest("s3://partner/").imported) == 1


def test_a_name_cannot_write_lines_of_its_own(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command, "deployment_of", lambda _env: world.deployment)
    name = "a\n99 files imported\x1b[2J.dcm"
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / name).write_bytes(b"no image")
    arguments = ["ingest", "--journal", str(tmp_path / "j.sqlite"), str(tmp_path / "in")]
    shown = CliRunner().invoke(main.app, arguments).stdout
    assert "\x1b" not in shown
    assert r"a\n99 files imported\x1b[2J.dcm" in shown
    said = json.loads(CliRunner().invoke(main.app, [*arguments, "--json"]).stdout)
    assert said["failed"][0]["file"].endswith(name)
