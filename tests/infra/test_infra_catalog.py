"""The catalog: tables as the function writes them, queries that run on them, and the path of an event."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import duckdb
import pytest
from embedded_documents import decoded
from infra_assembly import Assembly
from pyiceberg.schema import Schema
from pyiceberg.types import IcebergType, ListType, MapType
from small_documents import view as view_problems
from sqlglot import exp

from healthimaging.catalog.columns import schema
from infra.catalog.columns import COLUMNS
from infra.catalog.query_workgroup import QUERIES, read_query
from infra.catalog.sql_views import SQL_VIEWS, VIEWS, SqlView
from infra.catalog.tables import CHANGE_TABLES
from infra.repository import ROOT
from local.athena.dialect import parse, to_duckdb


def duckdb_type(hive: str) -> str:
    """DuckDB's name of a Hive type."""
    if hive.startswith("array<"):
        return f"{duckdb_type(hive[len('array<') : -1])}[]"
    if hive.startswith("map<"):
        return f"MAP({', '.join(duckdb_type(part) for part in hive[len('map<') : -1].split(','))})"
    return {"string": "VARCHAR"}.get(hive, hive)


def hive_type(trino: str) -> str:
    """What Glue calls a type of Trino's."""
    for name in ("array", "map"):
        if trino.startswith(f"{name}("):
            return f"{name}<{','.join(hive_type(part) for part in trino[len(name) + 1 : -1].split(', '))}>"
    return {"varchar": "string", "integer": "int"}.get(trino, trino)


def catalog_tables(database: duckdb.DuckDBPyConnection) -> None:
    """The physical tables, empty, and the views over them."""
    for table, columns in COLUMNS.items():
        declared = ", ".join(f'"{column.name}" {duckdb_type(column.type)}' for column in columns)
        database.execute(f"CREATE TABLE {CHANGE_TABLES[table]} ({declared}, is_deleted BOOLEAN)")
        database.execute(f"CREATE TABLE compacted_{table} ({declared})")
    for view in SQL_VIEWS:
        database.execute(f"CREATE VIEW {view.name} AS {to_duckdb(parse(view.sql))}")


def matches(pattern: dict[str, Any], event: dict[str, Any]) -> bool:
    """EventBridge's exact matching: every key of the pattern, one of its values."""
    return all(
        matches(wanted, event.get(key, {})) if isinstance(wanted, dict) else event.get(key) in wanted
        for key, wanted in pattern.items()
    )


def test_the_schema_file_is_what_the_function_writes() -> None:
    written = json.loads((ROOT / "runtime/functions/index/schema.json").read_text(encoding="utf-8"))
    assert written == schema()


def declared(assembly: Assembly, kind: str) -> dict[str, Any]:
    """Glue tables of a kind, by name, the Iceberg tables left out."""
    tables = [r["Properties"] for _, r in assembly.resources("AWS::Glue::Table")]
    inputs = [table["TableInput"] for table in tables if "TableInput" in table]
    assert {table["TableType"] for table in inputs} == {"EXTERNAL_TABLE", "VIRTUAL_VIEW"}
    return {table["Name"]: table for table in inputs if table["TableType"] == kind}


def test_the_tables_are_those_of_the_schema_file(assembly: Assembly) -> None:
    tables = declared(assembly, "EXTERNAL_TABLE")
    assert set(tables) == {"series_changes", "instance_changes"}
    for name, content in schema()["tables"].items():
        descriptor = tables[CHANGE_TABLES[name]]["StorageDescriptor"]
        *columns, last = descriptor["Columns"]
        assert [(c["Name"], c["Type"], c["Comment"]) for c in columns] == [
            (c["name"], c["type"], c["comment"]) for c in content["columns"]
        ]
        assert (last["Name"], last["Type"]) == ("is_deleted", "boolean")
        assert json.dumps(descriptor["Location"]).endswith(f'"/changes/{name}/"]]}}')


