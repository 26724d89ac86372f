"""What goes wrong around jobs and endpoints: refused tags, no folder to work in, a name used again."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import botocore.exceptions
import pytest
from sagemaker_server import SERVER
from sagemaker_trainer import TRAINER, finished, request
from sagemaker_workbench import Hosting, Workbench, wait_for

from local.sagemaker.logs import LogShipper


@pytest.fixture(scope="module")
def bench(cloud: Any) -> Workbench:
    return Workbench(cloud)


@pytest.fixture(scope="module")
def trainer(bench: Workbench, tmp_path_factory: pytest.TempPathFactory) -> str:
    return bench.image(tmp_path_factory.mktemp("trainer"), TRAINER, tag="trainer")


@pytest.fixture(scope="module")
def hosting(bench: Workbench, tmp_path_factory: pytest.TempPathFactory) -> Hosting:
    return Hosting(bench, bench.image(tmp_path_factory.mktemp("server"), SERVER, tag="server"))


def test_tags_that_are_refused_leave_no_job_behind(bench: Workbench, trainer: str) -> None:
    allowed = {"Effect": "Allow", "Action": ["sagemaker:CreateTrainingJob", "iam:PassRole"], "Resource": "*"}
    caller = bench.client_as(bench.make_role("cannot-tag", [allowed]), "sagemaker")
    job = request(bench, trainer, "tagged") | {"Tags": [{"Key": "team", "Value": "imaging"}]}
    with pytest.raises(botocore.exceptions.ClientError, match="sagemaker:AddTags"):
        caller.create_training_job(**job)
    with pytest.raises(botocore.exceptions.ClientError, match="not found"):
        bench.sagemaker.describe_training_job(TrainingJobName=job["TrainingJobName"])


def test_a_job_whose_folder_cannot_be_made_fails(bench: Workbench, trainer: str) -> None:
    job = request(bench, trainer, "no-folder")
    in_the_way = bench.cloud.root / "sagemaker" / "training-job" / job["TrainingJobName"]
    in_the_way.parent.mkdir(parents=True, exist_ok=True)
    in_the_way.touch()
    bench.sagemaker.create_training_job(**job)
    failed = finished(bench, job["TrainingJobName"])
    assert failed["TrainingJobStatus"] == "Failed"
    assert failed["FailureReason"].startswith("InternalServerError: ")
    assert str(in_the_way) in failed["FailureReason"]


def test_a_checkpoint_path_may_not_lead_out(bench: Workbench, trainer: str) -> None:
    job = request(bench, trainer, "leads-out")
    job["CheckpointConfig"] = {"S3Uri": bench.uri("c"), "LocalPath": "/opt/ml/../../../tmp/elsewhere"}
    with pytest.raises(botocore.exceptions.ClientError, match="outside /opt/ml"):
        bench.sagemaker.create_training_job(**job)


def test_an_endpoint_deleted_while_it_starts_does_not_come_back_as_its_successor(
    bench: Workbench, hosting: Hosting
) -> None:
    name = hosting.endpoint("again", wait=False, sick=True)
    containers = bench.cloud.root / "containers"

    def running() -> list[Path]:
        found = [file for file in containers.glob("*.json") if file.exists()]
        return [
            file for file in found if json.loads(file.read_text())["name"].startswith(f"endpoint {name},")
        ]

    wait_for(running)
    first = running()
    bench.sagemaker.delete_endpoint(EndpointName=name)

    def gone() -> bool:
        try:
            bench.sagemaker.describe_endpoint(EndpointName=name)
        except botocore.exceptions.ClientError as error:
            return "Could not find" in str(error)
        return False

    wait_for(gone)
    config = hosting.config("successor", model=hosting.model("successor"))
    bench.sagemaker.create_endpoint(EndpointName=name, EndpointConfigName=config)
    described = hosting.settled(name)
    assert described["EndpointStatus"] == "InService", described
    assert described["EndpointConfigName"] == config
    assert hosting.invoke(name, b"x")["model"] == "successor"
    wait_for(lambda: not any(file.exists() for file in first), seconds=20)
    bench.sagemaker.delete_endpoint(EndpointName=name)


class Logs:
    """CloudWatch Logs that fails as told and keeps what it takes."""

    def __init__(self, *codes: str) -> None:
        self.codes = list(codes)
        self.taken: list[str] = []
        self.asked = threading.Semaphore(0)

    def create_log_stream(self, **_: str) -> None: ...

    def put_log_events(self, *, logEvents: list[dict[str, str]], **_: str) -> None:
        self.asked.release()
        if self.codes:
            raise botocore.exceptions.ClientError({"Error": {"Code": self.codes.pop(0)}}, "PutLogEvents")
        self.taken += [event["message"] for event in logEvents]


@pytest.mark.parametrize(
    ("code", "kept"), [("ThrottlingException", ["second"]), ("AccessDeniedException", [])]
)
def test_only_a_refusal_ends_the_log(tmp_path: Path, code: str, kept: list[str]) -> None:
    output = tmp_path / "output.log"
    output.write_text("first\n")
    logs = Logs(code)
    shipper = LogShipper(client=logs, group="g", stream="s", path=output)
    assert logs.asked.acquire(timeout=10)
    with output.open("a") as file:
        file.write("second\n")
    shipper.close()
    assert logs.taken == kept
