"""Endpoints through boto3: real-time and asynchronous, good and bad containers, updates."""

from __future__ import annotations

import json
import uuid
from typing import Any

import botocore.exceptions
import pytest
from sagemaker_server import SERVER
from sagemaker_workbench import Hosting, Workbench, wait_for

from local.sagemaker.variants import refuse_another_scale
from local.service import ServiceError


@pytest.fixture(scope="module")
def bench(cloud: Any) -> Workbench:
    return Workbench(cloud)


@pytest.fixture(scope="module")
def hosting(bench: Workbench, tmp_path_factory: pytest.TempPathFactory) -> Hosting:
    return Hosting(bench, bench.image(tmp_path_factory.mktemp("server"), SERVER, tag="server"))


@pytest.fixture(scope="module")
def queue(bench: Workbench) -> dict[str, str]:
    """A queue, and two topics that it is subscribed to, which the role may publish to."""
    sns, sqs = bench.cloud.client("sns"), bench.cloud.client("sqs")
    url = sqs.create_queue(QueueName=f"{bench.name}-notes")["QueueUrl"]
    arn = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    allow = {
        "Effect": "Allow",
        "Principal": {"Service": "sns.amazonaws.com"},
        "Action": "sqs:SendMessage",
        "Resource": arn,
    }
    policy = json.dumps({"Version": "2012-10-17", "Statement": [allow]})
    sqs.set_queue_attributes(QueueUrl=url, Attributes={"Policy": policy})
    topics = {}
    for name in ("success", "failure"):
        topics[name] = sns.create_topic(Name=f"{bench.name}-{name}")["TopicArn"]
        sns.subscribe(TopicArn=topics[name], Protocol="sqs", Endpoint=arn)
    statements = bench.allow({"Effect": "Allow", "Action": "sns:Publish", "Resource": list(topics.values())})
    bench.cloud.client("iam").put_role_policy(
        RoleName=bench.role.split("/")[-1],
        PolicyName="work",
        PolicyDocument=json.dumps({"Version": "2012-10-17", "Statement": statements}),
    )
    return {"url": url, **topics}


@pytest.fixture(scope="module")
def realtime(hosting: Hosting) -> str:
    return hosting.endpoint("realtime")


@pytest.fixture(scope="module")
def asynchronous(hosting: Hosting, queue: dict[str, str]) -> str:
    return hosting.endpoint("async", asynchronous=True, topics=(queue["success"], queue["failure"]))


def note(bench: Workbench, queue: dict[str, str], inference: str) -> dict[str, Any]:
    """The notification about one inference."""
    sqs = bench.cloud.client("sqs")

    def check() -> Any:
        for message in sqs.receive_message(QueueUrl=queue["url"], MaxNumberOfMessages=10).get("Messages", []):
            sqs.delete_message(QueueUrl=queue["url"], ReceiptHandle=message["ReceiptHandle"])
            content = json.loads(json.loads(message["Body"])["Message"])
            if content["inferenceId"] == inference:
                return content
        return None

    return dict(wait_for(check))


def test_a_real_time_answer_passes_through(bench: Workbench, hosting: Hosting, realtime: str) -> None:
    answer = bench.runtime.invoke_endpoint(EndpointName=realtime, Body=b"{}", ContentType="application/json")
    body = json.loads(answer["Body"].read())
    assert (body["body"], body["model"], body["type"], body["mode"]) == (
        "{}",
        "realtime",
        "application/json",
        "test",
    )
    assert answer["ContentType"] == "application/json"
    assert answer["InvokedProductionVariant"] == "main"
    assert answer["CustomAttributes"] == "seen"
    described = bench.sagemaker.describe_endpoint(EndpointName=realtime)
    assert described["EndpointArn"].endswith(f":endpoint/{realtime.lower()}")
    assert described["ProductionVariants"][0]["DeployedImages"][0]["ResolvedImage"].startswith("sha256:")


def test_a_model_error_keeps_its_status_and_message(bench: Workbench, realtime: str) -> None:
    with pytest.raises(bench.runtime.exceptions.ModelError) as caught:
        bench.runtime.invoke_endpoint(EndpointName=realtime, Body=b"bad")
    response = caught.value.response
    assert response["ResponseMetadata"]["HTTPStatusCode"] == 424
    assert response["OriginalStatusCode"] == 422
    assert "no such image set" in response["OriginalMessage"]


