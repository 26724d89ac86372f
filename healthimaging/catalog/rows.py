"""From the metadata of an image set version to its rows in the catalog."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal, InvalidOperation
from typing import Any

from healthimaging.catalog.columns import TABLES
from healthimaging.catalog.other_attributes import as_text, other_attributes
from healthimaging.catalog.references import referenced_series
from healthimaging.catalog.values import (
    age_in_years,
    agreed,
    decimal,
    dicom_date,
    dicom_time,
    int32,
    moment,
    slice_position,
    utc,
)
from healthimaging.metadata import Attributes, ImageSetMetadata, InstanceRecord, SeriesRecord

Row = dict[str, Any]

_PATIENT_AND_STUDY = {
    "PatientID": "patient_id",
    "IssuerOfPatientID": "issuer_of_patient_id",
    "PatientSex": "patient_sex",
    "PatientBirthDate": "patient_birth_date",
    "PatientWeight": "patient_weight",
    "PatientSize": "patient_size",
    "StudyInstanceUID": "study_instance_uid",
    "StudyDate": "study_date",
    "StudyID": "study_id",
    "AccessionNumber": "accession_number",
    "StudyDescription": "study_description",
}
_SERIES = {
    "InstitutionName": "institution_name",
    "SeriesInstanceUID": "series_instance_uid",
    "SeriesNumber": "series_number",
    "SeriesDate": "series_date",
    "SeriesDescription": "series_description",
    "Modality": "modality",
    "BodyPartExamined": "body_part_examined",
    "PatientPosition": "patient_position",
    "Manufacturer": "manufacturer",
    "ManufacturerModelName": "manufacturer_model_name",
    "StationName": "station_name",
    "SoftwareVersions": "software_versions",
    "ProtocolName": "protocol_name",
    "FrameOfReferenceUID": "frame_of_reference_uid",
    "ContrastBolusAgent": "contrast_bolus_agent",
    "ConvolutionKernel": "convolution_kernel",
    "ScanningSequence": "scanning_sequence",
    "SequenceName": "sequence_name",
    "KVP": "kvp",
    "MagneticFieldStrength": "magnetic_field_strength",
    "RepetitionTime": "repetition_time",
    "EchoTime": "echo_time",
    "ImageType": "image_type",
    "BurnedInAnnotation": "burned_in_annotation",
    "Rows": "rows",
    "Columns": "columns",
    "SliceThickness": "slice_thickness",
    "SpacingBetweenSlices": "spacing_between_slices",
    "PixelSpacing": "pixel_spacing",
}
_INSTANCE = {
    "SOPInstanceUID": "sop_instance_uid",
    "SOPClassUID": "sop_class_uid",
    "InstanceNumber": "instance_number",
    "AcquisitionNumber": "acquisition_number",
    "ImageType": "image_type",
    "ImagePositionPatient": "image_position_patient",
    "ImageOrientationPatient": "image_orientation_patient",
    "PixelSpacing": "pixel_spacing",
    "SliceThickness": "slice_thickness",
    "Rows": "rows",
    "Columns": "columns",
    "BitsStored": "bits_stored",
    "PhotometricInterpretation": "photometric_interpretation",
}
"""Columns by the keyword whose value they hold. Columns that are counted or put together are in none."""


_DECIMALS = frozenset(
    {
        "kvp",
        "magnetic_field_strength",
        "repetition_time",
        "echo_time",
        "slice_thickness",
        "spacing_between_slices",
    }
)


@dataclass(frozen=True, kw_only=True)
class Version:
    """What GetImageSet says of the version that rows describe."""

    version_id: int
    is_primary: bool | None
    """None when the service did not say."""
    created_at: datetime | None
    updated_at: datetime | None


def catalog_rows(
    metadata: ImageSetMetadata, *, version: Version, indexed_at: datetime
) -> dict[str, list[Row]]:
    """Rows of one image set version, by table name; every row has every column of its table.

    Args:
        metadata: The image set's metadata of that version.
        version: The version that `metadata` was read from.
        indexed_at: Time of writing.
    """
    identity: Row = {
        "datastore_id": metadata.datastore_id,
        "image_set_id": metadata.image_set_id,
        "version_id": version.version_id,
        "is_primary": version.is_primary,
        "created_at": utc(version.created_at),
        "updated_at": utc(version.updated_at),
        "indexed_at": utc(indexed_at),
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
    study = metadata.study.over(metadata.patient)
    # The service files an attribute under the level that DICOM's modules give it, which is not the same for
    # every modality.
    instances = [instance.attributes.over(series.attributes) for instance in series.instances.values()]
    whole = instances or [series.attributes]

    def text(keyword: str) -> str | None:
        return agreed([attributes.text(keyword) for attributes in whole])

    def texts(keyword: str) -> list[str] | None:
        return agreed([attributes.texts(keyword) for attributes in whole])

    def integer(keyword: str) -> int | None:
        return int32(agreed([attributes.integer(keyword) for attributes in whole]))

    study_date = dicom_date(study.text("StudyDate"))
    records = list(series.instances.values())
    sizes = [
        pixel_bytes(own, len(one.frames)) for own, one in zip(instances, records, strict=True) if one.frames
    ]
    row: Row = {
        "patient_id": study.text("PatientID"),
        "issuer_of_patient_id": study.text("IssuerOfPatientID"),
        "patient_sex": study.text("PatientSex"),
        "patient_birth_date": dicom_date(study.text("PatientBirthDate")),
        "patient_age_years": age_in_years(study.text("PatientAge") or text("PatientAge")),
        "patient_weight": decimal(study.text("PatientWeight")),
        "patient_size": decimal(study.text("PatientSize")),
        "study_instance_uid": metadata.study_instance_uid,
        "study_date": study_date,
        "study_at": moment(study_date, dicom_time(study.text("StudyTime"))),
        "study_id": study.text("StudyID"),
        "accession_number": study.text("AccessionNumber"),
        "study_description": study.text("StudyDescription"),
        "institution_name": text("InstitutionName") or study.text("InstitutionName"),
        "series_instance_uid": series.series_instance_uid,
        "series_number": integer("SeriesNumber"),
        "series_date": dicom_date(text("SeriesDate")),
        "laterality": text("Laterality") or text("ImageLaterality"),
        "software_versions": texts("SoftwareVersions"),
        "convolution_kernel": texts("ConvolutionKernel"),
        "scanning_sequence": texts("ScanningSequence"),
        "image_type": texts("ImageType"),
        "rows": integer("Rows"),
        "columns": integer("Columns"),
        "pixel_spacing": agreed([attributes.decimals("PixelSpacing") for attributes in whole]),
        "number_of_instances": len(records),
        "number_of_frames": sum(len(instance.frames) for instance in records),
        "pixel_bytes": _sum(sizes),
        "sop_class_uids": _distinct(attributes.text("SOPClassUID") for attributes in whole),
        "stored_transfer_syntax_uids": _distinct(one.transfer_syntax_uid for one in records if one.frames),
        "referenced_series_instance_uids": _distinct(
            uid
            for attributes in whole
            for uid in referenced_series(attributes)
            if uid != series.series_instance_uid
        ),
    }
    for keyword, column in _SERIES.items():
        if column in _DECIMALS:
            row[column] = agreed([decimal(attributes.text(keyword)) for attributes in whole])
        elif column not in row:
            row[column] = text(keyword)
    own = series.attributes.over(study)
    row["attributes"] = other_attributes(own, without=_held(own, row, _PATIENT_AND_STUDY | _SERIES))
    return row


def _instance_row(metadata: ImageSetMetadata, series: SeriesRecord, instance: InstanceRecord) -> Row:
    own = instance.attributes.over(series.attributes)
    position, orientation = own.decimals("ImagePositionPatient"), own.decimals("ImageOrientationPatient")
    row: Row = {
        "patient_id": metadata.patient.text("PatientID"),
        "study_instance_uid": metadata.study_instance_uid,
        "study_date": dicom_date(metadata.study.text("StudyDate")),
        "modality": own.text("Modality"),
        "series_instance_uid": series.series_instance_uid,
        "sop_instance_uid": instance.sop_instance_uid,
        "sop_class_uid": own.text("SOPClassUID"),
        "instance_number": int32(own.integer("InstanceNumber")),
        "acquisition_number": int32(own.integer("AcquisitionNumber")),
        "image_type": own.texts("ImageType"),
        "image_position_patient": position,
        "image_orientation_patient": orientation,
        "slice_position": slice_position(position, orientation),
        "pixel_spacing": own.decimals("PixelSpacing"),
        "slice_thickness": decimal(own.text("SliceThickness")),
        "rows": int32(own.integer("Rows")),
        "columns": int32(own.integer("Columns")),
        "bits_stored": int32(own.integer("BitsStored")),
        "photometric_interpretation": own.text("PhotometricInterpretation"),
        "number_of_frames": len(instance.frames),
        "pixel_bytes": pixel_bytes(own, len(instance.frames)) if instance.frames else None,
        "stored_transfer_syntax_uid": instance.transfer_syntax_uid,
    }
    # What the series' attributes say is in the series' row.
    row["attributes"] = other_attributes(
        instance.attributes, without=_held(instance.attributes, row, _INSTANCE)
    )
    return row


def pixel_bytes(attributes: Attributes, frames: int) -> int | None:
    """Bytes of so many frames without compression (PS3.3 C.7.6.3); None where an attribute is missing."""
    numbers = [attributes.integer(keyword) for keyword in ("Rows", "Columns", "BitsAllocated")]
    samples = attributes.integer("SamplesPerPixel") or 1
    if any(number is None or number <= 0 for number in numbers) or samples <= 0:
        return None
    rows, columns, bits = (number or 0 for number in numbers)
    # Frames of one bit a pixel are packed without a gap between them (PS3.5 section 8.1.1).
    size = (rows * columns * samples * bits * frames + 7) // 8
    return size if size < 2**63 else None


def _held(attributes: Attributes, row: Row, columns: Mapping[str, str]) -> set[str]:
    """Keywords whose whole value a column of the row has.

    What a column could not hold, or has from another level of the document, stays with the others.
    """
    return {
        keyword
        for keyword, column in columns.items()
        if _says(row.get(column), as_text(attributes.get(keyword)))
    }


def _says(value: Any, text: str) -> bool:
    """Whether a column's value is all that an attribute's text says."""
    match value:
        case str():
            return value == text
        case int() | Decimal():
            return _number(text) == Decimal(value)
        case date():
            return dicom_date(text) == value
        case list():
            parts = text.split("\\")
            return len(parts) == len(value) and all(map(_says_one, value, parts))
        case _:
            return False


def _says_one(value: str | float, part: str) -> bool:
    # A double has some fifteen digits of what a decimal string may have; as many as a scanner measures.
    return value == part if isinstance(value, str) else _number(part) is not None and float(part) == value


def _number(text: str) -> Decimal | None:
    try:
        number = Decimal(text)
    except InvalidOperation:
        return None
    return number if number.is_finite() else None


def _sum(sizes: Iterable[int | None]) -> int | None:
    known = [size for size in sizes if size is not None]
    return sum(known) if known else None


def _distinct(values: Iterable[str | None]) -> list[str]:
    return sorted({value for value in values if value})
