"""Athena over Glue tables: Parquet objects, none yet, columns that files lack, and failures that a client
sees."""

from __future__ import annotations

import datetime as dt
import io
import json
import time
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

COLUMNS = [
    ("uid", "string"),
    ("day", "date"),
    ("spacing", "array<double>"),
    ("counts", "map<string,int>"),
    ("indexed_at", "timestamp"),
    ("is_primary", "boolean"),
    ("version_id", "bigint"),
]


def query(
    cloud: Any, sql: str, *, database: str = "imaging", parameters: list[str] | None = None
) -> dict[str, Any]:
    """Run a statement to its end; the execution, with "rows" (first the header) where it succeeded."""
    athena = cloud.client("athena")
    options = {"ExecutionParameters": parameters} if parameters else {}
    execution_id = athena.start_query_execution(
        QueryString=sql,
        QueryExecutionContext={"Database": database},
        ResultConfiguration={"OutputLocation": "s3://athena-data/results/"},
        **options,
    )["QueryExecutionId"]
    for _ in range(200):
        execution: dict[str, Any] = athena.get_query_execution(QueryExecutionId=execution_id)[
            "QueryExecution"
        ]
        if execution["Status"]["State"] in ("SUCCEEDED", "FAILED"):
            break
        time.sleep(0.05)
    if execution["Status"]["State"] == "SUCCEEDED":
        found = athena.get_query_results(QueryExecutionId=execution_id)["ResultSet"]
        execution["types"] = [column["Type"] for column in found["ResultSetMetadata"]["ColumnInfo"]]
        execution["rows"] = [[cell.get("VarCharValue") for cell in row["Data"]] for row in found["Rows"]]
    return execution


@pytest.fixture(scope="module")
def tables(cloud) -> Any:
    cloud.client("s3").create_bucket(Bucket="athena-data")
    glue = cloud.client("glue")
    glue.create_database(DatabaseInput={"Name": "imaging"})
    for name in ("filled", "empty"):
        glue.create_table(
            DatabaseName="imaging",
            TableInput={
                "Name": name,
                "TableType": "EXTERNAL_TABLE",
                "Parameters": {"classification": "parquet"},
                "StorageDescriptor": {
                    "Columns": [{"Name": column, "Type": kind} for column, kind in COLUMNS],
                    "Location": f"s3://athena-data/{name}/",
                    "InputFormat": "org.apache.hadoop.hive.ql.io.parquet.MapredParquetInputFormat",
                    "OutputFormat": "org.apache.hadoop.hive.ql.io.parquet.MapredParquetOutputFormat",
                    "SerdeInfo": {
                        "SerializationLibrary": "org.apache.hadoop.hive.ql.io.parquet.serde.ParquetHiveSerDe"
                    },
                },
            },
        )
    full = pa.table(
        {
            "uid": ["1.2"],
            "day": [dt.date(2020, 2, 3)],
            "spacing": [[0.5, 0.75]],
            "counts": pa.array([[("CT", 3)]], pa.map_(pa.string(), pa.int32())),
            "indexed_at": [dt.datetime(2026, 1, 2, 3, 4, 5)],
            "is_primary": [True],
            "version_id": [2],
        }
    )
    older = pa.table({"uid": ["1.3"], "extra": [9]})
    for key, table in (("a/x.parquet", full), ("b/y.parquet", older)):
        buffer = io.BytesIO()
        pq.write_table(table, buffer)
        cloud.client("s3").put_object(Bucket="athena-data", Key=f"filled/{key}", Body=buffer.getvalue())
    return cloud


def test_table_without_files_is_empty(tables) -> None:
    found = query(tables, "SELECT * FROM empty")
    assert found["rows"] == [[name for name, _ in COLUMNS]]
    assert found["types"] == ["varchar", "date", "array", "map", "timestamp", "boolean", "bigint"]
    assert query(tables, "SELECT count(*) FROM empty")["rows"][1:] == [["0"]]