def test_a_container_that_dies_is_started_again(bench: Workbench, hosting: Hosting, realtime: str) -> None:
    before = hosting.invoke(realtime, b"x")["pid"]
    with pytest.raises(bench.runtime.exceptions.ModelError, match="no answer"):
        bench.runtime.invoke_endpoint(EndpointName=realtime, Body=b"crash")

    def again() -> Any:
        try:
            return hosting.invoke(realtime, b"x")["pid"]
        except botocore.exceptions.ClientError:
            return None

    assert wait_for(again) != before


def test_an_asynchronous_answer_reaches_s3_and_sns(
    bench: Workbench, asynchronous: str, queue: dict[str, str]
) -> None:
    given = bench.put("requests/one.json", '{"imageSetId": "1"}')
    answer = bench.runtime.invoke_endpoint_async(
        EndpointName=asynchronous,
        InputLocation=given,
        ContentType="application/json",
        InferenceId=f"i-{bench.name}",
    )
    assert answer["InferenceId"] == f"i-{bench.name}"
    assert answer["OutputLocation"].startswith(bench.uri("responses/"))
    message = note(bench, queue, answer["InferenceId"])
    assert message["invocationStatus"] == "Completed"
    assert message["responseParameters"]["outputLocation"] == answer["OutputLocation"]
    assert message["requestParameters"]["inputLocation"] == given
    assert json.loads(bench.get(answer["OutputLocation"]))["body"] == '{"imageSetId": "1"}'


def test_an_asynchronous_failure_reaches_s3_and_sns(
    bench: Workbench, asynchronous: str, queue: dict[str, str]
) -> None:
    answer = bench.runtime.invoke_endpoint_async(
        EndpointName=asynchronous, InputLocation=bench.put("requests/bad", "bad")
    )
    message = note(bench, queue, answer["InferenceId"])
    assert message["invocationStatus"] == "Failed"
    assert "422" in message["failureReason"]
    assert json.loads(bench.get(answer["FailureLocation"]))["error"]["type"] == "BadInput"


def test_an_input_that_is_not_there_fails_the_request(
    bench: Workbench, asynchronous: str, queue: dict[str, str]
) -> None:
    answer = bench.runtime.invoke_endpoint_async(
        EndpointName=asynchronous, InputLocation=bench.uri("requests/no")
    )
    message = note(bench, queue, answer["InferenceId"])
    assert "Reading the input failed" in message["failureReason"]
    assert b"Reading the input failed" in bench.get(answer["FailureLocation"])


def test_a_request_that_takes_too_long_fails(
    bench: Workbench, asynchronous: str, queue: dict[str, str]
) -> None:
    answer = bench.runtime.invoke_endpoint_async(
        EndpointName=asynchronous,
        InputLocation=bench.put("requests/slow", "sleep 5"),
        InvocationTimeoutSeconds=1,
    )
    assert "did not answer within 1 s" in note(bench, queue, answer["InferenceId"])["failureReason"]


def test_each_kind_of_endpoint_is_invoked_its_own_way(
    bench: Workbench, realtime: str, asynchronous: str
) -> None:
    with pytest.raises(botocore.exceptions.ClientError, match="use InvokeEndpointAsync"):
        bench.runtime.invoke_endpoint(EndpointName=asynchronous, Body=b"x")
    with pytest.raises(botocore.exceptions.ClientError, match="use InvokeEndpoint"):
        bench.runtime.invoke_endpoint_async(EndpointName=realtime, InputLocation=bench.uri("x"))
    with pytest.raises(botocore.exceptions.ClientError, match="not found"):
        bench.runtime.invoke_endpoint(EndpointName="nobody", Body=b"x")


def test_a_container_that_does_not_start_says_why(bench: Workbench, hosting: Hosting) -> None:
    name = hosting.endpoint("broken", wait=False, broken=True)
    described = hosting.settled(name)
    assert described["EndpointStatus"] == "Failed"
    assert "ended with exit code 1 before it answered /ping" in described["FailureReason"]
    assert "weights do not fit the network" in described["FailureReason"]
    assert f"/aws/sagemaker/Endpoints/{name}" in described["FailureReason"]
    bench.sagemaker.delete_endpoint(EndpointName=name)


