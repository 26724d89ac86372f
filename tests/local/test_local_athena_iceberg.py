"""Iceberg tables of the local Athena: what is committed is a real table, that another reader reads."""

from __future__ import annotations

import datetime as dt
import json
import threading
import time
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from athena_warehouse import BUCKET, DATABASE, FIELDS, Warehouse, iceberg_input, values
from role_sessions import make_role, session


@pytest.fixture(scope="module")
def warehouse(cloud) -> Warehouse:
    house = Warehouse(cloud)
    for bucket in (BUCKET, f"{BUCKET}-results"):
        house.s3.create_bucket(Bucket=bucket)
    house.glue.create_database(DatabaseInput={"Name": DATABASE})
    return house


def test_rows_of_every_type_are_those_of_another_reader(warehouse) -> None:
    warehouse.create("typed")
    assert warehouse.rows("SELECT count(*) FROM typed") == [["0"]]
    assert warehouse.insert("typed", values("a", "b")) == 2
    assert warehouse.changed("INSERT INTO typed (version_id, image_set_id) SELECT 7, 'bare'") == 1
    row = {
        "image_set_id": "a",
        "version_id": 1,
        "modality": "CT",
        "study_date": dt.date(2023, 2, 3),
        "kvp": Decimal("120.500000"),
        "spacing": [0.5, 0.75],
        "attributes": [("Name", "a")],
        "indexed_at": dt.datetime(2026, 1, 2, 3, 4, 5, 678000),
    }
    bare = dict.fromkeys(row) | {"image_set_id": "bare", "version_id": 7}
    assert warehouse.read("typed") == [
        row,
        row | {"image_set_id": "b", "attributes": [("Name", "b")]},
        bare,
    ]
    assert warehouse.rows(
        "SELECT image_set_id, study_date, kvp, spacing, attributes, element_at(attributes, 'Name'),"
        " indexed_at FROM typed WHERE cardinality(spacing) = 2 AND modality = 'CT' ORDER BY 1 LIMIT 1"
    ) == [["a", "2023-02-03", "120.500000", "[0.5, 0.75]", "{Name=a}", "a", "2026-01-02 03:04:05.678"]]
    entry = warehouse.glue.get_table(DatabaseName=DATABASE, Name="typed")["Table"]
    assert [(column["Name"], column["Type"]) for column in entry["StorageDescriptor"]["Columns"]][4:7] == [
        ("kvp", "decimal(16,6)"),
        ("spacing", "array<double>"),
        ("attributes", "map<string,string>"),
    ]
    spec = warehouse.table("typed").spec()
    assert [(field.name, str(field.transform)) for field in spec.fields] == [
        ("modality", "identity"),
        ("study_date_year", "year"),
    ]


def test_deleted_and_updated_rows(warehouse) -> None:
    warehouse.create("changed")
    warehouse.insert("changed", f"{values('a', 'b', 'c')}, {values('d', modality='MR')}")
    untouched = {
        file.file.file_path for file in warehouse.table("changed").scan("modality = 'MR'").plan_files()
    }
    assert (
        warehouse.changed(
            "DELETE FROM changed WHERE image_set_id || '1' IN"
            " (SELECT c.image_set_id || '1' FROM changed c WHERE c.image_set_id = 'b') OR kvp IS NULL"
        )
        == 1
    )
    assert (
        warehouse.changed(
            "UPDATE changed SET version_id = version_id + 1, kvp = NULL WHERE image_set_id = 'a'"
        )
        == 1
    )
    assert [(row["image_set_id"], row["version_id"], row["kvp"]) for row in warehouse.read("changed")] == [
        ("a", 2, None),
        ("c", 1, Decimal("120.500000")),
        ("d", 1, Decimal("120.500000")),
    ]
    now = {file.file.file_path for file in warehouse.table("changed").scan().plan_files()}
    assert untouched <= now, "a file without a changed row is written anew"
    assert warehouse.changed("DELETE FROM changed WHERE image_set_id = 'nobody'") == 0
    assert warehouse.changed("DELETE FROM changed") == 3
    assert warehouse.read("changed") == []


