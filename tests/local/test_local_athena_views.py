"""Athena's views in Glue: those of the catalog over rows of the index function, and broken ones."""

from __future__ import annotations

import base64
import json
import re
import time
from datetime import date, datetime
from typing import Any

import pytest

from healthimaging.catalog.columns import schema
from infra.catalog.query_workgroup import QUERIES, read_query
from infra.catalog.sql_views import SQL_VIEWS, SqlView, view_text
from runtime.functions.index.tables import parquet

DATABASE = "views"
STORE = "store"


def query(cloud: Any, sql: str, *, database: str = DATABASE) -> dict[str, Any]:
    """Run a statement to its end; the execution, with "rows" (without the header), "names" and "types" where
    it succeeded."""
    athena = cloud.client("athena")
    execution_id = athena.start_query_execution(
        QueryString=sql,
        QueryExecutionContext={"Database": database},
        ResultConfiguration={"OutputLocation": "s3://athena-views/results/"},
    )["QueryExecutionId"]
    for _ in range(400):
        execution: dict[str, Any] = athena.get_query_execution(QueryExecutionId=execution_id)[
            "QueryExecution"
        ]
        if execution["Status"]["State"] in ("SUCCEEDED", "FAILED"):
            break
        time.sleep(0.05)
    if execution["Status"]["State"] == "SUCCEEDED":
        found = athena.get_query_results(QueryExecutionId=execution_id)["ResultSet"]
        columns = found["ResultSetMetadata"]["ColumnInfo"]
        execution["names"] = [column["Name"] for column in columns]
        execution["types"] = [column["Type"] for column in columns]
        execution["rows"] = [[cell.get("VarCharValue") for cell in row["Data"]] for row in found["Rows"]][1:]
    return execution


def records(cloud: Any, sql: str) -> list[dict[str, str | None]]:
    found = query(cloud, sql)
    assert found["Status"]["State"] == "SUCCEEDED", found["Status"]
    return [dict(zip(found["names"], row, strict=True)) for row in found["rows"]]


def failure(cloud: Any, sql: str) -> str:
    found = query(cloud, sql)
    assert found["Status"]["State"] == "FAILED"
    reason: str = found["Status"]["StateChangeReason"]
    return reason


def series(
    image_set: str, patient: str | None, study: str, modality: str | None, **more: Any
) -> dict[str, Any]:
    empty = {column["name"]: None for column in schema()["tables"]["series"]["columns"]}
    return empty | {
        "datastore_id": STORE,
        "image_set_id": image_set,
        "version_id": 1,
        "is_primary": True,
        "patient_id": patient,
        "study_instance_uid": study,
        "series_instance_uid": f"{study}.{image_set}",
        "modality": modality,
        "number_of_instances": 10,
        "indexed_at": datetime(2026, 1, 1),
        **more,
    }


def instance(row: dict[str, Any]) -> dict[str, Any]:
    """An instance of a series."""
    empty = {column["name"]: None for column in schema()["tables"]["instances"]["columns"]}
    known = {name: value for name, value in row.items() if name in empty}
    return (
        empty | known | {"sop_instance_uid": f"{row['series_instance_uid']}.1", "pixel_spacing": [0.5, 0.5]}
    )


CHANGES = {"series": "series_changes", "instances": "instance_changes"}
ANN = {"patient_sex": "F", "patient_birth_date": date(1970, 1, 2)}
ROWS = [
    series("a", "ann", "1.1", "CT", **ANN, study_date=date(2020, 1, 1), study_description="Chest"),
    series("b", "ann", "1.1", "SEG", **ANN, study_date=date(2020, 1, 1), study_description="Chest",
           number_of_instances=1),
    series("c", "ann", "1.2", "MR", **ANN, study_date=date(2021, 2, 3)),
    # The data store did not say whether it is primary.
    series("d", "bob", "2.1", "CT", patient_sex="M", study_date=date(2022, 1, 1), is_primary=None),
    # Again series "c", sent with another patient ID: the data store keeps it apart as a conflict.
    series("e", "eve", "1.2", "MR", series_instance_uid="1.2.c", is_primary=False, study_description="Wrong"),
    # Two people with one ID.
    series("f", "twin", "3.1", "CT", patient_sex="M", patient_birth_date=date(1980, 1, 1)),
    series("g", "twin", "3.2", "CT", patient_sex="F", patient_birth_date=date(1990, 1, 1)),
    series("h", None, "4.1", None),
    series("i", None, "4.2", "MR"),
    # The same names in another data store are somebody else.
    series("a", "ann", "1.1", "CT", datastore_id="other"),
]  # fmt: skip


