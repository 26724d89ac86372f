"""Real resource types: a datastore and SageMaker's, created, updated, replaced and deleted by
CloudFormation."""

from __future__ import annotations

import json
from typing import Any

import pytest
from botocore.exceptions import ClientError
from cloudformation_steps import deploy, outputs, reasons

ROLE = {
    "Type": "AWS::IAM::Role",
    "Properties": {
        "AssumeRolePolicyDocument": {
            "Statement": [
                {
                    "Effect": "Allow",
                    "Principal": {"Service": "sagemaker.amazonaws.com"},
                    "Action": "sts:AssumeRole",
                }
            ]
        }
    },
}


def test_datastore(cloud) -> None:
    store = {"Type": "AWS::HealthImaging::Datastore", "Properties": {"Tags": {"for": "test"}}}
    template = {
        "Resources": {"Store": store},
        "Outputs": {
            "Id": {"Value": {"Ref": "Store"}},
            "Arn": {"Value": {"Fn::GetAtt": ["Store", "DatastoreArn"]}},
        },
    }
    stack = deploy(cloud, "datastore", template)
    assert stack["StackStatus"] == "CREATE_COMPLETE", reasons(cloud, "datastore")
    first = outputs(stack)["Id"]
    imaging = cloud.client("medical-imaging")
    described = imaging.get_datastore(datastoreId=first)["datastoreProperties"]
    assert described["datastoreStatus"] == "ACTIVE"
    assert described["datastoreArn"] == outputs(stack)["Arn"]
    assert imaging.list_tags_for_resource(resourceArn=described["datastoreArn"])["tags"]["for"] == "test"

    # Tags are create-only: the datastore is replaced. This is why the stacks never tag it.
    store["Properties"] = {"Tags": {"for": "another"}}
    stack = deploy(cloud, "datastore", template, update=True)
    assert stack["StackStatus"] == "UPDATE_COMPLETE", reasons(cloud, "datastore")
    second = outputs(stack)["Id"]
    assert second != first
    assert imaging.get_datastore(datastoreId=second)["datastoreProperties"]["datastoreStatus"] == "ACTIVE"
    assert not _exists(imaging, first)

    store["DeletionPolicy"] = "Retain"
    template["Description"] = "retained"
    deploy(cloud, "datastore", template, update=True)
    _delete(cloud, "datastore")
    assert _exists(imaging, second), "DeletionPolicy Retain keeps the datastore"
    imaging.delete_datastore(datastoreId=second)


def test_unknown_property_is_refused(cloud) -> None:
    store = {"Type": "AWS::HealthImaging::Datastore", "Properties": {"Name": "x"}}
    stack = deploy(cloud, "unknown-property", {"Resources": {"Store": store}})
    assert stack["StackStatus"] == "ROLLBACK_COMPLETE"
    assert "extraneous key" in reasons(cloud, "unknown-property")
    assert "'Name' was unexpected" in reasons(cloud, "unknown-property")


def test_pipeline_and_group(cloud) -> None:
    definition = {
        "Version": "2020-12-01",
        "Steps": [{"Name": "No", "Type": "Fail", "Arguments": {"ErrorMessage": "no"}}],
    }
    pipeline = {
        "Type": "AWS::SageMaker::Pipeline",
        "Properties": {
            "PipelineName": "cfn-pipeline",
            "PipelineDefinition": {"PipelineDefinitionBody": json.dumps(definition)},
            "RoleArn": {"Fn::GetAtt": ["Role", "Arn"]},
        },
    }
    group = {
        "Type": "AWS::SageMaker::ModelPackageGroup",
        "Properties": {"ModelPackageGroupName": "cfn-group"},
    }
    template = {
        "Resources": {"Role": ROLE, "Pipeline": pipeline, "Group": group},
        "Outputs": {
            "Pipeline": {"Value": {"Ref": "Pipeline"}},
            "Group": {"Value": {"Fn::GetAtt": ["Group", "ModelPackageGroupArn"]}},
        },
    }
    stack = deploy(cloud, "pipeline", template)
    assert stack["StackStatus"] == "CREATE_COMPLETE", reasons(cloud, "pipeline")
    assert outputs(stack) == {
        "Pipeline": "cfn-pipeline",
        "Group": f"arn:aws:sagemaker:{cloud.region}:{cloud.account_id}:model-package-group/cfn-group",
    }
    sagemaker = cloud.client("sagemaker")
    assert (
        json.loads(sagemaker.describe_pipeline(PipelineName="cfn-pipeline")["PipelineDefinition"])
        == definition
    )
    definition["Steps"][0]["Arguments"]["ErrorMessage"] = "never"
    pipeline["Properties"]["PipelineDefinition"]["PipelineDefinitionBody"] = json.dumps(definition)
    assert deploy(cloud, "pipeline", template, update=True)["StackStatus"] == "UPDATE_COMPLETE"
    assert (
        json.loads(sagemaker.describe_pipeline(PipelineName="cfn-pipeline")["PipelineDefinition"])
        == definition
    )
    _delete(cloud, "pipeline")
    with pytest.raises(ClientError):
        sagemaker.describe_pipeline(PipelineName="cfn-pipeline")


def test_failed_endpoint_gives_its_reason(cloud) -> None:
    template = {
        "Resources": {
            "Role": ROLE,
            "Model": {
                "Type": "AWS::SageMaker::Model",
                "Properties": {
                    "ExecutionRoleArn": {"Fn::GetAtt": ["Role", "Arn"]},
                    "PrimaryContainer": {
                        "Image": f"{cloud.account_id}.dkr.ecr.{cloud.region}.amazonaws.com/nothing:1",
                        "ModelDataUrl": "s3://nowhere/model.tar.gz",
                    },
                },
            },
            "Config": {
                "Type": "AWS::SageMaker::EndpointConfig",
                "Properties": {
                    "ProductionVariants": [
                        {
                            "VariantName": "all",
                            "ModelName": {"Fn::GetAtt": ["Model", "ModelName"]},
                            "InstanceType": "ml.m5.xlarge",
                            "InitialInstanceCount": "1",
                        }
                    ]
                },
            },
            "Endpoint": {
                "Type": "AWS::SageMaker::Endpoint",
                "Properties": {"EndpointConfigName": {"Fn::GetAtt": ["Config", "EndpointConfigName"]}},
            },
        }
    }
    stack = deploy(cloud, "failing", template)
    assert stack["StackStatus"] == "ROLLBACK_COMPLETE"
    assert "Endpoint failing-endpoint-" in reasons(cloud, "failing")
    assert "is Failed" in reasons(cloud, "failing")
    sagemaker = cloud.client("sagemaker")
    assert sagemaker.list_endpoints(NameContains="failing-")["Endpoints"] == []
    assert sagemaker.list_models(NameContains="failing-")["Models"] == []
    assert sagemaker.list_endpoint_configs(NameContains="failing-")["EndpointConfigs"] == []


def _exists(imaging: Any, datastore_id: str) -> bool:
    try:
        status: str = imaging.get_datastore(datastoreId=datastore_id)["datastoreProperties"][
            "datastoreStatus"
        ]
    except imaging.exceptions.ResourceNotFoundException:
        return False
    return status != "DELETED"


def _delete(cloud: Any, name: str) -> None:
    client = cloud.client("cloudformation")
    client.delete_stack(StackName=name)
    client.get_waiter("stack_delete_complete").wait(StackName=name, WaiterConfig={"Delay": 1})
