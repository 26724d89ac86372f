"""The smaller documents in templates: dashboards, queries, scripts, filters, settings."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from typing import Any

import jsonschema
import sqlglot
import yaml
from pydantic import TypeAdapter, ValidationError
from pyiceberg.types import IcebergType
from sqlglot.errors import SqlglotError

from infra.environment import Caller
from runtime.functions.dispatch.errors import RoutesError
from runtime.functions.dispatch.rules import read_routes

_PLACE = {
    "x": {"type": "integer", "minimum": 0, "maximum": 23},
    "y": {"type": "integer", "minimum": 0},
    "width": {"type": "integer", "minimum": 1, "maximum": 24},
    "height": {"type": "integer", "minimum": 1, "maximum": 1000},
}

_METRIC_PROPERTIES = {
    "title": {"type": "string"},
    "view": {"enum": ["timeSeries", "singleValue", "gauge", "bar", "pie", "table"]},
    "stacked": {"type": "boolean"},
    "region": {"type": "string", "pattern": "^[a-z]{2}-[a-z]+-[0-9]$"},
    "period": {"type": "integer", "minimum": 1},
    "stat": {"type": "string"},
    "metrics": {"type": "array", "minItems": 1, "items": {"type": "array", "minItems": 1}},
    "annotations": {"type": "object"},
    "yAxis": {"type": "object", "propertyNames": {"enum": ["left", "right"]}},
    "legend": {"type": "object"},
    "liveData": {"type": "boolean"},
    "setPeriodToTimeRange": {"type": "boolean"},
    "sparkline": {"type": "boolean"},
    "trend": {"type": "boolean"},
    "table": {"type": "object"},
    "timezone": {"type": "string"},
}


def _widget(type: str, properties: dict[str, Any], required: list[str]) -> dict[str, Any]:
    return {
        "type": "object",
        "required": ["type", "properties"],
        "additionalProperties": False,
        "properties": {
            **_PLACE,
            "type": {"const": type},
            "properties": {
                "type": "object",
                "properties": properties,
                "required": required,
                "additionalProperties": False,
            },
        },
    }


_TITLE = {"title": {"type": "string"}}

# https://docs.aws.amazon.com/AmazonCloudWatch/latest/APIReference/CloudWatch-Dashboard-Body-Structure.html
DASHBOARD = {
    "type": "object",
    "required": ["widgets"],
    "additionalProperties": False,
    "properties": {
        "start": {"type": "string", "pattern": "^-P"},
        "end": {"type": "string"},
        "periodOverride": {"enum": ["auto", "inherit"]},
        "variables": {"type": "array"},
        "widgets": {
            "type": "array",
            "minItems": 1,
            "maxItems": 500,
            "items": {
                "oneOf": [
                    _widget("metric", _METRIC_PROPERTIES, ["region"]),
                    _widget("text", {"markdown": {"type": "string"}, "background": {}}, ["markdown"]),
                    _widget(
                        "alarm",
                        {
                            **_TITLE,
                            "alarms": {
                                "type": "array",
                                "minItems": 1,
                                "maxItems": 100,
                                "items": {"type": "string", "pattern": "^arn:aws:cloudwatch:.*:alarm:"},
                            },
                            "sortBy": {"enum": ["default", "stateUpdatedTimestamp", "timestamp"]},
                            "states": {"type": "array"},
                        },
                        ["alarms"],
                    ),
                    _widget(
                        "log",
                        {
                            **_TITLE,
                            "region": {"type": "string"},
                            "query": {"type": "string", "pattern": "^SOURCE "},
                            "view": {"enum": ["table", "timeSeries", "bar", "pie"]},
                            "stacked": {"type": "boolean"},
                        },
                        ["region", "query"],
                    ),
                ]
            },
        },
    },
}


def dashboard(body: Any) -> Iterator[str]:
    """Problems of a CloudWatch dashboard."""
    for error in jsonschema.Draft202012Validator(DASHBOARD).iter_errors(body):
        deepest = jsonschema.exceptions.best_match([error])
        yield f"{deepest.json_path}: {deepest.message[:200]}"
        return
    occupied: list[tuple[int, int, int, int]] = []
    for widget in body["widgets"]:
        if widget["type"] == "metric":
            for metric in widget["properties"].get("metrics", []):
                yield from _metric(metric, body=widget["properties"])
        if {"x", "y", "width", "height"} <= set(widget):
            x, y, width, height = (widget[key] for key in ("x", "y", "width", "height"))
            if x + width > 24:
                yield f"a widget reaches to column {x + width} of 24"
            for left, top, wide, high in occupied:
                if x < left + wide and left < x + width and y < top + high and top < y + height:
                    yield f"widgets at ({left}, {top}) and ({x}, {y}) lie on each other"
            occupied.append((x, y, width, height))


def _metric(metric: list[Any], *, body: dict[str, Any]) -> Iterator[str]:
    names = [item for item in metric if not isinstance(item, dict)]
    options = [item for item in metric if isinstance(item, dict)]
    if len(options) > 1 or (options and metric[-1] is not options[0]):
        yield f"{json.dumps(metric)}: options stand once and at the end"
    elif not names:
        if "expression" not in options[0]:
            yield f"{json.dumps(metric)}: neither a metric nor an expression"
    elif len(names) < 2 or len(names) % 2 or not all(isinstance(name, str) and name for name in names):
        yield f"{json.dumps(metric)}: namespace, name, and pairs of dimension and value"
    elif "stat" not in (options[0] if options else {}) and "stat" not in body:
        yield f"{json.dumps(metric)}: which statistic?"


def query(statement: Any) -> Iterator[str]:
    """Problems of a query of Athena, whose engine speaks Trino's SQL."""
    try:
        parsed = sqlglot.parse(statement, read="athena")
    except SqlglotError as error:
        yield str(error)
        return
    if len(parsed) != 1 or not isinstance(parsed[0], sqlglot.exp.Query):
        yield "not one query"


