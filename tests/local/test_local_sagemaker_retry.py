"""An execution that failed or was stopped goes on: what succeeded before is not done again."""

from __future__ import annotations

import json
import uuid
from typing import Any

import botocore.exceptions
import pytest
from sagemaker_pipeline_runs import finished, job_of, make_pipeline, start, steps
from sagemaker_pipeline_steps import PROGRAM, definition, pipeline_statements
from sagemaker_workbench import Workbench, wait_for


@pytest.fixture(scope="module")
def bench(cloud: Any) -> Workbench:
    return Workbench(cloud)


@pytest.fixture(scope="module")
def document(bench: Workbench, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    group = f"{bench.name}-models"
    bench.sagemaker.create_model_package_group(ModelPackageGroupName=group)
    image = bench.image(tmp_path_factory.mktemp("image"), PROGRAM, tag="both")
    return definition(bench, image, group)


def retry(bench: Workbench, arn: str, *, token: str | None = None) -> None:
    answer = bench.sagemaker.retry_pipeline_execution(
        PipelineExecutionArn=arn, ClientRequestToken=token or uuid.uuid4().hex
    )
    assert answer["PipelineExecutionArn"] == arn


def grant(bench: Workbench, role: str, statements: list[dict[str, Any]]) -> None:
    policy = json.dumps({"Version": "2012-10-17", "Statement": statements})
    bench.cloud.client("iam").put_role_policy(
        RoleName=role.rsplit("/", 1)[-1], PolicyName="work", PolicyDocument=policy
    )


def test_a_failed_execution_goes_on_where_it_failed(bench: Workbench, document: dict[str, Any]) -> None:
    whole = pipeline_statements(bench)
    blind = [entry for entry in whole if "sagemaker:CreateModelPackage" not in entry["Action"]]
    role = bench.make_role("no-packages", blind)
    pipeline = make_pipeline(bench, "mended", document, role)
    arn = start(bench, pipeline, 0.9, MaxSteps="31")
    failed = finished(bench, arn)
    assert failed["PipelineExecutionStatus"] == "Failed"
    before = steps(bench, arn)
    assert before["Register"]["StepStatus"] == "Failed"
    assert before["Register"]["AttemptCount"] == 1

    grant(bench, role, whole)
    token = uuid.uuid4().hex
    retry(bench, arn, token=token)
    done = finished(bench, arn)
    after = steps(bench, arn)
    assert done["PipelineExecutionStatus"] == "Succeeded", after
    assert "FailureReason" not in done
    assert "FailureReason" not in after["Register"]
    assert after["Register"]["AttemptCount"] == 2
    for name in ("Train", "Evaluate", "CheckQuality"):
        assert after[name] == before[name]
    # It went on with its own parameters, and with the model that it had trained.
    trained = bench.sagemaker.describe_training_job(TrainingJobName=job_of(after["Train"]))
    assert trained["HyperParameters"]["max_steps"] == "31"
    package = bench.sagemaker.describe_model_package(
        ModelPackageName=after["Register"]["Metadata"]["RegisterModel"]["Arn"]
    )
    model = package["InferenceSpecification"]["Containers"][0]["ModelDataUrl"]
    assert model == trained["ModelArtifacts"]["S3ModelArtifacts"]

    retry(bench, arn, token=token)  # the same request again is the same retry
    assert finished(bench, arn)["PipelineExecutionStatus"] == "Succeeded"
    with pytest.raises(bench.sagemaker.exceptions.ConflictException, match="is Succeeded"):
        retry(bench, arn)


def test_a_stopped_execution_goes_on_with_a_new_job(bench: Workbench, document: dict[str, Any]) -> None:
    role = bench.make_role("stopped", pipeline_statements(bench))
    pipeline = make_pipeline(bench, "stopped", document, role)
    arn = start(bench, pipeline, 0.9, MaxSteps="999")

    def training() -> str | None:
        train = steps(bench, arn).get("Train", {})
        if train.get("StepStatus") != "Executing" or "Metadata" not in train:
            return None
        job = bench.sagemaker.describe_training_job(TrainingJobName=job_of(train))
        return job_of(train) if job["SecondaryStatus"] == "Training" else None

    def stop() -> None:
        bench.sagemaker.stop_pipeline_execution(PipelineExecutionArn=arn, ClientRequestToken=uuid.uuid4().hex)

    first = wait_for(training)
    with pytest.raises(bench.sagemaker.exceptions.ConflictException, match="is Executing"):
        retry(bench, arn)
    stop()
    assert finished(bench, arn)["PipelineExecutionStatus"] == "Stopped"
    # The execution has stopped only when its job has, so that a retry finds all that the job saved.
    assert bench.sagemaker.describe_training_job(TrainingJobName=first)["TrainingJobStatus"] == "Stopped"
    assert steps(bench, arn)["Train"]["StepStatus"] == "Stopped"
    retry(bench, arn)
    second = wait_for(training)
    assert second != first
    stop()
    assert finished(bench, arn)["PipelineExecutionStatus"] == "Stopped"


def test_only_who_may_retry_does(bench: Workbench, document: dict[str, Any]) -> None:
    clerk = bench.make_role(
        "clerk", [{"Effect": "Allow", "Action": "sagemaker:StartPipelineExecution", "Resource": "*"}]
    )
    role = bench.make_role("quick", pipeline_statements(bench))
    pipeline = make_pipeline(bench, "quick", document, role)
    arn = start(bench, pipeline, 0.9, ManifestUri=bench.uri("nothing/here.json"))
    assert finished(bench, arn)["PipelineExecutionStatus"] == "Failed"
    with pytest.raises(botocore.exceptions.ClientError, match="sagemaker:RetryPipelineExecution"):
        bench.client_as(clerk, "sagemaker").retry_pipeline_execution(
            PipelineExecutionArn=arn, ClientRequestToken=uuid.uuid4().hex
        )
    with pytest.raises(bench.sagemaker.exceptions.ResourceNotFound):
        retry(bench, arn[:-4] + "none")
