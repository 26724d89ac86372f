"""A pipeline through boto3: train, evaluate, condition, then register or fail."""

from __future__ import annotations

import json
import time
import uuid
from typing import Any

import botocore.exceptions
import pytest
from sagemaker_pipeline_runs import finished, start, steps
from sagemaker_pipeline_steps import PROGRAM, definition, pipeline_statements
from sagemaker_workbench import Workbench, wait_for


@pytest.fixture(scope="module")
def bench(cloud: Any) -> Workbench:
    return Workbench(cloud)


@pytest.fixture(scope="module")
def image(bench: Workbench, tmp_path_factory: pytest.TempPathFactory) -> str:
    return bench.image(tmp_path_factory.mktemp("image"), PROGRAM, tag="both")


@pytest.fixture(scope="module")
def pipeline(bench: Workbench, image: str) -> str:
    group = f"{bench.name}-models"
    bench.sagemaker.create_model_package_group(ModelPackageGroupName=group)
    name = f"{bench.name}-pipeline"
    bench.sagemaker.create_pipeline(
        PipelineName=name,
        PipelineDefinition=json.dumps(definition(bench, image, group)),
        ClientRequestToken=uuid.uuid4().hex,
        RoleArn=bench.make_role("pipeline", pipeline_statements(bench)),
    )
    return name


def test_a_good_model_is_registered(bench: Workbench, pipeline: str, image: str) -> None:
    arn = start(bench, pipeline, 0.93)
    execution = finished(bench, arn)
    ran = steps(bench, arn)
    assert execution["PipelineExecutionStatus"] == "Succeeded", ran
    assert list(ran) == ["Train", "Evaluate", "CheckQuality", "Register"]
    assert ran["CheckQuality"]["Metadata"]["Condition"]["Outcome"] == "True"
    package = bench.sagemaker.describe_model_package(
        ModelPackageName=ran["Register"]["Metadata"]["RegisterModel"]["Arn"]
    )
    assert package["ModelApprovalStatus"] == "PendingManualApproval"
    assert package["ModelPackageVersion"] == 1
    train = bench.sagemaker.describe_training_job(
        TrainingJobName=ran["Train"]["Metadata"]["TrainingJob"]["Arn"].split("/")[-1]
    )
    assert train["HyperParameters"]["max_steps"] == "120"
    assert (
        package["InferenceSpecification"]["Containers"][0]["ModelDataUrl"]
        == train["ModelArtifacts"]["S3ModelArtifacts"]
    )
    statistics = package["ModelMetrics"]["ModelQuality"]["Statistics"]["S3Uri"]
    assert json.loads(bench.get(statistics)) == {"metrics": {"mean_dice": 0.93}}


def test_a_bad_model_is_not_registered(bench: Workbench, pipeline: str) -> None:
    arn = start(bench, pipeline, 0.5, MinimumDice="0.85", MaxSteps="7")
    execution = finished(bench, arn)
    assert execution["PipelineExecutionStatus"] == "Failed"
    assert execution["FailureReason"] == "mean Dice 0.5 is below 0.85"
    ran = steps(bench, arn)
    assert list(ran) == ["Train", "Evaluate", "CheckQuality", "Fail"]
    assert ran["CheckQuality"]["Metadata"]["Condition"]["Outcome"] == "False"
    assert ran["Fail"]["Metadata"]["Fail"]["ErrorMessage"] == "mean Dice 0.5 is below 0.85"


def test_a_failed_step_fails_the_execution_with_its_reason(bench: Workbench, pipeline: str) -> None:
    arn = start(bench, pipeline, 0.9, ManifestUri=bench.uri("nothing/here.json"))
    execution = finished(bench, arn)
    assert execution["PipelineExecutionStatus"] == "Failed"
    train = steps(bench, arn)["Train"]
    assert train["StepStatus"] == "Failed"
    assert "No S3 objects found" in train["FailureReason"]


def test_the_pipeline_works_with_its_own_role(bench: Workbench, image: str) -> None:
    statements = [entry for entry in pipeline_statements(bench) if entry["Action"] != "iam:PassRole"]
    name = f"{bench.name}-weak"
    bench.sagemaker.create_pipeline(
        PipelineName=name,
        PipelineDefinition=json.dumps(definition(bench, image, f"{bench.name}-models")),
        ClientRequestToken=uuid.uuid4().hex,
        RoleArn=bench.make_role("weak", statements),
    )
    arn = start(bench, name, 0.9)
    assert finished(bench, arn)["PipelineExecutionStatus"] == "Failed"
    reason = steps(bench, arn)["Train"]["FailureReason"]
    assert "Failed to invoke sagemaker:CreateTrainingJob" in reason
    assert "iam:PassRole" in reason


def test_an_execution_can_be_stopped(bench: Workbench, pipeline: str) -> None:
    arn = start(bench, pipeline, 0.9, MaxSteps="999")
    job = wait_for(lambda: steps(bench, arn).get("Train", {}).get("Metadata"))["TrainingJob"]["Arn"].split(
        "/"
    )[-1]
    wait_for(
        lambda: bench.sagemaker.describe_training_job(TrainingJobName=job)["SecondaryStatus"] == "Training"
    )
    bench.sagemaker.stop_pipeline_execution(PipelineExecutionArn=arn, ClientRequestToken=uuid.uuid4().hex)
    assert finished(bench, arn)["PipelineExecutionStatus"] == "Stopped"
    wait_for(
        lambda: bench.sagemaker.describe_training_job(TrainingJobName=job)["TrainingJobStatus"] == "Stopped"
    )


