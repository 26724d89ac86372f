"""The catalog's tables and the mapping from image set metadata to their rows.

Standard library only, so that a Lambda function can bundle this folder as it is. The columns are plain
data: `runtime/functions/index/schema.json` mirrors them for the infrastructure, which reads assets but
imports no package.

Types are Glue's names (https://docs.aws.amazon.com/athena/latest/ug/data-types.html). A value that the
metadata lacks, or that breaks its value representation (DICOM PS3.5 section 6.2), becomes null: one bad
header field must not keep a study out of the catalog.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any, TypeVar

from healthimaging.metadata import ImageSetMetadata, InstanceRecord, SeriesRecord


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
)

_INDEXED_AT = (_column("indexed_at", "timestamp", "UTC time at which the row was written"),)

SERIES_COLUMNS: tuple[Column, ...] = (
    *_IDENTITY,
    _column("patient_id", "string", "(0010,0020)"),
    _column("patient_sex", "string", "(0010,0040)"),
    _column("patient_birth_date", "date", "(0010,0030)"),
    _column("study_instance_uid", "string", "(0020,000D)"),
    _column("study_date", "date", "(0008,0020)"),
    _column("study_id", "string", "(0020,0010)"),
    _column("accession_number", "string", "(0008,0050)"),
    _column("study_description", "string", "(0008,1030)"),
    _column("series_instance_uid", "string", "(0020,000E)"),
    _column("series_number", "int", "(0020,0011)"),
    _column("series_date", "date", "(0008,0021)"),
    _column("series_description", "string", "(0008,103E)"),
    _column("modality", "string", "(0008,0060)"),
    _column("body_part_examined", "string", "(0018,0015)"),
    _column("manufacturer", "string", "(0008,0070)"),
    _column("manufacturer_model_name", "string", "(0008,1090)"),
    _column("protocol_name", "string", "(0018,1030)"),
    _column("frame_of_reference_uid", "string", "(0020,0052)"),
    _column("rows", "int", "(0028,0010), null when the instances differ"),
    _column("columns", "int", "(0028,0011), null when the instances differ"),
    _column("slice_thickness", "double", "(0018,0050) in mm, null when the instances differ"),
    _column("pixel_spacing", "array<double>", "(0028,0030): row spacing, column spacing in mm"),
    _column("number_of_instances", "int", "Instances in the image set"),
    _column("number_of_frames", "int", "Frames in the image set"),
    _column("sop_class_uids", "array<string>", "Distinct (0008,0016), sorted"),
    *_INDEXED_AT,
)

INSTANCE_COLUMNS: tuple[Column, ...] = (
    *_IDENTITY,
    _column("study_instance_uid", "string", "(0020,000D)"),
    _column("series_instance_uid", "string", "(0020,000E)"),
    _column("sop_instance_uid", "string", "(0008,0018)"),
    _column("sop_class_uid", "string", "(0008,0016)"),
    _column("instance_number", "int", "(0020,0013)"),
    _column("acquisition_number", "int", "(0020,0012)"),
    _column("image_type", "array<string>", "(0008,0008)"),
    _column("image_position_patient", "array<double>", "(0020,0032): LPS in mm"),
    _column("image_orientation_patient", "array<double>", "(0020,0037): direction cosines of row and column"),
    _column("pixel_spacing", "array<double>", "(0028,0030): row spacing, column spacing in mm"),
    _column("slice_thickness", "double", "(0018,0050) in mm"),
    _column("rows", "int", "(0028,0010)"),
    _column("columns", "int", "(0028,0011)"),
    _column("bits_stored", "int", "(0028,0101)"),
    _column("photometric_interpretation", "string", "(0028,0004)"),
    _column("number_of_frames", "int", "Image frames that the datastore holds"),
    _column("stored_transfer_syntax_uid", "string", "Transfer syntax of the stored frames"),
    *_INDEXED_AT,
)

TABLES: Mapping[str, tuple[Column, ...]] = {"series": SERIES_COLUMNS, "instances": INSTANCE_COLUMNS}

Row = dict[str, Any]

T = TypeVar("T")


def schema() -> dict[str, Any]:
    """The tables as JSON data: exactly the content of `runtime/functions/index/schema.json`."""
    return {
        "tables": {
            table: {"columns": [{"name": c.name, "type": c.type, "comment": c.comment} for c in columns]}
            for table, columns in TABLES.items()
        }
    }


def catalog_rows(
    metadata: ImageSetMetadata, *, version_id: int, is_primary: bool | None, indexed_at: datetime
) -> dict[str, list[Row]]:
    """Rows of one image set version, by table name; every row has every column of its table.

    Args:
        metadata: The image set's metadata of that version.
        version_id: The version that `metadata` was read from.
        is_primary: What GetImageSet said of it; None when the service did not say.
        indexed_at: Time of writing, in UTC and without a zone (Athena's `timestamp` has none).
    """
    identity: Row = {
        "datastore_id": metadata.datastore_id,
        "image_set_id": metadata.image_set_id,
        "version_id": version_id,
        "is_primary": is_primary,
        "indexed_at": indexed_at,
    }
    rows: dict[str, list[Row]] = {"series": [], "instances": []}
    for series in metadata.series.values():
        rows["series"].append(identity | _series_row(metadata, series))
        rows["instances"].extend(
            identity | _instance_row(metadata, series, instance) for instance in series.instances.values()
        )
    return {
        table: [{column.name: row[column.name] for column in TABLES[table]} for row in table_rows]
        for table, table_rows in rows.items()
    }


def _series_row(metadata: ImageSetMetadata, series: SeriesRecord) -> Row:
    patient, study = metadata.patient, metadata.study
    # The service files an attribute under the level that DICOM's modules give it, which is not the same for
    # every modality.
    instances = [instance.attributes.over(series.attributes) for instance in series.instances.values()]
    whole = instances or [series.attributes]

    def text(keyword: str) -> str | None:
        return _agreed([attributes.text(keyword) for attributes in whole])

    def integer(keyword: str) -> int | None:
        return _int32(_agreed([attributes.integer(keyword) for attributes in whole]))

    return {
        "patient_id": patient.text("PatientID"),
        "patient_sex": patient.text("PatientSex"),
        "patient_birth_date": dicom_date(patient.text("PatientBirthDate")),
        "study_instance_uid": metadata.study_instance_uid,
        "study_date": dicom_date(study.text("StudyDate")),
        "study_id": study.text("StudyID"),
        "accession_number": study.text("AccessionNumber"),
        "study_description": study.text("StudyDescription"),
        "series_instance_uid": series.series_instance_uid,
        "series_number": integer("SeriesNumber"),
        "series_date": dicom_date(text("SeriesDate")),
        "series_description": text("SeriesDescription"),
        "modality": text("Modality"),
        "body_part_examined": text("BodyPartExamined"),
        "manufacturer": text("Manufacturer"),
        "manufacturer_model_name": text("ManufacturerModelName"),
        "protocol_name": text("ProtocolName"),
        "frame_of_reference_uid": text("FrameOfReferenceUID"),
        "rows": integer("Rows"),
        "columns": integer("Columns"),
        "slice_thickness": _agreed([attributes.decimal("SliceThickness") for attributes in whole]),
        "pixel_spacing": _agreed([attributes.decimals("PixelSpacing") for attributes in whole]),
        "number_of_instances": len(instances),
        "number_of_frames": sum(len(instance.frames) for instance in series.instances.values()),
        "sop_class_uids": sorted({uid for attributes in whole if (uid := attributes.text("SOPClassUID"))}),
    }


def _instance_row(metadata: ImageSetMetadata, series: SeriesRecord, instance: InstanceRecord) -> Row:
    own = instance.attributes.over(series.attributes)
    return {
        "study_instance_uid": metadata.study_instance_uid,
        "series_instance_uid": series.series_instance_uid,
        "sop_instance_uid": instance.sop_instance_uid,
        "sop_class_uid": own.text("SOPClassUID"),
        "instance_number": _int32(own.integer("InstanceNumber")),
        "acquisition_number": _int32(own.integer("AcquisitionNumber")),
        "image_type": own.texts("ImageType"),
        "image_position_patient": own.decimals("ImagePositionPatient"),
        "image_orientation_patient": own.decimals("ImageOrientationPatient"),
        "pixel_spacing": own.decimals("PixelSpacing"),
        "slice_thickness": own.decimal("SliceThickness"),
        "rows": _int32(own.integer("Rows")),
        "columns": _int32(own.integer("Columns")),
        "bits_stored": _int32(own.integer("BitsStored")),
        "photometric_interpretation": own.text("PhotometricInterpretation"),
        "number_of_frames": len(instance.frames),
        "stored_transfer_syntax_uid": instance.transfer_syntax_uid,
    }


def dicom_date(text: str | None) -> date | None:
    """A DICOM date (PS3.5 section 6.2: YYYYMMDD, or YYYY.MM.DD from before 1993); None when it is none."""
    if text is None:
        return None
    digits = text.replace(".", "") if len(text) == 10 else text
    if len(digits) != 8 or not (digits.isascii() and digits.isdigit()):
        return None
    try:
        return date(int(digits[:4]), int(digits[4:6]), int(digits[6:]))
    except ValueError:
        return None


def _agreed(values: list[T]) -> T | None:
    """The one value that all instances share, else None."""
    return values[0] if values and all(value == values[0] for value in values) else None


def _int32(value: int | None) -> int | None:
    """None for a number that Glue's 32-bit `int` cannot hold."""
    return value if value is not None and -(2**31) <= value < 2**31 else None
