"""One DICOMweb request, taken apart, and how its image sets are found."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from starlette.responses import Response

from local.healthimaging import image_sets
from local.healthimaging.dicomweb.media import MediaType, parse_accept
from local.healthimaging.documents import Document, InstanceEntry
from local.healthimaging.errors import not_acceptable, not_found
from local.healthimaging.image_sets import ImageSet

DICOM_JSON = "application/dicom+json"


@dataclass(frozen=True, kw_only=True)
class Exchange:
    """The request. `named` holds the UIDs of the path, `base_url` is the datastore's own URL."""

    datastore_id: str
    named: Mapping[str, str]
    query: Sequence[tuple[str, str]]
    headers: Mapping[str, str]
    body: bytes
    base_url: str

    @property
    def accept(self) -> list[MediaType]:
        """What the client wants, best first."""
        return parse_accept(self.headers.get("accept", ""))

    @property
    def image_set_id(self) -> str | None:
        """The image set that the client chose instead of the primary ones (query parameter `imageSetId`)."""
        return next((value for name, value in self.query if name.lower() == "imagesetid"), None)

    def require_json(self) -> None:
        """Raise NotAcceptableException unless the client takes DICOM JSON."""
        if not any(
            each.name in (DICOM_JSON, "application/json", "application/*", "*/*") for each in self.accept
        ):
            raise not_acceptable(f"The response is {DICOM_JSON}.")


def json_response(value: Any, status: int = 200) -> Response:
    """A DICOM JSON answer."""
    return Response(json.dumps(value), status_code=status, media_type=DICOM_JSON)


@dataclass(frozen=True, kw_only=True)
class FoundSeries:
    """The image set that serves a series, with its latest document."""

    image_set: ImageSet
    document: Document


def find_series(connection: sqlite3.Connection, exchange: Exchange) -> FoundSeries:
    """The primary image set of the path's series, or the one of `imageSetId`. Raises
    ResourceNotFoundException."""
    study_uid, series_uid = exchange.named["study"], exchange.named["series"]
    if exchange.image_set_id is not None:
        image_set = image_sets.find_active(connection, exchange.datastore_id, exchange.image_set_id)
        if image_set.study_uid != study_uid:
            raise not_found(f"Study {study_uid}")
    else:
        row = connection.execute(
            "SELECT * FROM image_sets WHERE datastore_id = ? AND study_uid = ? AND series_uid = ?"
            " AND is_primary = 1 AND state = 'ACTIVE'",
            (exchange.datastore_id, study_uid, series_uid),
        ).fetchone()
        if row is None:
            raise not_found(f"Series {series_uid}")
        image_set = image_sets.image_set_of(row)
    document = image_sets.load_document(connection, image_set.id, image_set.latest_version)
    if series_uid not in document["series"]:
        raise not_found(f"Series {series_uid}")
    return FoundSeries(image_set=image_set, document=document)


def find_instance(found: FoundSeries, exchange: Exchange) -> InstanceEntry:
    """The instance of the path. Raises ResourceNotFoundException."""
    entry = found.document["series"][exchange.named["series"]]["instances"].get(exchange.named["instance"])
    if entry is None:
        raise not_found(f"SOP instance {exchange.named['instance']}")
    return entry