def view(definition: Any) -> Iterator[str]:
    """Problems of a view of Athena (trino: ConnectorViewDefinition). Whether its SQL gives these columns,
    tests/local/test_local_athena_views.py says.
    """
    if set(definition) != {"originalSql", "catalog", "schema", "columns"}:
        yield f"keys {sorted(definition)}"
        return
    yield from query(definition["originalSql"])
    if definition["catalog"] != "awsdatacatalog":
        yield f"catalog {definition['catalog']}"
    # Athena's identifiers have no hyphens.
    if not re.fullmatch("[a-z0-9_]+", str(definition["schema"])):
        yield f"schema {definition['schema']}"
    names = [column["name"] for column in definition["columns"]]
    if not names or len(set(names)) != len(names):
        yield f"columns {names}"
    for column in definition["columns"]:
        kind = column["type"]
        if set(column) != {"name", "type"} or not re.fullmatch("[a-z0-9_]+", column["name"]):
            yield f"column {column}"
        if not re.fullmatch(f"{_SCALARS}|array\\({_SCALARS}\\)|map\\({_SCALARS}, {_SCALARS}\\)", kind):
            yield f"column {column['name']}: {kind} is no type of Trino"


_SCALARS = (
    r"(boolean|tinyint|smallint|integer|bigint|real|double|varchar|date|timestamp(\(3\))?"
    r"|decimal\([0-9]+,[0-9]+\))"
)
"""Types of Trino's that Hive knows as well, by Trino's names."""


def iceberg_type(definition: Any) -> Iterator[str]:
    """Problems of a nested type of an Iceberg column: one that pyiceberg reads and writes as it was."""
    try:
        read = TypeAdapter(IcebergType).validate_python(definition)
    except ValueError as error:
        yield str(error)
        return
    if json.loads(read.model_dump_json()) != definition:
        yield f"{definition} is read as {read}"


def script(text: Any) -> Iterator[str]:
    """Problems of a shell script."""
    if not text.startswith("#!"):
        yield "no interpreter in its first line"
    yield from _shell(text)


