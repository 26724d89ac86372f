"""The command line: exit codes, JSON on standard output, advice on standard error; and the demo's way to
fail.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import EndpointConnectionError, NoCredentialsError
from typer.testing import CliRunner
from workbench_fakes import error

from healthimaging.errors import MissingSliceError
from workbench import main
from workbench.cloud import CloudStatus
from workbench.demo import __main__ as demo
from workbench.environment import load_environment
from workbench.errors import EnvironmentInvalid, ProgramFailed, WorkbenchError
from workbench.failures import understood
from workbench.import_report import FailedFile, ImportedFile
from workbench.ingest import IngestReport
from workbench.program import run_program
from workbench.provision import program_environment
from workbench.served import Mode

LOCAL = """
name = "trial"
[aws]
account = "000000000000"
region = "us-east-1"
[local]
endpoint_url = "http://localhost:4566"
access_key_id = "test"
secret_access_key = "test"
docker = "local/containers/docker"
[[training.tasks]]
name = "whatever"
[[inference.endpoints]]
name = "lung-now"
mode = "real-time"
task = "lung"
[[inference.endpoints]]
name = "shared"
mode = "inference-components"
models = [{ task = "lung" }, { task = "liver" }]
[[inference.endpoints]]
name = "zoo"
mode = "multi-model"
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "trial.toml").write_text(LOCAL)
    return tmp_path


def test_environment_is_read_as_data(folder: Path) -> None:
    environment = load_environment("trial", folder=folder)
    assert environment.stack_name("data") == "monai-trial-data"
    assert environment.local is not None
    assert environment.local.docker is not None
    assert [(one.name, one.mode, one.tasks) for one in environment.served] == [
        ("lung-now", Mode.REAL_TIME, ("lung",)),
        ("shared", Mode.INFERENCE_COMPONENTS, ("lung", "liver")),
        ("zoo", Mode.MULTI_MODEL, ()),
    ]
    assert environment.served[1].package_parameter("liver") == "SharedLiverModelPackageArn"
    assert environment.local.docker.is_absolute()


def test_every_problem_of_an_environment_file_is_said_at_once(folder: Path) -> None:
    (folder / "bad.toml").write_text(
        '[aws]\nregion = 3\n[local]\nendpoint_url = ""\n[[inference.endpoints]]\nname = "n"\nmode = "m"'
    )
    with pytest.raises(EnvironmentInvalid) as caught:
        load_environment("bad", folder=folder)
    for key in ("aws.account", "aws.region", "local.endpoint_url", "inference.endpoints.0.mode"):
        assert key in caught.value.message
    assert "bad.toml" in caught.value.message
    with pytest.raises(EnvironmentInvalid) as caught:
        load_environment("staging", folder=folder)
    assert "trial" in caught.value.advice
    (folder / "torn.toml").write_text("name = ")
    with pytest.raises(EnvironmentInvalid, match="not valid TOML"):
        load_environment("torn", folder=folder)


def test_cdk_reaches_the_local_cloud_and_nothing_else(folder: Path) -> None:
    own = {"PATH": "/bin", "AWS_PROFILE": "hospital", "AWS_SESSION_TOKEN": "secret"}
    variables = program_environment(load_environment("trial", folder=folder), base=own)
    assert variables["AWS_ENDPOINT_URL"] == "http://localhost:4566"
    assert variables["AWS_ACCESS_KEY_ID"] == "test"
    assert "AWS_PROFILE" not in variables
    assert "AWS_SESSION_TOKEN" not in variables
    assert variables["PATH"].endswith(":/bin")
    assert variables["CDK_DOCKER"].endswith("local/containers/docker")


def test_cdk_of_an_account_keeps_the_persons_credentials(folder: Path) -> None:
    (folder / "dev.toml").write_text('[aws]\naccount = "111122223333"\nregion = "eu-west-1"')
    variables = program_environment(load_environment("dev", folder=folder), base={"AWS_PROFILE": "hospital"})
    assert variables["AWS_PROFILE"] == "hospital"
    assert variables["AWS_REGION"] == "eu-west-1"
    assert "AWS_ENDPOINT_URL" not in variables


def test_a_program_that_fails_shows_its_last_lines(tmp_path: Path) -> None:
    lines: list[str] = []
    with pytest.raises(ProgramFailed, match="exit code 3") as caught:
        run_program(
            ["sh", "-c", "echo one; echo two >&2; exit 3"],
            what="It",
            advice="",
            environment={"PATH": "/bin:/usr/bin"},
            folder=tmp_path,
            progress=lines.append,
        )
    assert caught.value.details == ("one", "two")
    assert lines == ["one", "two"]
    with pytest.raises(ProgramFailed, match="could not be started"):
        run_program(
            ["/no/such/program"], what="It", advice="", environment={}, folder=tmp_path, progress=lines.append
        )


