"""For each rule of `infra/guard`: what breaks it. Resources that no environment has are written out here."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

KEY = "arn:aws:kms:us-east-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab"
ROLE = "arn:aws:iam::111122223333:role/monai"

Resource = dict[str, Any]
Path = tuple[str | int, ...]


class _Absent:
    def __repr__(self) -> str:
        return "absent"


ABSENT = _Absent()
"""In place of a value: the property is taken away."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """One way to break one rule."""

    rule: str
    type: str
    changes: Mapping[Path, Any]
    """Path in the resource, and what is there instead."""

    def broken(self, valid: Resource) -> Resource:
        resource = deepcopy(valid)
        for path, value in self.changes.items():
            place: Any = resource
            for step, following in pairwise(path):
                if isinstance(step, str) and step not in place:
                    place[step] = [{}] if isinstance(following, int) else {}
                place = place[step]
            if value is not ABSENT:
                place[path[-1]] = value
            elif path[-1] in place:
                del place[path[-1]]
        return resource


def row(rule: str, type: str, path: str, value: Any = ABSENT) -> Row:
    steps = tuple(int(step) if step.isdigit() else step for step in path.split("."))
    return Row(rule=rule, type=type, changes={steps: value})


_DATASTORE = "AWS::HealthImaging::Datastore"
_TRAIL = "AWS::CloudTrail::Trail"
_DOMAIN = "AWS::SageMaker::Domain"
_MODEL = "AWS::SageMaker::Model"
_CONFIGURATION = "AWS::SageMaker::EndpointConfig"
_COMPONENT = "AWS::SageMaker::InferenceComponent"
_WORKGROUP = "AWS::Athena::WorkGroup"
_GLUE = "AWS::Glue::SecurityConfiguration"
_REPOSITORY = "AWS::ECR::Repository"
_TASK = "AWS::ECS::TaskDefinition"
_SERVICE = "AWS::ECS::Service"
_BALANCER = "AWS::ElasticLoadBalancingV2::LoadBalancer"
_CONTAINER = "Properties.ContainerDefinitions.0"
_PLACED = "Properties.NetworkConfiguration.AwsvpcConfiguration"
_SETTINGS = "Properties.DefaultUserSettings"
_IDLE = f"{_SETTINGS}.JupyterLabAppSettings.AppLifecycleManagement.IdleSettings"
_RESULT = "Properties.WorkGroupConfiguration.ResultConfiguration.EncryptionConfiguration"
_ENCRYPTION = "Properties.EncryptionConfiguration"


def _selectors(*types: str) -> list[Resource]:
    return [
        {
            "FieldSelectors": [
                {"Field": "eventCategory", "Equals": ["Data"]},
                {"Field": "resources.type", "Equals": [type]},
            ]
        }
        for type in types
    ]


ROWS = (
    row("DATASTORE_CUSTOMER_KEY", _DATASTORE, "Properties.KmsKeyArn"),
    row("DATASTORE_RETAINED", _DATASTORE, "DeletionPolicy"),
    row("DATASTORE_RETAINED", _DATASTORE, "DeletionPolicy", "Delete"),
    row("DATASTORE_RETAINED", _DATASTORE, "UpdateReplacePolicy", "Delete"),
    row("DATASTORE_WITHOUT_TAGS", _DATASTORE, "Properties.Tags", {"commit": "1e3c6bc"}),
    row(
        "TRAIL_RECORDS_DATASTORES",
        _TRAIL,
        "Properties.AdvancedEventSelectors",
        _selectors("AWS::MedicalImaging::Imageset", "AWS::S3::Object"),
    ),
    row(
        "TRAIL_RECORDS_IMAGE_SETS",
        _TRAIL,
        "Properties.AdvancedEventSelectors",
        _selectors("AWS::MedicalImaging::Datastore", "AWS::S3::Object"),
    ),
    row("TRAIL_IS_ON", _TRAIL, "Properties.IsLogging", False),
    row("DOMAIN_VPC_ONLY", _DOMAIN, "Properties.AppNetworkAccessType"),
    row("DOMAIN_VPC_ONLY", _DOMAIN, "Properties.AppNetworkAccessType", "PublicInternetOnly"),
    row("DOMAIN_SECURITY_GROUPS", _DOMAIN, f"{_SETTINGS}.SecurityGroups"),
    row("DOMAIN_CUSTOMER_KEY", _DOMAIN, "Properties.KmsKeyId"),
    row("DOMAIN_STOPS_IDLE_NOTEBOOKS", _DOMAIN, f"{_IDLE}.LifecycleManagement", "DISABLED"),
    row("DOMAIN_STOPS_IDLE_NOTEBOOKS", _DOMAIN, f"{_IDLE}.IdleTimeoutInMinutes"),
    row("DOMAIN_STOPS_IDLE_NOTEBOOKS", _DOMAIN, f"{_SETTINGS}.JupyterLabAppSettings"),
    row(
        "DOMAIN_WITHOUT_DOCKER",
        _DOMAIN,
        "Properties.DomainSettings.DockerSettings.EnableDockerAccess",
        "ENABLED",
    ),
    row(
        "DOMAIN_OUTPUTS_NOT_SHARED",
        _DOMAIN,
        f"{_SETTINGS}.SharingSettings",
        {"NotebookOutputOption": "Allowed", "S3OutputPath": "s3://shared/"},
    ),
    row("PROFILE_OWN_ROLE", "AWS::SageMaker::UserProfile", "Properties.UserSettings.ExecutionRole"),
    row("MODEL_INSIDE_VPC", _MODEL, "Properties.VpcConfig"),
    row("MODEL_INSIDE_VPC", _MODEL, "Properties.VpcConfig.Subnets", []),
    row("MODEL_INSIDE_VPC", _MODEL, "Properties.VpcConfig.SecurityGroupIds", []),
    row(
        "CONFIGURATION_WITHOUT_DATA_CAPTURE",
        _CONFIGURATION,
        "Properties.DataCaptureConfig",
        {"EnableCapture": True, "DestinationS3Uri": "s3://captured/", "InitialSamplingPercentage": 1},
    ),
    row(
        "ASYNCHRONOUS_OUTPUT_CUSTOMER_KEY",
        _CONFIGURATION,
        "Properties.AsyncInferenceConfig",
        {"OutputConfig": {"S3OutputPath": "s3://results/"}},
    ),
    row("COMPONENTS_INSIDE_VPC", _CONFIGURATION, "Properties.ExecutionRoleArn", ROLE),
    row("COMPONENT_SERVES_A_MODEL", _COMPONENT, "Properties.Specification.ModelName"),
    row("COMPONENT_SERVES_A_MODEL", _COMPONENT, "Properties.Specification.Container", {"Image": "any"}),
    row(
        "PIPELINE_DEFINITION_IN_TEMPLATE",
        "AWS::SageMaker::Pipeline",
        "Properties.PipelineDefinition",
        {"PipelineDefinitionS3Location": {"Bucket": "definitions", "Key": "train.json"}},
    ),
    row("WORKGROUP_ENFORCED", _WORKGROUP, "Properties.WorkGroupConfiguration.EnforceWorkGroupConfiguration"),
    row("WORKGROUP_CUSTOMER_KEY", _WORKGROUP, f"{_RESULT}.EncryptionOption", "SSE_S3"),
    row("WORKGROUP_CUSTOMER_KEY", _WORKGROUP, f"{_RESULT}.KmsKey"),
    row("WORKGROUP_SCAN_LIMIT", _WORKGROUP, "Properties.WorkGroupConfiguration.BytesScannedCutoffPerQuery"),
    row("QUERY_IN_WORKGROUP", "AWS::Athena::NamedQuery", "Properties.WorkGroup"),
    row("GLUE_CUSTOMER_KEY", _GLUE, f"{_ENCRYPTION}.S3Encryptions", [{"S3EncryptionMode": "SSE-S3"}]),
    row("GLUE_CUSTOMER_KEY", _GLUE, f"{_ENCRYPTION}.S3Encryptions"),
    row("GLUE_CUSTOMER_KEY", _GLUE, f"{_ENCRYPTION}.CloudWatchEncryption"),
    row(
        "GLUE_CUSTOMER_KEY",
        _GLUE,
        f"{_ENCRYPTION}.JobBookmarksEncryption",
        {"JobBookmarksEncryptionMode": "DISABLED"},
    ),
    row("NO_WAY_OUT", "AWS::EC2::Subnet", "Type", "AWS::EC2::NatGateway"),
    row("NO_WAY_OUT", "AWS::EC2::Subnet", "Type", "AWS::EC2::InternetGateway"),
    row("NO_LONG_LIVED_CREDENTIALS", "AWS::IAM::Role", "Type", "AWS::IAM::User"),
    row("NO_FUNCTION_URL", "AWS::Lambda::Permission", "Type", "AWS::Lambda::Url"),
    row("FLOW_LOG_OF_ALL_TRAFFIC", "AWS::EC2::FlowLog", "Properties.TrafficType", "REJECT"),
    row("QUEUE_CUSTOMER_KEY", "AWS::SQS::Queue", "Properties.KmsMasterKeyId"),
    row("QUEUE_CUSTOMER_KEY", "AWS::SQS::Queue", "Properties.KmsMasterKeyId", "alias/aws/sqs"),
    row("TOPIC_CUSTOMER_KEY", "AWS::SNS::Topic", "Properties.KmsMasterKeyId"),
    row("TOPIC_CUSTOMER_KEY", "AWS::SNS::Topic", "Properties.KmsMasterKeyId", "alias/aws/sns"),
    row("FUNCTION_OWN_LOG_GROUP", "AWS::Lambda::Function", "Properties.LoggingConfig"),
    row("PERMISSION_NAMES_ITS_SOURCE", "AWS::Lambda::Permission", "Properties.SourceArn"),
    row("REPOSITORY_IMMUTABLE_TAGS", _REPOSITORY, "Properties.ImageTagMutability"),
    row("REPOSITORY_SCANNED", _REPOSITORY, "Properties.ImageScanningConfiguration.ScanOnPush", False),
    row("REPOSITORY_CUSTOMER_KEY", _REPOSITORY, f"{_ENCRYPTION}.KmsKey"),
    row("REPOSITORY_CUSTOMER_KEY", _REPOSITORY, _ENCRYPTION, {"EncryptionType": "AES256"}),
    row("BUILDS_ARE_PRIVATE", "AWS::CodeBuild::Project", "Properties.Visibility", "PUBLIC_READ"),
    row("CONTAINER_WITHOUT_RIGHTS", _TASK, f"{_CONTAINER}.ReadonlyRootFilesystem"),
    row("CONTAINER_WITHOUT_RIGHTS", _TASK, f"{_CONTAINER}.User"),
    row("CONTAINER_WITHOUT_RIGHTS", _TASK, f"{_CONTAINER}.User", "0:65534"),
    row("CONTAINER_WITHOUT_RIGHTS", _TASK, f"{_CONTAINER}.Privileged", True),
    row("TASK_OWN_ROLE", _TASK, "Properties.TaskRoleArn"),
    row("SERVICE_INSIDE_NETWORK", _SERVICE, f"{_PLACED}.AssignPublicIp", "ENABLED"),
    row("SERVICE_INSIDE_NETWORK", _SERVICE, f"{_PLACED}.SecurityGroups", []),
    row("SERVICE_WITHOUT_SHELL", _SERVICE, "Properties.EnableExecuteCommand", True),
    row("BALANCER_INTERNAL", _BALANCER, "Properties.Scheme"),
    row("BALANCER_INTERNAL", _BALANCER, "Properties.Scheme", "internet-facing"),
    row("BALANCER_INTERNAL", _BALANCER, "Properties.SecurityGroups"),
)


def _sample(type: str, properties: Resource) -> tuple[str, Resource]:
    return type, {"Type": type, "Properties": properties}


SAMPLES: dict[str, Resource] = dict(
    (
        _sample(
            _TRAIL,
            {
                "S3BucketName": "trail",
                "IsLogging": True,
                "EnableLogFileValidation": True,
                "AdvancedEventSelectors": _selectors(
                    "AWS::MedicalImaging::Datastore", "AWS::MedicalImaging::Imageset"
                ),
            },
        ),
        _sample(
            _DOMAIN,
            {
                "DomainName": "monai",
                "AuthMode": "IAM",
                "AppNetworkAccessType": "VpcOnly",
                "VpcId": "vpc-12345678",
                "SubnetIds": ["subnet-12345678", "subnet-87654321"],
                "KmsKeyId": KEY,
                "DefaultUserSettings": {
                    "ExecutionRole": ROLE,
                    "SecurityGroups": ["sg-12345678"],
                    "JupyterLabAppSettings": {
                        "AppLifecycleManagement": {
                            "IdleSettings": {"LifecycleManagement": "ENABLED", "IdleTimeoutInMinutes": 60}
                        }
                    },
                },
            },
        ),
        _sample(
            "AWS::SageMaker::UserProfile",
            {
                "DomainId": "d-abcdefghijkl",
                "UserProfileName": "ada",
                "UserSettings": {"ExecutionRole": ROLE},
            },
        ),
        _sample(
            _COMPONENT,
            {
                "EndpointName": "shared",
                "Specification": {
                    "ModelName": "spleen",
                    "ComputeResourceRequirements": {"MinMemoryRequiredInMb": 4096},
                },
            },
        ),
        _sample(
            "AWS::Lambda::Permission",
            {
                "Action": "lambda:InvokeFunction",
                "FunctionName": "index",
                "Principal": "events.amazonaws.com",
                "SourceArn": "arn:aws:events:us-east-1:111122223333:rule/created",
            },
        ),
        _sample(
            _REPOSITORY,
            {
                "ImageTagMutability": "IMMUTABLE",
                "ImageScanningConfiguration": {"ScanOnPush": True},
                "EncryptionConfiguration": {"EncryptionType": "KMS", "KmsKey": KEY},
            },
        ),
        _sample(
            "AWS::CodeBuild::Project",
            {
                "ServiceRole": ROLE,
                "EncryptionKey": KEY,
                "Artifacts": {"Type": "NO_ARTIFACTS"},
                "Source": {"Type": "NO_SOURCE", "BuildSpec": "version: 0.2"},
                "Environment": {
                    "Type": "LINUX_CONTAINER",
                    "ComputeType": "BUILD_GENERAL1_SMALL",
                    "Image": "aws/codebuild/standard:7.0",
                },
            },
        ),
    )
)
"""One resource that passes the rules, of each type that an environment need not have."""
