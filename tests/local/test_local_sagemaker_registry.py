"""The model registry and batch transform through boto3."""

from __future__ import annotations

import json
import uuid
from typing import Any

import botocore.exceptions
import pytest
from sagemaker_server import SERVER
from sagemaker_workbench import Hosting, Workbench, model_archive, wait_for


@pytest.fixture(scope="module")
def bench(cloud: Any) -> Workbench:
    return Workbench(cloud)


@pytest.fixture(scope="module")
def hosting(bench: Workbench, tmp_path_factory: pytest.TempPathFactory) -> Hosting:
    return Hosting(bench, bench.image(tmp_path_factory.mktemp("server"), SERVER, tag="server"))


def register(bench: Workbench, hosting: Hosting, group: str, **more: Any) -> str:
    url = bench.put("registry/model.tar.gz", model_archive(name="registered"))
    return str(
        bench.sagemaker.create_model_package(
            ModelPackageGroupName=group,
            InferenceSpecification={
                "Containers": [
                    {"Image": hosting.image, "ModelDataUrl": url, "Environment": {"MODE": "registry"}}
                ],
                "SupportedContentTypes": ["application/json"],
                "SupportedResponseMIMETypes": ["application/json"],
            },
            **more,
        )["ModelPackageArn"]
    )


@pytest.fixture
def group(bench: Workbench) -> str:
    name = f"{bench.name}-{uuid.uuid4().hex[:6]}"
    bench.sagemaker.create_model_package_group(ModelPackageGroupName=name)
    return name


def test_versions_count_up_and_are_not_given_twice(bench: Workbench, hosting: Hosting, group: str) -> None:
    first, second = (register(bench, hosting, group) for _ in range(2))
    assert (first.rsplit("/", 1)[1], second.rsplit("/", 1)[1]) == ("1", "2")
    bench.sagemaker.delete_model_package(ModelPackageName=second)
    assert register(bench, hosting, group).endswith(f"model-package/{group}/3")
    with pytest.raises(bench.sagemaker.exceptions.ConflictException):
        bench.sagemaker.delete_model_package_group(ModelPackageGroupName=group)


def test_approval_is_kept_filtered_and_published(bench: Workbench, hosting: Hosting, group: str) -> None:
    sqs, events = bench.cloud.client("sqs"), bench.cloud.client("events")
    url = sqs.create_queue(QueueName=f"{group}-events")["QueueUrl"]
    arn = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    pattern = {
        "source": ["aws.sagemaker"],
        "detail-type": ["SageMaker Model Package State Change"],
        "detail": {"ModelPackageGroupName": [group], "ModelApprovalStatus": ["Approved"]},
    }
    events.put_rule(Name=group, EventPattern=json.dumps(pattern))
    allow = {
        "Effect": "Allow",
        "Principal": {"Service": "events.amazonaws.com"},
        "Action": "sqs:SendMessage",
        "Resource": arn,
    }
    policy = json.dumps({"Version": "2012-10-17", "Statement": [allow]})
    sqs.set_queue_attributes(QueueUrl=url, Attributes={"Policy": policy})
    events.put_targets(Rule=group, Targets=[{"Id": "queue", "Arn": arn}])
    package = register(bench, hosting, group, ModelApprovalStatus="PendingManualApproval")
    register(bench, hosting, group)
    bench.sagemaker.update_model_package(
        ModelPackageArn=package, ModelApprovalStatus="Approved", ApprovalDescription="looked at"
    )
    described = bench.sagemaker.describe_model_package(ModelPackageName=package)
    assert (described["ModelApprovalStatus"], described["ApprovalDescription"]) == ("Approved", "looked at")
    listed = bench.sagemaker.list_model_packages(ModelPackageGroupName=group, ModelApprovalStatus="Approved")
    assert [entry["ModelPackageArn"] for entry in listed["ModelPackageSummaryList"]] == [package]
    message = wait_for(lambda: sqs.receive_message(QueueUrl=url).get("Messages"))[0]
    event = json.loads(message["Body"])
    assert event["source"] == "aws.sagemaker"
    assert event["detail"]["ModelPackageArn"] == package


CARD = {
    "model_overview": {"model_creator": "imaging", "model_artifact": ["s3://models/m.tar.gz"]},
    "intended_uses": {"purpose_of_model": "outlines lungs", "risk_rating": "Unknown"},
    "training_details": {
        "objective_function": {"function": {"function": "Maximize", "facet": "Dice"}},
        "training_job_details": {"hyper_parameters": [{"name": "seed", "value": "1"}]},
    },
    "evaluation_details": [
        {
            "name": "held-out patients",
            "datasets": ["s3://manifests/m.json"],
            "metric_groups": [
                {
                    "name": "scores",
                    "metric_data": [
                        {"name": "mean Dice", "type": "number", "value": 0.93},
                        {"name": "confusion", "type": "matrix", "value": [[3, 1], [0, 4]]},
                    ],
                }
            ],
        }
    ],
    "additional_information": {"custom_details": {"manifest": "s3://manifests/m.json"}},
}


