"""Catalog rows as Parquet. The only place that needs pyarrow."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.parquet as pq

from healthimaging.catalog.columns import TABLES
from healthimaging.catalog.rows import Row

IS_DELETED = "is_deleted"
"""Of a change: the image set has no such rows from this version on."""

_SCALARS = {
    "string": pa.string(),
    "boolean": pa.bool_(),
    "int": pa.int32(),
    "bigint": pa.int64(),
    "double": pa.float64(),
    "date": pa.date32(),
    # Athena reads Parquet timestamps with millisecond precision; finer ones are an error in some engine
    # versions.
    "timestamp": pa.timestamp("ms"),
}


def arrow_type(glue_type: str) -> pa.DataType:
    """The Arrow type of a Glue type name, for example of `array<double>` or `decimal(16,6)`."""
    if glue_type.startswith("array<") and glue_type.endswith(">"):
        return pa.list_(arrow_type(glue_type[len("array<") : -1]))
    if glue_type.startswith("map<") and glue_type.endswith(">"):
        key, _, value = glue_type[len("map<") : -1].partition(",")
        return pa.map_(arrow_type(key), arrow_type(value))
    if glue_type.startswith("decimal(") and glue_type.endswith(")"):
        precision, _, scale = glue_type[len("decimal(") : -1].partition(",")
        return pa.decimal128(int(precision), int(scale))
    return _SCALARS[glue_type]


def arrow_schema(table: str) -> pa.Schema:
    """The Arrow schema of a change table: the columns of `series` or `instances`, and `is_deleted`."""
    fields = [(column.name, arrow_type(column.type)) for column in TABLES[table]]
    return pa.schema([*fields, (IS_DELETED, pa.bool_())])


def parquet(table: str, rows: list[Row]) -> bytes:
    """Rows of `series` or `instances` as one Parquet file of the table's changes.

    Raises:
        pyarrow.ArrowInvalid: A value does not have its column's type.
    """
    schema = arrow_schema(table)
    columns = {
        field.name: pa.array([_arrow_value(row.get(field.name)) for row in rows], type=field.type)
        for field in schema
    }
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table(columns, schema=schema), sink, compression="zstd")
    data: bytes = sink.getvalue().to_pybytes()
    return data


def _arrow_value(value: object) -> object:
    """As Arrow takes it: maps as their pairs, texts as UTF-8.

    JSON can spell half a surrogate pair, which no encoding has: one becomes a question mark, so that a
    damaged header field does not keep the study out of the catalog.
    """
    match value:
        case str():
            return value if value.isascii() else value.encode("utf-8", "replace").decode("utf-8")
        case list():
            return [_arrow_value(one) for one in value]
        case dict():
            return [(_arrow_value(key), _arrow_value(one)) for key, one in value.items()]
        case _:
            return value
