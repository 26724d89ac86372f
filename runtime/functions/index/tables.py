"""Catalog rows as Parquet. The only place that needs pyarrow."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.parquet as pq

from healthimaging.catalog_rows import TABLES, Row

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
    """The Arrow type of a Glue type name, for example of `array<double>`."""
    if glue_type.startswith("array<") and glue_type.endswith(">"):
        return pa.list_(arrow_type(glue_type[len("array<") : -1]))
    return _SCALARS[glue_type]


def arrow_schema(table: str) -> pa.Schema:
    """The Arrow schema of a catalog table."""
    return pa.schema([(column.name, arrow_type(column.type)) for column in TABLES[table]])


def parquet(table: str, rows: list[Row]) -> bytes:
    """The rows as one Parquet file.

    Raises:
        pyarrow.ArrowInvalid: A value does not have its column's type.
    """
    sink = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist(rows, schema=arrow_schema(table)), sink, compression="zstd")
    data: bytes = sink.getvalue().to_pybytes()
    return data
