"""Training jobs through boto3: a trainer of the test's own, in a container made from its Dockerfile."""

from __future__ import annotations

import io
import json
import tarfile
from typing import Any

import botocore.exceptions
import pytest
from sagemaker_trainer import TRAINER, finished, request
from sagemaker_workbench import Workbench, wait_for


@pytest.fixture(scope="module")
def bench(cloud: Any) -> Workbench:
    return Workbench(cloud)


@pytest.fixture(scope="module")
def image(bench: Workbench, tmp_path_factory: pytest.TempPathFactory) -> str:
    return bench.image(tmp_path_factory.mktemp("trainer"), TRAINER, tag="trainer")


def run(bench: Workbench, job: dict[str, Any]) -> dict[str, Any]:
    bench.sagemaker.create_training_job(**job)
    return finished(bench, job["TrainingJobName"])


def test_a_job_trains_and_uploads_its_model(bench: Workbench, image: str) -> None:
    manifest = bench.put("manifests/one.json", '{"cases": []}')
    bench.put("data/a/1.txt", "1")
    bench.put("data/b.txt", "2")
    bench.put("checkpoints/old/first.pt", "earlier weights")
    job = request(bench, image, "good", bundle="ct", max_steps="120")
    job["InputDataConfig"] = [
        {"ChannelName": name, "DataSource": {"S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": uri}}}
        for name, uri in (("manifest", manifest), ("data", bench.uri("data/")))
    ]
    job["CheckpointConfig"] = {"S3Uri": bench.uri("checkpoints")}
    job["Environment"] = {"EXTRA": "1"}
    key = bench.cloud.client("kms").create_key()["KeyMetadata"]["Arn"]
    use = {"Effect": "Allow", "Action": ["kms:GenerateDataKey", "kms:Decrypt"], "Resource": key}
    job["RoleArn"] = bench.make_role("with-key", bench.allow(use))
    job["OutputDataConfig"]["KmsKeyId"] = key
    job["Tags"] = [{"Key": "team", "Value": "imaging"}]
    done = run(bench, job)
    assert done["TrainingJobStatus"] == "Completed", done.get("FailureReason")
    assert [entry["Status"] for entry in done["SecondaryStatusTransitions"]] == [
        "Starting",
        "Downloading",
        "Training",
        "Uploading",
        "Completed",
    ]
    assert done["FinalMetricDataList"][0]["MetricName"] == "train:loss"
    assert done["FinalMetricDataList"][0]["Value"] == pytest.approx(0.5)
    artifact = done["ModelArtifacts"]["S3ModelArtifacts"]
    assert artifact == bench.uri(f"training/{job['TrainingJobName']}/output/model.tar.gz")
    with tarfile.open(fileobj=io.BytesIO(bench.get(artifact))) as tar:
        seen = json.loads(tar.extractfile("seen.json").read())  # type: ignore[union-attr] # the file was just put there
    for file in (
        "input/data/manifest/one.json",
        "input/data/data/a/1.txt",
        "input/data/data/b.txt",
        "checkpoints/old/first.pt",
        "input/config/hyperparameters.json",
    ):
        assert file in seen["files"]
    assert seen["channels"]["manifest"]["TrainingInputMode"] == "File"
    assert seen["resources"]["hosts"] == ["algo-1"]
    assert f"assumed-role/{bench.name}-with-key/" in seen["who"]
    bucket, _, object_key = artifact.removeprefix("s3://").partition("/")
    assert bench.s3.head_object(Bucket=bucket, Key=object_key)["SSEKMSKeyId"] == key
    assert not any("/tests" in path or path.endswith("/main") for path in seen["path"])
    assert "EXTRA" in seen["environment"]
    assert "PYTEST_CURRENT_TEST" not in seen["environment"]
    assert bench.get(bench.uri("checkpoints/last.pt")) == b"weights"
    assert bench.get(artifact.replace("model.tar.gz", "output.tar.gz"))
    tags = bench.sagemaker.list_tags(ResourceArn=done["TrainingJobArn"])["Tags"]
    assert tags == [{"Key": "team", "Value": "imaging"}]


def test_the_output_reaches_cloudwatch_logs(bench: Workbench, image: str) -> None:
    done = run(bench, request(bench, image, "logs"))
    logs = bench.cloud.client("logs")
    streams = logs.describe_log_streams(
        logGroupName="/aws/sagemaker/TrainingJobs", logStreamNamePrefix=done["TrainingJobName"]
    )["logStreams"]
    events = logs.get_log_events(
        logGroupName="/aws/sagemaker/TrainingJobs", logStreamName=streams[0]["logStreamName"]
    )["events"]
    assert any("greeting hello world" in event["message"] for event in events)


def test_the_failure_file_is_the_reason(bench: Workbench, image: str) -> None:
    done = run(bench, request(bench, image, "failure", mode="fail"))
    assert done["TrainingJobStatus"] == "Failed"
    assert done["FailureReason"].startswith("AlgorithmError: the labels are upside down")
    assert done["FailureReason"].endswith("exit code: 3")
    assert len(done["FailureReason"]) <= 1024


def test_without_a_failure_file_the_reason_has_the_last_output(bench: Workbench, image: str) -> None:
    done = run(bench, request(bench, image, "crash", mode="crash"))
    assert "no such luck" in done["FailureReason"]


