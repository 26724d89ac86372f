"""Roles: who may be one, and exactly what each may do."""

from __future__ import annotations

import json
from typing import Any

from infra_assembly import Assembly, Resource

NO_RESOURCES = {"ecr:GetAuthorizationToken", "cloudwatch:PutMetricData"}
"""Actions for which IAM knows no resources."""

ALLOWED = {
    "data/Importer": {
        "kms:Decrypt", "kms:DescribeKey", "kms:GenerateDataKey",
        "s3:AbortMultipartUpload", "s3:GetObject", "s3:ListBucket", "s3:PutObject",
    },
    "catalog/IndexWorkload": {
        "kms:Decrypt", "kms:DescribeKey", "kms:GenerateDataKey",
        "logs:CreateLogStream", "logs:PutLogEvents",
        "medical-imaging:GetImageSet", "medical-imaging:GetImageSetMetadata",
        "s3:DeleteObject", "s3:PutObject",
        "sqs:DeleteMessage", "sqs:GetQueueAttributes", "sqs:ReceiveMessage",
    },
    "catalog/ConsistencyWorkload": {
        "glue:GetDatabase", "glue:GetTable", "glue:GetTables", "glue:UpdateTable",
        "kms:Decrypt",
        "logs:AssociateKmsKey", "logs:CreateLogGroup", "logs:CreateLogStream", "logs:PutLogEvents",
        "s3:GetObject", "s3:ListBucket",
    },
    "training/Trainer": {
        "cloudwatch:PutMetricData",
        "ecr:BatchCheckLayerAvailability", "ecr:BatchGetImage", "ecr:GetAuthorizationToken",
        "ecr:GetDownloadUrlForLayer",
        "kms:CreateGrant", "kms:Decrypt", "kms:DescribeKey", "kms:GenerateDataKey",
        "logs:CreateLogGroup", "logs:CreateLogStream", "logs:DescribeLogStreams", "logs:PutLogEvents",
        "medical-imaging:GetImageFrame", "medical-imaging:GetImageSet", "medical-imaging:GetImageSetMetadata",
        "s3:AbortMultipartUpload", "s3:GetObject", "s3:ListBucket", "s3:PutObject",
    },
    "training/LungSegmentationRunner": {
        "iam:PassRole",
        "kms:Decrypt",
        "s3:GetObject",
        "sagemaker:AddTags",
        "sagemaker:CreateModelPackage", "sagemaker:DescribeModelPackage",
        "sagemaker:CreateProcessingJob", "sagemaker:DescribeProcessingJob", "sagemaker:StopProcessingJob",
        "sagemaker:CreateTrainingJob", "sagemaker:DescribeTrainingJob", "sagemaker:StopTrainingJob",
    },
    "inference/Endpoints": {
        "cloudwatch:PutMetricData",
        "ecr:BatchCheckLayerAvailability", "ecr:BatchGetImage", "ecr:GetAuthorizationToken",
        "ecr:GetDownloadUrlForLayer",
        "kms:CreateGrant", "kms:Decrypt", "kms:DescribeKey", "kms:GenerateDataKey",
        "logs:CreateLogGroup", "logs:CreateLogStream", "logs:DescribeLogStreams", "logs:PutLogEvents",
        "medical-imaging:GetImageFrame", "medical-imaging:GetImageSet", "medical-imaging:GetImageSetMetadata",
        "medical-imaging:SearchImageSets", "medical-imaging:StoreDICOM",
        "s3:AbortMultipartUpload", "s3:GetObject", "s3:ListBucket", "s3:PutObject",
        "sns:Publish",
    },
}  # fmt: skip
"""Every role, and every action that it has. A change here is a change of what a workload may do."""


def listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def statements(policy: Resource) -> list[Resource]:
    found: list[Resource] = policy["Properties"]["PolicyDocument"]["Statement"]
    return found


