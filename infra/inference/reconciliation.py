"""The net under the event path: a schedule starts a function that looks for what no event has brought.

Events get lost: a rule that was switched off, a queue that somebody emptied, an event that a service never
sent. What should have been dispatched and was not is found by asking the archive itself.
"""

from __future__ import annotations

import aws_cdk as cdk
from aws_cdk import aws_events as events
from aws_cdk import aws_kms as kms
from aws_cdk import aws_lambda as lambda_
from constructs import Construct

from infra.data.archive import Archive
from infra.data.buckets import DISPATCHED, Buckets
from infra.environment import Environment
from infra.event_function import Program, event_function
from infra.inference.event_path import EventPath
from infra.network.placement import Placement
from infra.permissions import search_image_sets
from infra.workload import allow

_DECIDED = f"{DISPATCHED}decided/"
"""Where the dispatch function records what it has decided (runtime/functions/dispatch/decisions.py)."""


class Reconciliation(Construct):
    """Dispatches what the event path has missed."""

    def __init__(
        self,
        scope: Construct,
        id: str,
        *,
        environment: Environment,
        path: EventPath,
        archive: Archive,
        buckets: Buckets,
        key: kms.IKey,
        placement: Placement,
    ) -> None:
        super().__init__(scope, id)
        wanted, quiet = environment.inference.reconcile, environment.inference.quiet_seconds
        self.function = event_function(
            self,
            program=Program(
                name="reconcile",
                packages=[
                    "healthimaging",
                    "runtime/functions/batches",
                    "runtime/functions/dispatch",
                    "runtime/functions/image_sets",
                ],
                says="Finds image sets that no event brought to their endpoint, and sends them there",
                memory_mib=2048,
                variables={
                    **path.variables,
                    "DATASTORE_ID": archive.datastore_id,
                    "EVERY_SECONDS": str(60 * wanted.every_minutes),
                    "AFTER_SECONDS": str(quiet + 60 * wanted.after_minutes),
                    "DAYS": str(wanted.days),
                },
            ),
            may=[
                *path.may_dispatch,
                search_image_sets(archive),
                allow(
                    "s3:ListBucket",
                    on=[buckets.results.bucket_arn],
                    when={"StringLike": {"s3:prefix": [f"{_DECIDED}*"]}},
                ),
            ],
            role_says="Reconcile function: search image sets, send requests that were missed to endpoints",
            batches=None,
            environment=environment,
            key=key,
            placement=placement,
        )
        schedule = events.CfnRule(
            self,
            "Schedule",
            description="Looks for image sets that no event brought to their endpoint",
            schedule_expression=f"rate({wanted.every_minutes} minutes)",
            targets=[events.CfnRule.TargetProperty(id="Function", arn=self.function.function_arn)],
        )
        lambda_.CfnPermission(
            self,
            "FromSchedule",
            action="lambda:InvokeFunction",
            function_name=self.function.function_arn,
            principal="events.amazonaws.com",
            source_arn=schedule.attr_arn,
        )
        cdk.CfnOutput(cdk.Stack.of(self), "ReconcileFunctionName", value=self.function.function_name)