def create_view(cloud: Any, name: str, text: str, columns: list[tuple[str, str]], **changes: Any) -> None:
    table = {
        "Name": name,
        "TableType": "VIRTUAL_VIEW",
        "Parameters": {"presto_view": "true", "comment": "Presto View"},
        "ViewOriginalText": text,
        "ViewExpandedText": "/* Presto View */",
        "StorageDescriptor": {
            "Columns": [{"Name": column, "Type": kind} for column, kind in columns],
            "SerdeInfo": {"Name": "-", "SerializationLibrary": "-"},
        },
    }
    cloud.client("glue").create_table(DatabaseName=DATABASE, TableInput=table | changes)


@pytest.fixture(scope="module")
def catalog(cloud) -> Any:
    cloud.client("s3").create_bucket(Bucket="athena-views")
    glue = cloud.client("glue")
    glue.create_database(DatabaseInput={"Name": DATABASE})
    for table, content in schema()["tables"].items():
        columns = [{"Name": c["name"], "Type": c["type"]} for c in content["columns"]]
        storage = {
            "Columns": [*columns, {"Name": "is_deleted", "Type": "boolean"}],
            "Location": f"s3://athena-views/changes/{table}/",
        }
        glue.create_table(
            DatabaseName=DATABASE,
            TableInput={
                "Name": CHANGES[table],
                "TableType": "EXTERNAL_TABLE",
                "Parameters": {"classification": "parquet"},
                "StorageDescriptor": storage,
            },
        )
        storage = {"Columns": columns, "Location": f"s3://athena-views/compacted/{table}"}
        glue.create_table(
            DatabaseName=DATABASE,
            TableInput={"Name": f"compacted_{table}", "StorageDescriptor": storage},
            OpenTableFormatInput={"IcebergInput": {"MetadataOperation": "CREATE", "Version": "2"}},
        )
    for table, rows in (("series", ROWS), ("instances", [instance(row) for row in ROWS])):
        for row in rows:
            key = f"changes/{table}/{row['datastore_id']}/{row['image_set_id']}/1.parquet"
            body = parquet(table, [row | {"is_deleted": False}])
            cloud.client("s3").put_object(Bucket="athena-views", Key=key, Body=body)
        # Some are compacted, and their change is still there: each counts once.
        names = ", ".join(f'"{column["name"]}"' for column in schema()["tables"][table]["columns"])
        compacted = query(
            cloud,
            f"INSERT INTO compacted_{table} SELECT {names} FROM {CHANGES[table]} WHERE image_set_id < 'e'",  # noqa: S608 - names of columns
        )
        assert compacted["Status"]["State"] == "SUCCEEDED", compacted["Status"]
    for view in SQL_VIEWS:
        create_view(
            cloud,
            view.name,
            view_text(view.definition(DATABASE)),
            [(column.name, column.type) for column in view.columns],
        )
    return cloud


@pytest.mark.parametrize("view", SQL_VIEWS, ids=lambda view: view.name)
def test_a_view_gives_the_columns_that_it_declares(catalog, view: SqlView) -> None:
    """Of its own SQL, over real rows: names, order, types."""
    declared = view.definition(DATABASE)["columns"]
    for sql in (view.sql, f"TABLE {view.name}"):
        found = query(catalog, sql)
        assert found["names"] == [column["name"] for column in declared]
        assert found["types"] == [column["type"].partition("(")[0] for column in declared]
        assert len(found["rows"]) > 3
    # Items of arrays too, of which a result says nothing.
    for column in declared:
        if column["type"].startswith("array("):
            unnest = "SELECT x FROM view_name CROSS JOIN UNNEST(column_name) AS t (x)"
            items = query(
                catalog, unnest.replace("view_name", f"({view.sql})").replace("column_name", column["name"])
            )
            assert [f"array({kind})" for kind in items["types"]] == [column["type"]]


def test_patients(catalog) -> None:
    found = records(catalog, "SELECT * FROM patients WHERE datastore_id = 'store' ORDER BY patient_id")
    by_id = {row["patient_id"]: row for row in found if row["patient_id"]}
    assert list(by_id) == ["ann", "bob", "eve", "twin"]
    assert by_id["ann"] == {
        "datastore_id": STORE,
        "patient_id": "ann",
        "patient_sex": "F",
        "patient_birth_date": "1970-01-02",
        "demographics_differ": "false",
        "modalities": "[CT, MR, SEG]",
        "number_of_studies": "2",
        "number_of_series": "3",
        "number_of_instances": "21",
        "first_study_date": "2020-01-01",
        "last_study_date": "2021-02-03",
        "number_of_image_sets": "3",
        "image_sets_in_conflict": "0",
    }
    assert (by_id["bob"]["number_of_studies"], by_id["bob"]["modalities"]) == ("1", "[CT]")


