"""How the catalog follows the archive: event, queue, function.

HealthImaging announces every image set that is created, copied, updated or deleted. The queue keeps what the
function cannot take yet (GetImageSetMetadata is limited to 50 requests a second), and a second queue keeps
what it could not do.
"""

from __future__ import annotations

import aws_cdk as cdk
from aws_cdk import aws_events as events
from aws_cdk import aws_iam as iam
from aws_cdk import aws_kms as kms
from aws_cdk import aws_lambda as lambda_
from aws_cdk import aws_logs as logs
from aws_cdk import aws_sqs as sqs
from constructs import Construct

from infra.assets.function_code import ARCHITECTURE, RUNTIME, function_code
from infra.catalog.tables import CATALOG_PREFIXES
from infra.data.archive import Archive
from infra.data.buckets import Buckets
from infra.permissions import use_key
from infra.workload import Workload, allow

_TIMEOUT = cdk.Duration.minutes(2)
"""A batch of ten image sets, each with up to 50 MB of metadata."""

_BATCH = 10
_CONCURRENT_BATCHES = 4
"""With a tenth of a second a request, some 40 a second: below the quota of GetImageSetMetadata (50)."""

_ATTEMPTS = 5


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
        log_retention_days: int,
    ) -> None:
        super().__init__(scope, id)
        self.dead_letters = sqs.Queue(
            self,
            "DeadLetters",
            encryption_master_key=key,
            enforce_ssl=True,
            retention_period=cdk.Duration.days(14),
        )
        self.queue = sqs.Queue(
            self,
            "Queue",
            encryption_master_key=key,
            enforce_ssl=True,
            retention_period=cdk.Duration.days(4),
            # AWS advises six times the function's timeout, so that a throttled batch is not handed out twice.
            visibility_timeout=cdk.Duration.minutes(6 * _TIMEOUT.to_minutes()),
            dead_letter_queue=sqs.DeadLetterQueue(queue=self.dead_letters, max_receive_count=_ATTEMPTS),
        )
        self._announce(archive)
        self.function = self._function(
            archive=archive, buckets=buckets, key=key, log_retention_days=log_retention_days
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

    def _announce(self, archive: Archive) -> None:
        """Bring the archive's events to the queue.

        Written on the lowest level: the rule's target as the CDK has it would change the key's policy, which
        is in another stack.
        """
        rule = events.CfnRule(
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
            targets=[
                events.CfnRule.TargetProperty(
                    id="Queue",
                    arn=self.queue.queue_arn,
                    dead_letter_config=events.CfnRule.DeadLetterConfigProperty(
                        arn=self.dead_letters.queue_arn
                    ),
                )
            ],
        )
        for queue in (self.queue, self.dead_letters):
            queue.add_to_resource_policy(
                iam.PolicyStatement(
                    sid="FromRule",
                    principals=[iam.ServicePrincipal("events.amazonaws.com")],
                    actions=["sqs:SendMessage"],
                    resources=[queue.queue_arn],
                    conditions={"ArnEquals": {"aws:SourceArn": rule.attr_arn}},
                )
            )

    def _function(
        self, *, archive: Archive, buckets: Buckets, key: kms.IKey, log_retention_days: int
    ) -> lambda_.Function:
        log = logs.CfnLogGroup(self, "Log", kms_key_id=key.key_arn, retention_in_days=log_retention_days)
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
                allow(
                    "sqs:DeleteMessage",
                    "sqs:GetQueueAttributes",
                    "sqs:ReceiveMessage",
                    on=[self.queue.queue_arn],
                ),
                use_key(key),
                allow("logs:CreateLogStream", "logs:PutLogEvents", on=[log.attr_arn]),
            ],
        )
        return lambda_.Function(
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
