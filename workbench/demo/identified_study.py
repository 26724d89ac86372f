"""A study as it comes from a scanner: with a person's attributes in every place where they like to be, and
with a screen capture that has them in its pixels. The person is made up.
"""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset, FileDataset
from pydicom.uid import SecondaryCaptureImageStorage

import healthimaging
from workbench.demo.ct_series import ct_datasets, write_series
from workbench.demo.nrrd_volume import CtVolume
from workbench.demo.patients import Patient, deterministic_uid
from workbench.deployment import Deployment
from workbench.errors import WorkbenchError
from workbench.ingest import IngestReport, Options, ingest
from workbench.progress import Progress

EVERY = 5
"""Every fifth slice: enough to look at, and too few for the rule that asks the endpoint about chest CTs."""

PERSON = Patient(
    name="identified",
    patient_name="Synthetic^Identified",
    patient_id="DEMO-MRN-481516",
    study_id="DEMO-STUDY-2342",
    accession_number="DEMO-ACC-9917",
    study_date="20000104",
)
_PRIVATE_GROUP = 0x0099


@dataclass(frozen=True, kw_only=True)
class IdentifiedStudy:
    """The study as files."""

    files: list[Path]
    """The CT slices, then the screen capture."""
    screen_capture: Path
    array: npt.NDArray[np.int16]
    """The slices' Hounsfield units: (slice, row, column)."""


@dataclass(frozen=True, kw_only=True)
class DeidentifiedStudy:
    """What became of it."""

    report: IngestReport
    image_set_id: str
    study_instance_uid: str
    """The new one."""
    changes_by_rule: dict[str, int]
    """As the report of de-identification counts them, over all instances."""
    table: dict[str, str]
    """Edition of the standard's table, and the library that it comes from."""
    searched: int
    """Text values that were searched for what was planted."""

    def to_json(self) -> dict[str, object]:
        return {
            "imageSetId": self.image_set_id,
            "studyInstanceUid": self.study_instance_uid,
            "imported": len(self.report.present),
            "quarantined": [
                {"file": Path(one.file).name, "reason": one.reason} for one in self.report.quarantined
            ],
            "changesByRule": self.changes_by_rule,
            "table": self.table,
            "searchedValues": self.searched,
        }


def write_identified_study(volume: CtVolume, folder: Path) -> IdentifiedStudy:
    """Write some slices of the volume as the study of `PERSON`, and a screen capture of the first."""
    affine = volume.affine.copy()
    affine[:, 2] *= EVERY
    affine[3, 2] = 0.0
    thinned = replace(volume, array=volume.array[::EVERY].copy(), affine=affine)
    slices = ct_datasets(thinned, PERSON)
    for dataset in slices:
        _identify(dataset)
    files = write_series(slices, folder)
    capture = folder / "screen-capture.dcm"
    _screen_capture(slices[0]).save_as(capture, enforce_file_format=True)
    return IdentifiedStudy(files=[*files, capture], screen_capture=capture, array=thinned.array)


def ingest_deidentified(
    deployment: Deployment, study: IdentifiedStudy, progress: Progress
) -> DeidentifiedStudy:
    """Import it de-identified, and look at what the archive has: the same pixels, and nothing of the person.

    Raises:
        WorkbenchError: Something of the person is left, pixels differ, or the capture is not in quarantine.
    """
    report = ingest(deployment, study.files, options=Options(deidentify=True), progress=progress)
    quarantined = [one.file for one in report.quarantined]
    if report.failed or quarantined != [str(study.screen_capture)] or len(report.image_sets) != 1:
        raise WorkbenchError(
            f"Of {len(study.files)} files {len(report.present)} are in, {len(report.failed)} failed and "
            f"{len(quarantined)} are in quarantine, where the screen capture alone belongs.",
            advice="Run the same by hand and look: monai-aws ingest --deidentify FOLDER.",
            details=[
                f"{one.file}: {one.kind}: {one.reason}" for one in (*report.failed, *report.quarantined)
            ],
        )
    [image_set] = report.image_sets
    opened = healthimaging.ImageSet.open(
        deployment.session.client("medical-imaging"), report.datastore_id, image_set.image_set_id
    )
    searched = sum(_search(dataset) for dataset in opened.datasets(pixels=False))
    [stored] = opened.volumes()
    # The archive's slices may come from the other end; nothing else may differ.
    if not any(np.array_equal(stored.array, array) for array in (study.array, study.array[::-1])):
        raise WorkbenchError(
            f"Image set {image_set.image_set_id} does not hold the pixels that were given.",
            advice="De-identification must not touch pixels: please report it.",
        )
    progress(f"{searched} values searched: nothing of the person is left; the pixels are the same")
    uid = str(opened.metadata.study_instance_uid)
    document = _document(deployment, uid)
    return DeidentifiedStudy(
        report=report,
        image_set_id=image_set.image_set_id,
        study_instance_uid=uid,
        changes_by_rule=document["changesByRule"],
        table=document["table"],
        searched=searched,
    )