def test_optimize_and_vacuum_keep_the_rows_and_little_else(warehouse) -> None:
    warehouse.create("kept", vacuum_max_snapshot_age_seconds="0")
    for one in "abcd":
        warehouse.insert("kept", f"{values(one)}, {values(one + 'm', modality='MR')}")
    before = warehouse.read("kept")
    warehouse.changed("OPTIMIZE kept REWRITE DATA USING BIN_PACK WHERE modality = 'CT'")
    assert len(list(warehouse.table("kept").scan().plan_files())) == 1 + 4
    warehouse.changed("OPTIMIZE kept REWRITE DATA USING BIN_PACK")
    table = warehouse.table("kept")
    files = {task.file.file_path for task in table.scan().plan_files()}
    assert len(files) == 2
    warehouse.s3.put_object(Bucket=BUCKET, Key="kept/data/of-nobody.parquet", Body=b"left over")
    time.sleep(1.1)  # S3 tells the time of an object in seconds
    warehouse.changed("VACUUM kept")
    assert warehouse.read("kept") == before
    assert len(warehouse.table("kept").snapshots()) == 1
    left = {f"s3://{BUCKET}/{key}" for key in warehouse.keys("kept/data/")}
    assert left == files
    assert "NOT_SUPPORTED" in warehouse.failure(
        "OPTIMIZE kept REWRITE DATA USING BIN_PACK WHERE image_set_id = 'a'"
    )


def test_of_commits_at_the_same_time_none_is_lost(warehouse) -> None:
    """Appends follow each other; a deletion either sees what was added meanwhile or says that it failed."""
    warehouse.create("raced")
    warehouse.insert("raced", values("start"))
    started: list[str] = []

    def run(sql: str) -> None:
        started.append(warehouse.start(sql))

    statements = [f"INSERT INTO raced VALUES {values(f'i{n}')}" for n in range(5)]  # noqa: S608 - values of this test
    statements += [
        f"UPDATE raced SET version_id = {n} WHERE image_set_id = 'start'"  # noqa: S608 - values of this test
        for n in (10, 11, 12)
    ]
    threads = [threading.Thread(target=run, args=(sql,)) for sql in statements]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    executions = [warehouse.finished(one) for one in started]
    failed = [one for one in executions if one["Status"]["State"] == "FAILED"]
    for execution in failed:
        assert execution["Query"].startswith("UPDATE")
        assert execution["Status"]["StateChangeReason"].startswith("ICEBERG_COMMIT_ERROR")
    rows = warehouse.read("raced")
    assert [row["image_set_id"] for row in rows] == [*(f"i{n}" for n in range(5)), "start"]
    worked = [one["Query"] for one in executions if one not in failed]
    updates = {int(sql.split()[5]) for sql in worked if sql.startswith("UPDATE")}
    assert rows[-1]["version_id"] in (updates or {1})