def test_a_patient_who_is_only_in_conflict_is_not_lost(catalog) -> None:
    (eve,) = records(catalog, "SELECT * FROM patients WHERE patient_id = 'eve'")
    assert (eve["number_of_studies"], eve["number_of_instances"], eve["modalities"]) == ("0", "0", "[]")
    assert (eve["number_of_image_sets"], eve["image_sets_in_conflict"]) == ("1", "1")
    assert eve["first_study_date"] is None


def test_patients_are_not_merged_silently(catalog) -> None:
    (twin,) = records(catalog, "SELECT * FROM patients WHERE demographics_differ")
    assert (twin["patient_id"], twin["patient_sex"], twin["patient_birth_date"]) == ("twin", None, None)
    nameless = records(catalog, "SELECT * FROM patients WHERE patient_id IS NULL")
    assert [row["number_of_studies"] for row in nameless] == ["1", "1"]
    elsewhere = records(catalog, "SELECT datastore_id FROM patients WHERE patient_id = 'ann'")
    assert {row["datastore_id"] for row in elsewhere} == {STORE, "other"}


def test_studies(catalog) -> None:
    found = records(catalog, "SELECT * FROM studies WHERE datastore_id = 'store' ORDER BY study_instance_uid")
    studies = {row["study_instance_uid"]: row for row in found}
    assert list(studies) == ["1.1", "1.2", "2.1", "3.1", "3.2", "4.1", "4.2"]
    assert studies["1.1"] == {
        "datastore_id": STORE,
        "study_instance_uid": "1.1",
        "patient_id": "ann",
        "patient_ids": "[ann]",
        "study_date": "2020-01-01",
        "study_id": None,
        "accession_number": None,
        "study_description": "Chest",
        "modalities": "[CT, SEG]",
        "has_segmentation": "true",
        "number_of_series": "2",
        "number_of_instances": "11",
        "number_of_image_sets": "2",
        "image_sets_in_conflict": "0",
    }
    assert (studies["4.1"]["modalities"], studies["4.1"]["has_segmentation"]) == ("[]", "false")


def test_a_study_of_two_patients_shows_both(catalog) -> None:
    (study,) = records(catalog, "SELECT * FROM studies WHERE cardinality(patient_ids) > 1")
    assert (study["study_instance_uid"], study["patient_id"]) == ("1.2", None)
    assert study["patient_ids"] == "[ann, eve]"
    # Not counted twice, and described by the primary image set.
    assert (study["number_of_series"], study["number_of_instances"]) == ("1", "10")
    assert (study["number_of_image_sets"], study["image_sets_in_conflict"]) == ("2", "1")
    assert study["study_description"] is None


def test_named_queries_over_views(catalog) -> None:
    _, sql = read_query(QUERIES / "patients_with_ct_and_mr.sql")
    assert [row["patient_id"] for row in records(catalog, sql)] == ["ann"]
    _, sql = read_query(QUERIES / "studies_without_segmentation.sql")
    found = [row["study_instance_uid"] for row in records(catalog, sql)]
    assert sorted(map(str, found)) == ["1.1", "1.2", "2.1", "3.1", "3.2", "4.2"]
    # 1.1 has one in this data store, and none in the other one.
    assert found[:2] == ["2.1", "1.2"]


@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        ("SELECT count(*) FROM (SELECT * FROM patients WHERE patient_sex = 'F') AS p", [["1"]]),
        (
            """WITH women AS (SELECT patient_id FROM patients WHERE patient_sex = 'F')
            SELECT DISTINCT study_description FROM women JOIN studies USING (patient_id)
            WHERE study_description IS NOT NULL""",
            [["Chest"]],
        ),
        # The name of a view for something else: a CTE goes before.
        ("WITH patients AS (SELECT 1 AS one) SELECT one FROM patients", [["1"]]),
        (
            """SELECT s.modality FROM series s
            JOIN views.STUDIES t
              ON s.study_instance_uid = t.study_instance_uid AND s.datastore_id = t.datastore_id
            WHERE t.has_segmentation ORDER BY 1""",
            [["CT"], ["SEG"]],
        ),
        (
            "SELECT last_study_date + interval '1' day FROM patients WHERE patient_id = 'bob'",
            [["2022-01-02"]],
        ),
    ],
)
def test_a_view_is_read_like_a_table(catalog, sql: str, expected: list[list[str]]) -> None:
    assert query(catalog, sql)["rows"] == expected


