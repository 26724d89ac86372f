"""Finds and stores results in the datastore, and makes sure that they can be seen there.

A SEG whose study attributes differ from those of its study ends in a non-primary image set, which QIDO-RS,
WADO-RS and viewers do not show (AWS HealthImaging developer guide, "Importing imaging data": primary and
non-primary image sets). STOW-RS does not say so: the image set has to be looked up afterwards.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

from pydicom import Dataset

from healthimaging import DicomWeb, ImageSet
from runtime.errors import SegmentationNotPrimaryError, StoredSegmentationMissingError, StoreRefusedError

_FIRST_PAUSE_SECONDS = 0.2
_LONGEST_PAUSE_SECONDS = 2.0


@dataclass(frozen=True, kw_only=True)
class StoredSeries:
    """The primary image set that holds a series."""

    image_set_id: str
    version_id: str


class SegmentationArchive:
    """The datastores as a place for segmentations."""

    def __init__(self, client: Any, *, wait_seconds: float) -> None:
        """``client`` is boto3's ``medical-imaging``; ``wait_seconds`` bounds the look-up after storing."""
        self._client = client
        self._wait_seconds = wait_seconds

    def find(self, *, datastore_id: str, series_instance_uid: str) -> StoredSeries | None:
        """Look up the image set of a series.

        Raises
        ------
        SegmentationNotPrimaryError
            When the series is there, but in non-primary image sets only.
        """
        pages = self._client.get_paginator("search_image_sets").paginate(
            datastoreId=datastore_id,
            searchCriteria={
                "filters": [
                    {"values": [{"DICOMSeriesInstanceUID": series_instance_uid}], "operator": "EQUAL"}
                ]
            },
        )
        summaries = [summary for page in pages for summary in page["imageSetsMetadataSummaries"]]
        for summary in summaries:
            if summary.get("isPrimary", False):
                return StoredSeries(image_set_id=summary["imageSetId"], version_id=str(summary["version"]))
        if summaries:
            msg = (
                f"series {series_instance_uid} is stored in non-primary image set "
                f"{', '.join(summary['imageSetId'] for summary in summaries)}: its patient or study "
                "attributes differ from those of the study; delete it after correcting the cause"
            )
            raise SegmentationNotPrimaryError(msg)
        return None

    def store(self, *, datastore_id: str, dataset: Dataset) -> StoredSeries:
        """Store an instance by STOW-RS and wait until it is in a primary image set.

        Raises
        ------
        StoreRefusedError
            When the service answers that it did not store the instance.
        StoredSegmentationMissingError
            When no image set shows the series in time.
        SegmentationNotPrimaryError
            When it is stored, but not primary.
        """
        outcomes = DicomWeb(self._client, datastore_id).store([dataset])
        for outcome in outcomes:
            if not outcome.stored:
                msg = (
                    f"instance {outcome.sop_instance_uid} was not stored: failure reason "
                    f"{outcome.failure_reason or 0:#06x} (DICOM PS3.18, annex I)"
                )
                raise StoreRefusedError(msg)
        series_instance_uid = str(dataset.SeriesInstanceUID)
        deadline = time.monotonic() + self._wait_seconds
        pause = _FIRST_PAUSE_SECONDS
        while True:
            stored = self.find(datastore_id=datastore_id, series_instance_uid=series_instance_uid)
            if stored is not None:
                return stored
            if time.monotonic() + pause > deadline:
                msg = (
                    f"series {series_instance_uid} was accepted, but no image set shows it after "
                    f"{self._wait_seconds:g} s"
                )
                raise StoredSegmentationMissingError(msg)
            time.sleep(pause)
            pause = min(pause * 2, _LONGEST_PAUSE_SECONDS)

    def read(self, *, datastore_id: str, stored: StoredSeries, sop_instance_uid: str) -> Dataset:
        """Read a stored segmentation back, pixels included."""
        image_set = ImageSet.open(self._client, datastore_id, stored.image_set_id, version=stored.version_id)
        for dataset in image_set.datasets():
            if dataset.SOPInstanceUID == sop_instance_uid:
                return dataset
        msg = f"image set {stored.image_set_id} does not hold instance {sop_instance_uid}"
        raise StoredSegmentationMissingError(msg)