def test_the_same_token_starts_once(bench: Workbench, pipeline: str) -> None:
    request = {
        "PipelineName": pipeline,
        "ClientRequestToken": uuid.uuid4().hex,
        "PipelineParameters": [{"Name": "ManifestUri", "Value": bench.uri("nothing")}],
    }
    first = bench.sagemaker.start_pipeline_execution(**request)["PipelineExecutionArn"]
    time.sleep(0.1)
    assert bench.sagemaker.start_pipeline_execution(**request)["PipelineExecutionArn"] == first
    finished(bench, first)
    given = bench.sagemaker.list_pipeline_parameters_for_execution(PipelineExecutionArn=first)[
        "PipelineParameters"
    ]
    assert {"Name": "MaxSteps", "Value": "120"} in given


def test_parameters_are_checked(bench: Workbench, pipeline: str) -> None:
    for parameters, message in (
        ([], "ManifestUri.*must be given"),
        ([{"Name": "Nope", "Value": "1"}], "Unknown pipeline parameters: Nope"),
        (
            [{"Name": "ManifestUri", "Value": "s3://b/k"}, {"Name": "MaxSteps", "Value": "many"}],
            "not of type Integer",
        ),
    ):
        with pytest.raises(botocore.exceptions.ClientError, match=message):
            bench.sagemaker.start_pipeline_execution(
                PipelineName=pipeline, ClientRequestToken=uuid.uuid4().hex, PipelineParameters=parameters
            )


def broken(bench: Workbench, image: str, kind: str) -> dict[str, Any]:
    """A definition with one thing wrong."""
    document = definition(bench, image, "group")
    train, evaluate, check = document["Steps"]
    if kind == "type":
        train["Type"] = "Tuning"
    elif kind == "argument":
        train["Arguments"]["Enable"] = True
    elif kind == "value":
        train["Arguments"]["ResourceConfig"]["VolumeSizeInGB"] = "ten"
    elif kind == "parameter":
        train["Arguments"]["HyperParameters"]["max_steps"] = {"Get": "Parameters.Steps"}
    elif kind == "step":
        evaluate["DependsOn"] = ["Nobody"]
    elif kind == "property file":
        evaluate["PropertyFiles"] = []
    elif kind == "circle":
        train["DependsOn"] = ["CheckQuality"]
    elif kind == "condition":
        check["Arguments"]["Conditions"][0]["Type"] = "Nearly"
    elif kind == "cache":
        train["CacheConfig"] = {"Enabled": True}
    elif kind == "nested":
        inner = {"Conditions": check["Arguments"]["Conditions"], "IfSteps": [], "ElseSteps": []}
        check["Arguments"]["ElseSteps"] = [{"Name": "CheckAgain", "Type": "Condition", "Arguments": inner}]
    elif kind == "cached condition":
        check["CacheConfig"] = {"Enabled": True, "ExpireAfter": "P30D"}
    return document


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("type", "'Train': the step type 'Tuning' .* not supported"),
        ("argument", "'Train': CreateTrainingJob.*Enable"),
        ("value", "'Train'.*VolumeSizeInGB"),
        ("parameter", "'Train' refers to the parameter 'Steps'"),
        ("step", "'Evaluate' depends on Nobody"),
        ("property file", "property file 'Evaluation'"),
        ("circle", "in a circle"),
        ("condition", "condition 'Nearly'"),
        ("nested", "cannot be in the branch of another"),
        ("cache", "ExpireAfter must be an ISO 8601 duration"),
        ("cached condition", "a Condition step has no CacheConfig"),
    ],
)
def test_a_definition_that_could_not_run_is_refused(
    bench: Workbench, image: str, kind: str, message: str
) -> None:
    with pytest.raises(botocore.exceptions.ClientError, match=f"(?s){message}"):
        bench.sagemaker.create_pipeline(
            PipelineName=f"{bench.name}-broken",
            PipelineDefinition=json.dumps(broken(bench, image, kind)),
            ClientRequestToken=uuid.uuid4().hex,
            RoleArn=bench.role,
        )


def test_pipelines_are_described_updated_listed_and_deleted(bench: Workbench, image: str) -> None:
    name = f"{bench.name}-short"
    text = json.dumps(definition(bench, image, "group"))
    token = uuid.uuid4().hex
    request = {
        "PipelineName": name,
        "PipelineDefinition": text,
        "ClientRequestToken": token,
        "RoleArn": bench.role,
    }
    arn = bench.sagemaker.create_pipeline(**request)["PipelineArn"]
    assert bench.sagemaker.create_pipeline(**request)["PipelineArn"] == arn
    bench.sagemaker.update_pipeline(PipelineName=name, PipelineDescription="new words")
    described = bench.sagemaker.describe_pipeline(PipelineName=name)
    assert (described["PipelineDefinition"], described["PipelineDescription"]) == (text, "new words")
    listed = bench.sagemaker.list_pipelines(PipelineNamePrefix=name)["PipelineSummaries"]
    assert [entry["PipelineName"] for entry in listed] == [name]
    bench.sagemaker.delete_pipeline(PipelineName=name, ClientRequestToken=uuid.uuid4().hex)
    with pytest.raises(bench.sagemaker.exceptions.ResourceNotFound):
        bench.sagemaker.describe_pipeline(PipelineName=name)
