"""The Glue database, its tables and the views over these.

What the index function writes is in `series_changes` and `instance_changes`: an object for each version of an
image set. The compact function moves the highest versions into the Iceberg tables (`compacted_tables.py`).
People query the views `series`, `instances`, `studies` and `patients`.

The columns come from `runtime/functions/index/schema.json`, an asset of the index function. The tables are
declared, not crawled: a column's type must not depend on which series arrived first.
"""

from __future__ import annotations

from aws_cdk import aws_glue as glue
from aws_cdk import aws_s3 as s3
from constructs import Construct

from infra.catalog.columns import COLUMNS, Column, pascal
from infra.catalog.compacted_tables import compacted_table
from infra.catalog.sql_views import SQL_VIEWS

CHANGES = "changes/"
"""Prefix of the catalog bucket with `changes/<table>/<datastoreId>/<imageSetId>/<versionId>.parquet`, and
`deleted.parquet` in an image set's folder when it is gone.
"""

COMPACTED = "compacted/"
"""Prefix of the catalog bucket with the Iceberg tables' files."""

_IS_DELETED = Column(
    name="is_deleted",
    type="boolean",
    comment="The version has no such rows; with the version 9223372036854775807: the image set is gone",
)

CHANGE_TABLES = {"series": "series_changes", "instances": "instance_changes"}
"""The table of changes of `series` and of `instances`."""

_DESCRIPTIONS = {
    "series": "Rows of the view series as they were written, one object for each version of an image set",
    "instances": "Rows of the view instances as they were written, one object for each version of an image "
    "set",
}

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
        self.changes = [
            self._changes(table, columns, account=account, bucket=bucket)
            for table, columns in COLUMNS.items()
        ]
        """Tables over Parquet objects, which can differ from what is declared."""
        compacted = [
            compacted_table(
                self,
                table=table,
                database=name,
                account=account,
                location=bucket.s3_url_for_object(f"{COMPACTED}{table}"),
            )
            for table in COLUMNS
        ]
        for table in (*self.changes, *compacted):
            table.add_resource_dependency(database)
        for view in SQL_VIEWS:
            view.table(self, database=database, name=name, account=account)

    @property
    def change_names(self) -> list[str]:
        """Names of `changes`."""
        return list(CHANGE_TABLES.values())

    def _changes(
        self, table: str, columns: tuple[Column, ...], *, account: str, bucket: s3.IBucket
    ) -> glue.CfnTable:
        return glue.CfnTable(
            self,
            pascal(CHANGE_TABLES[table]),
            catalog_id=account,
            database_name=self.database_name,
            table_input=glue.CfnTable.TableInputProperty(
                name=CHANGE_TABLES[table],
                description=_DESCRIPTIONS[table],
                table_type="EXTERNAL_TABLE",
                parameters={"EXTERNAL": "TRUE", "classification": "parquet"},
                storage_descriptor=glue.CfnTable.StorageDescriptorProperty(
                    location=bucket.s3_url_for_object(f"{CHANGES}{table}/"),
                    columns=[
                        glue.CfnTable.ColumnProperty(
                            name=column.name, type=column.type, comment=column.comment
                        )
                        for column in (*columns, _IS_DELETED)
                    ],
                    input_format=_INPUT,
                    output_format=_OUTPUT,
                    serde_info=glue.CfnTable.SerdeInfoProperty(
                        serialization_library=_SERDE, parameters={"serialization.format": "1"}
                    ),
                ),
            ),
        )
