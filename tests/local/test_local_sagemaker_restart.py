"""What a restart and a kill -9 of the cloud do to jobs, endpoints and queued requests."""

from __future__ import annotations

import json
import uuid
from pathlib import Path
from typing import Any

import psutil
from sagemaker_server import SERVER
from sagemaker_trainer import TRAINER, finished, request
from sagemaker_workbench import Hosting, Workbench, wait_for


def make_pipeline_role(bench: Workbench) -> str:
    """The role of `start_pipeline`. It is made early: a kill may lose what is a second old."""
    actions = ["sagemaker:CreateTrainingJob", "sagemaker:DescribeTrainingJob", "iam:PassRole"]
    return bench.make_role("pipeline", [{"Effect": "Allow", "Action": actions, "Resource": "*"}])


def start_pipeline(bench: Workbench, image: str, role: str) -> str:
    """An execution of a pipeline whose only step sleeps; its ARN."""
    arguments = request(bench, image, "step", mode="sleep")
    del arguments["TrainingJobName"]
    steps = [{"Name": "Train", "Type": "Training", "Arguments": arguments}]
    bench.sagemaker.create_pipeline(
        PipelineName=bench.name,
        PipelineDefinition=json.dumps({"Version": "2020-12-01", "Steps": steps}),
        ClientRequestToken=uuid.uuid4().hex,
        RoleArn=role,
    )
    started = bench.sagemaker.start_pipeline_execution(
        PipelineName=bench.name, ClientRequestToken=uuid.uuid4().hex
    )
    return str(started["PipelineExecutionArn"])


def processes(cloud: Any) -> list[psutil.Process]:
    """The containers of a cloud that run."""
    found = []
    for record in (cloud.root / "containers").glob("*.json"):
        pid = json.loads(record.read_text())["pid"]
        if psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
            found.append(psutil.Process(pid))
    return found


def test_a_kill_leaves_nothing_behind_that_the_next_start_does_not_mend(
    own_cloud: Any, tmp_path: Path
) -> None:
    bench = Workbench(own_cloud)
    pipeline_role = make_pipeline_role(bench)
    hosting = Hosting(bench, bench.image(tmp_path, SERVER, tag="server"))
    trainer = bench.image(tmp_path, TRAINER, tag="trainer")
    endpoint = hosting.endpoint("stays", asynchronous=True)
    before = hosting.settled(endpoint)
    job = request(bench, trainer, "cut-off", mode="sleep")
    bench.sagemaker.create_training_job(**job)
    execution = start_pipeline(bench, trainer, pipeline_role)
    wait_for(lambda: len(processes(own_cloud)) == 3)
    requests = [
        bench.runtime.invoke_endpoint_async(
            EndpointName=endpoint, InputLocation=bench.put(f"r/{number}", body)
        )
        for number, body in enumerate(("sleep 3", "after"))
    ]
    left = processes(own_cloud)
    own_cloud.kill()
    assert all(process.is_running() for process in left)

    own_cloud.start()
    wait_for(lambda: not any(process.is_running() for process in left))
    failed = finished(bench, job["TrainingJobName"])
    assert failed["TrainingJobStatus"] == "Failed"
    assert "the local cloud was stopped while this job ran" in failed["FailureReason"]
    interrupted = bench.sagemaker.describe_pipeline_execution(PipelineExecutionArn=execution)
    assert interrupted["PipelineExecutionStatus"] == "Failed"
    assert "the local cloud was stopped during the execution" in interrupted["FailureReason"]
    bench.sagemaker.retry_pipeline_execution(
        PipelineExecutionArn=execution, ClientRequestToken=uuid.uuid4().hex
    )

    def trains_again() -> bool:
        (train,) = bench.sagemaker.list_pipeline_execution_steps(PipelineExecutionArn=execution)[
            "PipelineExecutionSteps"
        ]
        return (train["StepStatus"], train["AttemptCount"], "Metadata" in train) == ("Executing", 2, True)

    wait_for(trains_again)
    after = hosting.settled(endpoint)
    assert after["EndpointStatus"] == "InService"
    assert after["CreationTime"] == before["CreationTime"]

    def answered() -> bool:
        listed = bench.s3.list_objects_v2(Bucket=bench.bucket, Prefix="responses/").get("Contents", [])
        return len(listed) == len(requests)

    wait_for(answered)
    assert json.loads(bench.get(requests[1]["OutputLocation"]))["body"] == "after"


def test_a_restart_stops_the_containers_and_starts_endpoints_again(own_cloud: Any, tmp_path: Path) -> None:
    bench = Workbench(own_cloud)
    hosting = Hosting(bench, bench.image(tmp_path, SERVER, tag="server"))
    endpoint = hosting.endpoint("comes-back")
    shared = f"{bench.name}-shared"
    bench.sagemaker.create_endpoint(EndpointName=shared, EndpointConfigName=hosting.host("shared"))
    hosting.settled(shared)
    component = hosting.component("part", endpoint=shared, ModelName=hosting.model("part"))
    hosting.settled_component(component)

    def containers() -> list[int]:
        part = hosting.invoke(shared, b"x", InferenceComponentName=component)
        return [hosting.invoke(endpoint, b"x")["pid"], part["pid"]]

    first = containers()
    own_cloud.stop()
    assert not any(psutil.pid_exists(pid) for pid in first)
    own_cloud.start()
    hosting.settled(endpoint)
    hosting.settled_component(component)
    assert not set(containers()) & set(first)
