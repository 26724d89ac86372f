"""Resource types that MiniStack lacks, through CloudFormation: recorded ones, and those of Athena and
Glue."""

from __future__ import annotations

import json
import re
import urllib.request
from typing import Any

import pytest
from cloudformation_steps import deploy, outputs, reasons

TRAIL = {
    "Type": "AWS::CloudTrail::Trail",
    "Properties": {"S3BucketName": "somewhere", "IsLogging": "true", "EnableLogFileValidation": True},
}


def test_recorded_type_answers_ref_and_attributes(cloud) -> None:
    template = {
        "Resources": {"Trail": TRAIL},
        "Outputs": {"Name": {"Value": {"Ref": "Trail"}}, "Arn": {"Value": {"Fn::GetAtt": ["Trail", "Arn"]}}},
    }
    stack = deploy(cloud, "recorded", template)
    assert stack["StackStatus"] == "CREATE_COMPLETE", reasons(cloud, "recorded")
    name = outputs(stack)["Name"]
    assert name.startswith("recorded-Trail-")
    assert outputs(stack)["Arn"] == f"arn:aws:cloudtrail:us-east-1:000000000000:trail/{name}"
    changed = {
        **template,
        "Resources": {"Trail": {**TRAIL, "Properties": {**TRAIL["Properties"], "IsLogging": False}}},
    }
    stack = deploy(cloud, "recorded", changed, update=True)
    assert stack["StackStatus"] == "UPDATE_COMPLETE"
    assert outputs(stack)["Name"] == name, "an update in place keeps the physical id"
    assert outputs(stack)["Arn"].endswith(name)
    cloud.client("cloudformation").delete_stack(StackName="recorded")
    cloud.client("cloudformation").get_waiter("stack_delete_complete").wait(
        StackName="recorded", WaiterConfig={"Delay": 1}
    )


def test_a_service_behind_a_load_balancer_is_recorded_in_place_of_ministacks(cloud) -> None:
    """Recorded and nothing more: a Docker daemon that happens to run must not be asked for its container."""

    def resource(type: str, **properties: Any) -> dict[str, Any]:
        return {"Type": f"AWS::{type}", "Properties": properties}

    template = {
        "Resources": {
            "Cluster": resource("ECS::Cluster"),
            "Task": resource(
                "ECS::TaskDefinition", ContainerDefinitions=[{"Name": "one", "Image": "none.invalid/one"}]
            ),
            "Service": resource(
                "ECS::Service",
                Cluster={"Fn::GetAtt": ["Cluster", "Arn"]},
                TaskDefinition={"Fn::GetAtt": ["Task", "TaskDefinitionArn"]},
                DesiredCount="2",
            ),
            "Balancer": resource("ElasticLoadBalancingV2::LoadBalancer", Type="network", Scheme="internal"),
        },
        "Outputs": {
            name: {"Value": {"Fn::GetAtt": name.split("0")}}
            for name in ("Service0Name", "Cluster0Arn", "Task0TaskDefinitionArn", "Balancer0DNSName")
        },
    }
    stack = deploy(cloud, "served", template)
    assert stack["StackStatus"] == "CREATE_COMPLETE", reasons(cloud, "served")
    said = outputs(stack)
    assert said["Service0Name"].startswith("served-Service-")
    assert re.fullmatch(r"arn:aws:ecs:us-east-1:000000000000:cluster/served-Cluster-\w+", said["Cluster0Arn"])
    assert ":task-definition/served-Task-" in said["Task0TaskDefinitionArn"]
    assert said["Balancer0DNSName"].endswith(".elb.invalid")
    # Nobody can take the record for the thing.
    assert cloud.client("ecs").list_clusters()["clusterArns"] == []
    assert cloud.client("elbv2").describe_load_balancers()["LoadBalancers"] == []
    status = f"{cloud.endpoint_url}/_local/status"
    with urllib.request.urlopen(status, timeout=10) as response:  # noqa: S310 - the tests' own cloud
        only = json.load(response)["recordedOnly"]
    assert {"AWS::ECS::Service", "AWS::ElasticLoadBalancingV2::LoadBalancer"} <= set(only)


@pytest.mark.parametrize(
    ("properties", "complaint"),
    [
        ({"S3BucketName": "b", "IsLogging": True, "Logging": 1}, "extraneous key"),
        ({"S3BucketName": "b"}, "'IsLogging' is a required property"),
        ({"S3BucketName": "b", "IsLogging": "maybe"}, "'maybe' is not of type 'boolean'"),
        ({"S3BucketName": "b", "IsLogging": True, "Arn": "arn:aws:x"}, "Arn cannot be set"),
    ],
)
def test_wrong_properties_fail_the_stack(cloud, properties: dict[str, Any], complaint: str) -> None:
    name = f"wrong-{abs(hash(complaint)) % 10_000}"
    stack = deploy(cloud, name, {"Resources": {"Trail": {"Type": TRAIL["Type"], "Properties": properties}}})
    assert stack["StackStatus"] == "ROLLBACK_COMPLETE"
    assert complaint in reasons(cloud, name)


def test_unknown_type_is_refused(cloud) -> None:
    with pytest.raises(
        cloud.client("cloudformation").exceptions.ClientError, match="AWS::SageMaker::Nothing"
    ):
        deploy(cloud, "unknown", {"Resources": {"X": {"Type": "AWS::SageMaker::Nothing"}}})


