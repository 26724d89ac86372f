"""The catalog's questions, asked of the workshop's tables.

A question is asked as somebody would write it who has only these tables: of the views `series`, `instances`,
`studies` and `patients` that the question reads, just the columns that it needs are made, from just the
tables that have them. A question about modalities and dates reads the small documents of series and studies;
one that wants slice thickness, pixel spacing or a number of instances reads the documents of all instances,
because no other has these.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from sqlglot import exp, parse_one
from sqlglot.optimizer.pushdown_projections import pushdown_projections
from sqlglot.optimizer.qualify import qualify
from sqlglot.optimizer.scope import traverse_scope

from benchmarks.cataloguing.catalog_files import columns_of
from benchmarks.local_cloud import REPOSITORY

DIALECT = "athena"
VIEWS = REPOSITORY / "infra" / "catalog" / "views"
QUERIES = REPOSITORY / "infra" / "catalog" / "queries"

_DATE = "CAST(date_parse({}, '%Y%m%d') AS date)"
_DECIMAL = "CAST({} AS decimal(16, 6))"
_NUMBERS = "transform({}, x -> CAST(x AS double))"
_PIXEL_BYTES = (
    "CAST({frames} AS bigint) * i.rows * i.columns * CAST(i.samplesperpixel AS bigint)"
    " * (i.bitsallocated / 8)"
)
_FRAMES = "CAST(coalesce(i.numberofframes, '1') AS integer)"

_ONE = "i.one_{}"
"""An attribute of the instances of an image set, where all have the same: `_AGGREGATES` finds it."""

_SERIES = {
    "datastore_id": "s.datastoreid",
    "image_set_id": "s.imagesetid",
    "version_id": "s.versionid",
    "is_primary": "s.isprimary",
    "created_at": "CAST(s.createdat AS timestamp)",
    "updated_at": "CAST(s.createdat AS timestamp)",
    "indexed_at": "CAST(s.indexedat AS timestamp)",
    "patient_id": "s.patientid",
    "issuer_of_patient_id": "p.issuerofpatientid",
    "patient_sex": "p.patientsex",
    "patient_birth_date": _DATE.format("p.patientbirthdate"),
    "patient_age_years": "CAST(substr(t.patientage, 1, 3) AS double)",
    "patient_weight": _DECIMAL.format("t.patientweight"),
    "patient_size": _DECIMAL.format("t.patientsize"),
    "study_instance_uid": "s.studyinstanceuid",
    "study_date": _DATE.format("t.studydate"),
    "study_at": "date_parse(t.studydate || t.studytime, '%Y%m%d%H%i%s')",
    "study_id": "t.studyid",
    "accession_number": "t.accessionnumber",
    "study_description": "t.studydescription",
    "institution_name": "s.institutionname",
    "series_instance_uid": "s.seriesinstanceuid",
    "series_number": "CAST(s.seriesnumber AS integer)",
    "series_date": _DATE.format("s.seriesdate"),
    "series_description": "s.seriesdescription",
    "modality": "s.modality",
    "body_part_examined": "s.bodypartexamined",
    "laterality": "s.laterality",
    "patient_position": "s.patientposition",
    "manufacturer": "s.manufacturer",
    "manufacturer_model_name": "s.manufacturermodelname",
    "station_name": "s.stationname",
    "software_versions": "s.softwareversions",
    "protocol_name": "s.protocolname",
    "frame_of_reference_uid": "s.frameofreferenceuid",
    "referenced_series_instance_uids": "transform(s.referencedseriessequence, x -> x.seriesinstanceuid)",
    "contrast_bolus_agent": _ONE.format("contrastbolusagent"),
    "convolution_kernel": _ONE.format("convolutionkernel"),
    "scanning_sequence": _ONE.format("scanningsequence"),
    "sequence_name": _ONE.format("sequencename"),
    "kvp": _DECIMAL.format(_ONE.format("kvp")),
    "magnetic_field_strength": _DECIMAL.format(_ONE.format("magneticfieldstrength")),
    "repetition_time": _DECIMAL.format(_ONE.format("repetitiontime")),
    "echo_time": _DECIMAL.format(_ONE.format("echotime")),
    "image_type": _ONE.format("imagetype"),
    "burned_in_annotation": _ONE.format("burnedinannotation"),
    "rows": _ONE.format("rows"),
    "columns": _ONE.format("columns"),
    "slice_thickness": _DECIMAL.format(_ONE.format("slicethickness")),
    "spacing_between_slices": _DECIMAL.format(_ONE.format("spacingbetweenslices")),
    "pixel_spacing": _NUMBERS.format(_ONE.format("pixelspacing")),
    "number_of_instances": "i.number_of_instances",
    "number_of_frames": "i.number_of_frames",
    "pixel_bytes": "i.pixel_bytes",
    "sop_class_uids": "i.sop_class_uids",
    "stored_transfer_syntax_uids": "i.stored_transfer_syntax_uids",
    "attributes": "map(ARRAY['ReferringPhysicianName', 'StudyTime', 'SeriesTime', 'PatientName',"
    " 'PositionReferenceIndicator'], ARRAY[t.referringphysicianname, t.studytime, s.seriestime,"
    " p.patientname, s.positionreferenceindicator])",
}
"""Columns of the view `series`; p, t, s and i are the documents of patients, studies, series, and those of
instances, summed up for each image set.
"""

_AGGREGATES = {
    "number_of_instances": "CAST(count(*) AS integer)",
    "number_of_frames": f"CAST(sum({_FRAMES}) AS integer)",
    "pixel_bytes": f"CAST(sum({_PIXEL_BYTES.format(frames=_FRAMES)}) AS bigint)",
    "sop_class_uids": "array_agg(DISTINCT i.sopclassuid)",
    "stored_transfer_syntax_uids": "array_agg(DISTINCT i.storedtransfersyntaxuid)",
}

_INSTANCES = {
    "datastore_id": "i.datastoreid",
    "image_set_id": "i.imagesetid",
    "version_id": "s.versionid",
    "is_primary": "s.isprimary",
    "created_at": _SERIES["created_at"],
    "updated_at": _SERIES["updated_at"],
    "indexed_at": _SERIES["indexed_at"],
    "patient_id": "i.patientid",
    "study_instance_uid": "i.studyinstanceuid",
    "study_date": _SERIES["study_date"],
    "modality": "s.modality",
    "series_instance_uid": "i.seriesinstanceuid",
    "sop_instance_uid": "i.sopinstanceuid",
    "sop_class_uid": "i.sopclassuid",
    "instance_number": "CAST(i.instancenumber AS integer)",
    "acquisition_number": "CAST(i.acquisitionnumber AS integer)",
    "image_type": "i.imagetype",
    "image_position_patient": _NUMBERS.format("i.imagepositionpatient"),
    "image_orientation_patient": _NUMBERS.format("i.imageorientationpatient"),
    # The normal of every slice is the axis of the patient here.
    "slice_position": "CAST(element_at(i.imagepositionpatient, 3) AS double)",
    "pixel_spacing": _NUMBERS.format("i.pixelspacing"),
    "slice_thickness": _DECIMAL.format("i.slicethickness"),
    "rows": "i.rows",
    "columns": "i.columns",
    "bits_stored": "i.bitsstored",
    "photometric_interpretation": "i.photometricinterpretation",
    "number_of_frames": _FRAMES,
    "pixel_bytes": _PIXEL_BYTES.format(frames=_FRAMES),
    "stored_transfer_syntax_uid": "i.storedtransfersyntaxuid",
    "attributes": "map(ARRAY['WindowCenter', 'WindowWidth', 'SliceLocation'],"
    " ARRAY[i.windowcenter, i.windowwidth, i.slicelocation])",
}

_TABLES = {"p": "patient", "t": "study", "s": "series", "i": "instances"}
"""The workshop's tables by what they are called above."""


