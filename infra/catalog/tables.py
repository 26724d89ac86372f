"""The Glue database, its tables as the index function writes them, and the views over these.

The columns come from `runtime/functions/index/schema.json`, an asset of the function. The tables are
declared, not crawled: a column's type must not depend on which series arrived first.
"""

from __future__ import annotations

import json
from typing import Any

from aws_cdk import aws_glue as glue
from aws_cdk import aws_s3 as s3
from constructs import Construct

from infra.catalog.sql_views import SQL_VIEWS
from infra.repository import ROOT

_TABLES: dict[str, Any] = json.loads(
    (ROOT / "runtime" / "functions" / "index" / "schema.json").read_text(encoding="utf-8")
)["tables"]

_DESCRIPTIONS = {
    "series": "One row for each series of an image set, as it is now in the data store",
    "instances": "One row for each DICOM instance of an image set",
}

CATALOG_PREFIXES = tuple(f"{table}/" for table in _TABLES)
"""Where the catalog bucket holds each table's objects: `<table>/<datastoreId>/<imageSetId>.parquet`."""

_SERDE = "org.apache.hadoop.hive.ql.io.parquet.serde.ParquetHiveSerDe"
_INPUT = "org.apache.hadoop.hive.ql.io.parquet.MapredParquetInputFormat"
_OUTPUT = "org.apache.hadoop.hive.ql.io.parquet.MapredParquetOutputFormat"


class CatalogTables(Construct):
    """Database `name` with the tables of the schema file, over objects of the bucket, and the views."""

    def __init__(self, scope: Construct, id: str, *, name: str, account: str, bucket: s3.IBucket) -> None:
        super().__init__(scope, id)
        self.database_name = name
        database = glue.CfnDatabase(
            self,
            "Database",
            catalog_id=account,
            database_input=glue.CfnDatabase.DatabaseInputProperty(
                name=name, description="DICOM headers of the archive"
            ),
        )
        self.tables = [
            self._table(table, content["columns"], account=account, bucket=bucket)
            for table, content in _TABLES.items()
        ]
        for table in self.tables:
            table.add_resource_dependency(database)
        for view in SQL_VIEWS:
            view.table(self, database=database, name=name, account=account)

    @property
    def table_names(self) -> list[str]:
        """The tables that have objects, which the views have not."""
        return list(_TABLES)

    def _table(
        self, name: str, columns: list[dict[str, str]], *, account: str, bucket: s3.IBucket
    ) -> glue.CfnTable:
        return glue.CfnTable(
            self,
            name.capitalize(),
            catalog_id=account,
            database_name=self.database_name,
            table_input=glue.CfnTable.TableInputProperty(
                name=name,
                description=_DESCRIPTIONS[name],
                table_type="EXTERNAL_TABLE",
                parameters={"EXTERNAL": "TRUE", "classification": "parquet"},
                storage_descriptor=glue.CfnTable.StorageDescriptorProperty(
                    location=bucket.s3_url_for_object(f"{name}/"),
                    columns=[
                        glue.CfnTable.ColumnProperty(
                            name=column["name"], type=column["type"], comment=column["comment"]
                        )
                        for column in columns
                    ],
                    input_format=_INPUT,
                    output_format=_OUTPUT,
                    serde_info=glue.CfnTable.SerdeInfoProperty(
                        serialization_library=_SERDE, parameters={"serialization.format": "1"}
                    ),
                ),
            ),
        )
