"""QIDO-RS: SearchDICOMStudies, SearchDICOMSeries, SearchDICOMInstances (PS3.18 10.6; PS3.4 C.2.2.2 for
matching)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from starlette.responses import Response

from local.healthimaging import image_sets
from local.healthimaging.context import Context
from local.healthimaging.dicom_json import DicomJson, dicom_json
from local.healthimaging.dicomweb.exchange import Exchange, json_response
from local.healthimaging.dicomweb.matching import Query, matches, parse_query
from local.healthimaging.documents import Document, count_instances, effective_attributes
from local.healthimaging.elements import Attributes, first_text
from local.healthimaging.image_sets import ImageSet
from local.healthimaging.levels import INSTANCE_NUMBER, SERIES_NUMBER

_STUDY_TAGS = (
    "00080020",  # StudyDate
    "00080030",  # StudyTime
    "00080050",  # AccessionNumber
    "00080056",  # InstanceAvailability
    "00080061",  # ModalitiesInStudy
    "00080090",  # ReferringPhysicianName
    "00081030",  # StudyDescription
    "00081190",  # RetrieveURL
    "00100010",  # PatientName
    "00100020",  # PatientID
    "00100030",  # PatientBirthDate
    "00100040",  # PatientSex
    "0020000D",  # StudyInstanceUID
    "00200010",  # StudyID
    "00201206",  # NumberOfStudyRelatedSeries
    "00201208",  # NumberOfStudyRelatedInstances
)
_SERIES_TAGS = (
    "00080060",  # Modality
    "0008103E",  # SeriesDescription
    "00081190",  # RetrieveURL
    "00180015",  # BodyPartExamined
    "0020000D",  # StudyInstanceUID
    "0020000E",  # SeriesInstanceUID
    "00200011",  # SeriesNumber
    "00201209",  # NumberOfSeriesRelatedInstances
    "00400244",  # PerformedProcedureStepStartDate
    "00400245",  # PerformedProcedureStepStartTime
)
_INSTANCE_TAGS = (
    "00080016",  # SOPClassUID
    "00080018",  # SOPInstanceUID
    "00080056",  # InstanceAvailability
    "00081190",  # RetrieveURL
    "00081196",  # WarningReason
    "0020000D",  # StudyInstanceUID
    "0020000E",  # SeriesInstanceUID
    "00200013",  # InstanceNumber
    "00280008",  # NumberOfFrames
    "00280010",  # Rows
    "00280011",  # Columns
    "00280100",  # BitsAllocated
)
"""Attributes that are returned without being asked for (PS3.18 10.6.3.3; the warning is HealthImaging's)."""


class Qido:
    """The search transactions."""

    def __init__(self, context: Context) -> None:
        self._context = context

    def studies(self, exchange: Exchange) -> Response:
        """Studies, last updated first."""
        exchange.require_json()
        query = parse_query(exchange.query)
        by_study: dict[str, list[tuple[ImageSet, Document]]] = {}
        for image_set, document in self._documents(exchange, query):
            by_study.setdefault(image_set.study_uid, []).append((image_set, document))
        found: list[tuple[float, DicomJson]] = []
        for study_uid, members in by_study.items():
            series = [entry["attributes"] for _, document in members for entry in document["series"].values()]
            attributes: Attributes = {
                **members[0][1]["patient"],
                **members[0][1]["study"],
                "00080056": {"vr": "CS", "value": ["ONLINE"]},
                "00080061": {"vr": "CS", "value": _modalities(series)},
                "00081190": {"vr": "UR", "value": [f"{exchange.base_url}/studies/{study_uid}"]},
                "00201206": {"vr": "IS", "value": [str(len(series))]},
                "00201208": {
                    "vr": "IS",
                    "value": [str(sum(count_instances(document) for _, document in members))],
                },
            }
            if matches(attributes, query):
                shown = _shown(attributes, query, _STUDY_TAGS)
                found.append((max(image_set.updated_at for image_set, _ in members), shown))
        found.sort(key=lambda item: item[0], reverse=True)
        return _page([shown for _, shown in found], query)

    def series(self, exchange: Exchange) -> Response:
        """Series by series number."""
        exchange.require_json()
        query = parse_query(exchange.query)
        found: list[tuple[tuple[int, str], DicomJson]] = []
        tags = _SERIES_TAGS if "study" in exchange.named else [*_SERIES_TAGS, *_STUDY_TAGS]
        for image_set, document in self._documents(exchange, query):
            for series_uid, series in document["series"].items():
                url = f"{exchange.base_url}/studies/{image_set.study_uid}/series/{series_uid}"
                attributes: Attributes = {
                    **document["patient"],
                    **document["study"],
                    **series["attributes"],
                    "00081190": {"vr": "UR", "value": [url]},
                    "00201209": {"vr": "IS", "value": [str(len(series["instances"]))]},
                }
                if matches(attributes, query):
                    order = (_number(attributes, SERIES_NUMBER), series_uid)
                    found.append((order, _shown(attributes, query, tags)))
        found.sort(key=lambda item: item[0])
        return _page([shown for _, shown in found], query)

    def instances(self, exchange: Exchange) -> Response:
        """Instances by instance number."""
        exchange.require_json()
        query = parse_query(exchange.query)
        found: list[tuple[tuple[int, str], DicomJson]] = []
        tags = (
            _INSTANCE_TAGS if "series" in exchange.named else [*_INSTANCE_TAGS, *_SERIES_TAGS, *_STUDY_TAGS]
        )
        for image_set, document in self._documents(exchange, query):
            for series_uid, series in document["series"].items():
                for instance_uid, entry in series["instances"].items():
                    url = (
                        f"{exchange.base_url}/studies/{image_set.study_uid}/series/{series_uid}"
                        f"/instances/{instance_uid}"
                    )
                    attributes: Attributes = {
                        **effective_attributes(document, series_uid, instance_uid),
                        "00080056": {"vr": "CS", "value": ["ONLINE"]},
                        "00081190": {"vr": "UR", "value": [url]},
                    }
                    if entry["warnings"]:
                        attributes["00081196"] = {"vr": "US", "value": list(entry["warnings"])}
                    if matches(attributes, query):
                        order = (_number(attributes, INSTANCE_NUMBER), instance_uid)
                        found.append((order, _shown(attributes, query, tags)))
        found.sort(key=lambda item: item[0])
        return _page([shown for _, shown in found], query)

    def _documents(self, exchange: Exchange, query: Query) -> Iterator[tuple[ImageSet, Document]]:
        """The primary image sets that the path and the UIDs of the query admit, or the one that was
        chosen."""
        connection = self._context.database.reader()
        clauses, values = ["datastore_id = ?", "state = 'ACTIVE'"], [exchange.datastore_id]
        if exchange.image_set_id is None:
            clauses.append("is_primary = 1")
        else:
            clauses.append("id = ?")
            values.append(exchange.image_set_id)
        for column, name, tag in (("study_uid", "study", "0020000D"), ("series_uid", "series", "0020000E")):
            if name in exchange.named:
                clauses.append(f"{column} = ?")
                values.append(exchange.named[name])
            elif query.matches.get(tag):
                uids = query.matches[tag].replace("\\", ",").split(",")
                clauses.append(f"{column} IN ({', '.join('?' * len(uids))})")
                values += uids
        rows = connection.execute(
            # Built of the constants above; every value of the request is a parameter.
            f"SELECT * FROM image_sets WHERE {' AND '.join(clauses)} ORDER BY rowid",  # noqa: S608 - clauses are constants with placeholders
            values,
        ).fetchall()
        for row in rows:
            image_set = image_sets.image_set_of(row)
            yield image_set, image_sets.load_document(connection, image_set.id, image_set.latest_version)


def _modalities(series: Iterable[Attributes]) -> list[str]:
    return sorted({first_text(attributes, "00080060") for attributes in series} - {""})


def _shown(attributes: Attributes, query: Query, tags: Iterable[str]) -> DicomJson:
    if query.include_all:
        chosen = attributes
    else:
        wanted = {*tags, *query.matches, *query.include}
        chosen = {tag: element for tag, element in attributes.items() if tag in wanted}
    return dicom_json(chosen, bulk_uri=f"{attributes['00081190']['value'][0]}/bulkdata")


def _number(attributes: Attributes, tag: str) -> int:
    text = first_text(attributes, tag)
    return int(text) if text.lstrip("+-").isdigit() else 2**31


def _page(found: list[Any], query: Query) -> Response:
    page = found[query.offset : query.offset + query.limit]
    response = json_response(page)
    if query.offset + query.limit < len(found):
        # PS3.18 8.3.4.4: a client shall learn that there are more.
        remaining = len(found) - query.offset - query.limit
        response.headers["Warning"] = (
            f"299 HealthImaging: There are {remaining} additional results that can be requested"
        )
    return response
