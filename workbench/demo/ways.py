"""The ways to a result besides the first asynchronous request: at once, in a batch, and by itself.

All of them run the same model on the same pixels, so they must come to the same segmentation; and what is
stored once must not be stored a second time.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

import healthimaging
from arrival.waiting import poll
from healthimaging.reference import ImageSetRef
from healthimaging.volumes.geometry import Geometry
from workbench.demo.comparison import Mask, stored_mask
from workbench.demo.ct_series import ct_datasets, write_series
from workbench.demo.label import SEGMENT
from workbench.demo.nrrd_volume import CtVolume
from workbench.demo.patients import Patient
from workbench.deployment import Deployment
from workbench.errors import PredictionFailed, WorkbenchError
from workbench.ingest import IngestReport, ingest
from workbench.predicting.answer import Prediction
from workbench.predicting.batch import BatchResult, predict_batch
from workbench.predicting.predict import predict
from workbench.progress import Progress

ARRIVAL_SECONDS = 240.0
"""From import to stored segmentation: quiet period, dispatch, the work, and one retry of a queue."""


@dataclass(frozen=True, kw_only=True)
class Way:
    """One result, and how it came about."""

    name: str
    """As the report's table says: asynchronous request."""
    endpoint: str
    """As the environment file names it."""
    seconds: float
    """As whoever asked had to wait."""
    image_set_id: str
    segmentation_image_set_id: str
    stored_anew: bool
    """False if the same segmentation had been stored before, and was answered again."""
    note: str = ""

    def to_json(self) -> dict[str, object]:
        return {
            "way": self.name,
            "endpoint": self.endpoint,
            "seconds": self.seconds,
            "imageSetId": self.image_set_id,
            "segmentationImageSetId": self.segmentation_image_set_id,
            "storedAnew": self.stored_anew,
        }


def ask_again(
    deployment: Deployment, endpoint: str, image: ImageSetRef, first: Prediction, progress: Progress
) -> Way:
    """The same request to the real-time endpoint: it answers with the segmentation that is stored already."""
    begin = time.monotonic()
    answer = predict(deployment, image, endpoint=endpoint, progress=progress)
    seconds = round(time.monotonic() - begin, 2)
    _require_same(first, answer)
    progress(f"the same segmentation, {answer.segmentation.sop_instance_uid}, and nothing stored twice")
    return Way(
        name="real-time request",
        endpoint=endpoint,
        seconds=seconds,
        image_set_id=answer.image_set_id,
        segmentation_image_set_id=answer.segmentation.image_set_id,
        stored_anew=False,
    )


def ask_for_all(
    deployment: Deployment,
    endpoint: str,
    images: Sequence[ImageSetRef],
    first: Prediction,
    progress: Progress,
) -> tuple[BatchResult, list[Way]]:
    """A batch job over all patients; that of `first` gets the segmentation that is stored already."""
    before = {one.image_set_id: _segmentations(deployment, one.image_set_id) for one in images}
    result = predict_batch(deployment, images, endpoint=endpoint, progress=progress, every_seconds=1.0)
    if not result.ok:
        raise PredictionFailed(
            f"Batch job {result.job}: {len(result.failures)} of {len(images)} image sets have no result: "
            f"{result.failures[0].reason}",
            advice="The container's last lines say why; the same batch can be started again.",
            details=result.log,
        )
    for one in result.results:
        if one.image_set_id == first.image_set_id:
            _require_same(first, one)
    ways = [
        Way(
            name="batch job",
            endpoint=endpoint,
            seconds=result.seconds,
            image_set_id=one.image_set_id,
            segmentation_image_set_id=one.segmentation.image_set_id,
            stored_anew=one.segmentation.image_set_id not in before[one.image_set_id],
            note="the whole job",
        )
        for one in result.results
    ]
    return result, ways


@dataclass(frozen=True, kw_only=True)
class NewStudy:
    """A study that nobody has seen before, as files."""

    patient: Patient
    files: list[Path]