def test_a_template_s_change_of_columns(warehouse) -> None:
    cloudformation = warehouse.cloud.client("cloudformation")

    def template(fields: list[Any]) -> str:
        return json.dumps(
            {
                "Resources": {
                    "Table": {
                        "Type": "AWS::Glue::Table",
                        "Properties": {
                            "CatalogId": warehouse.cloud.account_id,
                            "DatabaseName": DATABASE,
                            "Name": "templated",
                            "OpenTableFormatInput": {
                                "IcebergInput": {
                                    "MetadataOperation": "CREATE",
                                    "Version": "2",
                                    "IcebergTableInput": iceberg_input("templated", fields=fields),
                                }
                            },
                        },
                    }
                }
            }
        )

    cloudformation.create_stack(StackName="iceberg", TemplateBody=template(FIELDS))
    cloudformation.get_waiter("stack_create_complete").wait(
        StackName="iceberg", WaiterConfig={"Delay": 1, "MaxAttempts": 30}
    )
    warehouse.insert("templated", values("old"))
    cloudformation.update_stack(
        StackName="iceberg", TemplateBody=template([*FIELDS, ("laterality", "string", None)])
    )
    cloudformation.get_waiter("stack_update_complete").wait(
        StackName="iceberg", WaiterConfig={"Delay": 1, "MaxAttempts": 30}
    )
    warehouse.changed("INSERT INTO templated (image_set_id, version_id, laterality) VALUES ('new', 1, 'L')")
    assert warehouse.rows("SELECT image_set_id, laterality FROM templated ORDER BY 1") == [
        ["new", "L"],
        ["old", None],
    ]
    assert [row["laterality"] for row in warehouse.read("templated")] == ["L", None]
    cloudformation.delete_stack(StackName="iceberg")
    cloudformation.get_waiter("stack_delete_complete").wait(
        StackName="iceberg", WaiterConfig={"Delay": 1, "MaxAttempts": 30}
    )
    assert warehouse.failure("SELECT * FROM templated").startswith("TABLE_NOT_FOUND")


@pytest.mark.parametrize(
    ("sql", "reason"),
    [
        ("INSERT INTO refused (image_set_id) VALUES (5)", "TYPE_MISMATCH"),
        ("INSERT INTO refused (image_set_id) SELECT 'a', 'b'", "TYPE_MISMATCH"),
        ("INSERT INTO refused (nobody) VALUES ('a')", "COLUMN_NOT_FOUND"),
        (
            "INSERT INTO refused (modality) SELECT CAST(n AS varchar) FROM UNNEST(sequence(0, 100)) AS t (n)",
            "ICEBERG_TOO_MANY_OPEN_PARTITIONS",
        ),
        ("DELETE FROM plain WHERE a = 1", "NOT_SUPPORTED"),
        ("MERGE INTO refused USING plain ON TRUE WHEN MATCHED THEN DELETE", "NOT_SUPPORTED"),
        ("VACUUM nobody", "TABLE_NOT_FOUND"),
    ],
)
def test_refused_statements_change_nothing(warehouse, sql: str, reason: str) -> None:
    if not any(
        one["Name"] == "refused" for one in warehouse.glue.get_tables(DatabaseName=DATABASE)["TableList"]
    ):
        warehouse.create("refused")
        plain_table(warehouse)
    assert warehouse.failure(sql).startswith(reason)
    assert warehouse.read("refused") == []


def plain_table(warehouse: Warehouse) -> None:
    """A table of Parquet objects, no Iceberg."""
    warehouse.glue.create_table(
        DatabaseName=DATABASE,
        TableInput={
            "Name": "plain",
            "TableType": "EXTERNAL_TABLE",
            "Parameters": {"classification": "parquet"},
            "StorageDescriptor": {
                "Columns": [{"Name": "a", "Type": "bigint"}, {"Name": "b", "Type": "map<string,string>"}],
                "Location": f"s3://{BUCKET}/plain/",
            },
        },
    )


def test_the_same_token_runs_a_statement_once(warehouse) -> None:
    warehouse.create("once")
    request = {
        "QueryString": f"INSERT INTO once VALUES {values('a')}",  # noqa: S608 - values of this test
        "ClientRequestToken": "0123456789abcdef0123456789abcdef",
        "QueryExecutionContext": {"Database": DATABASE},
        "ResultConfiguration": {"OutputLocation": f"s3://{BUCKET}-results/"},
    }
    ids = {warehouse.athena.start_query_execution(**request)["QueryExecutionId"] for _ in range(3)}
    assert len(ids) == 1
    warehouse.finished(ids.pop())
    assert len(warehouse.read("once")) == 1


