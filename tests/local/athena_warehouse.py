"""Iceberg tables of a local cloud: Athena's statements on them, and a reader that knows nothing of Athena."""

from __future__ import annotations

import json
import time
from typing import Any

from pyiceberg.io.pyarrow import PyArrowFileIO
from pyiceberg.table import StaticTable

BUCKET = "athena-iceberg"
DATABASE = "warehouse"

FIELDS = [
    ("image_set_id", "string", None),
    ("version_id", "long", None),
    ("modality", "string", None),
    ("study_date", "date", None),
    ("kvp", "decimal(16, 6)", None),
    ("spacing", {"type": "list", "element-id": 101, "element": "double", "element-required": False}, None),
    (
        "attributes",
        {
            "type": "map",
            "key-id": 102,
            "key": "string",
            "value-id": 103,
            "value": "string",
            "value-required": False,
        },
        "everything else",
    ),
    ("indexed_at", "timestamp", None),
]


def iceberg_input(name: str, *, fields: list[Any] | None = None, **properties: str) -> dict[str, Any]:
    """As a template has it: nested types are JSON texts."""
    return {
        "Location": f"s3://{BUCKET}/{name}",
        "Schema": {
            "Type": "struct",
            "Fields": [
                {
                    "Id": place,
                    "Name": field,
                    "Type": kind if isinstance(kind, str) else json.dumps(kind),
                    "Required": False,
                    **({"Doc": doc} if doc else {}),
                }
                for place, (field, kind, doc) in enumerate(fields or FIELDS, start=1)
            ],
        },
        "PartitionSpec": {
            "SpecId": 0,
            "Fields": [
                {"Name": "modality", "SourceId": 3, "Transform": "identity", "FieldId": 1000},
                {"Name": "study_date_year", "SourceId": 4, "Transform": "year", "FieldId": 1001},
            ],
        },
        "Properties": {"write.parquet.compression-codec": "zstd", **properties},
    }


class Warehouse:
    """A database with tables, the statements on it, and a reader that knows nothing of Athena."""

    def __init__(self, cloud: Any) -> None:
        self.cloud = cloud
        self.glue = cloud.client("glue")
        self.athena = cloud.client("athena")
        self.s3 = cloud.client("s3")

    def create(self, name: str, **properties: str) -> None:
        self.glue.create_table(
            DatabaseName=DATABASE,
            Name=name,
            OpenTableFormatInput={
                "IcebergInput": {
                    "MetadataOperation": "CREATE",
                    "Version": "2",
                    "CreateIcebergTableInput": iceberg_input(name, **properties),
                }
            },
        )

    def insert(self, name: str, rows: str) -> int:
        """Add rows, which are those of VALUES."""
        return self.changed(f"INSERT INTO {name} VALUES {rows}")  # noqa: S608 - a table of a test

    def start(self, sql: str, *, athena: Any = None) -> str:
        started: str = (athena or self.athena).start_query_execution(
            QueryString=sql,
            QueryExecutionContext={"Database": DATABASE},
            ResultConfiguration={"OutputLocation": f"s3://{BUCKET}-results/"},
        )["QueryExecutionId"]
        return started

    def finished(self, execution_id: str) -> dict[str, Any]:
        for _ in range(600):
            execution: dict[str, Any] = self.athena.get_query_execution(QueryExecutionId=execution_id)[
                "QueryExecution"
            ]
            if execution["Status"]["State"] in ("SUCCEEDED", "FAILED"):
                return execution
            time.sleep(0.02)
        raise TimeoutError(execution_id)

    def rows(self, sql: str) -> list[list[str | None]]:
        execution = self.finished(self.start(sql))
        assert execution["Status"]["State"] == "SUCCEEDED", execution["Status"]
        found = self.athena.get_query_results(QueryExecutionId=execution["QueryExecutionId"])["ResultSet"]
        return [[cell.get("VarCharValue") for cell in row["Data"]] for row in found["Rows"]][1:]

    def changed(self, sql: str) -> int:
        """How many rows a statement says that it has written or changed."""
        execution = self.finished(self.start(sql))
        assert execution["Status"]["State"] == "SUCCEEDED", execution["Status"]
        answer = self.athena.get_query_results(QueryExecutionId=execution["QueryExecutionId"])
        assert answer["ResultSet"]["Rows"] == []
        return int(answer["UpdateCount"])

    def failure(self, sql: str) -> str:
        execution = self.finished(self.start(sql))
        assert execution["Status"]["State"] == "FAILED"
        reason: str = execution["Status"]["StateChangeReason"]
        return reason

    def scanned(self, sql: str) -> int:
        execution = self.finished(self.start(sql))
        assert execution["Status"]["State"] == "SUCCEEDED", execution["Status"]
        return int(execution["Statistics"]["DataScannedInBytes"])

    def table(self, name: str) -> StaticTable:
        """The table by PyIceberg's own reader over S3."""
        entry = self.glue.get_table(DatabaseName=DATABASE, Name=name)["Table"]
        assert entry["Parameters"]["table_type"] == "ICEBERG"
        return StaticTable.from_metadata(
            entry["Parameters"]["metadata_location"],
            properties={
                "py-io-impl": f"{PyArrowFileIO.__module__}.{PyArrowFileIO.__name__}",
                "s3.endpoint": self.cloud.endpoint_url,
                "s3.access-key-id": self.cloud.access_key_id,
                "s3.secret-access-key": self.cloud.secret_access_key,
                "s3.region": self.cloud.region,
            },
        )

    def read(self, name: str) -> list[dict[str, Any]]:
        found = self.table(name).scan().to_arrow().to_pylist()
        return sorted(found, key=lambda row: (row["image_set_id"], row["version_id"]))

    def keys(self, prefix: str) -> set[str]:
        pages = self.s3.get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix=prefix)
        return {one["Key"] for page in pages for one in page.get("Contents", ())}


def values(*ids: str, modality: str = "CT", year: int = 2023, version: int = 1) -> str:
    return ", ".join(
        f"('{one}', {version}, '{modality}', DATE '{year}-02-03', DECIMAL '120.5', ARRAY[0.5, 0.75],"
        f" MAP(ARRAY['Name'], ARRAY['{one}']), TIMESTAMP '2026-01-02 03:04:05.678')"
        for one in ids
    )