@pytest.mark.parametrize(
    ("raised", "words"),
    [
        (EndpointConnectionError(endpoint_url="http://localhost:4566"), "cloud up"),
        (NoCredentialsError(), "sso login"),
        (error("AccessDeniedException", "role x lacks s3:GetObject"), "roles in infra/"),
        (error("ThrottlingException"), "again in a minute"),
        (MissingSliceError("slice 7 is missing", image_set_id="abc"), "monai-aws show"),
        (PermissionError(13, "Permission denied", "/data/x.dcm"), "permissions"),
    ],
)
def test_what_libraries_raise_becomes_advice(raised: Exception, words: str) -> None:
    failure = understood(raised)
    assert failure is not None
    assert words in failure.advice


def test_a_defect_is_not_understood() -> None:
    assert understood(KeyError("x")) is None


def run(*arguments: str) -> Any:
    return CliRunner().invoke(main.app, list(arguments))


def test_failure_is_json_with_a_code_and_advice(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise WorkbenchError("it broke", advice="mend it")

    monkeypatch.setattr(main, "query", fail)
    result = run("query", "SELECT 1", "--json")
    assert result.exit_code == 1
    assert json.loads(result.stdout)["error"] == {
        "type": "WorkbenchError",
        "message": "it broke",
        "advice": "mend it",
        "details": [],
    }
    result = run("query", "SELECT 1")
    assert result.exit_code == 1
    assert result.stdout == ""
    assert "it broke" in result.stderr
    assert "mend it" in result.stderr


def test_unknown_environment_and_misspelt_option() -> None:
    result = run("query", "SELECT 1", "--env", "nowhere", "--json")
    assert result.exit_code == 1
    assert json.loads(result.stdout)["error"]["type"] == "EnvironmentInvalid"
    assert run("query", "--nonsense").exit_code == 2


def test_an_aws_account_has_no_local_cloud() -> None:
    result = run("cloud", "up", "--env", "dev", "--json")
    assert result.exit_code == 1
    assert "--env local" in json.loads(result.stdout)["error"]["advice"]


@pytest.mark.parametrize(("failed", "code"), [(False, 0), (True, 1)])
def test_ingest_fails_if_a_file_failed(monkeypatch: pytest.MonkeyPatch, failed: bool, code: int) -> None:
    bad = FailedFile(file="in/broken.dcm", kind="ParseError", reason="cut short")
    report = IngestReport(
        datastore_id="d",
        jobs=("j",),
        imported=(ImportedFile(file="in/a.dcm", image_set_id="i", version_id=1, is_primary=False),),
        failed=(bad,) if failed else (),
        skipped=("in/README",),
        warnings=(),
    )
    monkeypatch.setattr(main, "ingest", lambda *_, **__: report)
    result = run("ingest", "in", "--json")
    assert result.exit_code == code
    assert json.loads(result.stdout)["ok"] is not failed
    text = run("ingest", "in")
    assert text.exit_code == code
    assert "NOT PRIMARY" in text.stdout
    assert "in/README" in text.stdout
    assert ("in/broken.dcm" in text.stdout) is failed


def test_train_wants_name_and_value() -> None:
    result = run("train", "s3://m", "--parameter", "MaxSteps", "--json")
    assert result.exit_code == 1
    assert "NAME=VALUE" in json.loads(result.stdout)["error"]["message"]


def status(*_: Any, **__: Any) -> CloudStatus:
    return CloudStatus(
        running=False, ready=False, endpoint_url="", root="", pid=None, recorded_only=("AWS::A::B",)
    )


def test_demo_that_fails_writes_its_summary_and_report(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def taken(*_: Any, **__: Any) -> None:
        raise ProgramFailed("The local cloud ended.", advice="Free the port.", details=["port 4566 is taken"])

    monkeypatch.setattr("workbench.demo.job.cloud_up", taken)
    monkeypatch.setattr(demo, "cloud_status", status)
    result = CliRunner().invoke(demo.app, ["--folder", str(tmp_path)])
    assert result.exit_code == 1
    assert "port 4566 is taken" in result.stdout
    assert "Free the port." in result.stdout
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["ok"] is False
    assert summary["failed_step"] == "Start the local cloud"
    assert summary["error"]["advice"] == "Free the port."
    assert summary["recorded_only"] == ["AWS::A::B"]
    assert [one["ok"] for one in summary["steps"]] == [False]
    assert "Free the port." in (tmp_path / "report.html").read_text()


def test_demo_with_a_defect_does_not_leave_an_old_summary(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "summary.json").write_text('{"ok": true}')

    def defect(*_: Any, **__: Any) -> None:
        raise KeyError("x")

    monkeypatch.setattr("workbench.demo.job.cloud_up", defect)
    monkeypatch.setattr(demo, "cloud_status", status)
    result = CliRunner().invoke(demo.app, ["--folder", str(tmp_path)])
    assert result.exit_code == 1
    assert isinstance(result.exception, KeyError)
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["ok"] is False
    assert "KeyError" in summary["error"]["message"]


def test_demo_whose_folder_is_not_writable_fails(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(demo, "run_job", lambda *_: None)
    monkeypatch.setattr(demo, "cloud_status", status)
    result = CliRunner().invoke(demo.app, ["--folder", str(tmp_path / "file")])
    assert result.exit_code == 1
    assert "could not be written" in result.stdout
