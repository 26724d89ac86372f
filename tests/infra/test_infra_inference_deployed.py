"""A real-time endpoint of the templates, deployed in the local cloud: it comes with its model, answers, and
goes with it.

What the inference stack takes from other stacks is given as values; everything that belongs to the endpoint
is as it was synthesized.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from infra_assembly import Resource
from test_infra_inference_modes import environment_with, synthesized

sys.path.insert(0, str(Path(__file__).parents[1] / "local"))

from cloudformation_steps import deploy, outputs, reasons
from sagemaker_server import SERVER
from sagemaker_workbench import Workbench, model_archive

REAL_TIME = """
[[inference.endpoints]]
name = "lung-now"
task = "lung-segmentation"
mode = "real-time"
instance_type = "ml.m5.xlarge"
minimum_instances = 1
maximum_instances = 2
invocations_per_instance = 6.0
"""


def alone(template: Resource, *, values: dict[str, str]) -> Resource:
    """The template with what belongs to the endpoint `LungNow`, and values in place of imports."""

    def filled(part: Any) -> Any:
        if isinstance(part, dict):
            if set(part) == {"Fn::ImportValue"}:
                found = [value for name, value in values.items() if name in part["Fn::ImportValue"]]
                assert len(found) == 1, part
                return found[0]
            return {key: filled(each) for key, each in part.items()}
        return [filled(each) for each in part] if isinstance(part, list) else part

    return {
        section: {
            name: filled(each)
            for name, each in template.get(section, {}).items()
            if name.startswith("LungNow")
        }
        for section in ("Parameters", "Conditions", "Resources", "Outputs")
    }


def test_a_real_time_endpoint_comes_and_goes_with_its_model(own_cloud: Any, tmp_path: Path) -> None:
    cloud = own_cloud
    # The repository from which the endpoint's role may pull.
    bench = Workbench(cloud, name="cdk-hnb659fds-container-assets-000000000000-us-east-1")
    environment = environment_with(tmp_path, REAL_TIME, patient_data=True, name="local")
    template = synthesized(environment, tmp_path / "cdk").template("inference")
    bucket = f"arn:aws:s3:::{bench.bucket}"
    values = {
        "FnGetAttBucketsModels": bucket,
        "FnGetAttBucketsResults": bucket,
        "RefBucketsResults": bench.bucket,
        "FnGetAttEncryptionKey": cloud.client("kms").create_key()["KeyMetadata"]["Arn"],
        "ArchiveDatastore": f"arn:aws:medical-imaging:us-east-1:000000000000:datastore/{'0' * 32}",
        "RefAlarms": cloud.client("sns").create_topic(Name="alarms")["TopicArn"],
        "Subnet": "subnet-0123456789abcdef0",
        "Workloads": "sg-0123456789abcdef0",
    }
    stack = "inference-now"
    body = alone(template, values=values)
    assert deploy(cloud, stack, body)["StackStatus"] == "CREATE_COMPLETE", reasons(cloud, stack)

    image = bench.image(tmp_path, SERVER, tag="server")
    sagemaker = cloud.client("sagemaker")
    assert sagemaker.list_endpoints(NameContains="lung-now")["Endpoints"] == []
    sagemaker.create_model_package_group(ModelPackageGroupName="now")

    def package(model: str) -> str:
        archive = bench.put(f"training/{model}.tar.gz", model_archive(name=model))
        made = sagemaker.create_model_package(
            ModelPackageGroupName="now",
            ModelApprovalStatus="Approved",
            InferenceSpecification={
                "Containers": [{"Image": image, "ModelDataUrl": archive}],
                "SupportedContentTypes": ["application/json"],
                "SupportedResponseMIMETypes": ["application/json"],
            },
        )
        return str(made["ModelPackageArn"])

    def serve(arn: str) -> dict[str, str]:
        parameter = {"ParameterKey": "LungNowModelPackageArn", "ParameterValue": arn}
        ended = deploy(cloud, stack, body, update=True, Parameters=[parameter])
        assert ended["StackStatus"] == "UPDATE_COMPLETE", reasons(cloud, stack)
        return outputs(ended)

    runtime = cloud.client("sagemaker-runtime")
    # The second is an update in place.
    for model in ("now", "better"):
        name = serve(package(model))["LungNowEndpointName"]
        assert name == "monai-local-lung-now-m5-xlarge"
        answer = runtime.invoke_endpoint(EndpointName=name, Body=b"{}", ContentType="application/json")
        assert json.loads(answer["Body"].read())["model"] == model
    described = sagemaker.describe_endpoint(EndpointName=name)
    guards = described["LastDeploymentConfig"]["AutoRollbackConfiguration"]["Alarms"]
    alarms = cloud.client("cloudwatch").describe_alarms(AlarmNames=[each["AlarmName"] for each in guards])
    assert {each["MetricName"] for each in alarms["MetricAlarms"]} == {"Invocation5XXErrors", "ModelLatency"}

    assert "LungNowEndpointName" not in serve("")
    assert sagemaker.list_endpoints(NameContains="lung-now")["Endpoints"] == []
