"""Log groups of containers, made before SageMaker would make them itself."""

from __future__ import annotations

import aws_cdk as cdk
from constructs import Construct

from infra.inference.surroundings import Surroundings
from infra.service_logs import ServiceLogGroup


def container_logs(scope: Construct, id: str, *, name: str, surroundings: Surroundings) -> ServiceLogGroup:
    """The log group `/aws/sagemaker/<name>`.

    It is there whether a model is deployed or not, so that what a removed model logged can still be read.
    Names: https://docs.aws.amazon.com/sagemaker/latest/dg/logging-cloudwatch.html
    """
    environment = surroundings.environment
    retain = environment.protection.retain_data
    return ServiceLogGroup(
        scope,
        id,
        name=f"/aws/sagemaker/{name}",
        key=surroundings.key,
        retention_days=environment.logs.retention_days,
        removal_policy=cdk.RemovalPolicy.RETAIN if retain else cdk.RemovalPolicy.DESTROY,
    )
