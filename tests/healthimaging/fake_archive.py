"""A datastore of many image sets without a cloud: searched by pages, read as one image set is."""

from __future__ import annotations

import copy
import gzip
import json
import threading
from collections.abc import Iterable
from dataclasses import dataclass, field
from io import BytesIO
from typing import Any

import numpy as np
from fake_healthimaging import DATASTORE, client_error, document, instance

ROWS, COLUMNS = 4, 6


@dataclass(kw_only=True)
class Held:
    """One image set of the datastore."""

    document: dict[str, Any]
    is_primary: bool = True
    state: str = "ACTIVE"
    version: str = "1"
    told_version: int | None = None
    """What the search says; its index may lag behind."""
    told_primary: bool | None = None


@dataclass(kw_only=True)
class FakeArchive:
    """The data calls and the search of a boto3 `medical-imaging` client."""

    held: dict[str, Held] = field(default_factory=dict)
    frames: dict[tuple[str, str], bytes] = field(default_factory=dict)
    """By image set and frame id."""
    page: int = 50
    searches: list[dict[str, Any]] = field(default_factory=list)
    opened: list[str] = field(default_factory=list)
    most_at_once: int = 0
    under_way: int = 0
    lock: Any = field(default_factory=threading.Lock)

    def add(
        self,
        image_set_id: str,
        *,
        study: str = "1.2.3",
        series: str = "1.2.3.4",
        number: int | None = 1,
        slices: Iterable[int] = range(3),
        patient: str | None = "P1",
        **held: Any,
    ) -> Held:
        """One more image set, with one CT series. Slice k is k everywhere, 2 mm from its neighbour."""
        records = {}
        for k in slices:
            pixels = np.full((ROWS, COLUMNS), k, dtype=np.uint16)
            record, data = instance(pixels, number=k + 1, position=(0, 0, 2.0 * k), RescaleIntercept="0")
            uid = record["DICOM"]["SOPInstanceUID"] = f"{series}.{k + 1}"
            frame = record["ImageFrames"][0]
            frame["ID"] = f"frame {image_set_id} {uid}"
            records[uid] = record
            self.frames[image_set_id, frame["ID"]] = data
        made = copy.deepcopy(document(records))
        made["ImageSetID"] = image_set_id
        made["Patient"]["DICOM"]["PatientID"] = patient
        made["Study"]["DICOM"]["StudyInstanceUID"] = study
        (of_series,) = made["Study"]["Series"].values()
        of_series["DICOM"]["SeriesInstanceUID"] = series
        of_series["DICOM"]["SeriesNumber"] = None if number is None else str(number)
        made["Study"]["Series"] = {series: of_series}
        self.held[image_set_id] = Held(document=made, **held)
        return self.held[image_set_id]

    def search_image_sets(self, **request: Any) -> dict[str, Any]:
        self.searches.append(copy.deepcopy(request))
        (condition,) = request["searchCriteria"]["filters"]
        ((name, wanted),) = condition["values"][0].items()
        assert condition["operator"] == "EQUAL"
        found = [
            self._summary(image_set_id)
            for image_set_id, held in self.held.items()
            if wanted in self._values(held, name)
        ]
        start = int(request.get("nextToken", 0))
        end = start + min(self.page, request["maxResults"])
        answer: dict[str, Any] = {"imageSetsMetadataSummaries": found[start:end]}
        return answer | ({"nextToken": str(end)} if end < len(found) else {})

    def get_image_set(self, **params: str) -> dict[str, Any]:
        with self.lock:
            self.opened.append(params["imageSetId"])
            self.under_way += 1
            self.most_at_once = max(self.most_at_once, self.under_way)
        threading.Event().wait(0.002)
        with self.lock:
            self.under_way -= 1
        held = self._held(params)
        version = params.get("versionId", held.version)
        return {"imageSetState": held.state, "versionId": version, "isPrimary": held.is_primary}

    def get_image_set_metadata(self, **params: str) -> dict[str, Any]:
        held = self._held(params)
        return {"imageSetMetadataBlob": BytesIO(gzip.compress(json.dumps(held.document).encode()))}

    def get_image_frame(self, *, imageFrameInformation: dict[str, str], **params: str) -> dict[str, Any]:
        key = params["imageSetId"], imageFrameInformation["imageFrameId"]
        if key not in self.frames:
            raise client_error("ResourceNotFoundException")
        return {"imageFrameBlob": BytesIO(self.frames[key]), "contentType": "image/jph"}

    def _held(self, params: dict[str, str]) -> Held:
        held = self.held.get(params["imageSetId"])
        if held is None or params["datastoreId"] != DATASTORE or params.get("versionId", "1") > held.version:
            raise client_error("ResourceNotFoundException", "GetImageSet")
        return held

    @staticmethod
    def _values(held: Held, name: str) -> list[str]:
        study = held.document["Study"]
        if name == "DICOMStudyInstanceUID":
            return [study["DICOM"]["StudyInstanceUID"]]
        assert name == "DICOMSeriesInstanceUID"
        return list(study["Series"])

    def _summary(self, image_set_id: str) -> dict[str, Any]:
        held = self.held[image_set_id]
        told = held.is_primary if held.told_primary is None else held.told_primary
        version = int(held.version) if held.told_version is None else held.told_version
        return {"imageSetId": image_set_id, "version": version, "isPrimary": told, "DICOMTags": {}}