@dataclass(frozen=True, kw_only=True)
class Question:
    """One question in both forms."""

    name: str
    sql: str
    """Of the catalog."""
    workshop_sql: str
    """Of the workshop's tables."""
    workshop_tables: frozenset[str]
    """What that reads."""


def questions(database: str) -> list[Question]:
    """All named queries, the workshop's tables being those of `database`."""
    return [
        _question(path.stem, path.read_text(encoding="utf-8"), database)
        for path in sorted(QUERIES.glob("*.sql"))
    ]


def _question(name: str, sql: str, database: str) -> Question:
    query = parse_one(sql, read=DIALECT)
    if not isinstance(query, exp.Query):
        raise AssertionError(f"{name} is no query")
    for view in ("patients", "studies"):
        if _reads(query, view):
            query = query.with_(view, as_=(VIEWS / f"{view}.sql").read_text(), append=False, dialect=DIALECT)
            _put_first(query, view)
    needed = _needed(query)
    read: set[str] = set()
    for view, columns in needed.items():
        definition, tables = _view(view, columns, database)
        read |= tables
        query = query.with_(view, as_=definition, dialect=DIALECT)
        _put_first(query, view)
    return Question(name=name, sql=sql, workshop_sql=query.sql(DIALECT), workshop_tables=frozenset(read))


