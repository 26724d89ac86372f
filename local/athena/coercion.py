"""Which values an INSERT puts into which columns, as Trino does it: a wider type takes a narrower one, and
text never becomes a number or a date by itself (io.trino.type.TypeCoercion).
"""

from __future__ import annotations

from collections.abc import Sequence

from local.athena.dialect import QueryError

_FAMILIES = {
    "TINYINT": "integer",
    "SMALLINT": "integer",
    "INT": "integer",
    "INTEGER": "integer",
    "BIGINT": "integer",
    "HUGEINT": "integer",
    "DECIMAL": "decimal",
    "FLOAT": "real",
    "REAL": "real",
    "DOUBLE": "real",
    "VARCHAR": "text",
    "TEXT": "text",
    "DATE": "date",
    "TIMESTAMP": "timestamp",
    "TIMESTAMP_S": "timestamp",
    "TIMESTAMP_MS": "timestamp",
    "TIMESTAMP_NS": "timestamp",
}
_TAKES = {
    "integer": ("integer",),
    "decimal": ("integer", "decimal"),
    "real": ("integer", "decimal", "real"),
    "text": ("text",),
    "date": ("date",),
    "timestamp": ("date", "timestamp"),
}


def must_fit(given: Sequence[str], wanted: Sequence[str]) -> None:
    """Raise `QueryError` unless values of the given types (DuckDB's names) fit columns of the wanted ones."""
    if len(given) != len(wanted) or any(not _fits(*pair) for pair in zip(given, wanted, strict=True)):
        raise QueryError(
            "TYPE_MISMATCH: Insert query has mismatched column types: Table:"
            f" [{', '.join(wanted).lower()}], Query: [{', '.join(given).lower()}]"
        )


def _fits(given: str, wanted: str) -> bool:
    if given.upper() in ('"NULL"', "NULL", wanted.upper()):
        return True
    if given.endswith("[]") and wanted.endswith("[]"):
        return _fits(given[:-2], wanted[:-2])
    if given.startswith("MAP(") and wanted.startswith("MAP("):
        # Nested types of maps are cast; DuckDB refuses what cannot be.
        return True
    return _family(given) in _TAKES.get(_family(wanted), (_family(wanted),))


def _family(kind: str) -> str:
    name = kind.partition("(")[0].upper()
    return _FAMILIES.get(name, name)