def test_unloaded_rows_and_the_bytes_that_were_read(warehouse, tmp_path: Path) -> None:
    warehouse.create("large")
    warehouse.changed(
        "INSERT INTO large (image_set_id, version_id, modality, attributes)"
        " SELECT 'i' || CAST(n AS varchar), n, CASE WHEN n % 10 = 0 THEN 'MR' ELSE 'CT' END,"
        " MAP(ARRAY['n'], ARRAY[CAST(n * 7919 AS varchar)])"
        " FROM UNNEST(sequence(1, 10000)) AS t (n)"
    )
    total = sum(task.file.file_size_in_bytes for task in warehouse.table("large").scan().plan_files())
    everything = warehouse.scanned("SELECT * FROM large")
    assert 0.9 * total <= everything <= 1.3 * total
    assert warehouse.scanned("SELECT sum(version_id) FROM large") < total / 2
    assert warehouse.scanned("SELECT * FROM large WHERE modality = 'MR'") < total / 3
    unload = (
        "UNLOAD (SELECT attributes, CAST(version_id AS decimal(16, 6)) AS v, modality FROM large"  # noqa: S608 - a bucket of this test
        f" WHERE version_id <= 20) TO 's3://{BUCKET}/unloaded/'"
        " WITH (format = 'PARQUET', compression = 'ZSTD', partitioned_by = ARRAY['modality'])"
    )
    assert warehouse.changed(unload) == 20
    found = {}
    for key in warehouse.keys("unloaded/"):
        file = tmp_path / "one.parquet"
        warehouse.s3.download_file(BUCKET, key, str(file))
        for row in pq.ParquetFile(file).read().to_pylist():
            found[row["v"]] = (key.split("/")[1], row["attributes"])
    assert found == {
        Decimal(n): (f"modality={'MR' if n % 10 == 0 else 'CT'}", [("n", str(n * 7919))])
        for n in range(1, 21)
    }
    assert warehouse.failure(unload).startswith("HIVE_PATH_ALREADY_EXISTS")


def test_athena_does_what_its_caller_may_do(warehouse) -> None:
    """A role with exactly what a statement needs; each permission that it lacks ends the statement."""
    warehouse.create("guarded")
    warehouse.insert("guarded", values("a"))
    place, data = "arn:aws:glue:us-east-1:000000000000", f"arn:aws:s3:::{BUCKET}"
    table = [f"{place}:catalog", f"{place}:database/{DATABASE}", f"{place}:table/{DATABASE}/guarded"]
    reads = {
        "glue:GetTable": table,
        "s3:GetObject": [f"{data}/guarded/*"],
        "s3:ListBucket": [data],
        "s3:GetBucketLocation": [f"{data}-results"],
    }
    writes = {"glue:UpdateTable": table, "s3:PutObject": [f"{data}/guarded/*", f"{data}-results/*"]}
    needed = {
        "SELECT * FROM guarded": {**reads, "s3:PutObject": [f"{data}-results/*"]},
        "VACUUM guarded": reads | writes | {"s3:DeleteObject": [f"{data}/guarded/*"]},
    }
    for number, (sql, actions) in enumerate(needed.items()):
        for missing in ("", *actions):
            granted = [
                {"Action": action, "Resource": resources}
                for action, resources in actions.items()
                if action != missing
            ]
            name = f"asks-{number}-{missing.replace(':', '-')}"
            role = make_role(
                warehouse.cloud, name, {"Action": "athena:StartQueryExecution", "Resource": "*"}, *granted
            )
            execution = warehouse.finished(
                warehouse.start(sql, athena=session(warehouse.cloud, role, "athena"))
            )
            reason = execution["Status"].get("StateChangeReason", "")
            assert execution["Status"]["State"] == ("FAILED" if missing else "SUCCEEDED"), (missing, reason)
            assert missing in reason
    assert [row["image_set_id"] for row in warehouse.read("guarded")] == ["a"]


def test_tables_are_there_after_a_crash(warehouse) -> None:
    warehouse.create("lasting")
    warehouse.insert("lasting", values("a"))
    time.sleep(3)  # what a crash may lose
    warehouse.cloud.kill()
    warehouse.cloud.start()
    warehouse.insert("lasting", values("b"))
    assert [row["image_set_id"] for row in warehouse.read("lasting")] == ["a", "b"]