def _reads(query: exp.Query, table: str) -> bool:
    return any(found.name.lower() == table and not found.db for found in query.find_all(exp.Table))


def _put_first(query: exp.Query, name: str) -> None:
    """What others read has to be said before them."""
    clause = query.args.get("with_") or query.args.get("with")
    clause.set("expressions", sorted(clause.expressions, key=lambda one: one.alias != name))


def _needed(query: exp.Query) -> dict[str, set[str]]:
    """Columns of `series` and `instances` that the answer depends on."""
    schema = {table: dict(columns_of(table)) for table in ("series", "instances")}
    pruned = pushdown_projections(
        qualify(query.copy(), dialect=DIALECT, schema=schema, validate_qualify_columns=False)
    )
    needed: dict[str, set[str]] = {}
    for scope in traverse_scope(pruned):
        for alias, source in scope.sources.items():
            if isinstance(source, exp.Table) and source.name.lower() in schema:
                found = needed.setdefault(source.name.lower(), set())
                found |= {column.name.lower() for column in scope.columns if column.table == alias}
    return needed


def _view(view: str, columns: set[str], database: str) -> tuple[str, set[str]]:
    """A SELECT that gives these columns and NULL for the others, and the workshop's tables that it reads."""
    of_view = _SERIES if view == "series" else _INSTANCES
    base = "s" if view == "series" else "i"
    values = {name: of_view[name] for name in sorted(columns)}
    used = {base, *(alias for value in values.values() for alias in re.findall(r"\b([ptsi])\.", value))}
    joins = "".join(
        f" JOIN {_source(alias, values, database, summed=base == 's')} AS {alias}"
        f" ON {alias}.imagesetid = {base}.imagesetid"
        for alias in sorted(used - {base})
    )
    selected = ", ".join(
        f'{values.get(name, f"CAST(NULL AS {_trino(kind)})")} AS "{name}"'
        for name, kind in columns_of(view).items()
    )
    sql = f"SELECT {selected} FROM {database}.{_TABLES[base]} AS {base}{joins}"  # noqa: S608 - names of this module
    return sql, {_TABLES[alias] for alias in used}


def _trino(hive: str) -> str:
    return str(exp.DataType.build(hive, dialect="hive").sql(DIALECT))


def _source(alias: str, values: Mapping[str, str], database: str, *, summed: bool) -> str:
    table = f"{database}.{_TABLES[alias]}"
    if alias != "i" or not summed:
        return table
    used = sorted({name for value in values.values() for name in re.findall(r"\bi\.(\w+)", value)})
    sums = ", ".join(f"{_summed(name)} AS {name}" for name in used)
    return f"(SELECT i.imagesetid, {sums} FROM {table} AS i GROUP BY i.imagesetid)"  # noqa: S608 - names of this module


def _summed(name: str) -> str:
    return _AGGREGATES.get(name, f'max(i."{name.removeprefix("one_")}")')
