"""Who looks whether an environment works after a deployment, and what that one may see."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import aws_cdk as cdk
from aws_cdk import aws_iam as iam
from aws_cdk import aws_kms as kms
from constructs import Construct

from infra.data.archive import Archive
from infra.data.buckets import QUERY_RESULTS, Buckets
from infra.environment import BatchTransform, Environment
from infra.promotion.names import TOOLING_CHECKS_ROLE, github_role_name, role_arn, verification_role_name
from infra.promotion.neighbours import Neighbours, only_role
from infra.workload import Workload, allow


class Verification(Construct):
    """The role of `infra.toolchain.environment_check`.

    It sees whether things are there and in which state. It reads no image, no header, no model and no result
    of a query: it may start one and ask how it ended, and has no permission to decrypt.
    """

    def __init__(
        self,
        scope: Construct,
        id: str,
        *,
        neighbours: Neighbours,
        stacks: Sequence[str],
        archive: Archive,
        buckets: Buckets,
        key: kms.IKey,
    ) -> None:
        super().__init__(scope, id)
        environment = neighbours.environment
        stack = cdk.Stack.of(self)

        def arns(service: str, resource: str, *names: str) -> list[str]:
            return [stack.format_arn(service=service, resource=resource, resource_name=n) for n in names]

        Workload(
            self,
            "Workload",
            name=verification_role_name(environment.name),
            description=f"Check after a deployment of {environment.name}: what is there, and in which state",
            principal=iam.CompositePrincipal(
                only_role(role_arn(neighbours.tooling.account, TOOLING_CHECKS_ROLE)),
                only_role(role_arn(environment.aws.account, github_role_name(environment.name))),
            ),
            statements=[
                # The last part of a stack's ARN is an id that it gets when it is made.
                allow(
                    "cloudformation:DescribeStacks",
                    on=arns("cloudformation", "stack", *(f"{name}/*" for name in stacks)),
                ),
                allow("medical-imaging:GetDatastore", on=[archive.datastore_arn]),
                *_look_at_models(environment, arns),
                allow(
                    "athena:GetQueryExecution",
                    "athena:StartQueryExecution",
                    on=arns("athena", "workgroup", f"monai-{environment.name}"),
                ),
                # Athena writes the result with the permissions of who asks.
                allow("s3:GetBucketLocation", on=[buckets.catalog.bucket_arn]),
                allow("s3:PutObject", on=[buckets.catalog.arn_for_objects(f"{QUERY_RESULTS}*")]),
                allow("kms:GenerateDataKey", on=[key.key_arn]),
            ],
        )


def _look_at_models(environment: Environment, arns: Callable[..., list[str]]) -> list[iam.PolicyStatement]:
    tasks = [f"monai-{environment.name}-{task.name}" for task in environment.training.tasks]
    endpoints = [
        endpoint.endpoint_name(environment.name)
        for endpoint in environment.inference.endpoints
        if not isinstance(endpoint, BatchTransform)
    ]
    statements = []
    if tasks:
        statements.append(allow("sagemaker:DescribePipeline", on=arns("sagemaker", "pipeline", *tasks)))
    if endpoints:
        statements.append(allow("sagemaker:DescribeEndpoint", on=arns("sagemaker", "endpoint", *endpoints)))
    return statements
