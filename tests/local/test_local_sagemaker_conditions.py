"""Policies may demand a network, keys and machines of jobs: a request without them is denied."""

from __future__ import annotations

from typing import Any

import pytest
from botocore.exceptions import ClientError
from role_sessions import ACCOUNT, make_role, refused, session

from local.sagemaker.condition_keys import condition_keys

KEY = f"arn:aws:kms:us-east-1:{ACCOUNT}:key/11111111-2222-3333-4444-555555555555"
SUBNETS, GROUPS = ["subnet-1", "subnet-2"], ["sg-1"]
ROLE = f"arn:aws:iam::{ACCOUNT}:role/none"
VPC = {"Subnets": SUBNETS, "SecurityGroupIds": GROUPS}

TRAINING: dict[str, Any] = {
    "TrainingJobName": "conditions",
    "RoleArn": ROLE,
    "AlgorithmSpecification": {"TrainingImage": "image", "TrainingInputMode": "File"},
    "OutputDataConfig": {"S3OutputPath": "s3://bucket/", "KmsKeyId": KEY},
    "ResourceConfig": {
        "InstanceType": "ml.m5.xlarge",
        "InstanceCount": 1,
        "VolumeSizeInGB": 1,
        "VolumeKmsKeyId": KEY,
    },
    "StoppingCondition": {"MaxRuntimeInSeconds": 3600},
    "VpcConfig": VPC,
    "EnableInterContainerTrafficEncryption": True,
}
PROCESSING: dict[str, Any] = {
    "ProcessingJobName": "conditions",
    "RoleArn": ROLE,
    "AppSpecification": {"ImageUri": "image"},
    "ProcessingResources": {
        "ClusterConfig": {
            "InstanceType": "ml.m5.xlarge",
            "InstanceCount": 1,
            "VolumeSizeInGB": 1,
            "VolumeKmsKeyId": KEY,
        }
    },
    "ProcessingOutputConfig": {"Outputs": [], "KmsKeyId": KEY},
    "NetworkConfig": {"VpcConfig": VPC, "EnableInterContainerTrafficEncryption": True},
}
SAFE = {
    "ForAllValues:StringEquals": {
        "sagemaker:VpcSubnets": SUBNETS,
        "sagemaker:VpcSecurityGroupIds": GROUPS,
        "sagemaker:InstanceTypes": ["ml.m5.xlarge"],
    },
    "Null": {"sagemaker:VpcSubnets": "false", "sagemaker:VpcSecurityGroupIds": "false"},
    "ArnEquals": {"sagemaker:OutputKmsKey": KEY, "sagemaker:VolumeKmsKey": KEY},
    "Bool": {"sagemaker:InterContainerTrafficEncryption": "true"},
}


def changed(request: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    """A copy of a request with one member set, or without it where the value is None."""
    first, _, rest = path.partition(".")
    if rest:
        return request | {first: changed(request[first], rest, value)}
    return {name: old for name, old in request.items() if name != first} | (
        {} if value is None else {first: value}
    )


def admitted(call: Any, request: dict[str, Any]) -> None:
    """The request passes its conditions; it ends because it may not pass the role, or the role is missing."""
    with pytest.raises(ClientError) as caught:
        call(**request)
    told = str(caught.value)
    assert "iam:PassRole" in told or "does not exist" in told, told


@pytest.fixture(scope="module")
def sagemaker(cloud) -> Any:
    role = make_role(
        cloud,
        "conditions",
        {
            "Action": ["sagemaker:CreateTrainingJob", "sagemaker:CreateProcessingJob"],
            "Resource": "*",
            "Condition": SAFE,
        },
        {
            "Action": "sagemaker:CreateModel",
            "Resource": "*",
            "Condition": {
                "ForAllValues:StringEquals": {"sagemaker:VpcSubnets": SUBNETS},
                "Null": {"sagemaker:VpcSubnets": "false"},
                "Bool": {"sagemaker:NetworkIsolation": "true"},
            },
        },
    )
    return session(cloud, role, "sagemaker")


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("VpcConfig", None),
        ("VpcConfig.Subnets", ["subnet-1", "subnet-of-another"]),
        ("VpcConfig.SecurityGroupIds", ["sg-of-another"]),
        ("ResourceConfig.InstanceType", "ml.p4d.24xlarge"),
        ("ResourceConfig.VolumeKmsKeyId", None),
        ("OutputDataConfig.KmsKeyId", KEY.replace("1111", "9999")),
        ("EnableInterContainerTrafficEncryption", False),
        ("EnableInterContainerTrafficEncryption", None),
    ],
)
def test_training_job_as_its_conditions_demand(sagemaker: Any, path: str, value: Any) -> None:
    admitted(sagemaker.create_training_job, TRAINING)
    told = refused(sagemaker.create_training_job, **changed(TRAINING, path, value))
    assert "sagemaker:CreateTrainingJob" in told


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("NetworkConfig", None),
        ("NetworkConfig.VpcConfig.Subnets", ["subnet-of-another"]),
        ("NetworkConfig.EnableInterContainerTrafficEncryption", None),
        ("ProcessingResources.ClusterConfig.InstanceType", "ml.g5.xlarge"),
        ("ProcessingResources.ClusterConfig.VolumeKmsKeyId", None),
        ("ProcessingOutputConfig", None),
    ],
)
def test_processing_job_as_its_conditions_demand(sagemaker: Any, path: str, value: Any) -> None:
    admitted(sagemaker.create_processing_job, PROCESSING)
    told = refused(sagemaker.create_processing_job, **changed(PROCESSING, path, value))
    assert "sagemaker:CreateProcessingJob" in told