def test_a_model_card_goes_with_its_version(bench: Workbench, hosting: Hosting, group: str) -> None:
    card = {"ModelCardContent": json.dumps(CARD), "ModelCardStatus": "Draft"}
    package = register(bench, hosting, group, ModelCard=card)
    assert bench.sagemaker.describe_model_package(ModelPackageName=package)["ModelCard"] == card
    bench.sagemaker.update_model_package(
        ModelPackageArn=package, ModelCard={"ModelCardStatus": "PendingReview"}
    )
    updated = bench.sagemaker.describe_model_package(ModelPackageName=package)["ModelCard"]
    assert updated == {**card, "ModelCardStatus": "PendingReview"}
    with pytest.raises(botocore.exceptions.ClientError, match="ModelCardContent is not JSON"):
        bench.sagemaker.update_model_package(
            ModelPackageArn=package, ModelCard={"ModelCardContent": "a card"}
        )
    assert bench.sagemaker.describe_model_package(ModelPackageName=package)["ModelCard"] == updated


@pytest.mark.parametrize(
    ("change", "place"),
    [
        ({"model_package_details": {}}, "model_package_details"),
        ({"model_overview": {"model_name": "lungs"}}, "model_name"),
        ({"intended_uses": {"risk_rating": "Severe"}}, r"\$.intended_uses.risk_rating"),
        ({"evaluation_details": [{"datasets": []}]}, r"evaluation_details\[0\].*'name'"),
        ({"additional_information": {"custom_details": {"patients": 4}}}, "custom_details.patients"),
    ],
)
def test_a_model_card_that_is_no_package_card_is_refused(
    bench: Workbench, hosting: Hosting, group: str, change: dict[str, Any], place: str
) -> None:
    card = {"ModelCardContent": json.dumps(CARD | change), "ModelCardStatus": "Draft"}
    with pytest.raises(botocore.exceptions.ClientError, match=f"does not follow its schema.*{place}"):
        register(bench, hosting, group, ModelCard=card)


def test_versions_are_listed_newest_first_in_pages(bench: Workbench, hosting: Hosting, group: str) -> None:
    arns = [register(bench, hosting, group, ModelApprovalStatus="Approved") for _ in range(3)]
    register(bench, hosting, group, ModelApprovalStatus="Rejected")
    wanted = {"ModelPackageGroupName": group, "ModelApprovalStatus": "Approved", "SortBy": "CreationTime"}
    newest = bench.sagemaker.list_model_packages(**wanted, SortOrder="Descending", MaxResults=1)
    assert [entry["ModelPackageArn"] for entry in newest["ModelPackageSummaryList"]] == arns[-1:]
    rest = bench.sagemaker.list_model_packages(
        **wanted, SortOrder="Descending", MaxResults=5, NextToken=newest["NextToken"]
    )
    assert [entry["ModelPackageArn"] for entry in rest["ModelPackageSummaryList"]] == arns[1::-1]
    assert "NextToken" not in rest


def test_an_approved_version_is_deployed_by_its_arn(bench: Workbench, hosting: Hosting, group: str) -> None:
    package = register(bench, hosting, group, ModelApprovalStatus="Approved")
    model = f"{bench.name}-from-registry"
    bench.sagemaker.create_model(
        ModelName=model, PrimaryContainer={"ModelPackageName": package}, ExecutionRoleArn=bench.role
    )
    config = hosting.config("from-registry", model=model)
    bench.sagemaker.create_endpoint(EndpointName=model, EndpointConfigName=config)
    assert hosting.settled(model)["EndpointStatus"] == "InService"
    answer = hosting.invoke(model, b"x")
    assert (answer["model"], answer["mode"]) == ("registered", "registry")


def test_a_package_needs_its_image_and_its_model(bench: Workbench, hosting: Hosting, group: str) -> None:
    specification = {
        "Containers": [{"Image": hosting.image, "ModelDataUrl": bench.uri("nothing.tar.gz")}],
        "SupportedContentTypes": ["application/json"],
        "SupportedResponseMIMETypes": ["application/json"],
    }
    with pytest.raises(botocore.exceptions.ClientError, match="Could not find model data"):
        bench.sagemaker.create_model_package(
            ModelPackageGroupName=group, InferenceSpecification=specification
        )
    specification["Containers"] = [{"Image": hosting.image.replace(":server", ":other")}]
    with pytest.raises(botocore.exceptions.ClientError, match="Invalid image"):
        bench.sagemaker.create_model_package(
            ModelPackageGroupName=group, InferenceSpecification=specification
        )


