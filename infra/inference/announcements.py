"""What came of every asynchronous inference, as events on the account's bus: topics, queue, function.

SageMaker announces on two topics that an inference has ended, and where its answer lies. Who waits for
results (a viewer, a worklist, a hospital's integration engine) wants to know which images have which result.
That is in the answer, so a function reads it and says so on EventBridge, where each listener has a rule.
"""

from __future__ import annotations

import aws_cdk as cdk
from aws_cdk import aws_kms as kms
from aws_cdk import aws_sns as sns
from constructs import Construct

from infra.data.archive import Archive
from infra.data.buckets import FAILURES, NOTED, REQUESTS, RESPONSES, Buckets
from infra.environment import Environment
from infra.event_function import TIMEOUT, Batches, Program, event_function
from infra.event_queue import event_queue
from infra.network.placement import Placement
from infra.workload import allow

EVENT_SOURCE = "monai.inference"
"""Of the events (runtime/functions/announce/results.py)."""

_BUS = "default"


class Announcements(Construct):
    """Puts `Inference Result Stored` and `Inference Failed` on the event bus, and notes what has failed."""

    def __init__(
        self,
        scope: Construct,
        id: str,
        *,
        environment: Environment,
        archive: Archive,
        buckets: Buckets,
        key: kms.IKey,
        placement: Placement,
        success: sns.ITopic,
        failure: sns.ITopic,
    ) -> None:
        super().__init__(scope, id)
        stack = cdk.Stack.of(self)
        events = event_queue(self, key=key, timeout=TIMEOUT)
        self.queue, self.dead_letters = events.queue, events.dead_letters
        events.hear(self, {"Succeeded": success, "Failed": failure})
        results = buckets.results
        self.function = event_function(
            self,
            program=Program(
                name="announce",
                packages=["runtime/functions/batches"],
                says="Announces what came of asynchronous inferences",
                memory_mib=256,
                variables={
                    "RESULT_BUCKET": results.bucket_name,
                    "NOTED_PREFIX": NOTED,
                    "DATASTORE_ID": archive.datastore_id,
                    "EVENT_BUS": _BUS,
                },
            ),
            may=[
                allow(
                    "s3:GetObject",
                    on=[results.arn_for_objects(f"{one}*") for one in (REQUESTS, RESPONSES, FAILURES)],
                ),
                allow("s3:DeleteObject", "s3:PutObject", on=[results.arn_for_objects(f"{NOTED}*")]),
                allow(
                    "events:PutEvents",
                    on=[stack.format_arn(service="events", resource="event-bus", resource_name=_BUS)],
                    when={"StringEquals": {"events:source": EVENT_SOURCE}},
                ),
            ],
            role_says="Announce function: read answers of endpoints, put events, note failures",
            batches=Batches(events=events, most=10, at_a_time=2),
            environment=environment,
            key=key,
            placement=placement,
        )
        for name, value in {
            "AnnounceFunctionName": self.function.function_name,
            "AnnounceQueueUrl": self.queue.queue_url,
            "AnnounceDeadLetterQueueUrl": self.dead_letters.queue_url,
        }.items():
            cdk.CfnOutput(stack, name, value=value)
