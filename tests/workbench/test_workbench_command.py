"""The command line: exit codes, JSON on standard output, advice on standard error; and the demo's way to
fail.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import EndpointConnectionError, NoCredentialsError
from training_world import (
    EVALUATION_KEY,
    EXECUTION,
    MANIFEST_URI,
    PACKAGE,
    FakePipeline,
    evaluation,
    manifest,
    succeeded,
)
from typer.testing import CliRunner
from workbench_fakes import FakeLogs, FakeS3, deployment, error

from arrival.importing.job_output import FailedFile, ImportedFile
from healthimaging.errors import MissingSliceError
from healthimaging.manifest import Manifest
from workbench import main, query_command
from workbench.cloud import CloudStatus
from workbench.datasets import command as dataset_command
from workbench.datasets.make import Dataset, Division
from workbench.demo import __main__ as demo
from workbench.environment import load_environment
from workbench.errors import EnvironmentInvalid, ProgramFailed, WorkbenchError
from workbench.failures import understood
from workbench.ingest import IngestReport
from workbench.ingesting import command as ingest_command
from workbench.program import run_program
from workbench.provision import program_environment
from workbench.served import Mode
from workbench.training import command as train_command

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
bundle = "some_bundle"
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
    assert [(one.name, one.bundle) for one in environment.tasks] == [("whatever", "some_bundle")]
    assert environment.served[1].package_parameter("liver") == "SharedLiverModelPackageArn"
    assert environment.local.docker.is_absolute()


def test_an_environment_file_of_ones_own_is_named_by_its_path(folder: Path) -> None:
    own = folder / "elsewhere.toml"
    own.write_text(LOCAL)
    assert load_environment(str(own)) == load_environment("trial", folder=folder)
    with pytest.raises(EnvironmentInvalid, match=r"nowhere\.toml does not exist"):
        load_environment(str(folder / "nowhere.toml"))


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

    monkeypatch.setattr(query_command, "query", fail)
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
    monkeypatch.setattr(ingest_command, "run_ingest", lambda *_, **__: report)
    monkeypatch.setattr(ingest_command, "deployment_of", lambda _env: None)
    result = run("ingest", "in", "--json")
    assert result.exit_code == code
    assert json.loads(result.stdout)["ok"] is not failed
    text = run("ingest", "in")
    assert text.exit_code == code
    assert "NOT PRIMARY" in text.stdout
    assert "in/README" in text.stdout
    assert ("in/broken.dcm" in text.stdout) is failed


def test_dataset_passes_on_how_to_label_and_divide(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict[str, Any] = {}

    def make(_deployment: object, sql: str, **options: Any) -> Dataset:
        asked.update(options, sql=sql)
        made = Manifest.from_json(manifest("train", "test"))
        return Dataset(manifest=made, uri="s3://models/manifests/x.json", warnings=("No case of class AD",))

    monkeypatch.setattr(dataset_command, "deployment_of", lambda _env: None)
    monkeypatch.setattr(dataset_command, "make_dataset", make)
    result = run(
        *("dataset", "--labels", "l.csv", "--class-column", "dx", "--modality", "MR", "--test", "0.3"),
        *("--stratify", "patient_sex", "--test-patient", "P1", "--test-patient", "P2", "--json"),
    )
    assert result.exit_code == 0, result.output
    assert "SEG" not in asked["sql"], "labels come from the table"
    assert (asked["labels"], asked["class_column"]) == ("l.csv", "dx")
    assert asked["division"] == Division(test=0.3, stratify=["patient_sex"], test_patients=["P1", "P2"])
    document = json.loads(result.stdout)
    assert document["warnings"] == ["No case of class AD"]
    assert run("dataset").stdout.splitlines()[0] == "s3://models/manifests/x.json"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["lung", "--data", "s3://m", "--parameter", "MaxSteps"], "NAME=VALUE"),
        (["lung", "--data", "s3://m", "--set", "lr"], "NAME=VALUE"),
        (["lung", "--data", "s3://m", "--set", "lr=[1,"], "not JSON"),
        (["lung"], "a bundle and data"),
        (["--data", "s3://m"], "a bundle and data"),
        ([], "a bundle and data"),
        (["lung", "--data", "s3://m", "--follow", "x"], "exclude each other"),
    ],
)
def test_train_says_what_it_wants(monkeypatch: pytest.MonkeyPatch, arguments: list[str], words: str) -> None:
    monkeypatch.setattr(train_command, "start_training", forbidden)
    result = run("train", *arguments, "--json")
    assert result.exit_code == 1
    assert words in json.loads(result.stdout)["error"]["message"]


def forbidden(*_: Any, **__: Any) -> Any:
    raise AssertionError("nothing may be started")


@pytest.fixture
def training(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> FakePipeline:
    """`monai-aws train` against a pipeline that registers a package."""
    sagemaker = FakePipeline(succeeded())
    s3 = FakeS3(
        {
            "models/manifests/a.json": manifest("train", "test"),
            EVALUATION_KEY: json.dumps(evaluation()).encode(),
            EVALUATION_KEY.replace("evaluation.json", "report.html"): b"<html>",
        }
    )
    world = deployment(sagemaker=sagemaker, s3=s3, logs=FakeLogs({}))
    monkeypatch.setattr(train_command, "deployment_of", lambda _env: world)
    monkeypatch.setattr(train_command, "REPORTS", tmp_path)
    return sagemaker


def test_train_ends_with_the_package_its_scores_and_its_report(
    training: FakePipeline, tmp_path: Path
) -> None:
    arguments = ["train", "ct_segmentation", "--data", MANIFEST_URI, "--set", "lr=0.1", "--set", "norm=batch"]
    result = run(*arguments, "--steps", "5", "--parameter", "MinimumImprovement=-1")
    assert result.exit_code == 0, result.output
    assert json.loads(training.parameters["Overrides"]) == {"lr": 0.1, "norm": "batch"}
    assert (training.parameters["MaxSteps"], training.parameters["MinimumImprovement"]) == ("5", "-1")
    lines = result.stdout.splitlines()
    assert lines[0] == PACKAGE
    for words in (
        "  mean_dice 0.9300, 95% interval 0.900 to 0.950 on 2 patients, held out (test)",
        "  The training used none of these patients.",
        "  +0.0200 against the approved lung-models/1",
        f"  report: {tmp_path / 'abc' / 'report.html'}",
        "  model card (draft), in the package",
    ):
        assert words in lines


def test_train_follows_and_its_json_is_whole(training: FakePipeline) -> None:
    result = run("train", "--follow", EXECUTION, "--json")
    assert result.exit_code == 0, result.output
    document = json.loads(result.stdout)
    assert not training.started
    assert document["modelPackageArn"] == PACKAGE
    assert document["evaluation"]["intervals"]["mean_dice"]["high"] == 0.95
    assert document["files"]["report"].endswith("report.html")


def test_train_stops_an_execution(training: FakePipeline) -> None:
    assert run("train", "--stop", "abc").exit_code == 0
    assert training.stopped == EXECUTION


def test_a_lost_connection_is_no_lost_training(
    training: FakePipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lost(*_: Any, **__: Any) -> Any:
        raise EndpointConnectionError(endpoint_url="https://sagemaker")

    monkeypatch.setattr(train_command, "follow_training", lost)
    result = run("train", "--follow", EXECUTION)
    assert result.exit_code == 1
    assert f"monai-aws train --follow {EXECUTION}" in result.stderr


def test_after_ctrl_c_the_training_goes_on_and_one_is_told_how_to_get_back(
    training: FakePipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: Any, **__: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(train_command, "follow_training", interrupted)
    result = run("train", "lung-segmentation", "--data", MANIFEST_URI)
    assert result.exit_code == 130
    assert f"monai-aws train --follow {EXECUTION} --env local" in result.stderr
    assert f"monai-aws train --stop {EXECUTION}" in result.stderr
    assert not training.stopped


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