def test_table_of_files_of_two_ages(tables) -> None:
    """The older file lacks columns, which are NULL, and has one that the catalog does not know."""
    found = query(tables, "SELECT * FROM imaging.filled ORDER BY uid")
    assert found["rows"][1:] == [
        ["1.2", "2020-02-03", "[0.5, 0.75]", "{CT=3}", "2026-01-02 03:04:05.000", "true", "2"],
        ["1.3", None, None, None, None, None, None],
    ]
    rows = query(
        tables,
        "SELECT filled.uid, spacing[1], counts['CT'], cardinality(counts), day + interval '1' day"
        " FROM filled WHERE day > date '2020-01-01' AND any_match(spacing, s -> s > 0.6)",
    )["rows"]
    assert rows[1:] == [["1.2", "0.5", "3", "1", "2020-02-04"]]


def test_the_result_is_where_it_is_said_to_be(tables) -> None:
    found = query(tables, "SELECT uid, day, 'a \"b\"' AS said FROM filled ORDER BY uid")
    bucket, _, key = found["ResultConfiguration"]["OutputLocation"].removeprefix("s3://").partition("/")
    body = tables.client("s3").get_object(Bucket=bucket, Key=key)["Body"].read().decode()
    assert body == '"uid","day","said"\n"1.2","2020-02-03","a ""b"""\n"1.3",,"a ""b"""\n'


def test_execution_parameters(tables) -> None:
    assert query(tables, "SELECT uid FROM filled WHERE uid = ?", parameters=["'1.3'"])["rows"][1:] == [
        ["1.3"]
    ]


@pytest.mark.parametrize(
    ("sql", "reason"),
    [
        ("SELECT FROM WHERE", "SYNTAX_ERROR"),
        ("SELECT * FROM missing", "TABLE_NOT_FOUND"),
        ("SELECT * FROM nowhere.missing", "SCHEMA_NOT_FOUND"),
        ("SELECT patient FROM filled", "SYNTAX_ERROR"),
        ("SELECT extra FROM filled", "SYNTAX_ERROR"),
    ],
)
def test_failures_have_their_reason(tables, sql: str, reason: str) -> None:
    found = query(tables, sql)
    assert found["Status"]["State"] == "FAILED"
    assert found["Status"]["StateChangeReason"].startswith(reason)


def test_a_name_with_a_quote_in_it_is_only_a_name(tables) -> None:
    found = query(tables, "SELECT 1", database='a"; DROP SCHEMA main; --')
    assert found["Status"]["State"] == "SUCCEEDED", found["Status"]


def test_texts_of_json_documents_are_not_guessed_at(tables: Any, cloud: Any) -> None:
    """What looks like a UUID, a moment or a date is a text where the catalog says so, nested ones too."""
    cloud.client("glue").create_table(
        DatabaseName="imaging",
        TableInput={
            "Name": "documents",
            "TableType": "EXTERNAL_TABLE",
            "Parameters": {"classification": "json"},
            "PartitionKeys": [{"Name": "arrived", "Type": "string"}],
            "StorageDescriptor": {
                "Columns": [
                    {"Name": "id", "Type": "string"},
                    {"Name": "said", "Type": "string"},
                    {"Name": "day", "Type": "date"},
                    {"Name": "study", "Type": "struct<DATE:string,id:string>"},
                    {"Name": "number", "Type": "int"},
                ],
                "Location": "s3://athena-data/documents/",
                "SerdeInfo": {"SerializationLibrary": "org.openx.data.jsonserde.JsonSerDe"},
            },
        },
    )
    identifier = "550E8400-E29B-41D4-A716-446655440000"
    document = {
        "Id": identifier,
        "said": "2020-01-02T03:04:05Z",
        "day": "2020-01-02",
        "study": {"DATE": "07:08", "id": identifier},
        "number": 5,
    }
    cloud.client("s3").put_object(
        Bucket="athena-data", Key="documents/arrived=2020-01-03/x.json", Body=json.dumps(document).encode()
    )
    found = query(cloud, 'SELECT id, said, day, study."DATE", study.id, number, arrived FROM documents')
    assert found["Status"]["State"] == "SUCCEEDED", found["Status"]
    assert found["rows"][1] == [
        identifier, "2020-01-02T03:04:05Z", "2020-01-02", "07:08", identifier, "5", "2020-01-03",
    ]  # fmt: skip
    assert found["types"] == ["varchar", "varchar", "date", "varchar", "varchar", "integer", "varchar"]
