"""The job itself, from an empty machine to a scored segmentation, as the sequence of its steps."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pydicom.dataset import FileDataset

import healthimaging
from healthimaging.reference import ImageSetRef
from healthimaging.volumes.geometry import Geometry
from workbench.approve import approve
from workbench.catalog import wait_for_catalog
from workbench.cloud import DEFAULT_ROOT, cloud_up
from workbench.datasets.make import Division, make_dataset
from workbench.datasets.selection import default_sql
from workbench.demo.comparison import Mask, dice, on_grid, stored_mask
from workbench.demo.ct_series import ct_datasets, write_series
from workbench.demo.findings import Findings, Score
from workbench.demo.identified_study import ingest_deidentified, write_identified_study
from workbench.demo.label import SEGMENT, SERIES_DESCRIPTION, write_label
from workbench.demo.lung_mask import silver_lung_mask
from workbench.demo.nrrd_volume import CtVolume, read_nrrd
from workbench.demo.pacs import send_to_receiver, write_sent_study
from workbench.demo.patients import LUNG1, LUNG2, PATIENTS, Patient
from workbench.demo.planes import orthogonal_planes
from workbench.demo.questions import ask
from workbench.demo.series_check import check_conformance, check_geometry
from workbench.demo.snapshot import read_snapshot
from workbench.demo.source_data import fetch
from workbench.demo.steps import Steps
from workbench.demo.ways import Way, arrive, ask_again, ask_for_all, new_study, require_mask
from workbench.deployment import Deployment
from workbench.errors import ImportFailed, WorkbenchError
from workbench.ingest import IngestReport, ingest
from workbench.predicting.answer import Prediction
from workbench.predicting.predict import predict
from workbench.progress import Progress
from workbench.provision import bootstrap, deploy
from workbench.query import query, text_literal
from workbench.served import Mode
from workbench.session import Session
from workbench.training.evaluation_files import download_evaluation
from workbench.training.request import TrainingRequest
from workbench.training.train import train

TASK = "lung-segmentation"

TOLERANCE = 0.02
"""How much worse than the model in use a demo's may be. A demo that is run again compares two trainings on
one patient with each other, which differ by chance.
"""


@dataclass(frozen=True, kw_only=True)
class DemoOptions:
    """What a person can change about the demo."""

    folder: Path
    """Where its files, report and summary go."""
    inputs: tuple[Path, ...] = ()
    """Further DICOM files or folders that are imported together with the two patients."""
    minimum_dice: float = 0.85
    max_steps: int | None = None
    cloud_root: Path = DEFAULT_ROOT


@dataclass(frozen=True, kw_only=True)
class WrittenPatient:
    """A patient's volume and the series that was written from it."""

    patient: Patient
    volume: CtVolume
    datasets: list[FileDataset]
    files: list[Path]