def transform(bench: Workbench, model: str, **more: Any) -> dict[str, Any]:
    name = f"{bench.name}-{uuid.uuid4().hex[:6]}"
    given = {
        "DataSource": {
            "S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": bench.uri(more.pop("prefix", "batch/"))}
        },
        "ContentType": "text/plain",
        "SplitType": more.pop("split", "None"),
    }
    bench.sagemaker.create_transform_job(
        TransformJobName=name,
        ModelName=model,
        TransformInput=given,
        TransformOutput={"S3OutputPath": bench.uri(f"answers/{name}")},
        TransformResources={"InstanceType": "ml.m5.large", "InstanceCount": 1},
        **more,
    )

    def check() -> Any:
        job = bench.sagemaker.describe_transform_job(TransformJobName=name)
        return job if job["TransformJobStatus"] not in ("InProgress", "Stopping") else None

    return dict(wait_for(check))


def test_batch_transform_answers_every_object(bench: Workbench, hosting: Hosting) -> None:
    bench.put("batch/a.txt", "one\ntwo\n")
    bench.put("batch/deep/b.txt", "three")
    model = hosting.model("batch")
    done = transform(bench, model)
    assert done["TransformJobStatus"] == "Completed", done.get("FailureReason")
    where = done["TransformOutput"]["S3OutputPath"]
    answer = json.loads(bench.get(f"{where}/a.txt.out"))
    assert (answer["body"], answer["batch"], answer["type"]) == ("one\ntwo\n", "true", "text/plain")
    assert json.loads(bench.get(f"{where}/deep/b.txt.out"))["body"] == "three"
    lines = transform(bench, model, split="Line", BatchStrategy="SingleRecord")
    answers = bench.get(f"{lines['TransformOutput']['S3OutputPath']}/a.txt.out").splitlines()
    assert [json.loads(line)["body"] for line in answers] == ["one\n", "two\n"]
    bench.put("batch/bad", "bad")
    bench.put("batch/worse", "bad")
    bench.put("batch/last.txt", "busy")
    failed = transform(bench, model)
    assert failed["TransformJobStatus"] == "Failed"
    reason = failed["FailureReason"]
    assert reason.startswith("ClientError: batch/bad: HTTP 422")
    assert reason.endswith("(and 1 more of 5 objects)")
    where = failed["TransformOutput"]["S3OutputPath"]
    bucket, _, prefix = where.removeprefix("s3://").partition("/")
    written = bench.s3.list_objects_v2(Bucket=bucket, Prefix=f"{prefix}/")["Contents"]
    # Every other object has its answer, the one too that the model was first too busy for.
    assert [entry["Key"].removeprefix(f"{prefix}/") for entry in written] == [
        "a.txt.out",
        "deep/b.txt.out",
        "last.txt.out",
    ]


def test_batch_transform_asks_the_container_how_it_likes_its_requests(
    bench: Workbench, hosting: Hosting
) -> None:
    bench.put("wishes/lines.txt", "one\ntwo\nthree\n")
    wishes = {"MaxConcurrentTransforms": 2, "BatchStrategy": "SINGLE_RECORD", "MaxPayloadInMB": 1}
    model = hosting.model("wishing", wishes=wishes)

    def bodies(**more: Any) -> list[str]:
        done = transform(bench, model, prefix="wishes/", split="Line", **more)
        assert done["TransformJobStatus"] == "Completed", done.get("FailureReason")
        answers = bench.get(f"{done['TransformOutput']['S3OutputPath']}/lines.txt.out").splitlines()
        return [json.loads(line)["body"] for line in answers]

    assert bodies() == ["one\n", "two\n", "three\n"]
    for name in ("wish-1", "wish-2"):
        bench.put(f"together/{name}", "meet")
    met = transform(bench, model, prefix="together/")
    assert met["TransformJobStatus"] == "Completed", "two requests at a time"
    assert bodies(BatchStrategy="MultiRecord") == ["one\ntwo\nthree\n"], "the job's word counts first"
    with pytest.raises(botocore.exceptions.ClientError, match="must be at most 100 MB"):
        transform(bench, model, MaxConcurrentTransforms=11, MaxPayloadInMB=10)
    with pytest.raises(botocore.exceptions.ClientError, match="DataProcessing is not supported"):
        transform(bench, model, DataProcessing={"JoinSource": "Input"})