def test_every_role_has_exactly_its_actions(assembly: Assembly) -> None:
    found: dict[str, set[str]] = {}
    for name, policy in assembly.resources("AWS::IAM::ManagedPolicy"):
        role = name.rsplit("Policy", 1)[0]
        found[role] = {action for statement in statements(policy) for action in listed(statement["Action"])}
    assert found == ALLOWED


def test_a_role_has_one_policy_and_nothing_else(assembly: Assembly) -> None:
    assert not list(assembly.resources("AWS::IAM::Policy"))
    attached = [
        f"{name.split('/')[0]}/{role['Ref']}"
        for name, policy in assembly.resources("AWS::IAM::ManagedPolicy")
        for role in policy["Properties"]["Roles"]
    ]
    roles = dict(assembly.resources("AWS::IAM::Role"))
    assert sorted(attached) == sorted(roles)
    for name, role in roles.items():
        assert not {"Policies", "ManagedPolicyArns"} & set(role["Properties"]), name


def test_no_action_is_a_wildcard_and_no_resource_is_everything(assembly: Assembly) -> None:
    for name, policy in assembly.resources("AWS::IAM::ManagedPolicy"):
        for statement in statements(policy):
            assert statement["Effect"] == "Allow"
            actions = set(listed(statement["Action"]))
            assert not [action for action in actions if "*" in action], name
            if "*" in listed(statement["Resource"]):
                assert actions <= NO_RESOURCES, name


def test_frames_and_metadata_are_allowed_on_the_datastore_and_its_image_sets(assembly: Assembly) -> None:
    readers = 0
    for name, policy in assembly.resources("AWS::IAM::ManagedPolicy"):
        for statement in statements(policy):
            if "medical-imaging:GetImageSetMetadata" in listed(statement["Action"]):
                readers += 1
                datastore, image_sets = (json.dumps(resource) for resource in statement["Resource"])
                assert "ArchiveDatastore" in datastore, name
                assert "ArchiveDatastore" in image_sets, name
                assert image_sets.endswith('"/imageset/*"]]}'), name
    assert readers == 3


def test_a_role_is_passed_to_sagemaker_only(assembly: Assembly) -> None:
    passes = [
        statement
        for _, policy in assembly.resources("AWS::IAM::ManagedPolicy")
        for statement in statements(policy)
        if "iam:PassRole" in listed(statement["Action"])
    ]
    assert passes == [
        {
            "Action": "iam:PassRole",
            "Condition": {"StringEquals": {"iam:PassedToService": "sagemaker.amazonaws.com"}},
            "Effect": "Allow",
            "Resource": {"Fn::GetAtt": ["TrainerRole7789B687", "Arn"]},
        }
    ]


def test_services_become_a_role_for_this_account_only(dev: Assembly) -> None:
    trusted = {}
    for name, role in dev.resources("AWS::IAM::Role"):
        (statement,) = role["Properties"]["AssumeRolePolicyDocument"]["Statement"]
        service = statement["Principal"]["Service"]
        trusted[name.rsplit("Role", 1)[0]] = service
        # Lambda and Glue do not say for whom they act when they assume a role.
        if service not in ("lambda.amazonaws.com", "glue.amazonaws.com"):
            assert statement["Condition"]["StringEquals"] == {"aws:SourceAccount": "111122223333"}, name
        if service == "medical-imaging.amazonaws.com":
            assert statement["Condition"]["ArnEquals"] == {
                "aws:SourceArn": {"Fn::GetAtt": ["ArchiveDatastoreAD6CDB3C", "DatastoreArn"]}
            }
    assert trusted == {
        "data/Importer": "medical-imaging.amazonaws.com",
        "catalog/IndexWorkload": "lambda.amazonaws.com",
        "catalog/ConsistencyWorkload": "glue.amazonaws.com",
        "training/Trainer": "sagemaker.amazonaws.com",
        "training/LungSegmentationRunner": "sagemaker.amazonaws.com",
        "inference/Endpoints": "sagemaker.amazonaws.com",
    }
