"""What keeps the catalog in order: a function that compacts it, and one that compares it with the archive.

Both are started by schedules and ask Athena, which reads and writes the tables with their permissions
(https://docs.aws.amazon.com/athena/latest/ug/querying-iceberg-table-data.html, section "Permissions").
"""

from __future__ import annotations

import aws_cdk as cdk
from aws_cdk import aws_events as events
from aws_cdk import aws_iam as iam
from aws_cdk import aws_kms as kms
from aws_cdk import aws_lambda as lambda_
from constructs import Construct

from infra.catalog.columns import COLUMNS
from infra.catalog.compacted_tables import compacted_name
from infra.catalog.index_path import IndexPath
from infra.catalog.query_workgroup import QueryWorkgroup
from infra.catalog.tables import CHANGE_TABLES, CHANGES, COMPACTED, CatalogTables
from infra.data.archive import Archive
from infra.data.buckets import QUERY_RESULTS, Buckets
from infra.environment import Environment
from infra.event_function import Program, event_function
from infra.network.placement import Placement
from infra.permissions import read_objects, search_image_sets, write_objects
from infra.workload import allow

COMPACTION = "compaction/"
COMPARISON = "comparison/"
"""Prefixes of the catalog bucket where the functions keep how far they have come."""

_SETTLE_SECONDS = 600
"""Longer than a query takes from its plan to the list of the objects that it reads."""

_TIMEOUT = cdk.Duration.minutes(15)
"""The longest that Lambda has. What Athena does not finish in it, the next run waits for."""


class Upkeep(Construct):
    """The two functions and their schedules."""

    def __init__(
        self,
        scope: Construct,
        id: str,
        *,
        environment: Environment,
        index: IndexPath,
        tables: CatalogTables,
        queries: QueryWorkgroup,
        archive: Archive,
        buckets: Buckets,
        key: kms.IKey,
        placement: Placement,
    ) -> None:
        super().__init__(scope, id)
        asks = {
            "CATALOG_BUCKET": buckets.catalog.bucket_name,
            "DATABASE": tables.database_name,
            "WORKGROUP": queries.workgroup.ref,
        }
        catalog = environment.catalog
        compaction = Construct(self, "Compaction")
        self.compact = event_function(
            compaction,
            program=Program(
                name="compact",
                packages=["runtime/functions/batches", "runtime/functions/catalog_queries"],
                says="Moves the catalog's changes into its compacted tables",
                memory_mib=256,
                variables={**asks, "SETTLE_SECONDS": str(_SETTLE_SECONDS)},
            ),
            may=[
                *_ask_athena(self, tables=tables, queries=queries, buckets=buckets, notes=COMPACTION),
                allow(
                    "glue:UpdateTable",
                    on=_table_arns(self, tables, *(compacted_name(table) for table in COLUMNS)),
                ),
                # Athena commits with one object of metadata more, and VACUUM removes what no snapshot needs.
                write_objects(buckets.catalog, COMPACTED),
                allow(
                    "s3:DeleteObject",
                    on=[buckets.catalog.arn_for_objects(f"{prefix}*") for prefix in (CHANGES, COMPACTED)],
                ),
            ],
            role_says="Compact function: change the catalog's compacted tables through Athena",
            batches=None,
            environment=environment,
            key=key,
            placement=placement,
            timeout=_TIMEOUT,
        )
        _start_regularly(
            compaction,
            self.compact,
            says="Moves the catalog's changes into its compacted tables",
            minutes=catalog.compact_minutes,
        )
        comparison = Construct(self, "Comparison")
        self.reconcile = event_function(
            comparison,
            program=Program(
                name="reconcile_catalog",
                packages=[
                    "healthimaging",
                    "runtime/functions/batches",
                    "runtime/functions/catalog_queries",
                    "runtime/functions/image_sets",
                ],
                says="Finds image sets that the catalog does not have as they are, and has them indexed",
                memory_mib=512,
                variables={
                    **asks,
                    "DATASTORE_ID": archive.datastore_id,
                    "QUEUE_URL": index.queue.queue_url,
                    "AFTER_SECONDS": str(60 * catalog.reconcile.after_minutes),
                },
            ),
            may=[
                *_ask_athena(self, tables=tables, queries=queries, buckets=buckets, notes=COMPARISON),
                # A change object that Athena cannot read; the bucket keeps it as an old version.
                allow("s3:DeleteObject", on=[buckets.catalog.arn_for_objects(f"{CHANGES}*")]),
                search_image_sets(archive),
                allow("sqs:SendMessage", on=[index.queue.queue_arn]),
            ],
            role_says="Catalog's reconcile function: search image sets, ask Athena, send to the index queue",
            batches=None,
            environment=environment,
            key=key,
            placement=placement,
            timeout=_TIMEOUT,
        )
        _start_regularly(
            comparison,
            self.reconcile,
            says="Compares the catalog with the archive",
            minutes=60 * catalog.reconcile.every_hours,
        )


def _ask_athena(
    scope: Construct, *, tables: CatalogTables, queries: QueryWorkgroup, buckets: Buckets, notes: str
) -> list[iam.PolicyStatement]:
    """Queries over all tables and views, and the function's own notes below `notes`. Athena reads the data
    and writes the results with the permissions of who asks.
    """
    stack, bucket = cdk.Stack.of(scope), buckets.catalog
    return [
        allow(
            "athena:GetQueryExecution",
            "athena:GetQueryResults",
            "athena:StartQueryExecution",
            on=[
                stack.format_arn(service="athena", resource="workgroup", resource_name=queries.workgroup.name)
            ],
        ),
        allow(
            "glue:GetDatabase",
            "glue:GetTable",
            on=[
                *_table_arns(
                    scope,
                    tables,
                    *CHANGE_TABLES.values(),
                    *(compacted_name(table) for table in COLUMNS),
                    *COLUMNS,
                ),
            ],
        ),
        allow("s3:GetBucketLocation", on=[bucket.bucket_arn]),
        *read_objects(bucket, CHANGES, COMPACTED, notes, QUERY_RESULTS),
        write_objects(bucket, notes, QUERY_RESULTS),
    ]


def _table_arns(scope: Construct, tables: CatalogTables, *names: str) -> list[str]:
    """The tables, and what contains them, without which Glue allows nothing on a table."""
    stack, database = cdk.Stack.of(scope), tables.database_name
    return [
        stack.format_arn(service="glue", resource="catalog"),
        stack.format_arn(service="glue", resource="database", resource_name=database),
        *(
            stack.format_arn(service="glue", resource="table", resource_name=f"{database}/{name}")
            for name in names
        ),
    ]


def _start_regularly(scope: Construct, function: lambda_.Function, *, says: str, minutes: int) -> None:
    schedule = events.CfnRule(
        scope,
        "Schedule",
        description=says,
        schedule_expression=f"rate({minutes} minutes)",
        targets=[events.CfnRule.TargetProperty(id="Function", arn=function.function_arn)],
    )
    lambda_.CfnPermission(
        scope,
        "FromSchedule",
        action="lambda:InvokeFunction",
        function_name=function.function_arn,
        principal="events.amazonaws.com",
        source_arn=schedule.attr_arn,
    )
