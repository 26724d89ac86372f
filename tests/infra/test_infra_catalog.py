"""The catalog: tables as the function writes them, queries that run on them, and the path of an event."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import duckdb
import pytest
from embedded_documents import decoded
from infra_assembly import Assembly
from small_documents import view as view_problems

from healthimaging.catalog_rows import schema
from infra.catalog.query_workgroup import QUERIES, read_query
from infra.catalog.sql_views import SQL_VIEWS, VIEWS, SqlView
from infra.repository import ROOT
from local.athena.dialect import parse, to_duckdb

DUCKDB_TYPES = {
    "string": "VARCHAR",
    "bigint": "BIGINT",
    "int": "INTEGER",
    "double": "DOUBLE",
    "boolean": "BOOLEAN",
    "date": "DATE",
    "timestamp": "TIMESTAMP",
    "array<double>": "DOUBLE[]",
    "array<string>": "VARCHAR[]",
}


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
    """Glue tables of a kind, by name."""
    inputs = [r["Properties"]["TableInput"] for _, r in assembly.resources("AWS::Glue::Table")]
    assert {table["TableType"] for table in inputs} == {"EXTERNAL_TABLE", "VIRTUAL_VIEW"}
    return {table["Name"]: table for table in inputs if table["TableType"] == kind}


def test_the_tables_are_those_of_the_schema_file(assembly: Assembly) -> None:
    tables = declared(assembly, "EXTERNAL_TABLE")
    assert set(tables) == set(schema()["tables"])
    for name, content in schema()["tables"].items():
        descriptor = tables[name]["StorageDescriptor"]
        assert [(c["Name"], c["Type"], c["Comment"]) for c in descriptor["Columns"]] == [
            (c["name"], c["type"], c["comment"]) for c in content["columns"]
        ]
        assert json.dumps(descriptor["Location"]).endswith(f'"/{name}/"]]}}')


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
        hive = {"array(varchar)": "array<string>", "varchar": "string", "integer": "int"}
        assert [(c["name"], hive.get(c["type"], c["type"])) for c in definition["columns"]] == [
            (c["Name"], c["Type"]) for c in table["StorageDescriptor"]["Columns"]
        ]
        assert all(0 < len(c["Comment"]) <= 255 for c in table["StorageDescriptor"]["Columns"])


def test_the_crawler_looks_at_tables_only(assembly: Assembly) -> None:
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
    for table, content in schema()["tables"].items():
        columns = ", ".join(f'"{c["name"]}" {DUCKDB_TYPES[c["type"]]}' for c in content["columns"])
        database.execute(f"CREATE TABLE {table} ({columns})")
    for view in SQL_VIEWS:
        database.execute(f"CREATE VIEW {view.name} AS {to_duckdb(parse(view.sql))}")
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
    rule = dev.only("AWS::Events::Rule", stack="catalog")["Properties"]
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
    rule = dev.only("AWS::Events::Rule", stack="catalog")["Properties"]
    queues = {name.split("/")[1]: queue["Properties"] for name, queue in dev.resources("AWS::SQS::Queue")}
    (target,) = rule["Targets"]
    queue_id, dead_letters_id = (
        target["Arn"]["Fn::GetAtt"][0],
        target["DeadLetterConfig"]["Arn"]["Fn::GetAtt"][0],
    )
    queue, function = queues[queue_id], dev.only("AWS::Lambda::Function", stack="catalog")["Properties"]
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
