"""How the catalog follows the archive: event, queue, function.

HealthImaging announces every image set that is created, copied, updated or deleted. The queue keeps what the
function cannot take yet (GetImageSetMetadata is limited to 50 requests a second), and a second queue keeps
what it could not do.
"""

from __future__ import annotations

import aws_cdk as cdk
from aws_cdk import aws_iam as iam
from aws_cdk import aws_kms as kms
from aws_cdk import aws_lambda as lambda_
from aws_cdk import aws_logs as logs
from constructs import Construct

from infra.assets.function_code import ARCHITECTURE, RUNTIME, function_code
from infra.catalog.tables import CATALOG_PREFIXES
from infra.data.archive import Archive
from infra.data.buckets import Buckets
from infra.environment import Environment
from infra.event_queue import event_queue
from infra.function_log import function_log
from infra.network.placement import Placement
from infra.permissions import place_in_network, use_key
from infra.workload import Workload, allow

_TIMEOUT = cdk.Duration.minutes(2)
"""A batch of ten image sets, each with up to 50 MB of metadata."""

_BATCH = 10
_CONCURRENT_BATCHES = 4
"""With a tenth of a second a request, some 40 a second: below the quota of GetImageSetMetadata (50)."""


class IndexPath(Construct):
    """Keeps the catalog's Parquet objects equal to the archive's image sets."""

    def __init__(
        self,
        scope: Construct,
        id: str,
        *,
        archive: Archive,
        buckets: Buckets,
        key: kms.IKey,
        placement: Placement,
        environment: Environment,
    ) -> None:
        super().__init__(scope, id)
        self._events = event_queue(self, key=key, timeout=_TIMEOUT)
        self.queue, self.dead_letters = self._events.queue, self._events.dead_letters
        self._events.receive(
            self,
            "ImageSetChanged",
            description="Image sets of the archive that the catalog has to read again",
            event_pattern={
                "source": ["aws.medical-imaging"],
                "detail-type": [
                    "Image Set Created",
                    "Image Set Copied",
                    "Image Set Updated",
                    "Image Set Deleted",
                ],
                "detail": {"datastoreId": [archive.datastore_id]},
            },
        )
        self.function = self._function(
            archive=archive,
            buckets=buckets,
            key=key,
            placement=placement,
            environment=environment,
        )
        lambda_.EventSourceMapping(
            self,
            "FromQueue",
            target=self.function,
            event_source_arn=self.queue.queue_arn,
            batch_size=_BATCH,
            max_concurrency=_CONCURRENT_BATCHES,
            report_batch_item_failures=True,
        ).node.add_dependency(self._workload.policy)

    def _function(
        self,
        *,
        archive: Archive,
        buckets: Buckets,
        key: kms.IKey,
        placement: Placement,
        environment: Environment,
    ) -> lambda_.Function:
        log = function_log(self, environment=environment, key=key)
        log_group = logs.LogGroup.from_log_group_arn(self, "FunctionLog", log.attr_arn)
        self._workload = Workload(
            self,
            "Workload",
            description="Index function: read image set metadata, write and delete its rows in the catalog",
            principal=iam.ServicePrincipal("lambda.amazonaws.com"),
            statements=[
                allow(
                    "medical-imaging:GetImageSet",
                    "medical-imaging:GetImageSetMetadata",
                    on=[archive.datastore_arn, archive.image_sets_arn],
                ),
                allow(
                    "s3:DeleteObject",
                    "s3:PutObject",
                    on=[buckets.catalog.arn_for_objects(f"{prefix}*") for prefix in CATALOG_PREFIXES],
                ),
                self._events.may_be_read,
                use_key(key),
                allow("logs:CreateLogStream", "logs:PutLogEvents", on=[log.attr_arn]),
                *place_in_network(cdk.Stack.of(self), placement),
            ],
        )
        function = lambda_.Function(
            self,
            "Function",
            description="Writes the header rows of an image set to the catalog",
            runtime=RUNTIME,
            architecture=ARCHITECTURE,
            code=function_code(folder="runtime/functions/index", packages=["healthimaging"]),
            handler="runtime.functions.index.handler.handle",
            role=self._workload.role,
            log_group=log_group,
            memory_size=1024,
            timeout=_TIMEOUT,
            environment={"CATALOG_BUCKET": buckets.catalog.bucket_name},
        )
        placement.put(function)
        function.node.add_dependency(self._workload.policy)
        return function