def new_study(volume: CtVolume, folder: Path) -> NewStudy:
    """The volume as a CT series of a new patient with new UIDs; another one at every call."""
    number = uuid.uuid4().hex[:12]
    patient = Patient(
        name=f"arrival-{number}",
        patient_name="Synthetic^Demo Arrival",
        patient_id=f"DEMO-{number}".upper(),
        study_id="DEMO3",
        accession_number=number.upper(),
        study_date="20000103",
    )
    return NewStudy(patient=patient, files=write_series(ct_datasets(volume, patient), folder))


def arrive(
    deployment: Deployment, study: NewStudy, endpoint: str, progress: Progress
) -> tuple[IngestReport, Way]:
    """Import the study, and do nothing: wait until its segmentation is in the archive."""
    report = ingest(deployment, study.files, progress=progress)
    if not report.ok or len(report.image_sets) != 1:
        raise WorkbenchError(
            f"The new study became {len(report.image_sets)} image sets, and {len(report.failed)} files "
            "failed.",
            advice="See the import's failures in the report.",
            details=[f"{one.file}: {one.kind}: {one.reason}" for one in report.failed],
        )
    [images] = report.image_sets
    begin = time.monotonic()
    progress(f"image set {images.image_set_id} is in the archive; waiting for what the event path does")

    def stored() -> Mapping[str, Any] | None:
        return next(iter(_segmentations(deployment, images.image_set_id).values()), None)

    found = poll(
        stored,
        every_seconds=0.5,
        timeout_seconds=ARRIVAL_SECONDS,
        on_timeout=lambda: PredictionFailed(
            f"No segmentation of image set {images.image_set_id} has arrived within {ARRIVAL_SECONDS:.0f} s.",
            advice="See what could not be done: monai-aws dead-letters list; and what the dispatch "
            "function's log says.",
        ),
    )
    return report, Way(
        name="by itself, after an import",
        endpoint=endpoint,
        seconds=round(time.monotonic() - begin, 2),
        image_set_id=images.image_set_id,
        segmentation_image_set_id=str(found["imageSetId"]),
        stored_anew=True,
        note="from the end of the import job",
    )


def require_mask(deployment: Deployment, way: Way, study: NewStudy, *, mask: Mask, like: Geometry) -> None:
    """The stored segmentation of `way` has exactly this mask, which lies on the grid of the same pixels in
    the patient whom they were taken from.
    """
    client = deployment.session.client("medical-imaging")
    datastore = deployment.stack("data")["DatastoreId"]
    image_set = way.segmentation_image_set_id
    own = replace(like, frame_of_reference_uid=study.patient.frame_of_reference_uid)
    stored = stored_mask(client, datastore_id=datastore, image_set_id=image_set, label=SEGMENT, like=own)
    if not np.array_equal(stored, mask):
        raise WorkbenchError(
            f"Image set {image_set} holds another mask than the first request's, of the same pixels: "
            f"{int((stored ^ mask).sum())} voxels differ.",
            advice="One model gives one result for the same pixels: please report it.",
        )


def _segmentations(deployment: Deployment, image_set_id: str) -> dict[str, Mapping[str, Any]]:
    """The primary segmentations in the study of an image set, by image set id."""
    client = deployment.session.client("medical-imaging")
    datastore = deployment.stack("data")["DatastoreId"]
    study = healthimaging.ImageSet.open(client, datastore, image_set_id).metadata.study_instance_uid
    pages = client.get_paginator("search_image_sets").paginate(
        datastoreId=datastore,
        searchCriteria={
            "filters": [{"operator": "EQUAL", "values": [{"DICOMStudyInstanceUID": study}]}],
        },
    )
    return {
        str(one["imageSetId"]): one
        for page in pages
        for one in page["imageSetsMetadataSummaries"]
        if one["DICOMTags"].get("DICOMSeriesModality") == "SEG" and one.get("isPrimary", False)
    }


def _require_same(first: Prediction, answer: Prediction) -> None:
    one, other = first.segmentation, answer.segmentation
    if (one.image_set_id, one.sop_instance_uid) != (other.image_set_id, other.sop_instance_uid):
        raise WorkbenchError(
            f"The same image set and model gave two segmentations: {one.sop_instance_uid} in image set "
            f"{one.image_set_id}, and {other.sop_instance_uid} in {other.image_set_id}.",
            advice="A result is stored once for each image set, version and model: please report it.",
        )