def run_job(session: Session, options: DemoOptions, steps: Steps, findings: Findings) -> None:
    """Run every step; the first one that fails raises, with everything found until then in `findings`."""
    deployment = Deployment(session)
    if session.environment.local is not None:
        with steps.run("Start the local cloud") as progress:
            cloud_up(session.environment, root=options.cloud_root, progress=progress)
    with steps.run("Bootstrap the account") as progress:
        if not bootstrap(session, progress=progress):
            progress("it is bootstrapped already")
    with steps.run("Deploy the stacks") as progress:
        deploy(session, progress=progress)
    with steps.run("Write two patients as DICOM") as progress:
        patients = _write_patients(options, findings, progress)
    with steps.run("Import both studies") as progress:
        images = _import_studies(deployment, options, patients, findings, progress)
    with steps.run("Find the studies with SQL") as progress:
        _find_studies(deployment, images, findings, progress)
    with steps.run("De-identify and import a study") as progress:
        findings.deidentified = ingest_deidentified(
            deployment,
            write_identified_study(patients[LUNG1.name].volume, options.folder / "dicom" / "identified"),
            progress,
        )
        findings.image_sets["de-identified study"] = findings.deidentified.image_set_id
    with steps.run("Receive a study from a device") as progress:
        files = write_sent_study(patients[LUNG1.name].volume, options.folder / "dicom" / "sent")
        findings.sent = send_to_receiver(deployment, files, progress)
    with steps.run("Import the labels") as progress:
        masks = _import_labels(deployment, options, patients, findings, progress)
    with steps.run("Ask the catalog") as progress:
        findings.answers = ask(deployment, progress)
    with steps.run("Make the dataset manifest") as progress:
        findings.dataset = make_dataset(
            deployment,
            default_sql(
                patients=[patient.patient_id for patient in PATIENTS], label_description=SERIES_DESCRIPTION
            ),
            name="demo",
            # Of two patients nobody has to be drawn: one is learned from, the other is kept for the test.
            division=Division(validation=0.0, test_patients=[LUNG2.patient_id]),
            progress=progress,
        )
    with steps.run("Train, evaluate and register") as progress:
        findings.training = train(
            deployment,
            TrainingRequest(
                bundle=TASK,
                data=findings.dataset.uri,
                steps=options.max_steps,
                parameters={"MinimumImprovement": str(-TOLERANCE)},
            ),
            progress=progress,
        )
        if findings.training.evaluation is not None:
            findings.evaluation_files = download_evaluation(
                session, findings.training.evaluation, options.folder / "evaluation"
            )
    with steps.run("Approve and deploy the model") as progress:
        approval = approve(
            deployment,
            model_package_arn=findings.training.model_package_arn,
            task=TASK,
            note="Approved by the demo",
            progress=progress,
        )
        findings.approval = approval
    with steps.run("Predict the unseen patient") as progress:
        prediction = _predict(deployment, images[LUNG2.name], findings, progress)
    with steps.run("Read the segmentation back and score it") as progress:
        scored = _score(
            session,
            options,
            patients[LUNG2.name],
            masks[LUNG2.name],
            images[LUNG2.name],
            prediction,
            findings,
            progress,
        )
    serving = {one.served.mode: one.served.name for one in reversed(approval.in_service)}
    if Mode.REAL_TIME in serving:
        with steps.run("Ask again, in real time") as progress:
            findings.ways.append(
                ask_again(deployment, serving[Mode.REAL_TIME], images[LUNG2.name], prediction, progress)
            )
    if Mode.BATCH in serving:
        with steps.run("Batch transform over both patients") as progress:
            findings.batch, ways = ask_for_all(
                deployment, serving[Mode.BATCH], list(images.values()), prediction, progress
            )
            findings.ways += ways
    if "DispatchFunctionName" in deployment.stack("inference").values:
        with steps.run("A new study arrives and is segmented") as progress:
            study = new_study(patients[LUNG2.name].volume, options.folder / "dicom" / "arrival")
            findings.arrival_ingest, way = arrive(deployment, study, serving[Mode.ASYNCHRONOUS], progress)
            findings.ways.append(way)
            findings.image_sets["new study"] = way.image_set_id
            findings.image_sets["new study segmentation"] = way.segmentation_image_set_id
            require_mask(deployment, way, study, mask=scored.mask, like=scored.geometry)
            progress("its segmentation has the mask that the same pixels had in the other patient")


@dataclass(frozen=True, kw_only=True)
class Scored:
    """What the first request stored, as it was read back."""

    mask: Mask
    geometry: Geometry


