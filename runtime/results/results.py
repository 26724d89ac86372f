"""The results of one model: found in the archive, stored there, and described as they are answered."""

from __future__ import annotations

from pydicom import Dataset

from runtime.results.answer import ModelIdentity, Result, StoredSegmentation
from runtime.results.archive import SegmentationArchive, StoredSeries
from runtime.results.identity import ResultIdentity
from runtime.results.segment_volumes import segment_volumes
from runtime.results.segmentation_copy import SegmentationCopy


class Results:
    """Everything about a result that has to do with where it is kept."""

    def __init__(
        self, *, archive: SegmentationArchive, model: ModelIdentity, copy: SegmentationCopy | None
    ) -> None:
        self._archive = archive
        self._model = model
        self._copy = copy

    def find(self, *, datastore_id: str, identity: ResultIdentity) -> tuple[Dataset, StoredSeries] | None:
        """Read the stored segmentation of an image set version by this model, if there is one."""
        stored = self._archive.find(
            datastore_id=datastore_id, series_instance_uid=identity.series_instance_uid
        )
        if stored is None:
            return None
        dataset = self._archive.read(
            datastore_id=datastore_id, stored=stored, sop_instance_uid=identity.sop_instance_uid
        )
        return dataset, stored

    def store(self, *, datastore_id: str, dataset: Dataset) -> StoredSeries:
        """Store a segmentation; returns only when it is in a primary image set."""
        return self._archive.store(datastore_id=datastore_id, dataset=dataset)

    def describe(self, *, identity: ResultIdentity, dataset: Dataset, stored: StoredSeries) -> Result:
        """Describe a stored segmentation, and copy it to S3 where a copy is configured.

        ``seconds`` is left empty: only who ran the request knows them.
        """
        s3_uri = None if self._copy is None else self._copy.put(identity=identity, dataset=dataset)
        return Result(
            image_set_id=identity.image_set_id,
            version_id=identity.version_id,
            segmentation=StoredSegmentation(
                series_instance_uid=identity.series_instance_uid,
                sop_instance_uid=identity.sop_instance_uid,
                image_set_id=stored.image_set_id,
                is_primary=True,
                s3_uri=s3_uri,
            ),
            segments=segment_volumes(dataset),
            model=self._model,
            seconds={},
        )
