"""`monai-aws ingest`: exit codes, the dry run, the bars, Ctrl-C, and what the environment file says."""

from __future__ import annotations

import errno
import io
import json
from functools import partial
from pathlib import Path

import pytest
from ingest_world import World, study, write
from rich.console import Console
from typer.testing import CliRunner, Result

from arrival.importing.pacing import StartPace
from workbench import main
from workbench.environment import load_environment
from workbench.errors import EnvironmentInvalid
from workbench.ingesting import command, run
from workbench.ingesting.bars import Bars
from workbench.ingesting.report_file import ReportNotWritten, report_file


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    made = World(tmp_path / "machine")
    monkeypatch.setattr(run, "StartPace", partial(StartPace, per_second=1000))
    monkeypatch.setattr(command, "deployment_of", lambda _env: made.deployment)
    return made


def call(world: World, *arguments: Path | str) -> Result:
    journal = str(world.folder / "j.sqlite")
    return CliRunner().invoke(main.app, ["ingest", "--journal", journal, *map(str, arguments)])


def test_exit_code_is_0_only_if_everything_that_is_dicom_is_in(world: World, tmp_path: Path) -> None:
    study(tmp_path / "in", 2)
    (tmp_path / "in" / "README").write_text("text")
    planned = json.loads(call(world, "--dry-run", "--json", tmp_path / "in").stdout)
    assert (planned["dryRun"], planned["toImport"], planned["skipped"]) == (
        True,
        2,
        [str(tmp_path / "in" / "README")],
    )
    assert not world.imaging.imports
    assert call(world, tmp_path / "in").exit_code == 0
    again = call(world, "--json", "--report", tmp_path / "r.jsonl", tmp_path / "in")
    assert again.exit_code == 0
    assert json.loads(again.stdout)["alreadyIn"] == 2
    states = [json.loads(line).get("state") for line in (tmp_path / "r.jsonl").read_text().splitlines()]
    assert states == [None, "alreadyIn", "alreadyIn", "skipped"]
    write(tmp_path / "in" / "bad.dcm", SOPInstanceUID="")
    failed = call(world, tmp_path / "in")
    assert failed.exit_code == 1
    assert "0 files imported, 2 already in, 0 duplicates, 1 failed" in failed.stdout
    assert "FAILED" in failed.stdout
    assert call(world, "--dry-run", tmp_path / "in").exit_code == 1
    missing = call(world, "--json", tmp_path / "nowhere")
    assert missing.exit_code == 1
    assert "does not exist" in json.loads(missing.stdout)["error"]["message"]


def test_a_report_takes_no_other_file_s_place(tmp_path: Path) -> None:
    study = tmp_path / "study.dcm"
    study.write_bytes(b"\0" * 128 + b"DICM")
    with pytest.raises(ReportNotWritten, match="is no report of an ingest"), report_file(study):
        pass
    assert study.read_bytes().endswith(b"DICM")
    for text in ("first", "second"):
        with report_file(tmp_path / "report.jsonl") as write:
            write({"file": text})
    assert (tmp_path / "report.jsonl").read_text() == '{"file": "second"}\n'


def test_ctrl_c_says_how_to_go_on(world: World, tmp_path: Path) -> None:
    study(tmp_path / "in", 2)

    def interrupt(_request: dict[str, object]) -> bool:
        raise KeyboardInterrupt

    world.imaging.fails = interrupt
    stopped = call(world, tmp_path / "in")
    assert stopped.exit_code == 130
    assert "the same command goes on" in stopped.stderr
    world.imaging.fails = lambda _request: False
    world.imaging.tokens.clear()
    assert call(world, tmp_path / "in").exit_code == 0
    assert world.imported_once


def test_a_terminal_gets_bars_with_rate_and_time_left() -> None:
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, width=120)
    with Bars(console) as bars:
        bars.read(3, 3_000_000)
        bars.to_send(2, 2_000_000)
        bars.sent(1, 1_000_000)
        bars.line("import job [1] started")
    shown = screen.getvalue()
    assert "read 3 files, 3.0 MB" in shown
    assert "1/2 files" in shown
    assert "1.0/2.0 MB" in shown
    assert "import job [1] started" in shown