def _predict(
    deployment: Deployment, image: ImageSetRef, findings: Findings, progress: Progress
) -> Prediction:
    begin = time.monotonic()
    prediction = predict(deployment, image, endpoint=TASK, progress=progress, every_seconds=0.25)
    findings.prediction = prediction
    findings.prediction_seconds = round(time.monotonic() - begin, 2)
    stored = prediction.segmentation
    findings.image_sets["lung2 prediction"] = stored.image_set_id
    for report in prediction.reports:
        if report.image_set_id is not None:
            findings.image_sets[f"lung2 {report.kind}"] = report.image_set_id
    findings.ways.append(
        Way(
            name="asynchronous request",
            endpoint=TASK,
            seconds=findings.prediction_seconds,
            image_set_id=prediction.image_set_id,
            segmentation_image_set_id=stored.image_set_id,
            stored_anew=True,
        )
    )
    _require_primary(prediction)
    findings.snapshot = read_snapshot(deployment, prediction)
    return prediction


def _write_patients(
    options: DemoOptions, findings: Findings, progress: Progress
) -> dict[str, WrittenPatient]:
    data = fetch(progress=progress)
    written = {}
    for patient in PATIENTS:
        volume = read_nrrd(data / f"{patient.name}_image.nrrd")
        datasets = ct_datasets(volume, patient)
        files = write_series(datasets, options.folder / "dicom" / patient.name)
        check_geometry(files, volume)
        findings.conformance_checked = check_conformance(files)
        progress(f"{patient.name}: {len(files)} instances, read back by highdicom as they were")
        written[patient.name] = WrittenPatient(patient=patient, volume=volume, datasets=datasets, files=files)
    progress(
        "dciodvfy: no errors" if findings.conformance_checked else "dciodvfy is not installed, not checked"
    )
    return written


def _import_studies(
    deployment: Deployment,
    options: DemoOptions,
    patients: dict[str, WrittenPatient],
    findings: Findings,
    progress: Progress,
) -> dict[str, ImageSetRef]:
    files = [file for written in patients.values() for file in written.files]
    report = ingest(deployment, [*files, *options.inputs], progress=progress)
    findings.ingest = report
    images = {name: _image_set_of(report, written.files) for name, written in patients.items()}
    for name, image in images.items():
        findings.image_sets[name] = image.image_set_id
    _require_clean(report)
    return images


def _find_studies(
    deployment: Deployment, images: dict[str, ImageSetRef], findings: Findings, progress: Progress
) -> None:
    wait_for_catalog(
        deployment,
        {image.image_set_id: int(image.version_id) for image in images.values()},
        progress=progress,
    )
    uids = ",\n    ".join(text_literal(patient.series_instance_uid) for patient in PATIENTS)
    # Constants of the demo, each quoted by text_literal.
    sql = (
        "SELECT patient_id, study_date, modality, body_part_examined, number_of_instances AS slices,\n"
        "  slice_thickness, element_at(pixel_spacing, 1) AS pixel_spacing, image_set_id, version_id\n"
        f"FROM series\nWHERE series_instance_uid IN (\n    {uids})\nORDER BY patient_id"
    )
    findings.catalog = query(deployment, sql, progress=progress)
    if len(findings.catalog.rows) != len(images):
        raise WorkbenchError(
            f"The catalog has {len(findings.catalog.rows)} rows for {len(images)} series.",
            advice='Compare: monai-aws query "SELECT image_set_id, series_instance_uid FROM series"',
        )


def _import_labels(
    deployment: Deployment,
    options: DemoOptions,
    patients: dict[str, WrittenPatient],
    findings: Findings,
    progress: Progress,
) -> dict[str, Mask]:
    """Label both patients: one to learn from, one to be measured on. The masks, on the grids of the files."""
    masks, files = {}, {}
    for name, written in patients.items():
        progress(f"computing the silver lung mask of {name}")
        masks[name] = silver_lung_mask(written.volume.array, spacing=written.volume.spacing)
        files[name] = write_label(written.patient, written.datasets, masks[name], options.folder / "dicom")
    report = ingest(deployment, list(files.values()), progress=progress)
    findings.label_ingest = report
    _require_clean(report)
    labels = {name: _image_set_of(report, [file]) for name, file in files.items()}
    for name, label in labels.items():
        findings.image_sets[f"{name} label"] = label.image_set_id
    wait_for_catalog(
        deployment,
        {label.image_set_id: int(label.version_id) for label in labels.values()},
        progress=progress,
    )
    return masks


