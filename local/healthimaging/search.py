"""SearchImageSets (devguide: "Searching image sets")."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from local.healthimaging.context import Context
from local.healthimaging.datastores import active_datastore, moment
from local.healthimaging.errors import invalid
from local.healthimaging.image_sets import ImageSet, image_set_of
from local.healthimaging.paging import page_of
from local.service import Call, Handler

_TEXT_COLUMNS = {
    "DICOMPatientId": "patient_id",
    "DICOMAccessionNumber": "accession_number",
    "DICOMStudyId": "study_id",
    "DICOMStudyInstanceUID": "study_uid",
    "DICOMSeriesInstanceUID": "series_uid",
}
_TIME_COLUMNS = {"createdAt": "created_at", "updatedAt": "updated_at"}
_SORT_COLUMNS = {**_TIME_COLUMNS, "DICOMStudyDateAndTime": "study_moment"}
_DEFAULT_SORT = {"sortField": "updatedAt", "sortOrder": "DESC"}


class Search:
    """The search over image sets."""

    def __init__(self, context: Context) -> None:
        self._context = context

    def handlers(self) -> Mapping[str, Handler]:
        """By operation."""
        return {"SearchImageSets": self.search}

    def search(self, call: Call) -> dict[str, Any]:
        """Image sets that every filter admits, newest first unless `sort` says otherwise."""
        datastore_id = call.params["datastoreId"]
        criteria = call.params.get("searchCriteria") or {}
        connection = self._context.database.reader()
        active_datastore(connection, datastore_id)
        clauses, values = ["datastore_id = ?", "state <> 'DELETED'"], [datastore_id]
        for item in criteria.get("filters", []):
            clause, given = _condition(item)
            clauses.append(clause)
            values += given
        sort = criteria.get("sort", _DEFAULT_SORT)
        order = "ASC" if sort["sortOrder"] == "ASC" else "DESC"
        rows = connection.execute(
            # Built of the constants above; every value of the request is a parameter.
            f"SELECT * FROM image_sets WHERE {' AND '.join(clauses)}"  # noqa: S608 - clauses are constants with placeholders
            f" ORDER BY {_SORT_COLUMNS[sort['sortField']]} {order}, rowid {order}",
            values,
        ).fetchall()
        page, following = page_of(
            rows,
            token=call.params.get("nextToken"),
            maximum=call.params.get("maxResults"),
            scope=f"search {datastore_id} {json.dumps(criteria, sort_keys=True, default=str)}",
        )
        answer: dict[str, Any] = {
            "imageSetsMetadataSummaries": [_summary(image_set_of(row)) for row in page],
            "sort": dict(sort),
        }
        if following is not None:
            answer["nextToken"] = following
        return answer


def _summary(image_set: ImageSet) -> dict[str, Any]:
    return {
        "imageSetId": image_set.id,
        "version": image_set.latest_version,
        "createdAt": moment(image_set.created_at),
        "updatedAt": moment(image_set.updated_at),
        "lastAccessedAt": moment(image_set.updated_at),
        "storageTier": "FREQUENT_ACCESS",
        "isPrimary": image_set.is_primary,
        "DICOMTags": dict(image_set.dicom_tags),
    }


def _condition(item: Mapping[str, Any]) -> tuple[str, list[Any]]:
    """One filter as SQL: EQUAL takes one value, BETWEEN two moments of the same attribute, both included."""
    values: list[Mapping[str, Any]] = item["values"]
    names = {name for value in values for name in value}
    if len(names) != 1:
        raise invalid("The values of a filter must name one and the same attribute.")
    (name,) = names
    given = [value[name] for value in values]
    if item["operator"] == "BETWEEN":
        if len(given) != 2:
            raise invalid("The operator BETWEEN needs two values.")
        if name in _TIME_COLUMNS:
            return f"{_TIME_COLUMNS[name]} BETWEEN ? AND ?", [_seconds(value) for value in given]
        if name == "DICOMStudyDateAndTime":
            low, high = _study_moment(given[0]), _study_moment(given[1])
            # "20240102 093000.5" lies within "20240102": the upper bound takes everything that begins with
            # it.
            return "study_moment BETWEEN ? AND ?", [low, high + "\x7f"]
        raise invalid(f"The operator BETWEEN is not supported for {name}.")
    if len(given) != 1:
        raise invalid("The operator EQUAL needs one value.")
    value = given[0]
    if name == "isPrimary":
        return "is_primary = ?", [int(value)]
    if name in _TEXT_COLUMNS:
        return f"{_TEXT_COLUMNS[name]} = ?", [value]
    if name in _TIME_COLUMNS:
        # Requests carry whole seconds or milliseconds, the clock carries more.
        return f"ABS({_TIME_COLUMNS[name]} - ?) < 0.001", [_seconds(value)]
    moment_text = _study_moment(value)
    if " " in moment_text:
        return "study_moment = ?", [moment_text]
    return "(study_moment = ? OR study_moment LIKE ?)", [moment_text, f"{moment_text} %"]


def _seconds(value: datetime) -> float:
    return value.timestamp()


def _study_moment(value: Mapping[str, str]) -> str:
    time = value.get("DICOMStudyTime", "")
    return f"{value['DICOMStudyDate']} {time}".strip()
