"""The workshop's documents in S3, and the tables that a crawler makes of them."""

from __future__ import annotations

import re
from collections.abc import Mapping

import duckdb
from sqlglot import exp

from benchmarks.cataloguing.workshop_documents import Documents
from workbench.deployment import Deployment

DATABASE = "idc_dicom_headers"
"""As the workshop calls it."""
BUCKET = "benchmark-workshop"


def make_tables(deployment: Deployment, documents: Mapping[str, Documents]) -> None:
    """Upload the documents, and declare the four tables with the types that the documents show."""
    s3, glue = deployment.session.client("s3"), deployment.session.client("glue")
    s3.create_bucket(Bucket=BUCKET)
    glue.create_database(DatabaseInput={"Name": DATABASE})
    for table, found in documents.items():
        for file in found.files:
            s3.upload_file(str(file), BUCKET, f"json/{table}/{file.name}")
        glue.create_table(
            DatabaseName=DATABASE,
            TableInput={
                "Name": table,
                "TableType": "EXTERNAL_TABLE",
                "Parameters": {"classification": "json"},
                "StorageDescriptor": {
                    "Location": f"s3://{BUCKET}/json/{table}/",
                    "Columns": [
                        {"Name": name.lower(), "Type": kind} for name, kind in _inferred(found).items()
                    ],
                    "InputFormat": "org.apache.hadoop.mapred.TextInputFormat",
                    "OutputFormat": "org.apache.hadoop.hive.ql.io.HiveIgnoreKeyTextOutputFormat",
                    "SerdeInfo": {"SerializationLibrary": "org.openx.data.jsonserde.JsonSerDe"},
                },
            },
        )


def _inferred(documents: Documents) -> dict[str, str]:
    """Hive types of the fields, of all files together."""
    columns: dict[str, str] = {}
    for file in documents.files:
        for name, kind, *_ in duckdb.execute(f"DESCRIBE FROM read_json_auto('{file}')").fetchall():
            columns.setdefault(name, _hive(kind))
    return columns


def _hive(kind: str) -> str:
    """Of what DuckDB infers. It sees dates and JSON where a crawler sees text, or nothing to infer."""
    if re.search("NULL|JSON|MAP|DATE|TIME|UUID", kind):
        return "string"
    found = exp.DataType.build(kind.replace("UBIGINT", "BIGINT"), dialect="duckdb")
    return str(found.sql("hive")).lower()
