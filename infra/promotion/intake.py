"""How approved packages of the environment before become candidates: event bus, queue, function."""

from __future__ import annotations

import json
from collections.abc import Mapping

import aws_cdk as cdk
from aws_cdk import aws_events as events
from aws_cdk import aws_iam as iam
from aws_cdk import aws_kms as kms
from aws_cdk import aws_lambda as lambda_
from aws_cdk import aws_logs as logs
from constructs import Construct

from infra.assets.function_code import ARCHITECTURE, RUNTIME, function_code
from infra.assets.images import Image
from infra.data.buckets import PROMOTED, Buckets
from infra.data.model_reader import LENT
from infra.environment import Environment
from infra.event_queue import event_queue
from infra.function_log import function_log
from infra.network.placement import Placement
from infra.permissions import place_in_network, use_key
from infra.promotion.announcement import approved_packages
from infra.promotion.names import candidate_bus_name, promotion_role_name
from infra.workload import Workload, allow

_TIMEOUT = cdk.Duration.minutes(15)
"""A model of several gigabytes is read twice."""


class Intake(Construct):
    """Makes candidates of what the environment `before` approves.

    Args:
        groups: Model package group there -> group here.
        image: What candidates run in: the image that this environment deployed.
    """

    def __init__(
        self,
        scope: Construct,
        id: str,
        *,
        environment: Environment,
        before: Environment,
        groups: Mapping[str, str],
        image: Image,
        buckets: Buckets,
        key: kms.IKey,
        placement: Placement,
    ) -> None:
        super().__init__(scope, id)
        self._environment, self.before, self.groups = environment, before, dict(groups)
        self._events = event_queue(self, key=key, timeout=_TIMEOUT)
        self.queue, self.dead_letters = self._events.queue, self._events.dead_letters
        self._listen()
        self.function = self._function(image=image, buckets=buckets, key=key, placement=placement)
        lambda_.EventSourceMapping(
            self,
            "FromQueue",
            target=self.function,
            event_source_arn=self.queue.queue_arn,
            batch_size=1,  # one package has the function's time for itself
            max_concurrency=2,
            report_batch_item_failures=True,
        ).node.add_dependency(self._workload.policy)

    def _listen(self) -> None:
        """An event bus of its own, so that the other account can put nothing on the default one. The events
        say which package is approved, nothing of patients.
        """
        name = candidate_bus_name(self._environment.name)
        bus = events.CfnEventBus(
            self,
            "Bus",
            name=name,
            description=f"Approved model packages of {self.before.name}",
            policy={
                "Version": "2012-10-17",
                "Statement": [
                    {
                        "Sid": "EnvironmentBefore",
                        "Effect": "Allow",
                        "Principal": {"AWS": f"arn:aws:iam::{self.before.aws.account}:root"},
                        "Action": "events:PutEvents",
                        "Resource": cdk.Stack.of(self).format_arn(
                            service="events", resource="event-bus", resource_name=name
                        ),
                        "Condition": {
                            "StringEquals": {
                                "events:source": "aws.sagemaker",
                                "events:detail-type": "SageMaker Model Package State Change",
                            }
                        },
                    }
                ],
            },
        )
        self._events.receive(
            self,
            "Approved",
            description=f"Model packages that {self.before.name} approved",
            event_pattern={
                "account": [self.before.aws.account],
                **approved_packages(list(self.groups)),
            },
            bus_name=bus.ref,
        )

    def _function(
        self, *, image: Image, buckets: Buckets, key: kms.IKey, placement: Placement
    ) -> lambda_.Function:
        log = function_log(self, environment=self._environment, key=key)
        self._workload = Workload(
            self,
            "Workload",
            name=promotion_role_name(self._environment.name),
            description=f"Promote function: copy approved models of {self.before.name}, register candidates",
            principal=iam.ServicePrincipal("lambda.amazonaws.com"),
            statements=[
                *self._read_there(),
                *self._register_here(buckets),
                self._events.may_be_read,
                use_key(key),
                allow("logs:CreateLogStream", "logs:PutLogEvents", on=[log.attr_arn]),
                *place_in_network(cdk.Stack.of(self), placement),
            ],
        )
        function = lambda_.Function(
            self,
            "Function",
            description="Makes candidates of approved model packages",
            runtime=RUNTIME,
            architecture=ARCHITECTURE,
            code=function_code(folder="runtime/functions/promote", packages=[]),
            handler="runtime.functions.promote.handler.handle",
            role=self._workload.role,
            log_group=logs.LogGroup.from_log_group_arn(self, "FunctionLog", log.attr_arn),
            memory_size=512,
            timeout=_TIMEOUT,
            environment={
                "SOURCE_ENVIRONMENT": self.before.name,
                "SOURCE_ACCOUNT": self.before.aws.account,
                "GROUPS": json.dumps(self.groups, sort_keys=True),
                "INFERENCE_IMAGE": image.uri,
                "MODEL_BUCKET": buckets.models.bucket_name,
            },
        )
        placement.put(function)
        function.node.add_dependency(self._workload.policy)
        return function

    def _read_there(self) -> list[iam.PolicyStatement]:
        """What the account before lends this role; its own policies name exactly what (`lend_models`,
        `package_reader_policy`), because bucket and key of another account have no names here.
        """
        account, region = self.before.aws.account, self.before.aws.region
        return [
            allow(
                "sagemaker:DescribeModelPackage",
                on=[f"arn:aws:sagemaker:{region}:{account}:model-package/{group}/*" for group in self.groups],
            ),
            allow(
                "s3:GetObject",
                on=[lent_objects(self.before, pattern) for pattern in LENT],
                when={"StringEquals": {"aws:ResourceAccount": account}},
            ),
            allow(
                "kms:Decrypt",
                on=[f"arn:aws:kms:{region}:{account}:key/*"],
                when={"StringEquals": {"kms:ViaService": f"s3.{region}.amazonaws.com"}},
            ),
        ]

    def _register_here(self, buckets: Buckets) -> list[iam.PolicyStatement]:
        stack = cdk.Stack.of(self)
        packages = [
            stack.format_arn(service="sagemaker", resource="model-package", resource_name=f"{group}/*")
            for group in self.groups.values()
        ]
        promoted = [buckets.models.arn_for_objects(f"{PROMOTED}*")]
        return [
            allow("s3:AbortMultipartUpload", "s3:GetObject", "s3:PutObject", on=promoted),
            # A person of this environment decides, whatever the function sends.
            allow(
                "sagemaker:CreateModelPackage",
                on=packages,
                when={"StringEquals": {"sagemaker:ModelApprovalStatus": "PendingManualApproval"}},
            ),
            # Documents of AWS differ about its resource. It shows names and states.
            allow("sagemaker:ListModelPackages", on=["*"]),
        ]


def lent_objects(environment: Environment, pattern: str) -> str:
    """Objects in the buckets of an environment's data stack, as far as another account knows their names:
    CloudFormation begins them with the first 24 characters of the stack's name.
    """
    return f"arn:aws:s3:::{f'monai-{environment.name}-data'[:24]}*/{pattern}"