def test_a_stopped_job_keeps_its_model(bench: Workbench, image: str) -> None:
    job = request(bench, image, "stopped", mode="sleep")
    bench.sagemaker.create_training_job(**job)
    log = bench.cloud.root / "sagemaker" / "training-job" / job["TrainingJobName"] / "algo-1/output.log"
    wait_for(lambda: log.exists() and b"sleeping" in log.read_bytes())
    bench.sagemaker.stop_training_job(TrainingJobName=job["TrainingJobName"])
    done = finished(bench, job["TrainingJobName"])
    assert (done["TrainingJobStatus"], done["SecondaryStatus"]) == ("Stopped", "Stopped")
    assert bench.get(done["ModelArtifacts"]["S3ModelArtifacts"])


def test_a_job_that_takes_too_long_is_stopped(bench: Workbench, image: str) -> None:
    job = request(bench, image, "slow", mode="sleep")
    job["StoppingCondition"]["MaxRuntimeInSeconds"] = 2
    done = run(bench, job)
    assert (done["TrainingJobStatus"], done["SecondaryStatus"]) == ("Stopped", "MaxRuntimeExceeded")


def test_a_role_that_may_not_read_its_input_fails_the_job(bench: Workbench, image: str) -> None:
    statements = [entry for entry in bench.allow() if "s3:GetObject" not in entry["Action"]]
    job = request(bench, image, "denied")
    job["RoleArn"] = bench.make_role("blind", statements)
    manifest = bench.put("manifests/denied.json", "{}")
    job["InputDataConfig"] = [
        {
            "ChannelName": "manifest",
            "DataSource": {"S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": manifest}},
        }
    ]
    done = run(bench, job)
    assert done["TrainingJobStatus"] == "Failed"
    assert "Data download failed" in done["FailureReason"]
    assert "AccessDenied" in done["FailureReason"]
    assert "s3:GetObject" in done["FailureReason"]


def test_the_container_has_the_rights_of_the_role_and_no_more(bench: Workbench, image: str) -> None:
    other = f"{bench.name}-other"
    bench.s3.create_bucket(Bucket=other)
    done = run(bench, request(bench, image, "inside", mode="denied", bucket=other))
    assert done["FailureReason"].startswith("AlgorithmError: ")
    assert "AccessDenied" in done["FailureReason"]


def test_a_role_that_may_not_pull_fails_the_job(bench: Workbench, image: str) -> None:
    job = request(bench, image, "pull")
    statements = [entry for entry in bench.allow() if "ecr:BatchGetImage" not in entry["Action"]]
    job["RoleArn"] = bench.make_role("no-pull", statements)
    done = run(bench, job)
    assert "Pulling the image failed" in done["FailureReason"]
    assert "ecr:BatchGetImage" in done["FailureReason"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"ResourceConfig": {"InstanceType": "ml.m5.large", "InstanceCount": 255}}, "InstanceCount > 254"),
        ({"EnableManagedSpotTraining": True}, "Invalid MaxWaitTimeInSeconds"),
        ({"StoppingCondition": {"MaxWaitTimeInSeconds": 900}}, "MaxWaitTimeInSeconds must be absent"),
        ({"EnableNetworkIsolation": True}, "EnableNetworkIsolation is not supported"),
        ({"OutputDataConfig": {"S3OutputPath": "https://host/x"}}, "not an S3 URI"),
    ],
)
def test_what_cannot_be_honoured_is_refused(
    bench: Workbench, image: str, change: dict[str, Any], message: str
) -> None:
    with pytest.raises(botocore.exceptions.ClientError, match=message):
        bench.sagemaker.create_training_job(**{**request(bench, image, "refused"), **change})


def test_names_are_unique_and_missing_jobs_are_reported(bench: Workbench, image: str) -> None:
    job = request(bench, image, "twice", mode="crash")
    run(bench, job)
    with pytest.raises(bench.sagemaker.exceptions.ResourceInUse, match="must be unique"):
        bench.sagemaker.create_training_job(**job)
    with pytest.raises(botocore.exceptions.ClientError, match="Requested resource not found"):
        bench.sagemaker.describe_training_job(TrainingJobName="nobody")


def test_passing_a_role_needs_permission(bench: Workbench, image: str) -> None:
    arn = f"arn:aws:sagemaker:*:*:training-job/{bench.name}-*"
    clerk = bench.make_role(
        "clerk", [{"Effect": "Allow", "Action": "sagemaker:CreateTrainingJob", "Resource": arn}]
    )
    client = bench.client_as(clerk, "sagemaker")
    with pytest.raises(botocore.exceptions.ClientError, match="iam:PassRole"):
        client.create_training_job(**request(bench, image, "pass"))


def test_jobs_are_listed_in_pages(bench: Workbench, image: str) -> None:
    wanted = {"NameContains": bench.name, "SortBy": "Name", "SortOrder": "Ascending"}
    pages = bench.sagemaker.get_paginator("list_training_jobs").paginate(**wanted, MaxResults=2)
    names = [job["TrainingJobName"] for page in pages for job in page["TrainingJobSummaries"]]
    assert names == sorted(names)
    assert f"{bench.name}-good" in names
    failed = bench.sagemaker.list_training_jobs(NameContains=f"{bench.name}-good", StatusEquals="Failed")
    assert failed["TrainingJobSummaries"] == []
