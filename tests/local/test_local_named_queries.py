"""The twenty named queries on a catalog of known content: for each what it must find, and near misses.

They run as the local Athena runs them: Trino SQL, translated, on DuckDB, over the product's own views.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pytest
import sqlglot
from cloud_under_test import REPOSITORY

from healthimaging.catalog.columns import TABLES
from infra.catalog.query_workgroup import read_query
from infra.catalog.sql_views import PATIENTS, STUDIES
from local.athena import dialect
from runtime.functions.index.tables import arrow_type

QUERIES = sorted((REPOSITORY / "infra" / "catalog" / "queries").glob("*.sql"))
NOW = datetime.now(UTC).replace(tzinfo=None, microsecond=0)

ABDOMEN = {
    "modality": "CT",
    "study_date": date(2023, 5, 1),
    "body_part_examined": "ABDOMEN",
    "contrast_bolus_agent": "ULTRAVIST",
    "slice_thickness": Decimal("1.25"),
    "number_of_instances": 120,
    "manufacturer": "ACME",
    "manufacturer_model_name": "Scan",
    "station_name": "CT1",
    "software_versions": ["1", "2"],
    "protocol_name": "Liver",
    "convolution_kernel": ["B30f"],
    "kvp": Decimal(120),
    "pixel_bytes": 1_500_000_000,
    "number_of_frames": 120,
    "patient_sex": "F",
    "patient_age_years": 61.0,
}


SECOND = {"patient_id": "P2", "study_instance_uid": "2"}
FEW = {"number_of_instances": 3, "number_of_frames": 3, "pixel_bytes": 0}
T2 = {
    "modality": "MR",
    "patient_id": "P1",
    "study_instance_uid": "3",
    "study_date": date(2024, 6, 2),
    "magnetic_field_strength": Decimal(3),
    "scanning_sequence": ["SE"],
    "sequence_name": "tse",
    "echo_time": Decimal(90),
    "repetition_time": Decimal(4000),
    "patient_sex": "F",
    "patient_birth_date": date(1950, 1, 1),
}
UNSAID = {"patient_id": "P5", "study_instance_uid": "5", "is_primary": None}
DIFFERING = {"modality": "CT", "patient_id": "P6", "study_instance_uid": "6"}


def series(uid: str, **values: Any) -> dict[str, Any]:
    row = {
        "datastore_id": "d",
        "image_set_id": f"i{uid}",
        "version_id": 1,
        "is_primary": True,
        "created_at": NOW - timedelta(days=30),
        "patient_id": "P1",
        "study_instance_uid": "1",
        "series_instance_uid": uid,
        "number_of_instances": 1,
        "number_of_frames": 1,
        "sop_class_uids": [],
        "referenced_series_instance_uids": [],
    }
    return row | values


SERIES = [
    series("1.1", **ABDOMEN),
    series(
        "1.2", modality="SEG", referenced_series_instance_uids=["1.1"], study_date=date(2023, 5, 1),
        manufacturer="MONAI",
    ),
    # Of the same study and made by a program, but no image series.
    series("1.3", modality="SR", number_of_frames=0, manufacturer="MONAI"),
    # Each misses by one thing: year, contrast, thickness, body part.
    series("2.1", **(ABDOMEN | SECOND | {"study_date": date(2024, 5, 1)})),
    series("2.2", **(ABDOMEN | SECOND | {"contrast_bolus_agent": None})),
    series("2.3", **(ABDOMEN | SECOND | {"slice_thickness": Decimal("2.6")})),
    series("2.4", **(ABDOMEN | SECOND | {"body_part_examined": "HEAD"})),
    # A part of it that came apart: one series in two image sets.
    series("2.4", **(ABDOMEN | SECOND | {"body_part_examined": "HEAD", "image_set_id": "part"} | FEW)),
    series("3.1", **T2, number_of_instances=40),
    series("3.1", **(T2 | {"image_set_id": "rest"}), number_of_instances=2),
    # In conflict: a copy, of another month and person.
    series(
        "3.1", image_set_id="copy", is_primary=False, modality="MR", study_instance_uid="3", patient_sex="M",
        study_date=date(2024, 7, 2),
    ),
    series(
        "4.1", modality="US", patient_id="P3", study_instance_uid="4", created_at=NOW - timedelta(hours=2)
    ),
    # A second series of the same image set.
    series("4.3", image_set_id="i4.1", modality="US", patient_id="P3", study_instance_uid="4"),
    series(
        "4.2", modality="CT", patient_id="P3", study_instance_uid="4", image_type=["DERIVED", "SECONDARY"],
        burned_in_annotation="NO", study_date=date(2022, 1, 1),
    ),
    # The data store does not say whether they are primary, which only conflicts are not.
    series("5.1", **UNSAID, modality="MR"),
    series("5.2", **UNSAID, modality="SEG", referenced_series_instance_uids=["5.1"]),
    # CT that differs in its image types: a dose report among the slices, and one that is only like it.
    series("6.1", **DIFFERING, sop_class_uids=["1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.5.1.4.1.1.7"]),
    series("6.2", **DIFFERING, sop_class_uids=["1.2.840.10008.5.1.4.1.1.77.1.5.1"]),
    # One instance with all slices, and many that have lost their pixels.
    series("6.3", **DIFFERING, slice_thickness=Decimal(1), number_of_frames=64),
    series(
        "6.4", **DIFFERING, slice_thickness=Decimal(1), number_of_frames=0, number_of_instances=64,
        body_part_examined="ABDOMEN", contrast_bolus_agent="ULTRAVIST", study_date=date(2023, 6, 1),
    ),
]  # fmt: skip


def slices(uid: str, positions: list[float | None], **values: Any) -> list[dict[str, Any]]:
    return [
        {
            "datastore_id": "d",
            "image_set_id": f"i{uid}",
            "version_id": 1,
            "is_primary": True,
            "modality": "CT",
            "series_instance_uid": uid,
            "sop_instance_uid": f"{uid}.{number}",
            "slice_position": position,
            "image_position_patient": None if position is None else [0.0, 0.0, position],
            # As scanners write it: the last digits differ from slice to slice.
            "image_orientation_patient": None
            if position is None
            else [1.0, 0.0, 1e-7 * (-1) ** number, 0.0, 1.0, 0.0],
            "pixel_spacing": [0.7, 0.7],
            "number_of_frames": 1,
        }
        | values
        for number, position in enumerate(positions)
    ]


INSTANCES = [
    *slices("1.1", [0.0, 2.5, 5.0, 10.0, 12.5, 15.0, 25.0]),  # one and three are missing
    *slices("2.1", [0.0, 2.5, 5.0, 7.6, 10.0]),  # complete
    *slices("2.2", [0.0, 50.0]),  # too few to say
    *slices("4.2", [None, None]),
    # A localizer in two planes, each complete: 10 mm and 2 mm apart.
    *slices("5.1", [0.0, 10.0, 20.0, 30.0], modality="MR"),
    *slices(
        "5.1",
        [0.0, 2.0, 4.0, 6.0, 8.0, 10.0],
        modality="MR",
        image_orientation_patient=[0.0, 1.0, 0.0, 0.0, 0.0, -1.0],
    ),
]

FOUND: dict[str, list[tuple[Any, ...]]] = {
    "arrived_since_yesterday": [("i4.1",)],
    "burned_in_risk": [("i6.1",), ("i4.1",), ("i4.1",)],
    "cohort_by_age_and_sex": [
        ("CT", "F", 60, 2, 2),
        ("CT", None, None, 2, 2),
        ("MR", "F", 70, 1, 1),
        ("MR", None, None, 1, 1),
        ("US", None, None, 1, 1),
    ],
    "ct_protocols": [
        ("Liver", "B30f", 120, Decimal("1.25"), 4),
        (None, None, None, None, 3),
        (None, None, None, 1, 2),
        ("Liver", "B30f", 120, Decimal("2.6"), 1),
    ],
    "ct_series_for_training": [("i1.1",), ("i2.1",), ("i2.2",), ("i2.3",), ("i2.4",), ("i6.3",)],
    "image_sets_in_conflict": [("copy",)],
    "missing_slices": [("i1.1", "1.1", 7, 2.5, 2, 10.0, 4)],
    "mr_sequences": [(3, "SE", "tse", 90, 4000, 1), (None, None, None, None, None, 1)],
    "not_for_volumes": [("i4.2", 2, 2, 2, 0, 0)],
    "patients_to_check": [("P1",)],
    "patients_with_ct_and_mr": [("P1",)],
    "scanners": [("ACME", "Scan", "CT1", "1, 2", "CT", 5)],
    "segmented_studies": [("1", "P1", 1, 1), ("5", "P5", 1, 1)],
    "series_in_several_image_sets": [("3.1", "MR", 3, 2, 43), ("2.4", "CT", 2, 2, 123)],
    "series_without_segmentation": [
        (uid,) for uid in ("2.1", "2.2", "2.3", "2.4", "2.4", "3.1", "3.1", "4.2", "6.1", "6.2", "6.3", "6.4")
    ],
    "storage_by_modality": [
        ("CT", 11, 671, 670, 7.5, 4),
        ("MR", 4, 44, 4, 0.0, 4),
        ("SEG", 2, 2, 2, 0.0, 2),
        ("SR", 1, 1, 0, 0.0, 0),
        ("US", 1, 2, 2, 0.0, 2),
    ],
    "studies_by_modality": [
        ("CT", 4, 10, 671),
        ("MR", 2, 2, 43),
        ("SEG", 2, 2, 2),
        ("SR", 1, 1, 1),
        ("US", 1, 2, 2),
    ],
    "studies_by_month": [
        (date(2024, 6, 1), "MR", 1, 1),
        (date(2024, 5, 1), "CT", 1, 1),
        (date(2023, 6, 1), "CT", 1, 1),
        (date(2023, 5, 1), "CT", 2, 4),
        (date(2023, 5, 1), "SEG", 1, 1),
        (date(2022, 1, 1), "CT", 1, 1),
    ],
    "studies_without_segmentation": [("2",), ("3",), ("4",), ("6",)],
    "thin_abdominal_ct_with_contrast": [("i1.1",)],
}
"""What each query finds: the columns that `SHOWN` names, or the first ones."""

SHOWN: dict[str, list[str]] = {
    "arrived_since_yesterday": ["image_set_id"],
    "ct_series_for_training": ["image_set_id"],
    "not_for_volumes": ["image_set_id", "instances", "without_orientation", "without_position",
                        "without_spacing", "without_pixels"],
    "patients_to_check": ["patient_id"],
    "series_without_segmentation": ["series_instance_uid"],
    "thin_abdominal_ct_with_contrast": ["image_set_id"],
}  # fmt: skip

UNORDERED = {"studies_without_segmentation", "ct_series_for_training",
             "series_without_segmentation"}  # fmt: skip
"""Their order is by something that this catalog leaves open."""


@pytest.fixture(scope="module")
def catalog() -> Iterator[duckdb.DuckDBPyConnection]:
    types = {column.name: column.type for columns in TABLES.values() for column in columns}
    with duckdb.connect() as connection:
        for table, rows in (("series", SERIES), ("instances", INSTANCES)):
            columns = {
                column.name: pa.array([row.get(column.name) for row in rows], type=arrow_type(column.type))
                for column in TABLES[table]
            }
            connection.register(table, pa.table(columns))
        for view in (STUDIES, PATIENTS):
            sql = dialect.to_duckdb(dialect.parse(view.sql), types=types)
            connection.execute(f"CREATE TABLE {view.name} AS {sql}")
        connection.execute("SET integer_division = true")
        connection.execute("SET TimeZone = 'UTC'")
        yield connection


def test_there_are_twenty_and_the_document_lists_them() -> None:
    assert {path.stem for path in QUERIES} == set(FOUND)
    assert len(QUERIES) == 20
    document = (REPOSITORY / "docs" / "catalog.md").read_text(encoding="utf-8")
    for path in QUERIES:
        assert f"| {path.stem.replace('_', ' ')} | {read_query(path)[0]} |" in document


@pytest.mark.parametrize("path", QUERIES, ids=lambda path: path.stem)
def test_a_query_finds_what_it_says_and_nothing_else(catalog: duckdb.DuckDBPyConnection, path: Path) -> None:
    title, sql = read_query(path)
    assert title
    types = {column.name: column.type for columns in TABLES.values() for column in columns}
    result = catalog.execute(dialect.to_duckdb(dialect.parse(sql), types=types))
    names = [column[0] for column in result.description or ()]
    rows = [dict(zip(names, row, strict=True)) for row in result.fetchall()]
    wanted = FOUND[path.stem]
    shown = SHOWN.get(path.stem, names[: len(wanted[0])])
    found = [tuple(row[name] for name in shown) for row in rows]
    if path.stem in UNORDERED:
        found = sorted(found)
    assert found == wanted


@pytest.mark.parametrize("path", QUERIES, ids=lambda path: path.stem)
def test_a_query_is_one_statement_of_trino(path: Path) -> None:
    statements = sqlglot.parse(read_query(path)[1], read="trino", error_level=sqlglot.ErrorLevel.RAISE)
    assert len(statements) == 1
