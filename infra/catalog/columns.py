"""The catalog's columns, and what Trino and Iceberg call their types."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from infra.repository import ROOT

_IN_TRINO = {"string": "varchar", "int": "integer"}
_IN_ICEBERG = {"bigint": "long"}
"""Names that differ from Hive's, which Glue uses."""


@dataclass(frozen=True, kw_only=True)
class Column:
    """A column of a table or view."""

    name: str
    type: str
    """Hive type name, as Glue has it."""
    comment: str

    @property
    def trino_type(self) -> str:
        return _trino(self.type)


def _trino(hive: str) -> str:
    if hive.startswith("array<"):
        return f"array({_trino(hive[len('array<') : -1])})"
    if hive.startswith("map<"):
        key, value = hive[len("map<") : -1].split(",", 1)
        return f"map({_trino(key.strip())}, {_trino(value.strip())})"
    return _IN_TRINO.get(hive, hive)


def iceberg_type(hive: str, *, nested_id: int) -> str:
    """The Iceberg type; for arrays and maps, the JSON of the Iceberg specification (appendix C), in which
    elements have ids of their own.

    Args:
        hive: Hive type name.
        nested_id: Id of an array's elements or a map's keys; a map's values have the next one.
    """
    document: dict[str, Any]
    if hive.startswith("array<"):
        document = {
            "type": "list",
            "element-id": nested_id,
            "element": _primitive(hive[len("array<") : -1]),
            "element-required": False,
        }
        return json.dumps(document)
    if hive.startswith("map<"):
        key, value = hive[len("map<") : -1].split(",", 1)
        document = {
            "type": "map",
            "key-id": nested_id,
            "key": _primitive(key.strip()),
            "value-id": nested_id + 1,
            "value": _primitive(value.strip()),
            "value-required": False,
        }
        return json.dumps(document)
    return _primitive(hive)


def _primitive(hive: str) -> str:
    if hive.startswith("decimal("):
        precision, scale = hive[len("decimal(") : -1].split(",")
        return f"decimal({precision.strip()}, {scale.strip()})"
    return _IN_ICEBERG.get(hive, hive)


def _columns(content: dict[str, Any]) -> tuple[Column, ...]:
    return tuple(Column(**column) for column in content["columns"])


COLUMNS = {
    table: _columns(content)
    for table, content in json.loads(
        (ROOT / "runtime" / "functions" / "index" / "schema.json").read_text(encoding="utf-8")
    )["tables"].items()
}
"""The columns of `series` and `instances`, by table."""


def pascal(name: str) -> str:
    """`series_changes` as a logical id: `SeriesChanges`."""
    return "".join(word.capitalize() for word in name.split("_"))
