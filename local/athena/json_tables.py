"""Tables of JSON documents: text stays the text that it is until the catalog's type says otherwise.

DuckDB guesses types from what a text looks like. Of an identifier in capitals it would make a UUID, and give
it back in small letters; of `2020-01-02T03:04:05Z` a moment, written otherwise. Athena's SerDe reads the
declared type (https://docs.aws.amazon.com/athena/latest/ug/parsing-json-data.html).
"""

from __future__ import annotations

import re
from collections.abc import Collection

import duckdb

_READS = "read_json_auto("

_GUESSED = re.compile(
    r'("(?:[^"]|"")*")|\b(?:UUID|DATE|(?:TIMESTAMP(?:_NS|_MS|_S)?|TIME)(?: WITH TIME ZONE)?)(?=[,)\[]|$)'
)
"""A quoted name, which is kept, or a type that a text only looks like. A field may be called like a type;
after its name there is a space.
"""


def is_json(source: str) -> bool:
    """Whether DuckDB's expression reads JSON documents and guesses their types."""
    return source.startswith(_READS)


def reading_text(connection: duckdb.DuckDBPyConnection, source: str, *, partitions: Collection[str]) -> str:
    """The expression for the same documents, with every text as text.

    Args:
        connection: Finds the names and the structure, which the documents alone know.
        source: An expression of which `is_json` is true.
        partitions: Columns that come from the paths, in lower case.
    """
    found = [
        (str(name), str(kind))
        for name, kind, *_ in connection.execute(f"DESCRIBE FROM {source}").fetchall()
        if str(name).lower() not in partitions
    ]
    if not found:
        return source
    columns = ", ".join(f"{_literal(name)}: {_literal(_as_text(kind))}" for name, kind in found)
    return f"read_json({source[len(_READS) : -1]}, columns = {{{columns}}})"


def _as_text(kind: str) -> str:
    return _GUESSED.sub(lambda match: match.group(1) or "VARCHAR", kind)


def _literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
