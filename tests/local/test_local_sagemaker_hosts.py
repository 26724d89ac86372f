"""Training jobs on several hosts: containers that find each other, fail together and share their results."""

from __future__ import annotations

import io
import json
import tarfile
from typing import Any

import psutil
import pytest
from cloud_under_test import free_port
from sagemaker_cluster import CLUSTER
from sagemaker_trainer import finished, request
from sagemaker_workbench import Workbench, wait_for


@pytest.fixture(scope="module")
def bench(cloud: Any) -> Workbench:
    return Workbench(cloud)


@pytest.fixture(scope="module")
def image(bench: Workbench, tmp_path_factory: pytest.TempPathFactory) -> str:
    return bench.image(tmp_path_factory.mktemp("cluster"), CLUSTER, tag="cluster")


def job(bench: Workbench, image: str, mode: str, *, hosts: int = 2) -> dict[str, Any]:
    """A job of some hosts; its hosts meet at a port that nobody else uses."""
    made = request(bench, image, mode, mode=mode, port=str(free_port()))
    made["AlgorithmSpecification"]["MetricDefinitions"] = [{"Name": "met", "Regex": "met=([0-9]+)"}]
    made["ResourceConfig"]["InstanceCount"] = hosts
    made["CheckpointConfig"] = {"S3Uri": bench.uri(f"checkpoints/{mode}")}
    return made


def archive(bench: Workbench, uri: str) -> dict[str, bytes]:
    """Name -> content of the files in an archive."""
    with tarfile.open(fileobj=io.BytesIO(bench.get(uri))) as tar:
        return {
            entry.name: file.read()
            for entry in tar.getmembers()
            if (file := tar.extractfile(entry)) is not None
        }


def keys(bench: Workbench, prefix: str) -> list[str]:
    listed = bench.s3.list_objects_v2(Bucket=bench.bucket, Prefix=prefix).get("Contents", [])
    return [entry["Key"].removeprefix(prefix) for entry in listed]


def containers_of(bench: Workbench, name: str) -> list[psutil.Process]:
    """The running containers of a job."""
    found = []
    for record in (bench.cloud.root / "containers").glob("*.json"):
        kept = json.loads(record.read_text())
        if name in kept["name"] and psutil.pid_exists(kept["pid"]):
            found.append(psutil.Process(kept["pid"]))
    return found


def test_hosts_meet_and_their_results_are_one(bench: Workbench, image: str) -> None:
    for number in range(5):
        bench.put(f"shards/{number}.txt", str(number))
    made = job(bench, image, "three", hosts=3)
    source = {
        "S3DataType": "S3Prefix",
        "S3Uri": bench.uri("shards/"),
        "S3DataDistributionType": "ShardedByS3Key",
    }
    made["InputDataConfig"] = [{"ChannelName": "data", "DataSource": {"S3DataSource": source}}]
    bench.sagemaker.create_training_job(**made)
    done = finished(bench, made["TrainingJobName"])
    assert done["TrainingJobStatus"] == "Completed", done.get("FailureReason")
    assert [metric["Value"] for metric in done["FinalMetricDataList"]] == [3.0]
    model = done["ModelArtifacts"]["S3ModelArtifacts"]
    assert archive(bench, model) == {"weights.json": b'{"met": 3}', "extra.json": b"{}"}
    output = archive(bench, model.replace("model.tar.gz", "output.tar.gz"))
    seen = [json.loads(output[f"seen-{rank}.json"]) for rank in range(3)]
    assert [entry["resources"]["current_host"] for entry in seen] == ["127.0.0.1", "127.0.0.2", "127.0.0.3"]
    assert all(entry["resources"]["hosts"] == ["127.0.0.1", "127.0.0.2", "127.0.0.3"] for entry in seen)
    assert sorted(name for entry in seen for name in entry["files"]) == [f"{n}.txt" for n in range(5)]
    assert all(entry["files"] for entry in seen)
    assert keys(bench, "checkpoints/three/") == ["rank-0.pt", "rank-1.pt", "rank-2.pt"]
    streams = bench.cloud.client("logs").describe_log_streams(
        logGroupName="/aws/sagemaker/TrainingJobs", logStreamNamePrefix=f"{made['TrainingJobName']}/"
    )["logStreams"]
    assert [stream["logStreamName"].split("/")[1][:7] for stream in streams] == [
        "algo-1-",
        "algo-2-",
        "algo-3-",
    ]


def test_a_host_that_fails_ends_the_others_and_says_why(bench: Workbench, image: str) -> None:
    made = job(bench, image, "fail")
    bench.sagemaker.create_training_job(**made)
    done = finished(bench, made["TrainingJobName"])
    assert done["TrainingJobStatus"] == "Failed"
    assert done["FailureReason"] == "AlgorithmError: rank 1: loss is NaN at step 7, exit code: 4"
    assert not containers_of(bench, made["TrainingJobName"])
    # The other host was asked to end, and what it saved then is kept.
    assert keys(bench, "checkpoints/fail/") == ["rank-0.pt", "rank-1.pt", "terminated-0.pt"]


def test_the_host_that_spoke_first_is_believed(bench: Workbench, image: str) -> None:
    # The host that only lost its peer is gone before the peer that caused it.
    made = job(bench, image, "lost")
    bench.sagemaker.create_training_job(**made)
    done = finished(bench, made["TrainingJobName"])
    assert done["FailureReason"].startswith("AlgorithmError: rank 1: out of memory, exit code: ")


def test_a_stop_reaches_every_host(bench: Workbench, image: str) -> None:
    made = job(bench, image, "wait")
    name = made["TrainingJobName"]
    bench.sagemaker.create_training_job(**made)
    logs = [bench.cloud.root / f"sagemaker/training-job/{name}/algo-{n}/output.log" for n in (1, 2)]
    wait_for(lambda: all(log.exists() and b"met=2" in log.read_bytes() for log in logs))
    assert len(containers_of(bench, name)) == 2
    bench.sagemaker.stop_training_job(TrainingJobName=name)
    assert finished(bench, name)["TrainingJobStatus"] == "Stopped"
    assert not containers_of(bench, name)
    assert {"terminated-0.pt", "terminated-1.pt"} <= set(keys(bench, "checkpoints/wait/"))
    again = job(bench, image, "three")
    again["TrainingJobName"] = f"{name}-again"
    again["CheckpointConfig"] = made["CheckpointConfig"]
    bench.sagemaker.create_training_job(**again)
    model = finished(bench, again["TrainingJobName"])["ModelArtifacts"]["S3ModelArtifacts"]
    output = archive(bench, model.replace("model.tar.gz", "output.tar.gz"))
    for rank in (0, 1):
        found = json.loads(output[f"seen-{rank}.json"])["checkpoints"]
        assert {"rank-0.pt", "rank-1.pt", "terminated-0.pt", "terminated-1.pt"} <= set(found)


def test_two_hosts_may_not_write_one_name(bench: Workbench, image: str) -> None:
    made = job(bench, image, "clash")
    bench.sagemaker.create_training_job(**made)
    done = finished(bench, made["TrainingJobName"])
    assert done["TrainingJobStatus"] == "Failed"
    assert "algo-1 and algo-2 both wrote /opt/ml/model/weights.json" in done["FailureReason"]
