"""Image sets of which every version is a request of its own.

The same image set version and the same model give the result that is stored already, which is another
request than the one that is measured. So each request gets a version of its own: a comment on the first
instance makes one, with the same pixels.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from benchmarks.reading.archive import Archive
from workbench.demo.ct_series import ct_datasets
from workbench.demo.nrrd_volume import CtVolume
from workbench.demo.patients import Patient

UPDATE_SECONDS = 30.0


@dataclass(frozen=True, kw_only=True)
class StoredVersion:
    """One version of an image set."""

    datastore_id: str
    image_set_id: str
    version_id: str

    def request(self) -> dict[str, str]:
        """The request about it."""
        return {
            "datastoreId": self.datastore_id,
            "imageSetId": self.image_set_id,
            "versionId": self.version_id,
        }


@dataclass(frozen=True, kw_only=True)
class StoredSeries:
    """The image set of a CT series."""

    archive: Archive
    image_set_id: str
    series_instance_uid: str
    sop_instance_uid: str
    """Of the first instance."""

    def versions(self, count: int) -> Iterator[StoredVersion]:
        """Versions that nothing was asked about; all are made before the first is given."""
        return iter([self._new_version() for _ in range(count)])

    def _new_version(self) -> StoredVersion:
        client: Any = self.archive.client
        place = {"datastoreId": self.archive.datastore_id, "imageSetId": self.image_set_id}
        latest = str(client.get_image_set(**place)["versionId"])
        # Attributes of a series are not to be changed in a primary image set, those of an instance are.
        instances = {self.sop_instance_uid: {"DICOM": {"ImageComments": f"after version {latest}"}}}
        document = {
            "SchemaVersion": 1.1,
            "Study": {"Series": {self.series_instance_uid: {"Instances": instances}}},
        }
        client.update_image_set_metadata(
            **place,
            latestVersionId=latest,
            updateImageSetMetadataUpdates={
                "DICOMUpdates": {"updatableAttributes": json.dumps(document).encode()}
            },
        )
        deadline = time.monotonic() + UPDATE_SECONDS
        while True:
            found = client.get_image_set(**place)
            if found["imageSetState"] == "ACTIVE" and str(found["versionId"]) != latest:
                return StoredVersion(
                    datastore_id=self.archive.datastore_id,
                    image_set_id=self.image_set_id,
                    version_id=str(found["versionId"]),
                )
            if time.monotonic() > deadline:
                raise RuntimeError(f"Image set {self.image_set_id} got no new version: {found}")
            time.sleep(0.02)


def store_volume(archive: Archive, volume: CtVolume, *, name: str) -> StoredSeries:
    """Import a CT as the series of a patient of this name."""
    datasets = ct_datasets(
        volume,
        Patient(
            name=f"inference-{name}",
            patient_name="Synthetic^Benchmark",
            patient_id=f"BENCH-{name}",
            study_id="BENCH",
            accession_number=f"BENCH-{name}"[:16],
            study_date="20000101",
        ),
    )
    return StoredSeries(
        archive=archive,
        image_set_id=archive.import_series(datasets),
        series_instance_uid=str(datasets[0].SeriesInstanceUID),
        sop_instance_uid=str(datasets[0].SOPInstanceUID),
    )
