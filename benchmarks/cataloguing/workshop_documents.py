"""The synthetic archive as the workshop's notebook stores headers: JSON documents for a Glue crawler.

ModelTrain/Lab-1 of the workshop writes four folders below `json/`: `patient`, `study` and `series` with one
document for each image set, and `instances` with one for each instance: the instance's DICOM attributes as
GetImageSetMetadata has them, `DICOMVRs`, `ImageFrames`, and the ids that join it to the others. Names and
values are written here as there, but many documents stand in one file, a line each. The bytes that a query
reads are the same; the seconds are not: on AWS it would open a million objects.

What the catalog knows and no document of the workshop does (version, primary or not, times) is added to
the documents of series, so that every question has an answer.

Which attribute belongs to which level is as HealthImaging writes it: what is of a module of an image (pixel
spacing, KVP, echo time) is of the instances.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import duckdb

from benchmarks.cataloguing.attributes import LARGEST_AND_SMALLEST, attributes_of
from benchmarks.cataloguing.catalog_files import modalities

_IDS = {"datastoreid": "series.datastore_id", "imagesetid": "series.image_set_id"}
_TIME = "strftime({}, '%Y-%m-%d %H:%M:%S')"

_PATIENT = {
    **_IDS,
    "PatientName": "'Synthetic^' || patient_id",
    "PatientID": "patient_id",
    "IssuerOfPatientID": "issuer_of_patient_id",
    "PatientSex": "patient_sex",
    "PatientBirthDate": "strftime(patient_birth_date, '%Y%m%d')",
}
_STUDY = {
    **_IDS,
    "PatientID": "patient_id",
    "StudyInstanceUID": "study_instance_uid",
    "StudyDate": "strftime(study_date, '%Y%m%d')",
    "StudyTime": "strftime(study_at, '%H%M%S')",
    "StudyID": "study_id",
    "AccessionNumber": "accession_number",
    "StudyDescription": "study_description",
    "ReferringPhysicianName": "'Synthetic^Referrer'",
    "PatientAge": "lpad(CAST(CAST(patient_age_years AS INTEGER) AS VARCHAR), 3, '0') || 'Y'",
    "PatientWeight": "CAST(CAST(patient_weight AS DECIMAL(16, 6)) AS VARCHAR)",
    "PatientSize": "CAST(CAST(patient_size AS DECIMAL(16, 6)) AS VARCHAR)",
}
_SERIES = {
    **_IDS,
    "PatientID": "patient_id",
    "StudyInstanceUID": "study_instance_uid",
    "SeriesInstanceUID": "series_instance_uid",
    "SeriesNumber": "CAST(series_number AS VARCHAR)",
    "SeriesDate": "strftime(series_date, '%Y%m%d')",
    "SeriesTime": "strftime(study_at, '%H%M%S')",
    "SeriesDescription": "series_description",
    "Modality": "modality",
    "BodyPartExamined": "body_part_examined",
    "Laterality": "laterality",
    "PatientPosition": "patient_position",
    "Manufacturer": "manufacturer",
    "ManufacturerModelName": "manufacturer_model_name",
    "InstitutionName": "institution_name",
    "StationName": "station_name",
    "SoftwareVersions": "software_versions",
    "ProtocolName": "protocol_name",
    "FrameOfReferenceUID": "frame_of_reference_uid",
    "PositionReferenceIndicator": "''",
    "ReferencedSeriesSequence": "list_transform(referenced_series_instance_uids,"
    " lambda uid: {SeriesInstanceUID: uid})",
    "versionid": "version_id",
    "isprimary": "is_primary",
    "createdat": _TIME.format("created_at"),
    "indexedat": _TIME.format("created_at + INTERVAL 20 SECOND"),
}

_FIRST = {
    "InstanceNumber": "CAST(instance_number AS VARCHAR)",
    "SOPInstanceUID": "sop_instance_uid",
    "SOPClassUID": "sop_class_uid",
    "MediaStorageSOPInstanceUID": "sop_instance_uid",
    "MediaStorageSOPClassUID": "sop_class_uid",
    "TransferSyntaxUID": "'1.2.840.10008.1.2.1'",
    "ImplementationClassUID": "'1.2.826.0.1.3680043.8.498.1'",
    "ImageType": "series.image_type",
    "Rows": 'series."rows"',
    "Columns": 'series."columns"',
    "BitsStored": "bits_stored",
    "PhotometricInterpretation": "photometric_interpretation",
    "PixelData": "NULL",
}
_PLANE = {
    "AcquisitionNumber": "CAST(acquisition_number AS VARCHAR)",
    "ImagePositionPatient": "list_transform(image_position_patient, lambda x: CAST(x AS VARCHAR))",
    "ImageOrientationPatient": "list_transform(image_orientation_patient, lambda x: CAST(x AS VARCHAR))",
    "PixelSpacing": "[CAST(spacing[1] AS VARCHAR), CAST(spacing[1] AS VARCHAR)]",
    "SliceThickness": "CAST(CAST(slice_thickness AS DECIMAL(16, 6)) AS VARCHAR)",
    "SpacingBetweenSlices": "CAST(CAST(spacing_between_slices AS DECIMAL(16, 6)) AS VARCHAR)",
}
_OF_MODALITY = {
    "CT": {
        **_PLANE,
        "KVP": "CAST(kvp AS VARCHAR)",
        "ConvolutionKernel": "convolution_kernel",
        "ContrastBolusAgent": "contrast_bolus_agent",
    },
    "MR": {
        **_PLANE,
        "MagneticFieldStrength": "CAST(magnetic_field_strength AS VARCHAR)",
        "RepetitionTime": "CAST(repetition_time AS VARCHAR)",
        "EchoTime": "CAST(echo_time AS VARCHAR)",
        "ScanningSequence": "scanning_sequence",
        "SequenceName": "sequence_name",
        "ContrastBolusAgent": "contrast_bolus_agent",
    },
    "PT": _PLANE,
    "SEG": {
        "PixelSpacing": _PLANE["PixelSpacing"],
        "NumberOfFrames": "CAST(frames_an_instance AS VARCHAR)",
    },
    "US": {
        "NumberOfFrames": "CAST(frames_an_instance AS VARCHAR)",
        "BurnedInAnnotation": "burned_in_annotation",
    },
}
_LAST = {
    "StoredTransferSyntaxUID": "stored_transfer_syntax_uid",
    **_IDS,
    "PatientID": "series.patient_id",
    "StudyInstanceUID": "series.study_instance_uid",
    "SeriesInstanceUID": "series.series_instance_uid",
    "DICOMVRs": "MAP {}",
    # One frame, also of instances that have more: fewer bytes than the workshop's.
    "ImageFrames": '[{ID: frame_id, PixelDataChecksumFromBaseToFullResolution: [{Width: series."columns",'
    ' Height: series."rows", Checksum: checksum}], MinPixelValue: smallest, MaxPixelValue: largest,'
    ' FrameSizeInBytes: 2 * series."rows" * series."columns"}]',
}


@dataclass(frozen=True, kw_only=True)
class Documents:
    """The files of one of the workshop's tables."""

    table: str
    files: list[Path]

    @property
    def bytes(self) -> int:
        return sum(file.stat().st_size for file in self.files)


