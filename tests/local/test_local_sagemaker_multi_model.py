"""Multi-model endpoints through boto3: models are loaded when asked for, and make room for others."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from botocore.exceptions import ClientError
from sagemaker_server import MULTI_SERVER, SERVER
from sagemaker_workbench import Hosting, Workbench, model_archive, wait_for

LABEL = "com.amazonaws.sagemaker.capabilities.multi-models=true"


@pytest.fixture(scope="module")
def bench(cloud: Any) -> Workbench:
    return Workbench(cloud)


@pytest.fixture(scope="module")
def image(bench: Workbench, tmp_path_factory: pytest.TempPathFactory) -> str:
    return bench.image(tmp_path_factory.mktemp("multi"), MULTI_SERVER, tag="multi", label=LABEL)


def make_model(bench: Workbench, image: str, name: str, **container: Any) -> str:
    full = f"{bench.name}-{name}"
    container = {
        "Image": image,
        "Mode": "MultiModel",
        "ModelDataUrl": bench.uri("many/"),
        **container,
    }
    bench.sagemaker.create_model(ModelName=full, PrimaryContainer=container, ExecutionRoleArn=bench.role)
    return full


@pytest.fixture(scope="module")
def endpoint(bench: Workbench, image: str) -> str:
    """An endpoint of the models a, b, c (two of which fit) and broken, of which none is loaded yet."""
    for name in ("a", "b", "c"):
        bench.put(f"many/{name}.tar.gz", model_archive(name=name))
    bench.put("many/broken.tar.gz", model_archive(name="broken", broken=True))
    bench.put("many/sub/folder.tar.gz", b"no archive")
    hosting = Hosting(bench, image)
    config = hosting.config("many", model=make_model(bench, image, "many"))
    name = f"{bench.name}-many"
    bench.sagemaker.create_endpoint(EndpointName=name, EndpointConfigName=config)
    assert hosting.settled(name)["EndpointStatus"] == "InService"
    return name


def ask(bench: Workbench, endpoint: str, model: str, body: bytes = b"x") -> dict[str, Any]:
    answer = bench.runtime.invoke_endpoint(EndpointName=endpoint, Body=body, TargetModel=f"{model}.tar.gz")
    return dict(json.loads(answer["Body"].read()))


def test_models_come_when_they_are_asked_for_and_the_least_recently_used_goes(
    bench: Workbench, endpoint: str
) -> None:
    first = ask(bench, endpoint, "a")
    assert first["loaded"] == ["a"]
    assert first["target"] == "a.tar.gz"
    assert ask(bench, endpoint, "b")["loaded"] == ["a", "b"]
    assert ask(bench, endpoint, "a")["loaded"] == ["a", "b"]
    assert ask(bench, endpoint, "c")["loaded"] == ["a", "c"], "b was not used for longest"
    with ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(lambda name: ask(bench, endpoint, name), "abcabcabcabc"))
    assert [answer["model"] for answer in answers] == list("abcabcabcabc")
    assert {answer["pid"] for answer in answers} == {first["pid"]}, "one container"

    bench.put("many/a.tar.gz", model_archive(name="another a"))
    assert {ask(bench, endpoint, name)["model"] for name in "abc"} == {"a", "b", "c"}
    assert ask(bench, endpoint, "a")["model"] == "a", "a new model needs a new name"
    assert ask(bench, endpoint, "a", b"lose")["model"] == "a", "the container lost it; it is loaded again"


def test_what_cannot_be_answered_says_why(bench: Workbench, endpoint: str) -> None:
    def error(kind: str, **params: Any) -> dict[str, Any]:
        with pytest.raises(ClientError) as caught:
            bench.runtime.invoke_endpoint(EndpointName=endpoint, **{"Body": b"x", **params})
        response: dict[str, Any] = caught.value.response
        assert response["Error"]["Code"] == kind
        return response

    assert "is missing a target model header" in error("ValidationError")["Error"]["Message"]
    for missing in ("nowhere.tar.gz", "sub/folder.tar.gz"):
        message = error("ValidationError", TargetModel=missing)["Error"]["Message"]
        assert "Failed to download model data" in message
        assert f"key: many/{missing}" in message
    refused = error("ModelError", TargetModel="broken.tar.gz")
    assert refused["OriginalStatusCode"] == 500
    assert "weights do not fit" in refused["OriginalMessage"]
    assert error("ModelError", TargetModel="c.tar.gz", Body=b"unknown")["OriginalStatusCode"] == 404
    assert ask(bench, endpoint, "c")["model"] == "c"
    assert "no inference components" in str(error("ValidationError", InferenceComponentName="x"))


def test_models_are_loaded_again_in_a_container_that_replaces_another(
    bench: Workbench, image: str, endpoint: str
) -> None:
    before = ask(bench, endpoint, "c")["pid"]
    config = Hosting(bench, image).config("many-2", model=f"{bench.name}-many")
    bench.sagemaker.update_endpoint(EndpointName=endpoint, EndpointConfigName=config)
    wait_for(lambda: ask(bench, endpoint, "c")["pid"] != before)


def test_what_a_policy_says_of_target_models_counts(bench: Workbench, endpoint: str) -> None:
    arn = f"arn:aws:sagemaker:{bench.cloud.region}:{bench.cloud.account_id}:endpoint/{endpoint}"
    only_b = {
        "Effect": "Allow",
        "Action": "sagemaker:InvokeEndpoint",
        "Resource": arn,
        "Condition": {"StringLike": {"sagemaker:TargetModel": "b*"}},
    }
    runtime = bench.client_as(bench.make_role("asks-b", [only_b]), "sagemaker-runtime")
    runtime.invoke_endpoint(EndpointName=endpoint, Body=b"x", TargetModel="b.tar.gz")
    with pytest.raises(ClientError, match="not authorized to perform: sagemaker:InvokeEndpoint"):
        runtime.invoke_endpoint(EndpointName=endpoint, Body=b"x", TargetModel="c.tar.gz")


def test_only_containers_of_many_models_take_them(
    bench: Workbench, image: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    hosting = Hosting(bench, image)
    with pytest.raises(ClientError, match="ModelDataUrl"):
        bench.sagemaker.create_model(
            ModelName=f"{bench.name}-none",
            PrimaryContainer={"Image": image, "Mode": "MultiModel"},
            ExecutionRoleArn=bench.role,
        )
    many = make_model(bench, image, "refused")
    output = {"OutputConfig": {"S3OutputPath": bench.uri("responses")}}
    with pytest.raises(ClientError, match="asynchronous endpoint cannot serve a multi-model"):
        hosting.config("refused", model=many, AsyncInferenceConfig=output)
    with pytest.raises(ClientError, match="multi-model"):
        bench.sagemaker.create_transform_job(
            TransformJobName=f"{bench.name}-refused",
            ModelName=many,
            TransformInput={
                "DataSource": {"S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": bench.uri("in")}}
            },
            TransformOutput={"S3OutputPath": bench.uri("out")},
            TransformResources={"InstanceType": "ml.m5.large", "InstanceCount": 1},
        )
    single = bench.image(tmp_path_factory.mktemp("single"), SERVER, tag="single")
    config = hosting.config("unlabelled", model=make_model(bench, single, "unlabelled"))
    name = f"{bench.name}-unlabelled"
    bench.sagemaker.create_endpoint(EndpointName=name, EndpointConfigName=config)
    assert f"does not contain required {LABEL}" in hosting.settled(name)["FailureReason"]
    ordinary = Hosting(bench, single).endpoint("ordinary")
    with pytest.raises(ClientError, match="does not support target model header"):
        bench.runtime.invoke_endpoint(EndpointName=ordinary, Body=b"x", TargetModel="a.tar.gz")
