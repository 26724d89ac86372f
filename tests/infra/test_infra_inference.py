"""The endpoint that environments have: exists with a model only, answers asynchronously, sleeps at zero and
wakes up, and takes a new model beside the old one.
"""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from infra_assembly import Assembly, Resource

from infra.environment import AsynchronousEndpoint, load_environment

CONDITION = "LungSegmentationDeployed"
BOUND_TO_A_MODEL = {
    "AWS::SageMaker::Model",
    "AWS::SageMaker::EndpointConfig",
    "AWS::SageMaker::Endpoint",
    "AWS::ApplicationAutoScaling::ScalableTarget",
    "AWS::ApplicationAutoScaling::ScalingPolicy",
}


@pytest.fixture(params=["dev", "staging", "prod"])
def assembly(request: pytest.FixtureRequest, synthesize: Callable[[str], Assembly]) -> Assembly:
    """Environments that have this endpoint alone. Others beside it: test_infra_inference_modes.py."""
    return synthesize(request.param)


def wanted(assembly: Assembly) -> AsynchronousEndpoint:
    """What the environment file says of the endpoint."""
    (endpoint,) = load_environment(assembly.environment).inference.endpoints
    assert isinstance(endpoint, AsynchronousEndpoint)
    return endpoint


def endpoint_name(assembly: Assembly) -> str:
    return wanted(assembly).endpoint_name(assembly.environment)


def policy_of(assembly: Assembly, kind: str) -> Resource:
    (policy,) = [
        resource["Properties"]
        for _, resource in assembly.resources("AWS::ApplicationAutoScaling::ScalingPolicy")
        if resource["Properties"]["PolicyType"] == kind
    ]
    found: Resource = policy
    return found


def alarms(assembly: Assembly) -> dict[str, Resource]:
    """The alarms of the endpoint, by their metrics."""
    return {
        resource["Properties"]["MetricName"]: resource
        for name, resource in assembly.resources("AWS::CloudWatch::Alarm")
        if name.startswith("inference/LungSegmentation")
    }


def test_without_a_package_there_is_no_endpoint(assembly: Assembly) -> None:
    template = assembly.template("inference")
    assert template["Parameters"]["LungSegmentationModelPackageArn"]["Default"] == ""
    assert template["Conditions"][CONDITION] == {
        "Fn::Not": [{"Fn::Equals": [{"Ref": "LungSegmentationModelPackageArn"}, ""]}]
    }
    bound = {name for name, resource in template["Resources"].items() if resource["Type"] in BOUND_TO_A_MODEL}
    waking = {
        name
        for name, resource in template["Resources"].items()
        if resource["Properties"].get("MetricName") == "HasBacklogWithoutCapacity"
    }
    assert len(bound) >= 5
    assert len(waking) == 1
    for name, resource in template["Resources"].items():
        assert resource.get("Condition") == (CONDITION if name in bound | waking else None), name
    assert template["Outputs"]["LungSegmentationEndpointName"]["Condition"] == CONDITION


def test_the_model_is_the_package_of_the_parameter(assembly: Assembly) -> None:
    model = assembly.only("AWS::SageMaker::Model")["Properties"]
    container = model["PrimaryContainer"]
    assert container["ModelPackageName"] == {"Ref": "LungSegmentationModelPackageArn"}
    assert "Image" not in container
    assert set(container["Environment"]) == {
        "RUNTIME_ENDPOINT_NAME", "RUNTIME_QUEUE_LENGTH", "RUNTIME_SEGMENTATION_S3_URI",
    }  # fmt: skip
    # Under this name the drift alarms look for the container's metrics.
    assert container["Environment"]["RUNTIME_ENDPOINT_NAME"] == wanted(assembly).name


def test_the_container_is_in_the_network_and_has_its_role_first(assembly: Assembly) -> None:
    model = assembly.only("AWS::SageMaker::Model")
    assert len(model["Properties"]["VpcConfig"]["Subnets"]) >= 2
    assert len(model["Properties"]["VpcConfig"]["SecurityGroupIds"]) == 1
    # An isolated container could not read from HealthImaging.
    assert model["Properties"]["EnableNetworkIsolation"] is False
    (policy,) = model["DependsOn"]
    assert assembly.template("inference")["Resources"][policy]["Type"] == "AWS::IAM::ManagedPolicy"


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
    # Requests name image sets of patients.
    assert "DataCaptureConfig" not in properties


def test_a_gpu_machine_has_the_driver_that_cuda_13_needs(synthesize: Callable[[str], Assembly]) -> None:
    for environment, ami in (("dev", "al2023-ami-sagemaker-inference-gpu-4-1"), ("local", None)):
        for _, config in synthesize(environment).resources("AWS::SageMaker::EndpointConfig"):
            (variant,) = config["Properties"]["ProductionVariants"]
            assert variant.get("InferenceAmiVersion") == ami
            assert variant["InitialInstanceCount"] >= 1


