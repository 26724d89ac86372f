"""The headers of an archive that does not exist: as many instances as wanted, in DuckDB.

Studies of several series over eight years, of the modalities and sizes that hospitals have: most instances
are CT and MR. Everything is a function of a row's number, so two runs make the same archive. What is seldom
in an archive is seldom here: image sets in conflict, series that are there twice, missing slices, attributes
without a value.

Tables: `series_headers`, one row a series and image set, and `instance_headers`, one row an instance. Their
columns are values of DICOM attributes, named by keyword in snake case, of the types of the catalog.
"""

from __future__ import annotations

from datetime import date
from pathlib import Path

import duckdb

INSTANCES_A_SERIES = 200
"""On average: 5,000 series for a million instances."""
DATASTORE_ID = "syntheticarchive0000000000000001"
FIRST_DAY = date(2018, 1, 1)
DAYS = 8 * 365
"""Of the studies."""

_SQL = Path(__file__).with_suffix(".sql")


def make_archive(connection: duckdb.DuckDBPyConnection, *, instances: int) -> int:
    """Make the two tables, with exactly so many instances; the number of series."""
    series = max(3, instances // INSTANCES_A_SERIES)
    variables = {
        "series": series,
        "patients": max(1, series // 7),
        "first_day": FIRST_DAY,
        "days": DAYS,
        "datastore_id": DATASTORE_ID,
        "instances": instances,
    }
    for name, value in variables.items():
        connection.execute(f"SET VARIABLE {name} = $1", [value])
    connection.execute(_SQL.read_text(encoding="utf-8"))
    return series
