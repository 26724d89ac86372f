"""Inference components through boto3 and CloudFormation: several models on the machines of one endpoint."""

from __future__ import annotations

import json
from typing import Any

import pytest
from botocore.exceptions import ClientError
from cloudformation_steps import deploy, outputs, reasons
from sagemaker_server import SERVER
from sagemaker_workbench import NEEDS, Hosting, Workbench, wait_for


@pytest.fixture(scope="module")
def bench(cloud: Any) -> Workbench:
    return Workbench(cloud)


@pytest.fixture(scope="module")
def hosting(bench: Workbench, tmp_path_factory: pytest.TempPathFactory) -> Hosting:
    return Hosting(bench, bench.image(tmp_path_factory.mktemp("server"), SERVER, tag="server"))


@pytest.fixture(scope="module")
def endpoint(bench: Workbench, hosting: Hosting) -> str:
    name = f"{bench.name}-shared"
    bench.sagemaker.create_endpoint(EndpointName=name, EndpointConfigName=hosting.host("shared"))
    described = hosting.settled(name)
    assert described["EndpointStatus"] == "InService"
    assert described["ProductionVariants"][0]["ManagedInstanceScaling"]["MaxInstanceCount"] == 2
    return name


def test_components_are_invoked_by_their_names_scaled_updated_and_deleted(
    bench: Workbench, hosting: Hosting, endpoint: str
) -> None:
    first = hosting.component("first", endpoint=endpoint, ModelName=hosting.model("first"))
    container = {
        "Image": hosting.image,
        "ArtifactUrl": bench.uri("models/second/model.tar.gz"),
        "Environment": {"MODE": "own"},
    }
    hosting.model("second")
    second = hosting.component("second", endpoint=endpoint, Container=container, copies=2)
    described = hosting.settled_component(first)
    assert described["InferenceComponentStatus"] == "InService", described.get("FailureReason")
    assert described["RuntimeConfig"] == {"DesiredCopyCount": 1, "CurrentCopyCount": 1}
    assert described["Specification"]["ModelName"] == f"{bench.name}-first"
    described = hosting.settled_component(second)
    assert described["RuntimeConfig"] == {"DesiredCopyCount": 2, "CurrentCopyCount": 2}
    assert described["Specification"]["Container"]["DeployedImage"]["ResolvedImage"].startswith("sha256:")

    answer = bench.runtime.invoke_endpoint(EndpointName=endpoint, Body=b"x", InferenceComponentName=first)
    assert answer["InvokedProductionVariant"] == "main"
    assert json.loads(answer["Body"].read())["model"] == "first"
    assert hosting.invoke(endpoint, b"x", InferenceComponentName=second)["mode"] == "own"
    listed = bench.sagemaker.list_inference_components(EndpointNameEquals=endpoint, SortBy="Name")
    names = [entry["InferenceComponentName"] for entry in listed["InferenceComponents"]]
    assert sorted(names) == sorted([first, second])

    bench.sagemaker.update_inference_component(
        InferenceComponentName=first,
        Specification={"ComputeResourceRequirements": NEEDS, "ModelName": hosting.model("third")},
    )
    hosting.settled_component(first)
    assert hosting.invoke(endpoint, b"x", InferenceComponentName=first)["model"] == "third"
    bench.sagemaker.update_inference_component(
        InferenceComponentName=first,
        Specification={"ComputeResourceRequirements": NEEDS, "ModelName": hosting.model("no", broken=True)},
    )
    assert "weights do not fit" in hosting.settled_component(first)["FailureReason"]
    assert hosting.invoke(endpoint, b"x", InferenceComponentName=first)["model"] == "third", "as before"

    for copies in (0, 1):
        bench.sagemaker.update_inference_component_runtime_config(
            InferenceComponentName=second, DesiredRuntimeConfig={"CopyCount": copies}
        )
        assert hosting.settled_component(second)["RuntimeConfig"]["CurrentCopyCount"] == copies
        if not copies:
            with pytest.raises(bench.runtime.exceptions.ValidationError, match="has no capacity"):
                hosting.invoke(endpoint, b"x", InferenceComponentName=second)
    pid = hosting.invoke(endpoint, b"x", InferenceComponentName=second)["pid"]
    with pytest.raises(bench.runtime.exceptions.ModelError, match="no answer") as caught:
        hosting.invoke(endpoint, b"crash", InferenceComponentName=second)
    assert caught.value.response["LogStreamArn"].endswith(f"/aws/sagemaker/InferenceComponents/{second}")

    def again() -> Any:
        try:
            return hosting.invoke(endpoint, b"x", InferenceComponentName=second)["pid"]
        except ClientError:
            return None

    assert wait_for(again) != pid

    with pytest.raises(ClientError, match=f"while inference components are on it: {first}, {second}"):
        bench.sagemaker.delete_endpoint(EndpointName=endpoint)
    bench.sagemaker.delete_inference_component(InferenceComponentName=second)

    def gone() -> bool:
        listed = bench.sagemaker.list_inference_components(EndpointNameEquals=endpoint)
        return len(listed["InferenceComponents"]) == 1

    wait_for(gone)
    with pytest.raises(bench.runtime.exceptions.ValidationError, match="not found"):
        hosting.invoke(endpoint, b"x", InferenceComponentName=second)