def configurations(glue: Any) -> set[str]:
    """Names of Glue's security configurations; other tests' stacks have some too."""
    return {one["Name"] for one in glue.get_security_configurations()["SecurityConfigurations"]}


def test_named_query_and_security_configuration(cloud) -> None:
    cloud.client("glue").create_database(DatabaseInput={"Name": "named"})
    query = {
        "Type": "AWS::Athena::NamedQuery",
        "Properties": {"Database": "named", "QueryString": "SELECT 1", "Name": {"Ref": "Name"}},
    }
    configuration = {
        "Type": "AWS::Glue::SecurityConfiguration",
        "Properties": {
            "Name": "sealed",
            "EncryptionConfiguration": {"S3Encryptions": [{"S3EncryptionMode": "SSE-S3"}]},
        },
    }
    template = {
        "Parameters": {
            "Name": {"Type": "String", "Default": "one"},
            "Sealed": {"Type": "String", "Default": "no"},
        },
        "Conditions": {"IsSealed": {"Fn::Equals": [{"Ref": "Sealed"}, "yes"]}},
        "Resources": {"Query": query, "Configuration": {**configuration, "Condition": "IsSealed"}},
        "Outputs": {"Query": {"Value": {"Ref": "Query"}}},
    }
    athena, glue = cloud.client("athena"), cloud.client("glue")
    stack = deploy(cloud, "analytics", template)
    assert stack["StackStatus"] == "CREATE_COMPLETE", reasons(cloud, "analytics")
    first = outputs(stack)["Query"]
    assert athena.get_named_query(NamedQueryId=first)["NamedQuery"]["Name"] == "one"
    assert "sealed" not in configurations(glue)

    parameters = [
        {"ParameterKey": "Name", "ParameterValue": "two"},
        {"ParameterKey": "Sealed", "ParameterValue": "yes"},
    ]
    stack = deploy(cloud, "analytics", None, update=True, Parameters=parameters)
    assert stack["StackStatus"] == "UPDATE_COMPLETE", reasons(cloud, "analytics")
    second = outputs(stack)["Query"]
    assert second != first, "every property is create-only: the query was replaced"
    assert athena.get_named_query(NamedQueryId=second)["NamedQuery"]["Name"] == "two"
    with pytest.raises(athena.exceptions.InvalidRequestException):
        athena.get_named_query(NamedQueryId=first)
    assert "sealed" in configurations(glue)

    parameters[1]["ParameterValue"] = "no"
    deploy(cloud, "analytics", None, update=True, Parameters=parameters)
    assert "sealed" not in configurations(glue)


def test_studio_is_recorded_and_status_says_so(cloud) -> None:
    config = {
        "StudioLifecycleConfigName": "recorded-start",
        "StudioLifecycleConfigAppType": "JupyterLab",
        "StudioLifecycleConfigContent": "ZWNobw==",
    }
    settings = {"ExecutionRole": "arn:aws:iam::000000000000:role/none"}
    domain = {
        "DomainName": "recorded",
        "AuthMode": "IAM",
        "VpcId": "vpc-1",
        "SubnetIds": ["subnet-1"],
        "DefaultUserSettings": settings,
    }
    profile = {"DomainId": {"Fn::GetAtt": ["Domain", "DomainId"]}, "UserProfileName": "ada"}
    template = {
        "Resources": {
            "Config": {"Type": "AWS::SageMaker::StudioLifecycleConfig", "Properties": config},
            "Domain": {"Type": "AWS::SageMaker::Domain", "Properties": domain},
            "Profile": {"Type": "AWS::SageMaker::UserProfile", "Properties": profile},
        },
        "Outputs": {
            name: {"Value": {"Fn::GetAtt": [resource, name]}}
            for resource, name in (
                ("Config", "StudioLifecycleConfigArn"),
                ("Domain", "DomainId"),
                ("Domain", "DomainArn"),
                ("Profile", "UserProfileArn"),
            )
        },
    }
    stack = deploy(cloud, "studio-recorded", template)
    assert stack["StackStatus"] == "CREATE_COMPLETE", reasons(cloud, "studio-recorded")
    made, prefix = outputs(stack), "arn:aws:sagemaker:us-east-1:000000000000:"
    assert re.fullmatch(r"d-[0-9a-f]{12}", made["DomainId"])
    assert made == {
        "StudioLifecycleConfigArn": f"{prefix}studio-lifecycle-config/recorded-start",
        "DomainId": made["DomainId"],
        "DomainArn": f"{prefix}domain/{made['DomainId']}",
        "UserProfileArn": f"{prefix}user-profile/{made['DomainId']}/ada",
    }
    domain["SubnetIds"] = ["subnet-1", "subnet-2"]
    stack = deploy(cloud, "studio-recorded", template, update=True)
    assert outputs(stack) == made, "an update in place"
    status = f"{cloud.endpoint_url}/_local/status"
    with urllib.request.urlopen(status, timeout=10) as response:  # noqa: S310 - the tests' own cloud
        listed = json.load(response)["recordedOnly"]
    assert {resource["Type"] for resource in template["Resources"].values()} <= set(listed)
