"""The synthetic archive as the objects that the index function would have written, in larger files.

The index function writes an object for each image set and table. Here one file has the rows of all image
sets of a modality, which is the same to Athena: a table is all objects below its location.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import duckdb

from benchmarks.cataloguing.attributes import attributes_of
from benchmarks.local_cloud import REPOSITORY

SCHEMA = REPOSITORY / "runtime" / "functions" / "index" / "schema.json"

_IMAGE_SET = {
    "datastore_id": "series.datastore_id",
    "image_set_id": "series.image_set_id",
    "version_id": "series.version_id",
    "is_primary": "series.is_primary",
    "created_at": "series.created_at",
    "updated_at": "series.created_at",
    "indexed_at": "series.created_at + INTERVAL 20 SECOND",
    "is_deleted": "false",
}

_FRAME_BYTES = (
    'series."rows" * series."columns"'
    " * CASE series.modality WHEN 'US' THEN 3 WHEN 'SEG' THEN 1 ELSE 2 END"
)

_SERIES = {
    **_IMAGE_SET,
    "patient_name": "'Synthetic^' || patient_id",
    "number_of_frames": "number_of_instances * frames_an_instance",
    "pixel_bytes": f"CAST(number_of_instances * frames_an_instance AS BIGINT) * {_FRAME_BYTES}",
    "pixel_spacing": "CASE WHEN spacing IS NOT NULL THEN [spacing[1], spacing[1]] END",
    "sop_class_uids": "[sop_class_uid]",
    "stored_transfer_syntax_uids": "[stored_transfer_syntax_uid]",
    "attributes": "MAP {'ReferringPhysicianName': 'Synthetic^Referrer',"
    " 'StudyTime': strftime(study_at, '%H%M%S'), 'SeriesTime': strftime(study_at, '%H%M%S'),"
    " 'PatientName': 'Synthetic^' || patient_id, 'PositionReferenceIndicator': ''}",
}
"""Columns that are not simply those of `series_headers`."""

_INSTANCES = {
    **_IMAGE_SET,
    **{
        name: f"series.{name}"
        for name in (
            *(
                "patient_id",
                "study_instance_uid",
                "study_date",
                "modality",
                "series_instance_uid",
                "image_type",
            ),
            *("slice_thickness", "sop_class_uid", "stored_transfer_syntax_uid"),
        )
    },
    "rows": 'series."rows"',
    "columns": 'series."columns"',
    "number_of_frames": "frames_an_instance",
    "pixel_spacing": _SERIES["pixel_spacing"],
    "pixel_bytes": f"frames_an_instance * {_FRAME_BYTES}",
}

_IN_DUCKDB = {"string": "VARCHAR", "timestamp": "TIMESTAMP_MS"}


def columns_of(table: str) -> dict[str, str]:
    """Hive types of the columns of `series` or `instances`, by name."""
    found = json.loads(SCHEMA.read_text(encoding="utf-8"))["tables"][table]["columns"]
    return {column["name"]: column["type"] for column in found}


def modalities(connection: duckdb.DuckDBPyConnection) -> list[str]:
    """Of the archive, sorted."""
    found = connection.execute("SELECT DISTINCT modality FROM series_headers ORDER BY 1").fetchall()
    return [str(row[0]) for row in found]


def write_catalog_files(connection: duckdb.DuckDBPyConnection, folder: Path) -> dict[str, list[Path]]:
    """Files of the change tables, by `series` and `instances`."""
    return {"series": _write_series(connection, folder), "instances": _write_instances(connection, folder)}


def _write_series(connection: duckdb.DuckDBPyConnection, folder: Path) -> list[Path]:
    path = folder / "series.parquet"
    _write(connection, _selected("series", _SERIES), "series_headers AS series", path)
    return [path]


def _write_instances(connection: duckdb.DuckDBPyConnection, folder: Path) -> list[Path]:
    paths = []
    for modality in modalities(connection):
        named = attributes_of(modality)
        keys = ", ".join(f"'{keyword}'" for keyword in named)
        values = ", ".join(named.values())
        path = folder / f"instances-{modality}.parquet"
        _write(
            connection,
            _selected("instances", {**_INSTANCES, "attributes": f"MAP([{keys}], [{values}])"}),
            "instance_headers AS instance JOIN series_headers AS series USING (number)"
            f" WHERE series.modality = '{modality}'",
            path,
        )
        paths.append(path)
    return paths


def _selected(table: str, special: Mapping[str, str]) -> str:
    columns = {**columns_of(table), "is_deleted": "boolean"}
    return ", ".join(
        f'CAST({special.get(name, f""" "{name}" """.strip())} AS {duckdb_type(kind)}) AS "{name}"'
        for name, kind in columns.items()
    )


def duckdb_type(hive: str) -> str:
    """A Hive type as DuckDB writes it."""
    if hive.startswith("array<"):
        return f"{duckdb_type(hive[len('array<') : -1])}[]"
    if hive.startswith("map<"):
        key, value = hive[len("map<") : -1].split(",", 1)
        return f"MAP({duckdb_type(key.strip())}, {duckdb_type(value.strip())})"
    return _IN_DUCKDB.get(hive, hive.upper())


def _write(connection: duckdb.DuckDBPyConnection, selected: str, source: str, path: Path) -> None:
    connection.execute(
        f"COPY (SELECT {selected} FROM {source}) TO '{path}' (FORMAT parquet, COMPRESSION zstd)"  # noqa: S608 - expressions and a path of this benchmark
    )
