"""The role that an inference container runs as: one for each endpoint, with what its mode needs."""

from __future__ import annotations

from collections.abc import Sequence

import aws_cdk as cdk
from aws_cdk import aws_cloudwatch as cloudwatch
from aws_cdk import aws_iam as iam
from constructs import Construct

from infra.data.buckets import SEGMENTATIONS
from infra.inference.surroundings import Surroundings
from infra.permissions import (
    join_network,
    lend_key_to_volumes,
    pull_image,
    read_image_sets,
    read_objects,
    use_key,
    write_objects,
    write_service_logs,
)
from infra.service_logs import ServiceLogGroup
from infra.workload import Workload, allow, service


class ContainerRole(Workload):
    """Reads image sets, stores segmentations beside them and a copy in S3, and writes its own logs.

    One for each endpoint: each logs to its own group and looks at its own alarms, and only an asynchronous
    one answers through S3 and topics. Models are the exception: which one an endpoint runs is known with the
    package only, so each role may read all that were trained or promoted. SageMaker uses the same role to
    fetch image and model, to connect to the network and to look at the alarms that guard an update.
    """

    def __init__(
        self,
        scope: Construct,
        id: str,
        *,
        surroundings: Surroundings,
        serves: str,
        models: Sequence[str],
        logs: Sequence[ServiceLogGroup],
        metrics: Sequence[str],
        guards: Sequence[cloudwatch.CfnAlarm] = (),
        inside_network: bool = True,
        also: Sequence[iam.PolicyStatement] = (),
    ) -> None:
        """
        Args:
            scope: Parent.
            id: Id in it.
            surroundings: The rest of the platform.
            serves: Name of the endpoint.
            models: Prefixes of the model bucket from which models are loaded.
            logs: Log groups to write to.
            metrics: CloudWatch namespaces of SageMaker for this mode.
            guards: Alarms that stop an update.
            inside_network: False for serverless endpoints, which cannot be.
            also: What only this mode needs.
        """
        stack = cdk.Stack.of(scope)
        placed, archive, buckets = surroundings.placement, surroundings.archive, surroundings.buckets
        super().__init__(
            scope,
            id,
            description=f"Container of {serves}: read image sets, store segmentations",
            principal=service("sagemaker.amazonaws.com", account=stack.account),
            statements=[
                read_image_sets(archive),
                # Stores a segmentation, and looks which image set has become of it.
                allow(
                    "medical-imaging:SearchImageSets",
                    "medical-imaging:StoreDICOM",
                    on=[archive.datastore_arn],
                ),
                *read_objects(buckets.models, *models),
                write_objects(buckets.results, SEGMENTATIONS),
                use_key(surroundings.key),
                lend_key_to_volumes(surroundings.key),
                *pull_image(surroundings.image.repository),
                *write_service_logs(logs, metrics=metrics),
                *(join_network(stack, placed) if inside_network else ()),
                *([_look_at(guards)] if guards else ()),
                *also,
            ],
        )


def _look_at(alarms: Sequence[cloudwatch.CfnAlarm]) -> iam.PolicyStatement:
    """See the state of the alarms that guard an update
    (https://docs.aws.amazon.com/sagemaker/latest/dg/deployment-guardrails-configuration.html). Only AWS
    itself misses this: the local cloud waits for no alarm.
    """
    return allow("cloudwatch:DescribeAlarms", on=[alarm.attr_arn for alarm in alarms])