def test_the_environment_file_says_whether_files_are_deidentified(tmp_path: Path) -> None:
    def environment(arrival: str) -> bool:
        (tmp_path / "trial.toml").write_text(
            f'name = "trial"\n[aws]\naccount = "000000000000"\nregion = "us-east-1"\n{arrival}'
        )
        return load_environment("trial", folder=tmp_path).arrival.deidentify

    assert environment("") is False
    assert environment("[arrival]\ndeidentify = true\n") is True
    for unclear in ('[arrival]\ndeidentify = "yes"\n', "[arrival]\n"):
        with pytest.raises(EnvironmentInvalid, match=r"arrival\.deidentify"):
            environment(unclear)


def test_the_report_file_is_opened_before_the_ingest_and_is_its_owner_s_alone(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study(tmp_path / "in", 2)
    (tmp_path / "file").touch()
    for nowhere in (tmp_path / "file" / "r.jsonl", tmp_path / "in"):
        refused = call(world, "--json", "--report", nowhere, tmp_path / "in")
        assert (refused.exit_code, json.loads(refused.stdout)["error"]["type"]) == (1, "ReportNotWritten")
    assert not world.imaging.imports
    report = tmp_path / "out" / "r.jsonl"
    report.parent.mkdir()
    report.write_text("{}")
    with monkeypatch.context() as patched:
        patched.setattr(world.imaging, "start_dicom_import_job", lambda **_: 1 / 0)
        call(world, "--report", report, tmp_path / "in")
    # An ingest without a report leaves the file as it was, and nothing beside it.
    assert (report.read_text(), list(report.parent.iterdir())) == ("{}", [report])
    assert call(world, "--report", report, tmp_path / "in").exit_code == 0
    assert report.stat().st_mode & 0o777 == 0o600
    assert json.loads(report.read_text().splitlines()[0])["imported"] == 2


def test_a_report_that_has_no_room_in_the_end_costs_no_result(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study(tmp_path / "in", 2)

    def full(_file: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("workbench.ingesting.report_file.os.fsync", full)
        told = call(world, "--json", "--report", tmp_path / "r.jsonl", tmp_path / "in")
    assert (told.exit_code, json.loads(told.stdout)["imported"]) == (1, 2)
    assert "No space left on device" in told.stderr
    assert "the same command writes the report" in told.stderr
    assert call(world, "--report", tmp_path / "r.jsonl", tmp_path / "in").exit_code == 0
    assert json.loads((tmp_path / "r.jsonl").read_text().splitlines()[0])["alreadyIn"] == 2
    assert world.imported_once


@pytest.mark.parametrize("mode", [[], ["--dry-run"]])
def test_the_report_in_a_folder_that_is_given_is_none_of_its_files(
    world: World, tmp_path: Path, mode: list[str]
) -> None:
    study(tmp_path / "in", 2)
    report = tmp_path / "in" / "r.jsonl"
    for _ in range(2):
        # First only what becomes the report lies there, then also the last one.
        assert call(world, *mode, "--report", report, tmp_path / "in").exit_code == 0
        assert json.loads(report.read_text().splitlines()[0])["given"] == 2


def test_a_dry_run_reports_each_file_and_refuses_values(world: World, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    study(folder, 3)
    assert call(world, folder / "0001.dcm").exit_code == 0
    (folder / "copy.dcm").write_bytes((folder / "0002.dcm").read_bytes())
    (folder / "README").touch()
    (folder / "bad.dcm").write_bytes(b"garbage")
    assert call(world, "--dry-run", "--report", tmp_path / "r.jsonl", folder).exit_code == 1
    totals, *lines = map(json.loads, (tmp_path / "r.jsonl").read_text().splitlines())
    assert (totals["dryRun"], totals["given"], totals["failed"]) == (True, 6, 1)
    assert {Path(one["file"]).name: one["state"] for one in lines} == {
        "0001.dcm": "alreadyIn",
        "0002.dcm": "wouldImport",
        "0003.dcm": "wouldImport",
        "copy.dcm": "duplicate",
        "README": "skipped",
        "bad.dcm": "failed",
    }
    refused = call(world, "--dry-run", "--values", folder)
    assert refused.exit_code == 1
    assert "--values" in refused.stderr