def _score(
    session: Session,
    options: DemoOptions,
    written: WrittenPatient,
    mask: Mask,
    image: ImageSetRef,
    prediction: Prediction,
    findings: Findings,
    progress: Progress,
) -> Scored:
    client = session.client("medical-imaging")
    stored = healthimaging.ImageSet.open(client, image.datastore_id, image.image_set_id, image.version_id)
    [volume] = stored.volumes()
    source = written.volume
    reference = np.asarray(on_grid(mask, source, volume.geometry), dtype=np.bool_)
    predicted = stored_mask(
        client,
        datastore_id=image.datastore_id,
        image_set_id=prediction.segmentation.image_set_id,
        label=SEGMENT,
        like=volume.geometry,
    )
    score = Score(
        dice=round(dice(predicted, reference), 4),
        minimum=options.minimum_dice,
        predicted_ml=round(float(predicted.sum()) * source.voxel_ml, 1),
        reference_ml=round(float(reference.sum()) * source.voxel_ml, 1),
        pixels_identical=bool(np.array_equal(volume.array, on_grid(source.array, source, volume.geometry))),
    )
    findings.score = score
    findings.planes = orthogonal_planes(
        volume.array, volume.geometry, {"prediction": predicted, "reference": reference}
    )
    progress(f"Dice {score.dice:.4f}")
    if not score.pixels_identical:
        raise WorkbenchError(
            f"Image set {image.image_set_id} does not return the pixels that were put in.",
            advice="Pixels were changed between the files and the datastore: please report it.",
        )
    if not score.ok:
        raise WorkbenchError(
            f"Dice is {score.dice:.4f}, below the {score.minimum} that the demo asks for.",
            advice="Look at the contours in the report; a training that diverged shows in its loss curve.",
        )
    return Scored(mask=predicted, geometry=volume.geometry)


def _image_set_of(report: IngestReport, files: Sequence[Path]) -> ImageSetRef:
    """The one image set that `files` became, at its newest version."""
    names = {str(file) for file in files}
    found = {one.image_set_id: one for one in report.present if one.file in names}
    if len(found) != 1:
        raise ImportFailed(
            f"{len(names)} files of one series became {len(found)} image sets: {', '.join(found) or 'none'}.",
            advice="Files that conflict with their study become image sets of their own; see the "
            "import's failures.",
            details=[f"{one.file}: {one.kind}: {one.reason}" for one in report.failed],
        )
    [one] = [summary for summary in report.image_sets if summary.image_set_id in found]
    return ImageSetRef(
        datastore_id=report.datastore_id, image_set_id=one.image_set_id, version_id=str(one.version_id)
    )


def _require_clean(report: IngestReport) -> None:
    if report.failed:
        files = ", ".join(one.file for one in report.failed[:5])
        raise ImportFailed(
            f"{len(report.failed)} of {len(report.failed) + len(report.present)} files were not "
            f"imported: {files}.",
            advice="The others are in the datastore. Repair or remove these files and run again.",
            details=[f"{one.file}: {one.kind}: {one.reason}" for one in report.failed],
        )
    if report.non_primary:
        raise ImportFailed(
            f"Image sets {', '.join(report.non_primary)} are not primary: they conflict with their study.",
            advice="Compare Patient ID, Study Date, Study ID and Accession Number with what the "
            "datastore holds.",
        )


def _require_primary(prediction: Prediction) -> None:
    if prediction.non_primary:
        raise WorkbenchError(
            f"Of the stored results, image sets {', '.join(prediction.non_primary)} are not primary.",
            advice="They do not repeat the study's attributes exactly, and DICOMweb will not show them.",
        )
