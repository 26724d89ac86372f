"""The columns of the catalog's tables.

Plain data: `runtime/functions/index/schema.json` mirrors them for the infrastructure, which reads assets but
imports no package. Types are Glue's names (https://docs.aws.amazon.com/athena/latest/ug/data-types.html).

Numbers that DICOM writes as decimal strings and people compare (slice thickness, field strength) are
decimals, which are equal when they look equal; numbers to compute with (positions, spacing) are doubles.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

DECIMAL = "decimal(16,6)"


@dataclass(frozen=True, kw_only=True)
class Column:
    """One column of a catalog table."""

    name: str
    type: str
    """Glue type name, for example `bigint` or `array<double>`."""
    comment: str


def _column(name: str, type_: str, comment: str) -> Column:
    return Column(name=name, type=type_, comment=comment)


_IDENTITY = (
    _column("datastore_id", "string", "HealthImaging datastore"),
    _column("image_set_id", "string", "HealthImaging image set"),
    _column("version_id", "bigint", "Image set version that this row describes"),
    _column("is_primary", "boolean", "False when the image set conflicts with its study"),
    _column("created_at", "timestamp", "UTC time at which the image set was made"),
    _column("updated_at", "timestamp", "UTC time of its last change"),
)

_INDEXED_AT = (_column("indexed_at", "timestamp", "UTC time at which the row was written"),)

SERIES_COLUMNS: tuple[Column, ...] = (
    *_IDENTITY,
    _column("patient_id", "string", "(0010,0020)"),
    _column("issuer_of_patient_id", "string", "(0010,0021)"),
    _column("patient_sex", "string", "(0010,0040)"),
    _column("patient_birth_date", "date", "(0010,0030)"),
    _column("patient_age_years", "double", "(0010,1010) in years, of days, weeks and months, too"),
    _column("patient_weight", DECIMAL, "(0010,1030) in kg"),
    _column("patient_size", DECIMAL, "(0010,1020) in m"),
    _column("study_instance_uid", "string", "(0020,000D)"),
    _column("study_date", "date", "(0008,0020)"),
    _column("study_at", "timestamp", "(0008,0020) and (0008,0030), as the scanner's clock had it"),
    _column("study_id", "string", "(0020,0010)"),
    _column("accession_number", "string", "(0008,0050)"),
    _column("study_description", "string", "(0008,1030)"),
    _column("institution_name", "string", "(0008,0080)"),
    _column("series_instance_uid", "string", "(0020,000E)"),
    _column("series_number", "int", "(0020,0011)"),
    _column("series_date", "date", "(0008,0021)"),
    _column("series_description", "string", "(0008,103E)"),
    _column("modality", "string", "(0008,0060)"),
    _column("body_part_examined", "string", "(0018,0015)"),
    _column("laterality", "string", "(0020,0060), else (0020,0062)"),
    _column("patient_position", "string", "(0018,5100)"),
    _column("manufacturer", "string", "(0008,0070)"),
    _column("manufacturer_model_name", "string", "(0008,1090)"),
    _column("station_name", "string", "(0008,1010)"),
    _column("software_versions", "array<string>", "(0018,1020)"),
    _column("protocol_name", "string", "(0018,1030)"),
    _column("frame_of_reference_uid", "string", "(0020,0052)"),
    _column("contrast_bolus_agent", "string", "(0018,0010); null where none was given, or nobody wrote it"),
    _column("convolution_kernel", "array<string>", "(0018,1210)"),
    _column("scanning_sequence", "array<string>", "(0018,0020)"),
    _column("sequence_name", "string", "(0018,0024)"),
    _column("kvp", DECIMAL, "(0018,0060) in kV"),
    _column("magnetic_field_strength", DECIMAL, "(0018,0087) in T"),
    _column("repetition_time", DECIMAL, "(0018,0080) in ms"),
    _column("echo_time", DECIMAL, "(0018,0081) in ms"),
    _column("image_type", "array<string>", "(0008,0008), null when the instances differ"),
    _column("burned_in_annotation", "string", "(0028,0301)"),
    _column("rows", "int", "(0028,0010), null when the instances differ"),
    _column("columns", "int", "(0028,0011), null when the instances differ"),
    _column("slice_thickness", DECIMAL, "(0018,0050) in mm, null when the instances differ"),
    _column("spacing_between_slices", DECIMAL, "(0018,0088) in mm, null when the instances differ"),
    _column("pixel_spacing", "array<double>", "(0028,0030): row spacing, column spacing in mm"),
    _column("number_of_instances", "int", "Instances in the image set"),
    _column("number_of_frames", "int", "Frames in the image set"),
    _column("pixel_bytes", "bigint", "Bytes of all frames without compression, as rows and columns give it"),
    _column("sop_class_uids", "array<string>", "Distinct (0008,0016), sorted"),
    _column("stored_transfer_syntax_uids", "array<string>", "Distinct, of the stored frames, sorted"),
    _column(
        "referenced_series_instance_uids",
        "array<string>",
        "Distinct (0020,000E) of (0008,1115) and of other references to series, sorted: what a segmentation "
        "segments",
    ),
    _column(
        "attributes",
        "map<string,string>",
        "All other attributes of patient, study and series by keyword, several values with a backslash "
        "between them, sequences as JSON",
    ),
    *_INDEXED_AT,
)

INSTANCE_COLUMNS: tuple[Column, ...] = (
    *_IDENTITY,
    _column("patient_id", "string", "(0010,0020)"),
    _column("study_instance_uid", "string", "(0020,000D)"),
    _column("study_date", "date", "(0008,0020)"),
    _column("modality", "string", "(0008,0060)"),
    _column("series_instance_uid", "string", "(0020,000E)"),
    _column("sop_instance_uid", "string", "(0008,0018)"),
    _column("sop_class_uid", "string", "(0008,0016)"),
    _column("instance_number", "int", "(0020,0013)"),
    _column("acquisition_number", "int", "(0020,0012)"),
    _column("image_type", "array<string>", "(0008,0008)"),
    _column("image_position_patient", "array<double>", "(0020,0032): LPS in mm"),
    _column("image_orientation_patient", "array<double>", "(0020,0037): direction cosines of row and column"),
    _column(
        "slice_position",
        "double",
        "Position along the slices' normal in mm: (0020,0032) times the cross product of (0020,0037)",
    ),
    _column("pixel_spacing", "array<double>", "(0028,0030): row spacing, column spacing in mm"),
    _column("slice_thickness", DECIMAL, "(0018,0050) in mm"),
    _column("rows", "int", "(0028,0010)"),
    _column("columns", "int", "(0028,0011)"),
    _column("bits_stored", "int", "(0028,0101)"),
    _column("photometric_interpretation", "string", "(0028,0004)"),
    _column("number_of_frames", "int", "Image frames that the datastore holds"),
    _column("pixel_bytes", "bigint", "Bytes of all frames without compression, as rows and columns give it"),
    _column("stored_transfer_syntax_uid", "string", "Transfer syntax of the stored frames"),
    _column(
        "attributes",
        "map<string,string>",
        "All other attributes of the instance by keyword, as in the table of series",
    ),
    *_INDEXED_AT,
)

TABLES: Mapping[str, tuple[Column, ...]] = {"series": SERIES_COLUMNS, "instances": INSTANCE_COLUMNS}


def schema() -> dict[str, Any]:
    """The tables as JSON data: exactly the content of `runtime/functions/index/schema.json`."""
    return {
        "tables": {
            table: {"columns": [{"name": c.name, "type": c.type, "comment": c.comment} for c in columns]}
            for table, columns in TABLES.items()
        }
    }