def test_the_compacted_tables_are_iceberg_as_pyiceberg_reads_it(assembly: Assembly) -> None:
    """The same columns and types, no id twice, and partitions by what usual queries say first."""
    properties = [r["Properties"] for _, r in assembly.resources("AWS::Glue::Table")]
    tables = {table["Name"]: table for table in properties if "OpenTableFormatInput" in table}
    assert set(tables) == {"compacted_series", "compacted_instances"}
    for name, columns in COLUMNS.items():
        # With a TableInput beside it, an update of the template takes the format away.
        assert "TableInput" not in tables[f"compacted_{name}"]
        iceberg = tables[f"compacted_{name}"]["OpenTableFormatInput"]["IcebergInput"]
        assert (iceberg["MetadataOperation"], iceberg["Version"]) == ("CREATE", "2")
        made = iceberg["IcebergTableInput"]
        assert json.dumps(made["Location"]).endswith(f'"/compacted/{name}"]]}}')
        fields = [
            {
                "id": one["Id"],
                "name": one["Name"],
                "required": one["Required"],
                "type": json.loads(one["Type"]) if one["Type"].startswith("{") else one["Type"],
                "doc": one["Doc"],
            }
            for one in made["Schema"]["Fields"]
        ]
        read = Schema.model_validate({"type": "struct", "fields": fields, "schema-id": 0})
        assert [(one.name, iceberg_as_hive(one.field_type)) for one in read.fields] == [
            (column.name, column.type) for column in columns
        ]
        assert len(read.field_ids) == len(fields) + sum(
            {"array": 1, "map": 2}.get(column.type.partition("<")[0], 0) for column in columns
        )
        partitions = {
            (read.find_column_name(one["SourceId"]), one["Transform"])
            for one in made["PartitionSpec"]["Fields"]
        }
        assert partitions == {("modality", "identity"), ("study_date", "year")}


def iceberg_as_hive(kind: IcebergType) -> str:
    """What Glue calls a type of Iceberg's."""
    if isinstance(kind, ListType):
        return f"array<{iceberg_as_hive(kind.element_type)}>"
    if isinstance(kind, MapType):
        return f"map<{iceberg_as_hive(kind.key_type)},{iceberg_as_hive(kind.value_type)}>"
    return {"long": "bigint"}.get(str(kind), str(kind).replace(" ", ""))


@pytest.mark.parametrize("name", ["series", "instances"])
def test_a_view_has_the_columns_of_its_table_by_name_and_type(name: str) -> None:
    """Both branches of its UNION take columns by place: one list that is out of order would mix them up."""
    database = duckdb.connect()
    catalog_tables(database)
    described = database.execute(f"DESCRIBE {name}").fetchall()
    assert [column[0] for column in described] == [column.name for column in COLUMNS[name]]
    *wanted, _ = database.execute(f"DESCRIBE {CHANGE_TABLES[name]}").fetchall()
    found = [column[1].replace("TIMESTAMP_MS", "TIMESTAMP") for column in described]
    assert found == [column[1] for column in wanted]
    union = parse((VIEWS / f"{name}.sql").read_text(encoding="utf-8")).find(exp.Union)
    assert union is not None
    one, other = union.this.selects, union.expression.selects
    assert [column.alias_or_name for column in one] == [column.alias_or_name for column in other]


def test_the_views_are_what_athena_itself_writes(assembly: Assembly) -> None:
    """The form that CREATE VIEW leaves in Glue, SerDe included: Athena reads no view that lacks it."""
    views = declared(assembly, "VIRTUAL_VIEW")
    assert set(views) == {view.name for view in SQL_VIEWS} == {path.stem for path in VIEWS.glob("*.sql")}
    database = assembly.only("AWS::Glue::Database")["Properties"]["DatabaseInput"]["Name"]
    for view in SQL_VIEWS:
        table = views[view.name]
        assert table["Parameters"] == {"presto_view": "true", "comment": "Presto View"}
        assert table["ViewExpandedText"] == "/* Presto View */"
        assert set(table["StorageDescriptor"]) == {"Columns", "SerdeInfo"}
        assert table["StorageDescriptor"]["SerdeInfo"]
        assert 0 < len(table["Description"]) <= 2048  # Glue's limit
        definition = decoded(table["ViewOriginalText"])
        assert (definition["originalSql"], definition["schema"]) == (view.sql, database)
        assert [(c["name"], hive_type(c["type"])) for c in definition["columns"]] == [
            (c["Name"], c["Type"]) for c in table["StorageDescriptor"]["Columns"]
        ]
        assert all(0 < len(c["Comment"]) <= 255 for c in table["StorageDescriptor"]["Columns"])


def test_the_crawler_looks_at_the_tables_of_changes_only(assembly: Assembly) -> None:
    (target,) = assembly.only("AWS::Glue::Crawler")["Properties"]["Targets"]["CatalogTargets"]
    assert set(target["Tables"]) == set(declared(assembly, "EXTERNAL_TABLE"))


@pytest.mark.parametrize("view", SQL_VIEWS, ids=lambda view: view.name)
@pytest.mark.parametrize(
    "change",
    [
        {"originalSql": "SELEC"},
        {"catalog": "hive"},
        {"schema": "monai-dev"},
        {"columns": []},
        {"columns": [{"name": "a", "type": "string"}]},
        {"columns": [{"name": "a", "type": "array<varchar>"}]},
        {"columns": [{"name": "a", "type": "date"}, {"name": "a", "type": "date"}]},
        {"columns": [{"name": "a-b", "type": "date"}]},
        {"owner": "somebody"},
    ],
    ids=str,
)
def test_a_wrong_view_definition_is_noticed(view: SqlView, change: dict[str, Any]) -> None:
    definition = view.definition("monai_dev")
    assert not list(view_problems(definition))
    assert list(view_problems(definition | change))


