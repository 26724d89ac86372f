"""Stack `catalog`: what is in the archive, as SQL."""

from __future__ import annotations

import aws_cdk as cdk
from aws_cdk import aws_kms as kms
from constructs import Construct

from infra.catalog.crawler import Crawler
from infra.catalog.index_path import IndexPath
from infra.catalog.query_workgroup import QueryWorkgroup
from infra.catalog.tables import CatalogTables
from infra.catalog.upkeep import Upkeep
from infra.data.archive import Archive
from infra.data.buckets import Buckets
from infra.environment import Environment
from infra.network.placement import Placement


class CatalogStack(cdk.Stack):
    """Tables over the archive's headers, the functions that fill them and keep them in order, and the
    workgroup that queries them.
    """

    def __init__(
        self,
        scope: Construct,
        *,
        environment: Environment,
        archive: Archive,
        buckets: Buckets,
        key: kms.IKey,
        placement: Placement,
    ) -> None:
        super().__init__(
            scope,
            "catalog",
            stack_name=f"monai-{environment.name}-catalog",
            description="MONAI on AWS: header catalog, index function, Athena workgroup",
        )
        self.index = IndexPath(
            self,
            "Index",
            archive=archive,
            buckets=buckets,
            key=key,
            placement=placement,
            environment=environment,
        )
        tables = CatalogTables(
            self,
            "Tables",
            # Athena's identifiers have no hyphens.
            name=f"monai_{environment.name.replace('-', '_')}",
            account=self.account,
            bucket=buckets.catalog,
        )
        Crawler(self, "Consistency", tables=tables, bucket=buckets.catalog, key=key)
        queries = QueryWorkgroup(
            self,
            "Queries",
            name=f"monai-{environment.name}",
            database_name=tables.database_name,
            bucket=buckets.catalog,
            key=key,
            scan_limit_gib=environment.catalog.scan_limit_gib,
            keep_history=environment.protection.retain_data,
        )
        self.upkeep = Upkeep(
            self,
            "Upkeep",
            environment=environment,
            index=self.index,
            tables=tables,
            queries=queries,
            archive=archive,
            buckets=buckets,
            key=key,
            placement=placement,
        )
        for name, value in {
            "DatabaseName": tables.database_name,
            "WorkgroupName": queries.workgroup.ref,
            "CatalogBucketName": buckets.catalog.bucket_name,
            "CompactFunctionName": self.upkeep.compact.function_name,
            "ReconcileCatalogFunctionName": self.upkeep.reconcile.function_name,
            "IndexFunctionName": self.index.function.function_name,
            "IndexQueueUrl": self.index.queue.queue_url,
            "IndexDeadLetterQueueUrl": self.index.dead_letters.queue_url,
        }.items():
            cdk.CfnOutput(self, name, value=value)
