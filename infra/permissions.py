"""Permissions that several workloads need, each said once.

Sources: the service authorization reference of each service; for HealthImaging
https://docs.aws.amazon.com/service-authorization/latest/reference/list_awshealthimaging.html
"""

from __future__ import annotations

from collections.abc import Sequence

import aws_cdk as cdk
from aws_cdk import aws_ecr as ecr
from aws_cdk import aws_iam as iam
from aws_cdk import aws_kms as kms
from aws_cdk import aws_s3 as s3

from infra.data.archive import Archive
from infra.network.placement import Placement
from infra.service_logs import ServiceLogGroup
from infra.workload import allow, deny


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


def search_image_sets(archive: Archive) -> iam.PolicyStatement:
    """Find image sets by study or series."""
    return allow("medical-imaging:SearchImageSets", on=[archive.datastore_arn])


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


def read_packages(stack: cdk.Stack, *, groups: Sequence[str]) -> list[iam.PolicyStatement]:
    """Find the model packages of groups, and look at them."""
    if not groups:
        return []
    packages = [
        stack.format_arn(service="sagemaker", resource="model-package", resource_name=f"{group}/*")
        for group in groups
    ]
    return [
        allow("sagemaker:DescribeModelPackage", on=packages),
        # Before it is answered, no package is known whose ARN could be asked about, and documents of AWS
        # differ about its resource. It shows ARNs and states.
        allow("sagemaker:ListModelPackages", on=["*"]),
    ]


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


def write_service_logs(
    groups: Sequence[ServiceLogGroup], *, metrics: Sequence[str]
) -> list[iam.PolicyStatement]:
    """Logs and metrics of SageMaker's own containers, into groups that the stack has made.

    Args:
        groups: Where the containers log.
        metrics: CloudWatch namespaces of this kind of container.
    """
    return [
        allow(
            "logs:CreateLogStream",
            "logs:DescribeLogStreams",
            "logs:PutLogEvents",
            on=[group.arn for group in groups],
        ),
        # CloudWatch has no resources for metrics: the namespace is the limit.
        allow(
            "cloudwatch:PutMetricData",
            on=["*"],
            when={"StringEquals": {"cloudwatch:namespace": list(metrics)}},
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


def join_network(stack: cdk.Stack, placement: Placement) -> list[iam.PolicyStatement]:
    """Let SageMaker connect the role's jobs, models or notebook servers to the network.

    SageMaker makes, lends and deletes network interfaces with the role's permissions
    (https://docs.aws.amazon.com/sagemaker/latest/dg/train-vpc.html). They can be made only in the workloads'
    subnets with the workloads' security group, and of the existing ones the role reaches those in these
    subnets; what describes the network has no resources. Only AWS itself misses these permissions: the local
    cloud starts containers on its own machine.
    """

    def arns(resource: str, names: Sequence[str]) -> list[str]:
        return [stack.format_arn(service="ec2", resource=resource, resource_name=name) for name in names]

    interfaces = arns("network-interface", ["*"])
    subnets = arns("subnet", placement.subnet_ids)
    return [
        allow(
            "ec2:CreateNetworkInterface",
            on=[*interfaces, *subnets, *arns("security-group", [placement.security_group_id])],
        ),
        allow(
            "ec2:CreateNetworkInterfacePermission",
            "ec2:DeleteNetworkInterface",
            "ec2:DeleteNetworkInterfacePermission",
            on=interfaces,
            when={"ArnEquals": {"ec2:Subnet": subnets}},
        ),
        allow(
            "ec2:DescribeDhcpOptions",
            "ec2:DescribeNetworkInterfaces",
            "ec2:DescribeSecurityGroups",
            "ec2:DescribeSubnets",
            "ec2:DescribeVpcs",
            on=["*"],
        ),
    ]


def place_in_network(stack: cdk.Stack, placement: Placement) -> list[iam.PolicyStatement]:
    """Let Lambda connect a function to the network: it makes and removes network interfaces with the
    function's role. The function needs the policy before it is made.

    Interfaces can be made in the platform's subnets and security group only. Lambda tries the other actions
    before there is an interface to name, and refuses the function unless they are allowed on every id. So the
    last statement takes all of it away from the function's own code: the condition key is set on each
    request that is signed with the credentials inside a function, and absent when Lambda itself asks.

    Only AWS itself misses the allowed actions: the local cloud makes no interfaces.

    Source: https://docs.aws.amazon.com/lambda/latest/dg/configuration-vpc.html (required IAM permissions) and
    https://docs.aws.amazon.com/lambda/latest/dg/permissions-source-function-arn.html
    """

    def arn(kind: str, name: str) -> str:
        return stack.format_arn(service="ec2", resource=kind, resource_name=name)

    change = ("ec2:AssignPrivateIpAddresses", "ec2:DeleteNetworkInterface", "ec2:UnassignPrivateIpAddresses")
    look = ("ec2:DescribeNetworkInterfaces", "ec2:DescribeSubnets")
    return [
        allow(
            "ec2:CreateNetworkInterface",
            on=[
                arn("network-interface", "*"),
                arn("security-group", placement.security_group_id),
                *(arn("subnet", subnet) for subnet in placement.subnet_ids),
            ],
        ),
        allow(*change, on=[arn("*", "*")]),
        allow(*look, on=["*"]),
        deny(
            "ec2:CreateNetworkInterface",
            *change,
            *look,
            on=["*"],
            when={"Null": {"lambda:SourceFunctionArn": "false"}},
        ),
    ]