@pytest.mark.parametrize("path", sorted(QUERIES.glob("*.sql")), ids=lambda path: path.stem)
def test_named_queries_run_on_the_tables(path: Path) -> None:
    title, statement = read_query(path)
    assert len(title) <= 1024  # Athena's limit of a description
    database = duckdb.connect()
    catalog_tables(database)
    assert database.execute(to_duckdb(parse(statement))).fetchall() == []


def test_every_query_is_deployed(assembly: Assembly) -> None:
    deployed = {r["Properties"]["QueryString"] for _, r in assembly.resources("AWS::Athena::NamedQuery")}
    assert deployed == {read_query(path)[1] for path in QUERIES.glob("*.sql")}


def test_no_client_can_escape_the_workgroup(assembly: Assembly) -> None:
    configuration = assembly.only("AWS::Athena::WorkGroup")["Properties"]["WorkGroupConfiguration"]
    assert configuration["EnforceWorkGroupConfiguration"] is True
    assert configuration["ResultConfiguration"]["EncryptionConfiguration"]["EncryptionOption"] == "SSE_KMS"
    assert configuration["BytesScannedCutoffPerQuery"] >= 10 * 2**20  # Athena's minimum


@pytest.mark.parametrize(
    ("detail_type", "datastore", "source", "taken"),
    [
        ("Image Set Created", "here", "aws.medical-imaging", True),
        ("Image Set Copied", "here", "aws.medical-imaging", True),
        ("Image Set Updated", "here", "aws.medical-imaging", True),
        ("Image Set Deleted", "here", "aws.medical-imaging", True),
        ("Image Set Updating", "here", "aws.medical-imaging", False),
        ("Import Job Completed", "here", "aws.medical-imaging", False),
        ("Image Set Created", "elsewhere", "aws.medical-imaging", False),
        ("Image Set Created", "here", "somebody.else", False),
    ],
)
def test_events_that_reach_the_queue(
    dev: Assembly, detail_type: str, datastore: str, source: str, taken: bool
) -> None:
    rule = dev.only("AWS::Events::Rule", stack="catalog/Index")["Properties"]
    (reference,) = rule["EventPattern"]["detail"]["datastoreId"]
    assert "DatastoreId" in reference["Fn::ImportValue"]
    pattern = rule["EventPattern"] | {"detail": {"datastoreId": ["here"]}}
    event = {
        "source": source,
        "detail-type": detail_type,
        "detail": {"datastoreId": datastore, "imagesetId": "1"},
    }
    assert matches(pattern, event) is taken


def test_an_event_is_never_lost_on_its_way(dev: Assembly) -> None:
    rule = dev.only("AWS::Events::Rule", stack="catalog/Index")["Properties"]
    queues = {name.split("/")[1]: queue["Properties"] for name, queue in dev.resources("AWS::SQS::Queue")}
    (target,) = rule["Targets"]
    queue_id, dead_letters_id = (
        target["Arn"]["Fn::GetAtt"][0],
        target["DeadLetterConfig"]["Arn"]["Fn::GetAtt"][0],
    )
    queue, function = queues[queue_id], dev.only("AWS::Lambda::Function", stack="catalog/Index")["Properties"]
    assert queue["RedrivePolicy"]["deadLetterTargetArn"] == {"Fn::GetAtt": [dead_letters_id, "Arn"]}
    assert queue["VisibilityTimeout"] >= 6 * function["Timeout"]
    assert queues[dead_letters_id]["MessageRetentionPeriod"] > queue["MessageRetentionPeriod"]
    mapping = dev.only("AWS::Lambda::EventSourceMapping", stack="catalog")["Properties"]
    assert mapping["EventSourceArn"] == target["Arn"]
    assert mapping["FunctionResponseTypes"] == ["ReportBatchItemFailures"]
    policies = [
        (name, policy)
        for name, policy in dev.resources("AWS::SQS::QueuePolicy")
        if name.startswith("catalog")
    ]
    assert len(policies) == 2
    for name, policy in policies:
        (allowed,) = [
            s for s in policy["Properties"]["PolicyDocument"]["Statement"] if s["Effect"] == "Allow"
        ]
        assert allowed["Principal"] == {"Service": "events.amazonaws.com"}, name
        assert allowed["Condition"]["ArnEquals"]["aws:SourceArn"]["Fn::GetAtt"][0].startswith(
            "IndexImageSetChanged"
        )
