"""Types and values as Athena writes them in its results."""

from __future__ import annotations

from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any

_TYPES = {
    "BOOLEAN": "boolean",
    "TINYINT": "tinyint",
    "SMALLINT": "smallint",
    "INTEGER": "integer",
    "BIGINT": "bigint",
    "HUGEINT": "bigint",
    "UTINYINT": "smallint",
    "USMALLINT": "integer",
    "UINTEGER": "bigint",
    "UBIGINT": "bigint",
    "FLOAT": "float",
    "DOUBLE": "double",
    "DECIMAL": "decimal",
    "VARCHAR": "varchar",
    "BLOB": "varbinary",
    "DATE": "date",
    "TIME": "time",
    "TIMESTAMP": "timestamp",
    "TIMESTAMP_S": "timestamp",
    "TIMESTAMP_MS": "timestamp",
    "TIMESTAMP_NS": "timestamp",
    "TIMESTAMP WITH TIME ZONE": "timestamp with time zone",
    "JSON": "json",
    "UUID": "varchar",
    "STRUCT": "row",
    "MAP": "map",
}


def athena_type(duckdb_type: str) -> str:
    """The type of a column in ColumnInfo. sum(bigint) is DuckDB's HUGEINT and Trino's bigint."""
    if duckdb_type.endswith("]"):
        return "array"
    return _TYPES.get(duckdb_type.partition("(")[0].strip(), "varchar")


def text(value: Any) -> str | None:
    """A value in a row; None for NULL."""
    if value is None:
        return None
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return _number(value)
    if isinstance(value, datetime):
        written = value.isoformat(sep=" ", timespec="milliseconds")
        return f"{written.removesuffix('+00:00')} UTC" if value.tzinfo else written
    if isinstance(value, date | time | Decimal | int):
        return str(value)
    if isinstance(value, timedelta):
        seconds = value.seconds
        return f"{value.days} {seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}.000"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_inner(item) for item in value) + "]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_inner(key)}={_inner(item)}" for key, item in value.items()) + "}"
    if isinstance(value, bytes | bytearray):
        return bytes(value).hex(" ")
    return str(value)


def _inner(value: Any) -> str:
    written = text(value)
    return "null" if written is None else written


def _number(value: float) -> str:
    """A double as Java writes it: plain between 1e-3 and 1e7, else like 1.0E10."""
    if value != value:
        return "NaN"
    if value in (float("inf"), float("-inf")):
        return "Infinity" if value > 0 else "-Infinity"
    if value == 0 or 1e-3 <= abs(value) < 1e7:
        return repr(value) if "e" not in repr(value) else f"{value:f}"
    mantissa, _, exponent = f"{Decimal(repr(value)).normalize():E}".partition("E")
    return f"{mantissa if '.' in mantissa else mantissa + '.0'}E{int(exponent)}"
