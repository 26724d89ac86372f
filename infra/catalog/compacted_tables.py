"""The Iceberg tables: few large files, sorted into folders by modality and year of the study.

Made by Glue from a template, with the schema in `IcebergTableInput` and without a `TableInput`: only this
form has partitions, and only this form stays an Iceberg table when the template changes (with columns in
`TableInput`, an update takes the table's format away:
https://github.com/aws-cloudformation/cloudformation-coverage-roadmap/issues/1919). Source:
https://docs.aws.amazon.com/AWSCloudFormation/latest/TemplateReference/aws-properties-glue-table-icebergtableinput.html
"""

from __future__ import annotations

from aws_cdk import aws_glue as glue
from constructs import Construct

from infra.catalog.columns import COLUMNS, iceberg_type, pascal

_FIRST_NESTED = 2000
"""Ids of elements, keys and values, which must differ from those of columns."""

_FIRST_PARTITION = 1000
"""Where ids of partition fields begin (Iceberg specification, "Partition Specs")."""

_PARTITIONS = {"modality": ("modality", "identity"), "study_date_year": ("study_date", "year")}
"""Partition field -> column and transform. What usual queries say first: CT of 2023."""


def compacted_name(table: str) -> str:
    """The Iceberg table of `series` or `instances`."""
    return f"compacted_{table}"


def compacted_table(
    scope: Construct, *, table: str, database: str, account: str, location: str
) -> glue.CfnTable:
    """The Iceberg table for the rows of `table`.

    A column's id is its place in the schema file, so new columns go to its end: files that are there know a
    column by its id alone.
    """
    columns = COLUMNS[table]
    ids = {column.name: place for place, column in enumerate(columns, start=1)}
    return glue.CfnTable(
        scope,
        pascal(compacted_name(table)),
        catalog_id=account,
        database_name=database,
        name=compacted_name(table),
        open_table_format_input=glue.CfnTable.OpenTableFormatInputProperty(
            iceberg_input=glue.CfnTable.IcebergInputProperty(
                metadata_operation="CREATE",
                version="2",
                iceberg_table_input=glue.CfnTable.IcebergTableInputProperty(
                    location=location,
                    schema=glue.CfnTable.IcebergSchemaProperty(
                        type="struct",
                        schema_id=0,
                        fields=[
                            glue.CfnTable.IcebergStructFieldProperty(
                                id=ids[column.name],
                                name=column.name,
                                type=iceberg_type(
                                    column.type, nested_id=_FIRST_NESTED + 2 * ids[column.name]
                                ),
                                required=False,
                                doc=column.comment,
                            )
                            for column in columns
                        ],
                    ),
                    partition_spec=glue.CfnTable.IcebergPartitionSpecProperty(
                        spec_id=0,
                        fields=[
                            glue.CfnTable.IcebergPartitionFieldProperty(
                                name=name,
                                source_id=ids[column],
                                transform=transform,
                                field_id=_FIRST_PARTITION + place,
                            )
                            for place, (name, (column, transform)) in enumerate(_PARTITIONS.items())
                        ],
                    ),
                    properties={
                        "write.format.default": "parquet",
                        "write.parquet.compression-codec": "zstd",
                    },
                ),
            )
        ),
    )
