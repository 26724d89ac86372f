"""Jobs that a person stops: a processing job and a batch transform end as Stopped, their containers too."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
from sagemaker_server import SERVER
from sagemaker_workbench import Hosting, Workbench, wait_for

SLEEPER = """
import time
print("sleeping", flush=True)
time.sleep(120)
"""


@pytest.fixture(scope="module")
def bench(cloud: Any) -> Workbench:
    return Workbench(cloud)


def containers_of(bench: Workbench, name: str) -> list[psutil.Process]:
    """Processes that were started with the job's own folder as their base."""
    found = []
    for process in psutil.process_iter():
        try:
            base = process.environ().get("SAGEMAKER_BASE_DIR", "")
        except psutil.Error:
            continue
        if base.startswith(str(bench.cloud.root)) and name in base:
            found.append(process)
    return found


def stopped(bench: Workbench, name: str, *, status: Callable[[], str], stop: Callable[[], Any]) -> None:
    """Stop a job whose container is at work, and see it end."""
    assert wait_for(lambda: containers_of(bench, name))
    assert status() == "InProgress"
    stop()
    assert wait_for(lambda: status() not in ("InProgress", "Stopping"))
    assert status() == "Stopped"
    assert wait_for(lambda: not containers_of(bench, name))
    with pytest.raises(bench.sagemaker.exceptions.ClientError, match="not in progress"):
        stop()


def test_a_processing_job_stops(bench: Workbench, tmp_path: Path) -> None:
    name = f"{bench.name}-processing"
    bench.sagemaker.create_processing_job(
        ProcessingJobName=name,
        AppSpecification={"ImageUri": bench.image(tmp_path, SLEEPER, tag="sleeper")},
        ProcessingResources={
            "ClusterConfig": {"InstanceCount": 1, "InstanceType": "ml.m5.large", "VolumeSizeInGB": 10}
        },
        RoleArn=bench.role,
    )
    stopped(
        bench,
        name,
        status=lambda: bench.sagemaker.describe_processing_job(ProcessingJobName=name)["ProcessingJobStatus"],
        stop=lambda: bench.sagemaker.stop_processing_job(ProcessingJobName=name),
    )


def test_a_transform_job_stops(bench: Workbench, tmp_path: Path) -> None:
    hosting = Hosting(bench, bench.image(tmp_path, SERVER, tag="server"))
    bench.put("long/a.txt", "sleep 60")
    name = f"{bench.name}-transform"
    bench.sagemaker.create_transform_job(
        TransformJobName=name,
        ModelName=hosting.model("long"),
        TransformInput={
            "DataSource": {"S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": bench.uri("long/")}},
            "ContentType": "text/plain",
        },
        TransformOutput={"S3OutputPath": bench.uri("answers")},
        TransformResources={"InstanceType": "ml.m5.large", "InstanceCount": 1},
    )
    stopped(
        bench,
        name,
        status=lambda: bench.sagemaker.describe_transform_job(TransformJobName=name)["TransformJobStatus"],
        stop=lambda: bench.sagemaker.stop_transform_job(TransformJobName=name),
    )
