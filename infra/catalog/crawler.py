"""The crawler: notices when objects of the catalog no longer fit the declared tables."""

from __future__ import annotations

import json

import aws_cdk as cdk
from aws_cdk import aws_glue as glue
from aws_cdk import aws_iam as iam
from aws_cdk import aws_kms as kms
from aws_cdk import aws_s3 as s3
from constructs import Construct

from infra.catalog.tables import CHANGES, CatalogTables
from infra.permissions import read_objects, read_with_key
from infra.workload import Workload, allow, log_group_arns


class Crawler(Construct):
    """Compares the objects of the tables of changes with their declaration every night, and logs what
    differs. The compacted tables carry their own schema, which Athena keeps.

    It never changes a column: `schema.json` alone says what a table has.
    """

    def __init__(
        self, scope: Construct, id: str, *, tables: CatalogTables, bucket: s3.IBucket, key: kms.IKey
    ) -> None:
        super().__init__(scope, id)
        stack = cdk.Stack.of(self)
        encryption = glue.CfnSecurityConfiguration(
            self,
            "Encryption",
            name=cdk.Names.unique_resource_name(self, max_length=64),
            encryption_configuration=glue.CfnSecurityConfiguration.EncryptionConfigurationProperty(
                cloud_watch_encryption=glue.CfnSecurityConfiguration.CloudWatchEncryptionProperty(
                    cloud_watch_encryption_mode="SSE-KMS", kms_key_arn=key.key_arn
                ),
                job_bookmarks_encryption=glue.CfnSecurityConfiguration.JobBookmarksEncryptionProperty(
                    job_bookmarks_encryption_mode="CSE-KMS", kms_key_arn=key.key_arn
                ),
                s3_encryptions=[
                    glue.CfnSecurityConfiguration.S3EncryptionProperty(
                        s3_encryption_mode="SSE-KMS", kms_key_arn=key.key_arn
                    )
                ],
            ),
        )
        catalog = stack.format_arn(service="glue", resource="catalog")
        database = stack.format_arn(service="glue", resource="database", resource_name=tables.database_name)
        declared = [
            stack.format_arn(service="glue", resource="table", resource_name=f"{tables.database_name}/{name}")
            for name in tables.change_names
        ]
        workload = Workload(
            self,
            "Workload",
            description="Glue crawler: read the catalog's objects and tables, note its runs in the tables",
            principal=iam.ServicePrincipal("glue.amazonaws.com"),
            statements=[
                *read_objects(bucket, CHANGES),
                allow("glue:GetDatabase", on=[catalog, database]),
                allow(
                    "glue:GetTable",
                    "glue:GetTables",
                    "glue:UpdateTable",
                    on=[catalog, database, *declared],
                ),
                read_with_key(key),
                allow(
                    "logs:AssociateKmsKey",
                    "logs:CreateLogGroup",
                    "logs:CreateLogStream",
                    "logs:PutLogEvents",
                    on=log_group_arns(stack, "/aws-glue/crawlers"),
                ),
            ],
        )
        crawler = glue.CfnCrawler(
            self,
            "Crawler",
            description="Compares the catalog's objects with its tables",
            role=workload.role_arn,
            crawler_security_configuration=encryption.ref,
            targets=glue.CfnCrawler.TargetsProperty(
                catalog_targets=[
                    glue.CfnCrawler.CatalogTargetProperty(
                        database_name=tables.database_name, tables=tables.change_names
                    )
                ]
            ),
            schedule=glue.CfnCrawler.ScheduleProperty(schedule_expression="cron(0 3 * * ? *)"),
            # The only behaviours that leave a declared table as it is.
            schema_change_policy=glue.CfnCrawler.SchemaChangePolicyProperty(
                update_behavior="LOG", delete_behavior="LOG"
            ),
            configuration=json.dumps(
                {"Version": 1.0, "Grouping": {"TableGroupingPolicy": "CombineCompatibleSchemas"}}
            ),
        )
        crawler.node.add_dependency(workload.policy, *tables.changes)
