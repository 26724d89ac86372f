"""Finds and stores results in the datastore, and makes sure that they can be seen there.

An instance whose study attributes differ from those of its study ends in a non-primary image set, which
QIDO-RS, WADO-RS and viewers do not show (AWS HealthImaging developer guide, "Importing imaging data": primary
and non-primary image sets). STOW-RS does not say so: the image set has to be looked up afterwards.

Two containers may compute the same result at once. Both store the same SOP Instance UIDs: the second replaces
the first in its primary image set, whose version rises. Whoever stores looks up first, and afterwards takes
what the archive then shows for the result, whoever stored it.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pydicom import Dataset

from healthimaging import DicomWeb, ImageSet
from runtime.errors import ResultNotPrimaryError, StoredResultMissingError, StoreRefusedError
from runtime.results.identity import InstanceIdentity

_LOG = logging.getLogger(__name__)

_FIRST_PAUSE_SECONDS = 0.2
_LONGEST_PAUSE_SECONDS = 2.0

_PRIMARY_GRACE_SECONDS = 5.0
"""How long a series may be seen in non-primary image sets alone before that is an error: of two image sets
that are made at once, the non-primary one may show first."""

_FIRST_VERSION = "1"


@dataclass(frozen=True, kw_only=True)
class StoredSeries:
    """The primary image set that holds a series."""

    image_set_id: str
    version_id: str


@dataclass(frozen=True, kw_only=True, eq=False)
class StoredInstance:
    """An object as the archive shows it."""

    dataset: Dataset
    series: StoredSeries


class ResultArchive:
    """The datastores as a place for results."""

    def __init__(self, client: Any, *, wait_seconds: float) -> None:
        """``client`` is boto3's ``medical-imaging``; ``wait_seconds`` bounds the look-up after storing."""
        self._client = client
        self._wait_seconds = wait_seconds

    def find(self, *, datastore_id: str, series_instance_uid: str) -> StoredSeries | None:
        """Look up the primary image set of a series.

        Raises
        ------
        ResultNotPrimaryError
            When the series is there, but in non-primary image sets only.
        """
        primary, others = self._look_up(datastore_id, series_instance_uid)
        if primary is None and others:
            raise ResultNotPrimaryError(_not_primary(series_instance_uid, others))
        return primary

    def store(self, *, datastore_id: str, datasets: Sequence[Dataset]) -> tuple[StoredInstance, ...]:
        """Store instances, each alone in its series, and return them as the archive then shows them.

        What is there already is not stored again. Returns only when each is in a primary image set; where
        that has a second version, another container has stored the same object meanwhile, and what it stored
        is read back.

        Raises
        ------
        StoreRefusedError
            When the service answers that it did not store an instance.
        StoredResultMissingError
            When no image set shows a series in time.
        ResultNotPrimaryError
            When one is stored, but not primary.
        """
        there = {
            str(dataset.SeriesInstanceUID): self.find(
                datastore_id=datastore_id, series_instance_uid=str(dataset.SeriesInstanceUID)
            )
            for dataset in datasets
        }
        self._send(datastore_id, [one for one in datasets if there[str(one.SeriesInstanceUID)] is None])
        deadline = time.monotonic() + self._wait_seconds
        stored = []
        for dataset in datasets:
            uid = str(dataset.SeriesInstanceUID)
            earlier = there[uid]
            series = earlier or self._wait_for(datastore_id, uid, deadline)
            if earlier is not None or series.version_id != _FIRST_VERSION:
                identity = InstanceIdentity(
                    series_instance_uid=uid, sop_instance_uid=str(dataset.SOPInstanceUID)
                )
                dataset = self.read(datastore_id=datastore_id, stored=series, identity=identity)
            stored.append(StoredInstance(dataset=dataset, series=series))
        return tuple(stored)

    def read(self, *, datastore_id: str, stored: StoredSeries, identity: InstanceIdentity) -> Dataset:
        """Read a stored object back, pixels included.

        Raises
        ------
        StoredResultMissingError
            When the image set does not hold it.
        """
        image_set = ImageSet.open(self._client, datastore_id, stored.image_set_id, version=stored.version_id)
        for dataset in image_set.datasets():
            if dataset.SOPInstanceUID == identity.sop_instance_uid:
                return dataset
        msg = f"image set {stored.image_set_id} does not hold instance {identity.sop_instance_uid}"
        raise StoredResultMissingError(msg)

    def _send(self, datastore_id: str, datasets: Sequence[Dataset]) -> None:
        if not datasets:
            return
        with DicomWeb(self._client, datastore_id) as web:
            outcomes = web.store(datasets)
        for outcome in outcomes:
            if not outcome.stored:
                msg = (
                    f"instance {outcome.sop_instance_uid} was not stored: failure reason "
                    f"{outcome.failure_reason or 0:#06x} (DICOM PS3.18, annex I)"
                )
                raise StoreRefusedError(msg)

    def _wait_for(self, datastore_id: str, series_instance_uid: str, deadline: float) -> StoredSeries:
        begin = time.monotonic()
        pause = _FIRST_PAUSE_SECONDS
        while True:
            primary, others = self._look_up(datastore_id, series_instance_uid)
            if primary is not None:
                return primary
            over = time.monotonic() + pause > deadline
            if others and (over or time.monotonic() - begin > _PRIMARY_GRACE_SECONDS):
                raise ResultNotPrimaryError(_not_primary(series_instance_uid, others))
            if over:
                msg = (
                    f"series {series_instance_uid} was accepted, but no image set shows it after "
                    f"{self._wait_seconds:g} s"
                )
                raise StoredResultMissingError(msg)
            time.sleep(pause)
            pause = min(pause * 2, _LONGEST_PAUSE_SECONDS)

    def _look_up(self, datastore_id: str, series_instance_uid: str) -> tuple[StoredSeries | None, list[str]]:
        """The primary image set of a series, and the identifiers of its non-primary ones."""
        pages = self._client.get_paginator("search_image_sets").paginate(
            datastoreId=datastore_id,
            searchCriteria={
                "filters": [
                    {"values": [{"DICOMSeriesInstanceUID": series_instance_uid}], "operator": "EQUAL"}
                ]
            },
        )
        summaries = [summary for page in pages for summary in page["imageSetsMetadataSummaries"]]
        others = [str(one["imageSetId"]) for one in summaries if not one.get("isPrimary", False)]
        primary = next((one for one in summaries if one.get("isPrimary", False)), None)
        if primary is None:
            return None, others
        if others:
            _LOG.warning(
                "a result has copies that are not primary: they can be deleted",
                extra={"fields": {"series": series_instance_uid, "imageSets": others}},
            )
        return (
            StoredSeries(image_set_id=primary["imageSetId"], version_id=str(primary["version"])),
            others,
        )


def _not_primary(series_instance_uid: str, image_set_ids: Sequence[str]) -> str:
    return (
        f"series {series_instance_uid} is stored in non-primary image set {', '.join(image_set_ids)}: its "
        "patient or study attributes differ from those of the study; delete it after correcting the cause"
    )
