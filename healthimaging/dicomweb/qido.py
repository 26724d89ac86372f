"""QIDO-RS (DICOM PS3.18 section 10.6), and the DICOM JSON that it shares with the other transactions."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any
from urllib.parse import quote, urlencode

from pydicom import Dataset

from healthimaging.dicomweb.signed_requests import Answer, SignedRequests
from healthimaging.errors import DicomWebAnswerError, DicomWebError

DICOM_JSON = "application/dicom+json"

PAGE = 1000
"""Largest page that the service gives for a search."""

_SEARCHES = {
    "studies": "SearchDICOMStudies",
    "series": "SearchDICOMSeries",
    "instances": "SearchDICOMInstances",
}


class Qido:
    """The search transaction."""

    _requests: SignedRequests

    def search(
        self,
        level: str = "studies",
        *,
        study: str | None = None,
        series: str | None = None,
        filters: Mapping[str, str] | None = None,
        fields: Sequence[str] = (),
        limit: int | None = None,
        image_set_id: str | None = None,
    ) -> Iterator[Dataset]:
        """Searches (QIDO-RS), page after page to the end.

        Args:
            level: `studies`, `series` or `instances`.
            study: Study Instance UID to search within.
            series: Series Instance UID to search within, for instances; needs `study`.
            filters: Attribute keyword or tag -> value to match; also `fuzzymatching`.
            fields: Further attributes to return; ("all",) for every one.
            limit: Stop after so many.
            image_set_id: Searches this image set instead of the primary ones.

        Raises:
            ValueError: The service has no search of that kind.
            DicomWebError: A page was refused, or is not DICOM JSON.
        """
        if level not in _SEARCHES or (study and level == "studies") or (series and level != "instances"):
            msg = f"There is no search of {level} within what was named"
            raise ValueError(msg)
        parameters = [*(filters or {}).items(), *(("includefield", field) for field in fields)]
        parameters += chosen_image_set(image_set_id)
        pages = self._pages(
            _SEARCHES[level], f"{resource_path(study=study, series=series)}/{level}", parameters, limit
        )
        return islice((json_dataset(item, _SEARCHES[level]) for item in pages), limit)

    def _pages(
        self, operation: str, path: str, parameters: list[tuple[str, str]], limit: int | None
    ) -> Iterator[dict[str, Any]]:
        offset = 0
        while limit is None or offset < limit:
            wanted = PAGE if limit is None else min(PAGE, limit - offset)
            query = query_string([*parameters, ("limit", str(wanted)), ("offset", str(offset))])
            answer = self._requests.send(operation, "GET", path + query, headers={"Accept": DICOM_JSON})
            found = json_objects(answer, operation)
            yield from found
            offset += len(found)
            # Warning 299: there are more than the service put into a page (PS3.18 section 8.3.4.4).
            more = (answer.headers.get("Warning") or "").startswith("299")
            if not found or (len(found) < wanted and not more):
                return


def resource_path(*, study: str | None, series: str | None = None) -> str:
    if series and not study:
        msg = "A series is named within its study"
        raise ValueError(msg)
    path = f"/studies/{quote(study)}" if study else ""
    return path + (f"/series/{quote(series)}" if series else "")


def chosen_image_set(image_set_id: str | None) -> list[tuple[str, str]]:
    return [("imageSetId", image_set_id)] if image_set_id else []


def query_string(parameters: Sequence[tuple[str, str]], *, begun: bool = False) -> str:
    # Values are encoded as SigV4 wants them: %20, never a plus sign.
    return ("&" if begun else "?") + urlencode(parameters, quote_via=quote) if parameters else ""


def json_objects(answer: Answer, operation: str) -> list[dict[str, Any]]:
    """The objects of a DICOM JSON answer; none of an empty one, as 204 has."""
    if not answer.body.strip():
        return []
    try:
        document = json.loads(answer.body)
    except (ValueError, RecursionError) as error:
        msg = f"The answer to {operation} is not JSON: {type(error).__name__}"
        raise DicomWebAnswerError(msg, status=answer.status) from None
    if not isinstance(document, list) or not all(isinstance(item, dict) for item in document):
        msg = f"The answer to {operation} is not a list of DICOM JSON objects"
        raise DicomWebAnswerError(msg, status=answer.status)
    return document


def json_dataset(
    item: dict[str, Any], operation: str, read: Callable[[str], bytes] = lambda _uri: b""
) -> Dataset:
    try:
        return Dataset.from_json(item, bulk_data_uri_handler=read)
    except DicomWebError:
        raise
    except Exception as error:  # noqa: BLE001 - whatever reading another shape raises
        msg = f"The answer to {operation} is not DICOM JSON: {type(error).__name__}"
        # Without what caused it, which may quote values.
        raise DicomWebAnswerError(msg, status=200) from None
