"""Ordinary clients of SageMaker work unchanged: the AWS CLI and sagemaker-core."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from sagemaker_server import SERVER
from sagemaker_trainer import TRAINER
from sagemaker_workbench import Hosting, Workbench


@pytest.fixture(scope="module")
def bench(cloud: Any) -> Workbench:
    return Workbench(cloud)


@pytest.fixture(scope="module")
def endpoint(bench: Workbench, tmp_path_factory: pytest.TempPathFactory) -> str:
    image = bench.image(tmp_path_factory.mktemp("server"), SERVER, tag="server")
    return Hosting(bench, image).endpoint("served")


def cli(bench: Workbench, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the AWS CLI against the cloud."""
    return subprocess.run(
        [str(Path(sys.executable).with_name("aws")), "--endpoint-url", bench.cloud.endpoint_url, *arguments],
        env={**os.environ, **bench.cloud.environment},
        capture_output=True,
        text=True,
    )


def test_the_aws_cli_lists_and_invokes(bench: Workbench, endpoint: str, tmp_path: Path) -> None:
    listed = cli(bench, "sagemaker", "list-endpoints", "--name-contains", endpoint)
    assert json.loads(listed.stdout)["Endpoints"][0]["EndpointStatus"] == "InService"
    answer = tmp_path / "answer.json"
    done = cli(
        bench,
        *("sagemaker-runtime", "invoke-endpoint", "--endpoint-name", endpoint),
        *("--body", "hello", str(answer)),
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(answer.read_text())["body"] == "hello"


def test_what_is_not_supported_says_so(bench: Workbench) -> None:
    done = cli(bench, "sagemaker", "list-domains")
    assert done.returncode != 0
    assert "does not support sagemaker:ListDomains" in done.stderr


@pytest.mark.slow
def test_sagemaker_core_creates_waits_and_invokes(
    bench: Workbench,
    endpoint: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in bench.cloud.environment.items():
        monkeypatch.setenv(name, value)
    resources = importlib.import_module("sagemaker.core.resources")
    shapes = importlib.import_module("sagemaker.core.shapes")

    served = resources.Endpoint.get(endpoint)
    answer = served.invoke(body=b"hello", content_type="text/plain")
    assert json.loads(answer.body.read())["type"] == "text/plain"
    job = resources.TrainingJob.create(
        training_job_name=f"{bench.name}-core",
        role_arn=bench.role,
        algorithm_specification=shapes.AlgorithmSpecification(
            training_image=bench.image(tmp_path, TRAINER, tag="trainer"), training_input_mode="File"
        ),
        output_data_config=shapes.OutputDataConfig(s3_output_path=bench.uri("core")),
        resource_config=shapes.ResourceConfig(
            instance_type="ml.m5.large", instance_count=1, volume_size_in_gb=10
        ),
        stopping_condition=shapes.StoppingCondition(max_runtime_in_seconds=100),
    )
    job.wait(poll=1)
    assert bench.get(job.model_artifacts.s3_model_artifacts)
