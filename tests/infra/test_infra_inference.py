"""The endpoint: exists with a model only, answers asynchronously, sleeps at zero and wakes up."""

from __future__ import annotations

import json
from collections.abc import Callable

from infra_assembly import Assembly, Resource

from infra.environment import AsynchronousEndpoint, load_environment

CONDITION = "LungSegmentationDeployed"
BOUND_TO_A_MODEL = {
    "AWS::SageMaker::Model",
    "AWS::SageMaker::EndpointConfig",
    "AWS::SageMaker::Endpoint",
    "AWS::ApplicationAutoScaling::ScalableTarget",
    "AWS::ApplicationAutoScaling::ScalingPolicy",
    "AWS::CloudWatch::Alarm",
}


def endpoint_name(assembly: Assembly) -> Resource:
    """How the template refers to the name of its endpoint."""
    ((name, _),) = assembly.resources("AWS::SageMaker::Endpoint")
    return {"Fn::GetAtt": [name.split("/")[1], "EndpointName"]}


def policy_of(assembly: Assembly, kind: str) -> Resource:
    (policy,) = [
        resource["Properties"]
        for _, resource in assembly.resources("AWS::ApplicationAutoScaling::ScalingPolicy")
        if resource["Properties"]["PolicyType"] == kind
    ]
    found: Resource = policy
    return found


def test_without_a_package_there_is_no_endpoint(assembly: Assembly) -> None:
    template = assembly.template("inference")
    assert template["Parameters"]["LungSegmentationModelPackageArn"]["Default"] == ""
    assert template["Conditions"][CONDITION] == {
        "Fn::Not": [{"Fn::Equals": [{"Ref": "LungSegmentationModelPackageArn"}, ""]}]
    }
    for name, resource in template["Resources"].items():
        expected = CONDITION if resource["Type"] in BOUND_TO_A_MODEL else None
        assert resource.get("Condition") == expected, name
    assert template["Outputs"]["LungSegmentationEndpointName"]["Condition"] == CONDITION


def test_the_model_is_the_package_of_the_parameter(assembly: Assembly) -> None:
    container = assembly.only("AWS::SageMaker::Model")["Properties"]["PrimaryContainer"]
    assert container["ModelPackageName"] == {"Ref": "LungSegmentationModelPackageArn"}
    assert "Image" not in container
    assert set(container["Environment"]) == {"RUNTIME_QUEUE_LENGTH", "RUNTIME_SEGMENTATION_S3_URI"}


def test_requests_and_answers_are_encrypted_and_announced(assembly: Assembly) -> None:
    properties = assembly.only("AWS::SageMaker::EndpointConfig")["Properties"]
    output = properties["AsyncInferenceConfig"]["OutputConfig"]
    assert "EncryptionKey" in json.dumps(properties["KmsKeyId"])
    assert output["KmsKeyId"] == properties["KmsKeyId"]
    assert json.dumps(output["S3OutputPath"]).endswith('"/responses/"]]}')
    assert json.dumps(output["S3FailurePath"]).endswith('"/failures/"]]}')
    assert output["NotificationConfig"] == {
        "SuccessTopic": assembly.template("inference")["Outputs"]["SuccessTopicArn"]["Value"],
        "ErrorTopic": assembly.template("inference")["Outputs"]["FailureTopicArn"]["Value"],
    }
    assert properties["AsyncInferenceConfig"]["ClientConfig"]["MaxConcurrentInvocationsPerInstance"] >= 1


def test_a_gpu_machine_has_the_driver_that_cuda_13_needs(synthesize: Callable[[str], Assembly]) -> None:
    for environment, ami in (("dev", "al2023-ami-sagemaker-inference-gpu-4-1"), ("local", None)):
        config = synthesize(environment).only("AWS::SageMaker::EndpointConfig")["Properties"]
        (variant,) = config["ProductionVariants"]
        assert variant.get("InferenceAmiVersion") == ami
        assert variant["InitialInstanceCount"] >= 1


def test_it_scales_to_its_minimum_by_the_metric_that_sagemaker_emits(assembly: Assembly) -> None:
    target = assembly.only("AWS::ApplicationAutoScaling::ScalableTarget")["Properties"]
    (wanted,) = load_environment(assembly.environment).inference.endpoints
    assert isinstance(wanted, AsynchronousEndpoint)
    assert (target["MinCapacity"], target["MaxCapacity"]) == (
        wanted.minimum_instances,
        wanted.maximum_instances,
    )
    name = endpoint_name(assembly)
    assert target["ResourceId"] == {"Fn::Join": ["", ["endpoint/", name, "/variant/main"]]}
    (variant,) = assembly.only("AWS::SageMaker::EndpointConfig")["Properties"]["ProductionVariants"]
    assert variant["VariantName"] == "main"
    tracking = policy_of(assembly, "TargetTrackingScaling")["TargetTrackingScalingPolicyConfiguration"]
    assert tracking["CustomizedMetricSpecification"] == {
        "Namespace": "AWS/SageMaker",
        "MetricName": "ApproximateBacklogSizePerInstance",
        "Statistic": "Average",
        # The backlog metrics have this dimension alone: with a variant name the policy would never see a
        # value.
        "Dimensions": [{"Name": "EndpointName", "Value": name}],
    }


def test_a_request_wakes_it(assembly: Assembly) -> None:
    alarm = assembly.only("AWS::CloudWatch::Alarm")["Properties"]
    assert alarm["Namespace"] == "AWS/SageMaker"
    assert alarm["MetricName"] == "HasBacklogWithoutCapacity"
    assert alarm["Dimensions"] == [{"Name": "EndpointName", "Value": endpoint_name(assembly)}]
    (action,) = alarm["AlarmActions"]
    policy = assembly.template("inference")["Resources"][action["Ref"]]["Properties"]
    assert policy["PolicyType"] == "StepScaling"
    assert policy["StepScalingPolicyConfiguration"]["StepAdjustments"] == [
        {"MetricIntervalLowerBound": 0, "ScalingAdjustment": 1}
    ]


def test_another_machine_is_another_endpoint(synthesize: Callable[[str], Assembly]) -> None:
    # SageMaker refuses to change the instance type of an endpoint that scales.
    names = {str(endpoint_name(synthesize(environment))) for environment in ("local", "dev")}
    assert len(names) == 2