def write_documents(connection: duckdb.DuckDBPyConnection, folder: Path) -> dict[str, Documents]:
    """The four tables as files of JSON lines."""
    documents = {}
    for table, fields in (("patient", _PATIENT), ("study", _STUDY), ("series", _SERIES)):
        path = folder / f"{table}.json"
        _write(connection, fields, "series_headers AS series", path)
        documents[table] = Documents(table=table, files=[path])
    paths = []
    for modality in modalities(connection):
        path = folder / f"instances-{modality}.json"
        source = "instance_headers AS instance JOIN series_headers AS series USING (number)"
        _write(connection, _instance(modality), f"{source} WHERE series.modality = '{modality}'", path)
        paths.append(path)
    documents["instances"] = Documents(table="instances", files=paths)
    return documents


def _instance(modality: str) -> dict[str, str]:
    numbers = {"BitsAllocated": "INTEGER", "HighBit": "INTEGER", "PixelRepresentation": "INTEGER"}
    others = {
        keyword: f"CAST({value} AS {numbers[keyword]})" if keyword in numbers else value
        for keyword, value in attributes_of(modality).items()
    }
    return {**_FIRST, **_OF_MODALITY.get(modality, {}), **others, **LARGEST_AND_SMALLEST, **_LAST}


def _write(connection: duckdb.DuckDBPyConnection, fields: Mapping[str, str], source: str, path: Path) -> None:
    selected = ", ".join(f'{value} AS "{name}"' for name, value in fields.items())
    connection.execute(f"COPY (SELECT {selected} FROM {source}) TO '{path}' (FORMAT json)")  # noqa: S608 - expressions and a path of this benchmark