def test_a_deleted_configuration_cannot_be_used(bench: Workbench, hosting: Hosting) -> None:
    config = hosting.config("short-lived", model=hosting.model("short-lived"))
    bench.sagemaker.delete_endpoint_config(EndpointConfigName=config)
    with pytest.raises(botocore.exceptions.ClientError, match="Could not find endpoint configuration"):
        bench.sagemaker.create_endpoint(EndpointName="x", EndpointConfigName=config)


def test_an_update_swaps_the_model_and_a_bad_one_does_not(bench: Workbench, hosting: Hosting) -> None:
    name = hosting.endpoint("swap")
    better = hosting.config("better", model=hosting.model("better"))
    bench.sagemaker.update_endpoint(
        EndpointName=name, EndpointConfigName=better, RetainAllVariantProperties=True
    )
    described = hosting.settled(name)
    assert (described["EndpointStatus"], described["EndpointConfigName"]) == ("InService", better)
    assert hosting.invoke(name, b"x")["model"] == "better"
    worse = hosting.config("worse", model=hosting.model("worse", broken=True))
    bench.sagemaker.update_endpoint(EndpointName=name, EndpointConfigName=worse)
    described = hosting.settled(name)
    assert (described["EndpointStatus"], described["EndpointConfigName"]) == ("InService", better)
    assert "weights do not fit the network" in described["FailureReason"]
    assert hosting.invoke(name, b"x")["model"] == "better"
    bench.sagemaker.delete_endpoint(EndpointName=name)

    def gone() -> bool:
        try:
            bench.sagemaker.describe_endpoint(EndpointName=name)
        except botocore.exceptions.ClientError as error:
            return "Could not find endpoint" in str(error)
        return False

    assert wait_for(gone)


def test_an_asynchronous_endpoint_answers_several_requests_at_a_time(
    bench: Workbench, hosting: Hosting
) -> None:
    endpoint = hosting.endpoint("together", asynchronous=True, concurrent=2)
    sent = [
        bench.runtime.invoke_endpoint_async(
            EndpointName=endpoint, InputLocation=bench.put(f"met/{n}", "meet")
        )
        for n in (1, 2)
    ]

    def answered() -> bool:
        try:
            return all(json.loads(bench.get(one["OutputLocation"]))["body"] == "meet" for one in sent)
        except bench.s3.exceptions.NoSuchKey:
            return False

    assert wait_for(answered)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"InitialInstanceCount": 2}, "InitialInstanceCount > 1"),
        (
            {"CoreDumpConfig": {"DestinationS3Uri": "s3://bucket/dumps"}},
            "CoreDumpConfig is not supported",
        ),
        ({"ModelName": "nobody"}, "Could not find model"),
    ],
)
def test_configurations_that_cannot_be_honoured_are_refused(
    bench: Workbench, hosting: Hosting, realtime: str, change: dict[str, Any], message: str
) -> None:
    with pytest.raises(botocore.exceptions.ClientError, match=message):
        hosting.config(f"refused-{uuid.uuid4().hex[:6]}", model=realtime, variant=change)


def test_invoking_needs_permission_on_the_endpoint(bench: Workbench, realtime: str) -> None:
    arn = f"arn:aws:sagemaker:{bench.cloud.region}:{bench.cloud.account_id}:endpoint/{realtime.lower()}"
    caller = bench.make_role(
        "caller", [{"Effect": "Allow", "Action": "sagemaker:InvokeEndpoint", "Resource": arn}]
    )
    client = bench.client_as(caller, "sagemaker-runtime")
    assert client.invoke_endpoint(EndpointName=realtime, Body=b"x")["ContentType"] == "application/json"
    with pytest.raises(
        botocore.exceptions.ClientError, match="not authorized to perform: sagemaker:InvokeEndpointAsync"
    ):
        client.invoke_endpoint_async(EndpointName=realtime, InputLocation="s3://b/k")


def test_an_update_that_keeps_the_scale_needs_one_that_is_kept() -> None:
    def config(count: int, weight: float) -> dict[str, Any]:
        variant = {"VariantName": "all", "InitialInstanceCount": count, "InitialVariantWeight": weight}
        return {"ProductionVariants": [variant]}

    refuse_another_scale(config(1, 1.0), config(1, 1.0))
    for other in (config(2, 1.0), config(1, 0.5)):
        with pytest.raises(ServiceError, match="RetainAllVariantProperties"):
            refuse_another_scale(config(1, 1.0), other)