def test_what_cannot_be_is_refused(bench: Workbench, hosting: Hosting, endpoint: str) -> None:
    model = hosting.model("refused")
    with pytest.raises(bench.runtime.exceptions.ValidationError, match="Name header is required"):
        hosting.invoke(endpoint, b"x")
    with pytest.raises(ClientError, match="must be larger than 0"):
        hosting.component("none", endpoint=endpoint, ModelName=model, copies=0)
    with pytest.raises(ClientError, match="Exactly one of"):
        hosting.component("neither", endpoint=endpoint)
    with pytest.raises(ClientError, match=r"Could not find endpoint"):
        hosting.component("lost", endpoint="elsewhere", ModelName=model)
    with pytest.raises(ClientError, match="BaseInferenceComponentName is not supported"):
        hosting.component("adapter", endpoint=endpoint, BaseInferenceComponentName="x")
    ordinary = hosting.config("ordinary", model=model)
    with pytest.raises(ClientError, match="from models to inference components"):
        bench.sagemaker.update_endpoint(EndpointName=endpoint, EndpointConfigName=ordinary)
    with pytest.raises(ClientError, match="only supported for inference component endpoints"):
        hosting.host("scaled", ModelName=model)
    with pytest.raises(ClientError, match="ExecutionRoleArn is required"):
        bench.sagemaker.create_endpoint_config(
            EndpointConfigName=f"{bench.name}-roleless",
            ProductionVariants=[{"VariantName": "main", "InstanceType": "ml.g5.xlarge"}],
        )


def template(bench: Workbench, model: str, *, copies: int) -> dict[str, Any]:
    component = {
        "Type": "AWS::SageMaker::InferenceComponent",
        "Properties": {
            "EndpointName": {"Fn::GetAtt": ["Endpoint", "EndpointName"]},
            "VariantName": "main",
            "Specification": {"ModelName": model, "ComputeResourceRequirements": NEEDS},
            "RuntimeConfig": {"CopyCount": copies},
            "Tags": [{"Key": "for", "Value": str(copies)}],
        },
    }
    return {
        "Resources": {
            "Endpoint": {
                "Type": "AWS::SageMaker::Endpoint",
                "Properties": {"EndpointConfigName": f"{bench.name}-stack-host"},
            },
            "Component": component,
        },
        "Outputs": {
            "Arn": {"Value": {"Ref": "Component"}},
            "Status": {"Value": {"Fn::GetAtt": ["Component", "InferenceComponentStatus"]}},
            "Endpoint": {"Value": {"Fn::GetAtt": ["Endpoint", "EndpointName"]}},
        },
    }


def test_a_stack_makes_changes_and_deletes_them(bench: Workbench, hosting: Hosting) -> None:
    cloud, stack = bench.cloud, f"{bench.name}-components"
    hosting.host("stack-host")
    done = deploy(cloud, stack, template(bench, hosting.model("one"), copies=1))
    assert done["StackStatus"] == "CREATE_COMPLETE", reasons(cloud, stack)
    said = outputs(done)
    name = said["Arn"].rpartition("/")[2]
    assert said["Arn"].split(":")[5] == f"inference-component/{name}"
    assert said["Status"] == "InService"
    assert hosting.invoke(said["Endpoint"], b"x", InferenceComponentName=name)["model"] == "one"

    done = deploy(cloud, stack, template(bench, hosting.model("two"), copies=2), update=True)
    assert done["StackStatus"] == "UPDATE_COMPLETE", reasons(cloud, stack)
    described = bench.sagemaker.describe_inference_component(InferenceComponentName=name)
    assert described["RuntimeConfig"]["CurrentCopyCount"] == 2
    assert hosting.invoke(said["Endpoint"], b"x", InferenceComponentName=name)["model"] == "two"
    tags = bench.sagemaker.list_tags(ResourceArn=said["Arn"])["Tags"]
    assert {"Key": "for", "Value": "2"} in tags

    broken = template(bench, hosting.model("bad", broken=True), copies=2)
    done = deploy(cloud, stack, broken, update=True)
    assert done["StackStatus"] == "UPDATE_ROLLBACK_COMPLETE"
    assert "weights do not fit" in reasons(cloud, stack)
    assert hosting.invoke(said["Endpoint"], b"x", InferenceComponentName=name)["model"] == "two"
    client = cloud.client("cloudformation")
    client.delete_stack(StackName=stack)
    wait_for(lambda: not bench.sagemaker.list_inference_components(NameContains=name)["InferenceComponents"])
    wait_for(lambda: not bench.sagemaker.list_endpoints(NameContains=said["Endpoint"])["Endpoints"])