def _shell(text: str) -> Iterator[str]:
    done = subprocess.run(["bash", "-n"], input=text, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        yield done.stderr.strip()


def build(text: Any) -> Iterator[str]:
    """Problems of a build specification of CodeBuild
    (https://docs.aws.amazon.com/codebuild/latest/userguide/build-spec-ref.html).
    """
    specification = text if isinstance(text, dict) else yaml.safe_load(text)
    unknown = set(specification) - {
        *("version", "run-as", "env", "proxy", "batch", "phases", "reports", "artifacts", "cache")
    }
    if unknown or str(specification.get("version")) != "0.2":
        yield f"version {specification.get('version')}, keys {sorted(unknown)}"
    if not specification.get("phases"):
        yield "it does nothing"
    for name, phase in specification.get("phases", {}).items():
        if name not in ("install", "pre_build", "build", "post_build"):
            yield f"phase {name}"
        for command in phase.get("commands", []):
            yield from _shell(command) if isinstance(command, str) else [f"{command!r} is no command"]


def action(settings: Any) -> Iterator[str]:
    """Problems of the configuration of an action of CodePipeline: a map of texts, environment variables as
    JSON.
    """
    for name, value in settings.items():
        if not isinstance(value, str | bool | int):
            yield f"{name}: {value!r} is no text"
    for variable in json.loads(settings.get("EnvironmentVariables", "[]")):
        if not {"name", "value"} <= set(variable) <= {"name", "type", "value"}:
            yield f"environment variable {variable}"
        elif "secret" in variable["name"].lower() and variable.get("type", "PLAINTEXT") == "PLAINTEXT":
            yield f"environment variable {variable['name']} is readable"


def routes(content: Any) -> Iterator[str]:
    """Problems of the rules by which arriving images go to endpoints: the function itself reads them."""
    try:
        read = read_routes(json.dumps(content))
    except RoutesError as error:
        yield str(error)
        return
    if not read:
        yield "no rule"


def callers(content: Any) -> Iterator[str]:
    """Problems of the list of devices that may send (arrival/settings.py reads it)."""
    if not content:
        yield "nobody may send"
    for caller in content:
        try:
            Caller.model_validate(caller)
        except ValidationError as error:
            yield str(error)


def filter_pattern(text: Any) -> Iterator[str]:
    """Problems of a filter of JSON log lines
    (https://docs.aws.amazon.com/AmazonCloudWatch/latest/logs/FilterAndPatternSyntax.html).
    """
    comparison = (
        r"""\$(\.[A-Za-z_][\w-]*|\[\d+\]|\.\*)+\s*"""
        r"""((=|!=|>|<|>=|<=)\s*("[^"]*"|%[^%]*%|-?\d+(\.\d+)?|\*)"""
        r"""|NOT EXISTS|EXISTS|IS (NOT )?(NULL|TRUE|FALSE))"""
    )
    rest = str(text).strip()
    if not (rest.startswith("{") and rest.endswith("}")):
        yield f"{rest}: not of the form {{ comparison }}"
        return
    rest = re.sub(comparison, "C", rest[1:-1])
    before = ""
    while rest != before:
        before = rest
        rest = re.sub(r"\(\s*C\s*\)|C\s*(&&|\|\|)\s*C", "C", rest.strip())
    if rest != "C":
        yield f"{text}: not comparisons joined by && and ||"


def crawler(settings: Any) -> Iterator[str]:
    """Problems of a crawler's configuration
    (https://docs.aws.amazon.com/glue/latest/dg/crawler-configuration.html).
    """
    unknown = set(settings) - {"Version", "CrawlerOutput", "Grouping", "CreatePartitionIndex"}
    if unknown or settings.get("Version") != 1.0:
        yield f"version {settings.get('Version')}, keys {sorted(unknown)}"
    grouping = settings.get("Grouping", {})
    if set(grouping) - {"TableGroupingPolicy", "TableLevelConfiguration"}:
        yield f"grouping {sorted(grouping)}"
    if grouping.get("TableGroupingPolicy", "CombineCompatibleSchemas") != "CombineCompatibleSchemas":
        yield f"grouping {grouping['TableGroupingPolicy']}"


def texts(settings: Any) -> Iterator[str]:
    """Problems of a map of texts: environment variables, tags, parameters of a table."""
    for name, value in settings.items():
        if not isinstance(value, str):
            yield f"{name}: {value!r} is no text"
        elif value.lstrip()[:1] in ("{", "["):
            try:
                json.loads(value)
            except ValueError as error:
                yield f"{name}: {error}"


def redrive(document: Any) -> Iterator[str]:
    """Problems of a subscription's redrive policy
    (https://docs.aws.amazon.com/sns/latest/dg/sns-configure-dead-letter-queue.html): one queue.
    """
    if set(document) != {"deadLetterTargetArn"}:
        yield f"{sorted(document)}: only deadLetterTargetArn"
    elif not str(document["deadLetterTargetArn"]).startswith("arn:aws:sqs:"):
        yield f"{document['deadLetterTargetArn']!r} is no queue"
