"""The results of one model: found in the archive, stored there, and described as they are answered."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from pydicom import Dataset

from runtime.bundles.task import Task
from runtime.reports.classification_report import class_probabilities
from runtime.reports.derived import Derived, LabelMapFile
from runtime.results.answer import ModelIdentity, Result, StoredReport, StoredSegmentation
from runtime.results.archive import ResultArchive, StoredInstance, StoredSeries
from runtime.results.identity import InstanceIdentity, ResultIdentity
from runtime.results.outputs import CLASSIFICATION_REPORT, Output
from runtime.results.result_files import ResultFiles
from runtime.results.segment_volumes import segment_volumes

_IN_ARCHIVE = (Output.MEASUREMENT_REPORT, Output.SNAPSHOT)
"""Outputs that are DICOM objects, in the order of the answer."""


@dataclass(frozen=True, kw_only=True, eq=False)
class FoundReport:
    """A report in the archive; ``dataset`` is None while it has not been read."""

    series: StoredSeries
    dataset: Dataset | None = None


@dataclass(frozen=True, kw_only=True, eq=False)
class Found:
    """What the archive holds of a result."""

    primary: StoredInstance
    """The SEG, or the report of a classification."""
    reports: Mapping[Output, FoundReport] = field(default_factory=dict)


class Results:
    """Everything about a result that has to do with where it is kept."""

    def __init__(
        self,
        *,
        archive: ResultArchive,
        model: ModelIdentity,
        task: Task = Task.SEGMENTATION,
        outputs: frozenset[Output] = frozenset(),
        files: ResultFiles | None = None,
    ) -> None:
        """Prepare the results of one model.

        Parameters
        ----------
        archive
            Where DICOM objects are kept.
        model
            What makes the results.
        task
            What they are.
        outputs
            What is made besides: of a SEG, so a classification has none.
        files
            Where copies of all objects and NIfTI files go; None keeps none, which `Output.NIFTI` rules out.
        """
        if Output.NIFTI in outputs and files is None:
            msg = "NIfTI files need a place in S3"
            raise ValueError(msg)
        self._archive = archive
        self._model = model
        self._task = task
        self._outputs = outputs if task is Task.SEGMENTATION else frozenset[Output]()
        self._files = files

    def find(self, *, datastore_id: str, identity: ResultIdentity) -> Found | None:
        """Read the stored result of this model for an image set version, if there is one."""
        which = self._primary_identity(identity)
        series = self._archive.find(datastore_id=datastore_id, series_instance_uid=which.series_instance_uid)
        if series is None:
            return None
        dataset = self._archive.read(datastore_id=datastore_id, stored=series, identity=which)
        reports = {}
        for output in _IN_ARCHIVE:
            if output in self._outputs:
                stored = self._archive.find(
                    datastore_id=datastore_id,
                    series_instance_uid=identity.report(output).series_instance_uid,
                )
                if stored is not None:
                    reports[output] = FoundReport(series=stored)
        return Found(primary=StoredInstance(dataset=dataset, series=series), reports=reports)

    def missing(self, found: Found) -> frozenset[Output]:
        """What has to be made of a result that is in the archive.

        Files in S3 are written anew at every request, under the same name: whether they are there is not
        asked, since the container may write them, but not read them.
        """
        return self._outputs - found.reports.keys()

    def store(self, *, datastore_id: str, dataset: Dataset) -> Found:
        """Store the object that a result is; returns only when it is in a primary image set.

        Another container may have stored it meanwhile: then that is returned.
        """
        (stored,) = self._archive.store(datastore_id=datastore_id, datasets=[dataset])
        return Found(primary=stored)

    def store_reports(self, *, datastore_id: str, found: Found, derived: Derived) -> Found:
        """Store reports beside the result that they refer to."""
        stored = self._archive.store(datastore_id=datastore_id, datasets=list(derived.reports.values()))
        made = {
            kind: FoundReport(series=one.series, dataset=one.dataset)
            for kind, one in zip(derived.reports, stored, strict=True)
        }
        return replace(found, reports={**found.reports, **made})

    def describe(
        self,
        *,
        datastore_id: str,
        identity: ResultIdentity,
        found: Found,
        label_maps: Sequence[LabelMapFile] = (),
    ) -> Result:
        """Describe a stored result, and copy it to S3 where copies are configured.

        ``seconds`` is left empty: only who ran the request knows them.
        """
        dataset, series = found.primary.dataset, found.primary.series
        s3_uri = self._copy(identity, dataset)
        nothing_yet = Result(
            image_set_id=identity.image_set_id,
            version_id=identity.version_id,
            segmentation=None,
            segments=(),
            model=self._model,
            seconds={},
        )
        which = self._primary_identity(identity)
        if self._task is Task.CLASSIFICATION:
            report = _stored_report(CLASSIFICATION_REPORT, which, series, s3_uri)
            return replace(nothing_yet, classes=class_probabilities(dataset), reports=(report,))
        reports = [
            _stored_report(
                output,
                identity.report(output),
                found.reports[output].series,
                self._report_copy(datastore_id, identity, output, found.reports[output]),
            )
            for output in _IN_ARCHIVE
            if output in found.reports
        ]
        return replace(
            nothing_yet,
            segmentation=StoredSegmentation(
                series_instance_uid=which.series_instance_uid,
                sop_instance_uid=which.sop_instance_uid,
                image_set_id=series.image_set_id,
                is_primary=True,
                s3_uri=s3_uri,
            ),
            segments=segment_volumes(dataset),
            reports=(*reports, *(self._put(identity, label_map) for label_map in label_maps)),
        )

    def _primary_identity(self, identity: ResultIdentity) -> InstanceIdentity:
        if self._task is Task.CLASSIFICATION:
            return identity.report(CLASSIFICATION_REPORT)
        return identity.segmentation

    def _copy(self, identity: ResultIdentity, dataset: Dataset) -> str | None:
        return None if self._files is None else self._files.put_dicom(identity=identity, dataset=dataset)

    def _report_copy(
        self, datastore_id: str, identity: ResultIdentity, output: Output, report: FoundReport
    ) -> str | None:
        if self._files is None:
            return None
        dataset = report.dataset or self._archive.read(
            datastore_id=datastore_id, stored=report.series, identity=identity.report(output)
        )
        return self._copy(identity, dataset)

    def _put(self, identity: ResultIdentity, label_map: LabelMapFile) -> StoredReport:
        if self._files is None:
            msg = "NIfTI files need a place in S3"
            raise ValueError(msg)
        return StoredReport(
            kind=Output.NIFTI,
            series_instance_uid=None,
            sop_instance_uid=None,
            image_set_id=None,
            is_primary=None,
            s3_uri=self._files.put(
                identity=identity,
                name=f"{identity.series_instance_uid}{label_map.suffix}.nii.gz",
                content=label_map.content,
                content_type="application/gzip",
            ),
        )


def _stored_report(
    kind: str, which: InstanceIdentity, series: StoredSeries, s3_uri: str | None
) -> StoredReport:
    return StoredReport(
        kind=kind,
        series_instance_uid=which.series_instance_uid,
        sop_instance_uid=which.sop_instance_uid,
        image_set_id=series.image_set_id,
        is_primary=True,
        s3_uri=s3_uri,
    )