def test_a_view_keeps_its_own_database(catalog) -> None:
    catalog.client("glue").create_database(DatabaseInput={"Name": "elsewhere"})
    found = query(catalog, "SELECT count(*) FROM views.studies", database="elsewhere")
    assert found["rows"] == [["8"]]


def encoded(sql: str, *columns: tuple[str, str], schema: str = DATABASE) -> str:
    return view_text(
        {
            "originalSql": sql,
            "catalog": "awsdatacatalog",
            "schema": schema,
            "columns": [{"name": name, "type": kind} for name, kind in columns],
        }
    )


UID = ("uid", "varchar")


@pytest.mark.parametrize(
    ("name", "text", "reason"),
    [
        ("gone", encoded("SELECT uid FROM nothing", UID), "INVALID_VIEW: .*TABLE_NOT_FOUND"),
        ("astray", encoded("SELECT uid FROM x", UID, schema="void"), "INVALID_VIEW: .*SCHEMA_NOT_FOUND"),
        ("renamed", encoded("SELECT patient AS uid FROM series", UID), "INVALID_VIEW: .*patient"),
        ("no_sql", encoded("SELEC", UID), "INVALID_VIEW"),
        ("fewer", encoded("SELECT patient_id AS uid, modality FROM series", UID),
         r"VIEW_IS_STALE: .*column count \(1\) does not match .* \(2\)"),
        ("other_name", encoded("SELECT patient_id FROM series", UID), "VIEW_IS_STALE: .*patient_id.*uid"),
        ("other_type", encoded("SELECT study_date AS uid FROM series", UID), "VIEW_IS_STALE: .*date.*varch"),
        ("narrower", encoded("SELECT version_id AS uid FROM series", ("uid", "integer")), "VIEW_IS_STALE"),
        ("other_items", encoded("SELECT pixel_spacing AS uid FROM series", ("uid", "array(varchar)")),
         r"VIEW_IS_STALE: .*array\(double\).*array\(varchar\)"),
        ("recursive", encoded("SELECT uid FROM recursive", UID), "VIEW_IS_RECURSIVE"),
        ("no_type", encoded("SELECT 'x' AS uid", ("uid", "no type")), "HIVE_INVALID_VIEW_DATA"),
        ("no_json", "/* Presto View: " + base64.b64encode(b"{").decode() + " */", "HIVE_INVALID_VIEW_DATA"),
        ("no_columns", "/* Presto View: " + base64.b64encode(json.dumps({"schema": "s"}).encode()).decode()
         + " */", "HIVE_INVALID_VIEW_DATA"),
        ("plain_sql", "SELECT uid FROM series", "HIVE_INVALID_VIEW_DATA"),
        ("machine", encoded("SELECT * FROM read_text('/etc/passwd')", UID), "INVALID_VIEW|VIEW_IS_STALE"),
    ],
)  # fmt: skip
def test_a_broken_view_fails_with_its_reason(catalog, name: str, text: str, reason: str) -> None:
    create_view(catalog, name, text, [("uid", "string")])
    complaint = failure(catalog, f"TABLE {name}")
    assert re.match(reason, complaint), complaint
    # Others are not concerned.
    assert query(catalog, "SELECT count(*) FROM studies")["rows"] == [["8"]]


def test_views_need_their_marks(catalog) -> None:
    """Without a SerDe, Athena cannot read a view; without `presto_view`, it is Hive's."""
    text = encoded("SELECT patient_id AS uid FROM series", UID)
    create_view(
        catalog, "no_serde", text, [], StorageDescriptor={"Columns": [{"Name": "uid", "Type": "string"}]}
    )
    assert failure(catalog, "SELECT * FROM no_serde").startswith("HIVE_METASTORE_ERROR")
    create_view(catalog, "of_hive", text, [("uid", "string")], Parameters={})
    assert failure(catalog, "SELECT * FROM of_hive").startswith("NOT_SUPPORTED")


def test_a_view_may_read_views_and_wider_integers_fit(catalog) -> None:
    sql = "SELECT patient_id AS uid, cardinality(modalities) AS kinds FROM patients WHERE patient_id = 'ann'"
    create_view(
        catalog,
        "summary",
        encoded(sql, UID, ("kinds", "bigint")),
        [("uid", "string"), ("kinds", "bigint")],
    )
    found = query(catalog, "SELECT * FROM summary ORDER BY kinds")
    assert found["rows"] == [["ann", "1"], ["ann", "3"]]
    assert found["types"] == ["varchar", "bigint"]