def test_model_as_its_conditions_demand(sagemaker: Any) -> None:
    model = {
        "ModelName": "conditions",
        "ExecutionRoleArn": ROLE,
        "PrimaryContainer": {"Image": "image"},
        "VpcConfig": VPC,
        "EnableNetworkIsolation": True,
    }
    refused(sagemaker.create_model, **changed(model, "VpcConfig", None))
    refused(sagemaker.create_model, **changed(model, "EnableNetworkIsolation", None))
    with pytest.raises(ClientError) as caught:
        sagemaker.create_model(**model)
    assert "sagemaker:CreateModel on" not in str(caught.value), "it fails later, not for its conditions"


def test_keys_of_the_other_requests() -> None:
    transform = {
        "TransformResources": {"InstanceType": "ml.m5.large", "InstanceCount": 1, "VolumeKmsKeyId": KEY},
        "TransformOutput": {"S3OutputPath": "s3://b/", "KmsKeyId": KEY},
        "Tags": [{"Key": "owner", "Value": "me"}],
    }
    assert condition_keys("CreateTransformJob", transform) == {
        "sagemaker:InstanceTypes": ["ml.m5.large"],
        "sagemaker:OutputKmsKey": KEY,
        "sagemaker:VolumeKmsKey": KEY,
        "aws:TagKeys": ["owner"],
        "aws:RequestTag/owner": "me",
    }
    variants = [{"InstanceType": "ml.g5.xlarge"}, {"InstanceType": "ml.m5.large"}, {"VariantName": "x"}]
    assert condition_keys("CreateEndpointConfig", {"ProductionVariants": variants, "KmsKeyId": KEY}) == {
        "sagemaker:InstanceTypes": ["ml.g5.xlarge", "ml.m5.large"],
        "sagemaker:VolumeKmsKey": KEY,
    }
    serverless = [{"ServerlessConfig": {"MemorySizeInMB": 2048, "MaxConcurrency": 5}}]
    assert condition_keys("CreateEndpointConfig", {"ProductionVariants": serverless}) == {
        "sagemaker:ServerlessMaxConcurrency": "5",
        "sagemaker:ServerlessMemorySize": "2048",
    }
    groups = {"ResourceConfig": {"InstanceGroups": [{"InstanceType": "ml.m5.large"}]}}
    assert condition_keys("CreateTrainingJob", groups) == {"sagemaker:InstanceTypes": ["ml.m5.large"]}
    assert condition_keys("UpdateModelPackage", {"ModelApprovalStatus": "Approved"}) == {
        "sagemaker:ModelApprovalStatus": "Approved"
    }
    assert condition_keys("DescribeModel", {"ModelName": "m"}) == {}


def test_approval_can_be_denied_by_its_status(cloud) -> None:
    role = make_role(
        cloud,
        "rejecting",
        {
            "Action": "sagemaker:UpdateModelPackage",
            "Resource": "*",
            "Condition": {"StringEquals": {"sagemaker:ModelApprovalStatus": "Rejected"}},
        },
    )
    client = session(cloud, role, "sagemaker")
    package = f"arn:aws:sagemaker:us-east-1:{ACCOUNT}:model-package/none/1"
    refused(client.update_model_package, ModelPackageArn=package, ModelApprovalStatus="Approved")
    with pytest.raises(ClientError, match=r"(?i)not.*(exist|found)|could not find"):
        client.update_model_package(ModelPackageArn=package, ModelApprovalStatus="Rejected")
