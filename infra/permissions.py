"""Permissions that several workloads need, each said once.

Sources: the service authorization reference of each service; for HealthImaging
https://docs.aws.amazon.com/service-authorization/latest/reference/list_awshealthimaging.html
"""

from __future__ import annotations

import aws_cdk as cdk
from aws_cdk import aws_ecr as ecr
from aws_cdk import aws_iam as iam
from aws_cdk import aws_kms as kms
from aws_cdk import aws_s3 as s3

from infra.data.archive import Archive
from infra.workload import allow, log_group_arns


def read_image_sets(archive: Archive) -> iam.PolicyStatement:
    """Read image sets, with versions and frames. HealthImaging checks the data store and the image set, so
    both are named.
    """
    return allow(
        "medical-imaging:GetImageFrame",
        "medical-imaging:GetImageSet",
        "medical-imaging:GetImageSetMetadata",
        on=[archive.datastore_arn, archive.image_sets_arn],
    )


def read_objects(bucket: s3.IBucket, *prefixes: str) -> list[iam.PolicyStatement]:
    """List and read objects below the prefixes; without prefixes, all of the bucket."""
    wanted = {"StringLike": {"s3:prefix": [f"{prefix}*" for prefix in prefixes]}} if prefixes else None
    return [
        allow("s3:ListBucket", on=[bucket.bucket_arn], when=wanted),
        allow("s3:GetObject", on=[bucket.arn_for_objects(f"{prefix}*") for prefix in prefixes or ("",)]),
    ]


def write_objects(bucket: s3.IBucket, *prefixes: str) -> iam.PolicyStatement:
    """Put objects below the prefixes. Large ones go in parts, and a failed one's parts are removed."""
    return allow(
        "s3:AbortMultipartUpload",
        "s3:PutObject",
        on=[bucket.arn_for_objects(f"{prefix}*") for prefix in prefixes or ("",)],
    )


def read_with_key(key: kms.IKey) -> iam.PolicyStatement:
    """Read what is encrypted under the platform's key, and write nothing."""
    return allow("kms:Decrypt", on=[key.key_arn])


def use_key(key: kms.IKey) -> iam.PolicyStatement:
    """Read and write what is encrypted under the platform's key: objects, queue messages, notifications,
    image sets.

    HealthImaging uses the key with its caller's permissions and looks at it first
    (https://docs.aws.amazon.com/healthimaging/latest/devguide/data-encryption.html). Only AWS itself misses
    kms:DescribeKey.
    """
    return allow("kms:Decrypt", "kms:DescribeKey", "kms:GenerateDataKey", on=[key.key_arn])


def lend_key_to_volumes(key: kms.IKey) -> iam.PolicyStatement:
    """Let SageMaker encrypt the storage volumes of the machines that it starts for the role, which may use
    the key itself (`use_key`).

    Only AWS itself misses this: the local cloud has no volumes.
    """
    return allow("kms:CreateGrant", on=[key.key_arn], when={"Bool": {"kms:GrantIsForAWSResource": "true"}})


def write_sagemaker_logs(stack: cdk.Stack, *kinds: str) -> list[iam.PolicyStatement]:
    """Logs and metrics of SageMaker's own containers, e.g. `TrainingJobs`: it makes groups
    `/aws/sagemaker/<kind>`.
    """
    return [
        allow(
            "logs:CreateLogGroup",
            "logs:CreateLogStream",
            "logs:DescribeLogStreams",
            "logs:PutLogEvents",
            on=[arn for kind in kinds for arn in log_group_arns(stack, f"/aws/sagemaker/{kind}")],
        ),
        # CloudWatch has no resources for metrics: the namespace is the limit.
        allow(
            "cloudwatch:PutMetricData",
            on=["*"],
            when={"StringEquals": {"cloudwatch:namespace": [f"/aws/sagemaker/{kind}" for kind in kinds]}},
        ),
    ]


def pull_image(repository: ecr.IRepository) -> list[iam.PolicyStatement]:
    """Pull images of one repository. The token is for the registry as a whole: it has no resource."""
    return [
        allow(
            "ecr:BatchCheckLayerAvailability",
            "ecr:BatchGetImage",
            "ecr:GetDownloadUrlForLayer",
            on=[repository.repository_arn],
        ),
        allow("ecr:GetAuthorizationToken", on=["*"]),
    ]
