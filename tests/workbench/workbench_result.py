"""A made-up result of the demo, complete enough for every part of the report."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import numpy as np

from arrival.importing.job_output import ImportedFile
from healthimaging.manifest import Case, Manifest
from healthimaging.reference import ImageSetRef
from healthimaging.volumes.geometry import Geometry
from workbench.approve import Approval, InService
from workbench.datasets.make import Dataset
from workbench.demo.findings import Findings, Score
from workbench.demo.planes import orthogonal_planes
from workbench.demo.snapshot import Snapshot
from workbench.demo.steps import StepRecord
from workbench.demo.ways import Way
from workbench.ingest import IngestReport
from workbench.predicting.answer import PredictedSegment, Prediction, StoredSegmentation
from workbench.query import Column, QueryResult
from workbench.served import Mode, Served
from workbench.training.curve import TrainingCurve
from workbench.training.evaluation import Evaluation
from workbench.training.evaluation_files import EvaluationFiles
from workbench.training.execution import PipelineStep
from workbench.training.train import TrainingResult

DATASTORE = "d" * 32


def phantom() -> tuple[np.ndarray, Geometry, dict[str, np.ndarray]]:
    """A body with two ellipsoid lungs, 5 mm slices and 1 mm pixels, and a prediction that is a little too
    large.
    """
    slices, rows, columns = np.ogrid[0:40, 0:160, 0:200]
    z, y, x = (slices - 20) * 5.0, rows - 80.0, columns - 100.0
    body = (y / 70) ** 2 + (x / 95) ** 2 < 1
    lungs = np.zeros((40, 160, 200), dtype=bool)
    larger = lungs.copy()
    for side in (-42, 42):
        lungs |= (z / 80) ** 2 + (y / 48) ** 2 + ((x - side) / 30) ** 2 < 1
        larger |= (z / 84) ** 2 + (y / 50) ** 2 + ((x - side) / 33) ** 2 < 1
    volume = np.where(lungs, -850, np.where(body, 40, -1000)).astype(np.float32)
    affine = np.diag([1.0, 1.0, 5.0, 1.0])
    affine[:3, 3] = [-100, -80, -100]
    return volume, Geometry(affine, (40, 160, 200)), {"prediction": larger, "reference": lungs}


def steps(*, failed: str | None = None) -> list[StepRecord]:
    """Steps with times like those of a real run, up to the failed one."""
    times = {
        "Start the local cloud": 3.4,
        "Bootstrap the account": 9.8,
        "Deploy the stacks": 41.0,
        "Import both studies": 7.5,
        "Train, evaluate and register": 62.1,
        "Predict the unseen patient": 6.7,
    }
    records = []
    begun = 0.0
    for name, seconds in times.items():
        records.append(StepRecord(name=name, ok=name != failed, started=begun, seconds=seconds))
        begun += seconds
        if name == failed:
            break
    return records


def ingest_report() -> IngestReport:
    return IngestReport(
        datastore_id=DATASTORE,
        jobs=("j" * 32,),
        imported=tuple(
            ImportedFile(file=f"lung1/{n:04d}.dcm", image_set_id="a" * 32, version_id=1, is_primary=True)
            for n in range(48)
        ),
        failed=(),
        skipped=(),
        warnings=(),
    )


def approval() -> Approval:
    """One package in service in three ways."""
    package = "arn:aws:sagemaker:us-east-1:000000000000:model-package/lung/1"
    return Approval(
        model_package_arn=package,
        in_service=tuple(
            InService(
                served=Served(name=name, mode=mode, tasks=("lung",)),
                name=f"{name}-1",
                before="",
                changed=True,
            )
            for name, mode in (("lung", Mode.ASYNCHRONOUS), ("lung-now", Mode.REAL_TIME))
        ),
    )


def way(name: str, *, stored_anew: bool) -> Way:
    """One row of the table of ways."""
    return Way(
        name=name,
        endpoint="lung",
        seconds=1.25,
        image_set_id="b" * 32,
        segmentation_image_set_id="c" * 32,
        stored_anew=stored_anew,
        note="a note" if stored_anew else "",
    )


def findings() -> Findings:
    volume, geometry, masks = phantom()
    image = ImageSetRef(datastore_id=DATASTORE, image_set_id="a" * 32, version_id="1")
    case = Case(patient_key="0123456789abcdef", split="train", image=image, label=None)
    return Findings(
        environment="local",
        started="2026-01-02T03:04:05+00:00",
        minimum_dice=0.85,
        versions={"boto3": "1.2.3"},
        conformance_checked=True,
        ingest=ingest_report(),
        label_ingest=ingest_report(),
        catalog=QueryResult(
            execution_id="q",
            sql="SELECT patient_id, study_date\nFROM series",
            columns=(Column(name="patient_id", type="varchar"), Column(name="study_date", type="date")),
            rows=(("DEMO-<1>", date(2000, 1, 1)), (None, None)),
            bytes_scanned=5321,
            seconds=0.4,
        ),
        dataset=Dataset(
            manifest=Manifest(query="SELECT", datastore_id=DATASTORE, seed=0, cases=(case,)),
            uri="s3://models/manifests/demo-1.json",
        ),
        training=TrainingResult(
            execution_arn="arn:aws:sagemaker:us-east-1:000000000000:pipeline/p/execution/e",
            training_job="job",
            model_package_arn="arn:aws:sagemaker:us-east-1:000000000000:model-package/lung/1",
            steps=(PipelineStep(name="Train", status="Succeeded", seconds=30.0, reason=""),),
            curve=TrainingCurve(
                train_loss=tuple((step, 0.05 + 0.9 / (1 + step / 20)) for step in range(1, 121)),
                validation={"val_mean_dice": ((40, 0.71), (80, 0.89), (120, 0.93))},
            ),
            evaluation=Evaluation(
                metrics={"mean_dice": 0.9312},
                split="test",
                held_out=True,
                patients=1,
                uri="s3://m/evaluation.json",
            ),
            model_card="Draft",
        ),
        evaluation_files=EvaluationFiles(
            folder=Path("evaluation"),
            report=Path("evaluation/report.html"),
            model_card=Path("evaluation/model-card.json"),
            pictures=(),
        ),
        approval=approval(),
        prediction=Prediction(
            image_set_id="b" * 32,
            version_id="1",
            stored_segmentation=StoredSegmentation(
                series_instance_uid="2.25.1",
                sop_instance_uid="2.25.2",
                image_set_id="c" * 32,
                is_primary=True,
                s3_uri=None,
            ),
            segments=(PredictedSegment(label="lung", volume_ml=4100.0),),
            model={"name": "ct_segmentation", "version": "0.1.0", "sha256": "e" * 64},
            seconds={"load": 0.5, "inference": 2.5},
        ),
        prediction_seconds=6.4,
        score=Score(
            dice=0.931, minimum=0.85, predicted_ml=4100.0, reference_ml=4006.3, pixels_identical=True
        ),
        ways=[way("asynchronous request", stored_anew=True), way("real-time request", stored_anew=False)],
        snapshot=Snapshot(image_set_id="9" * 32, png="UE5H", width=4, height=3),
        arrival_ingest=ingest_report(),
        planes=orthogonal_planes(volume, geometry, masks),
        image_sets={"lung1": "a" * 32, "lung2": "b" * 32},
        recorded_only=("AWS::ApplicationAutoScaling::ScalableTarget", "AWS::CloudTrail::Trail"),
    )