def _identify(dataset: FileDataset) -> None:
    """Put the person where scanners, technicians and archives put them."""
    del dataset.PatientIdentityRemoved, dataset.DeidentificationMethod
    dataset.PatientBirthDate = "19500607"
    dataset.PatientAge = "049Y"
    dataset.PatientSex = "F"
    dataset.PatientAddress = "1 Demonstration Road"
    dataset.OtherPatientIDs = f"{PERSON.patient_id}-OLD"
    dataset.PatientComments = f"{PERSON.patient_name} asked for a copy"
    dataset.InstitutionName = "Demonstration Hospital"
    dataset.StationName = "DEMO-CT-1"
    dataset.StudyDescription = f"Chest CT of {PERSON.patient_id}"
    request = Dataset()
    request.RequestedProcedureID = PERSON.accession_number
    request.RequestedProcedureDescription = f"CT chest, {PERSON.patient_name}"
    dataset.RequestAttributesSequence = [request]
    block = dataset.private_block(_PRIVATE_GROUP, "MONAI ON AWS DEMO", create=True)
    block.add_new(0x01, "LO", PERSON.patient_id)


def _screen_capture(first: FileDataset) -> FileDataset:
    """The first slice as a secondary capture (PS3.3 A.8.1) whose pixels are said to show the person."""
    capture = deepcopy(first)
    capture.SOPClassUID = capture.file_meta.MediaStorageSOPClassUID = SecondaryCaptureImageStorage
    uid = deterministic_uid(PERSON.name, "screen capture")
    capture.SOPInstanceUID = capture.file_meta.MediaStorageSOPInstanceUID = uid
    capture.SeriesInstanceUID = deterministic_uid(PERSON.name, "screen captures")
    capture.SeriesNumber = 99
    capture.Modality = "OT"
    capture.ConversionType = "WSD"
    capture.ImageType = ["DERIVED", "SECONDARY"]
    capture.BurnedInAnnotation = "YES"
    return capture


def _planted() -> tuple[str, ...]:
    """What must be found nowhere, in lower case."""
    names = PERSON.patient_name.replace("^", " ").split()
    return tuple(
        text.lower()
        for text in (
            *(name for name in names if name != "Synthetic"),
            *(PERSON.patient_id, PERSON.study_id, PERSON.accession_number, PERSON.study_date),
            *(PERSON.study_instance_uid, PERSON.series_instance_uid, PERSON.frame_of_reference_uid),
            *("19500607", "Demonstration Road", "Demonstration Hospital", "DEMO-CT-1"),
        )
    )


def _search(dataset: Dataset) -> int:
    """Look at every value; how many there were."""
    planted, values = _planted(), 0
    for element in dataset.iterall():
        if element.VR == "SQ":
            continue
        values += 1
        text = str(element.value).lower()
        if any(one in text for one in planted):
            raise WorkbenchError(
                f"{element.tag} {element.keyword} of a de-identified instance still has an identifier.",
                advice="This must never happen: please report it.",
            )
    return values


def _document(deployment: Deployment, study_instance_uid: str) -> dict[str, Any]:
    """The newest report of de-identification that is kept about the study."""
    s3, bucket = deployment.session.client("s3"), deployment.stack("data")["ImportBucketName"]
    prefix = f"reports/deidentification/{study_instance_uid}/"
    found = s3.list_objects_v2(Bucket=bucket, Prefix=prefix).get("Contents", [])
    if not found:
        raise WorkbenchError(
            f"There is no report of de-identification of study {study_instance_uid}.",
            advice="It is written when the import job has ended: see the ingest's warnings.",
        )
    newest = max(found, key=lambda one: one["LastModified"])
    document: dict[str, Any] = deployment.session.read_json(f"s3://{bucket}/{newest['Key']}")
    return document