def test_it_scales_to_its_minimum_by_the_metric_that_sagemaker_emits(assembly: Assembly) -> None:
    target = assembly.only("AWS::ApplicationAutoScaling::ScalableTarget")
    properties = target["Properties"]
    assert (properties["MinCapacity"], properties["MaxCapacity"]) == (
        wanted(assembly).minimum_instances,
        wanted(assembly).maximum_instances,
    )
    name = endpoint_name(assembly)
    assert properties["ResourceId"] == f"endpoint/{name}/variant/main"
    # A name says nothing of an order: the endpoint has to be there before it can scale.
    (endpoint,) = target["DependsOn"]
    assert assembly.template("inference")["Resources"][endpoint]["Properties"]["EndpointName"] == name
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
    alarm = alarms(assembly)["HasBacklogWithoutCapacity"]["Properties"]
    assert alarm["Namespace"] == "AWS/SageMaker"
    assert alarm["Dimensions"] == [{"Name": "EndpointName", "Value": endpoint_name(assembly)}]
    (action,) = alarm["AlarmActions"]
    policy = assembly.template("inference")["Resources"][action["Ref"]]["Properties"]
    assert policy["PolicyType"] == "StepScaling"
    assert policy["StepScalingPolicyConfiguration"]["StepAdjustments"] == [
        {"MetricIntervalLowerBound": 0, "ScalingAdjustment": 1}
    ]


def test_a_bad_model_is_taken_back(assembly: Assembly) -> None:
    endpoint = assembly.only("AWS::SageMaker::Endpoint")["Properties"]
    policy = endpoint["DeploymentConfig"]["BlueGreenUpdatePolicy"]
    assert policy["TrafficRoutingConfiguration"]["Type"] == "ALL_AT_ONCE"
    guards = {
        assembly.template("inference")["Resources"][alarm["AlarmName"]["Ref"]]["Properties"]["MetricName"]
        for alarm in endpoint["DeploymentConfig"]["AutoRollbackConfiguration"]["Alarms"]
    }
    assert guards == {"Invocation5XXErrors", "InvocationFailures", "ModelLatency"}
    for metric in guards:
        alarm = alarms(assembly)[metric]["Properties"]
        assert alarm["Dimensions"] == [
            {"Name": "EndpointName", "Value": endpoint_name(assembly)},
            {"Name": "VariantName", "Value": "main"},
        ]
        # The first fleet must still be there when the alarm has seen a whole period of the second.
        assert policy["TerminationWaitInSeconds"] >= 2 * alarm["Period"] * alarm["EvaluationPeriods"]
        # Silence is no failure: volumes come one at a time.
        assert alarm["TreatMissingData"] == "notBreaching"
        assert "Alarms" in json.dumps(alarm["AlarmActions"])
    # An endpoint that sleeps must start the new model, or nobody knows whether it starts.
    assert "RetainAllVariantProperties" not in endpoint


def test_the_role_may_look_at_the_alarms_that_guard_it(assembly: Assembly) -> None:
    (role,) = [
        policy["Properties"]["PolicyDocument"]["Statement"]
        for name, policy in assembly.resources("AWS::IAM::ManagedPolicy")
        if name.startswith("inference/LungSegmentationContainer")
    ]
    (statement,) = [each for each in role if each["Action"] == "cloudwatch:DescribeAlarms"]
    guards = assembly.only("AWS::SageMaker::Endpoint")["Properties"]["DeploymentConfig"]
    assert {resource["Fn::GetAtt"][0] for resource in statement["Resource"]} == {
        alarm["AlarmName"]["Ref"] for alarm in guards["AutoRollbackConfiguration"]["Alarms"]
    }


def test_its_logs_are_encrypted_and_there_before_it(assembly: Assembly) -> None:
    (group,) = [
        name
        for name, resource in assembly.resources("AWS::Logs::LogGroup")
        if resource["Properties"].get("LogGroupName") == f"/aws/sagemaker/Endpoints/{endpoint_name(assembly)}"
    ]
    assert group.split("/")[1] in assembly.only("AWS::SageMaker::Endpoint")["DependsOn"]


def test_another_machine_is_another_endpoint(synthesize: Callable[[str], Assembly]) -> None:
    # SageMaker refuses to change the instance type of an endpoint that scales.
    ids = {
        name
        for environment in ("local", "dev")
        for name, _ in synthesize(environment).resources("AWS::SageMaker::Endpoint")
        if "Now" not in name
    }
    assert len(ids) == 2
