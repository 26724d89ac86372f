"""What the demo found out so far. The report and the summary are written from it, after a failure too."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from workbench.approve import Approval
from workbench.datasets.make import Dataset
from workbench.demo.identified_study import DeidentifiedStudy
from workbench.demo.pacs import SentStudy
from workbench.demo.planes import Plane
from workbench.demo.questions import Answer
from workbench.demo.snapshot import Snapshot
from workbench.demo.steps import StepRecord
from workbench.demo.ways import Way
from workbench.errors import WorkbenchError
from workbench.ingest import IngestReport
from workbench.predicting.answer import Prediction
from workbench.predicting.batch import BatchResult
from workbench.query import QueryResult
from workbench.training.evaluation_files import EvaluationFiles
from workbench.training.train import TrainingResult


@dataclass(frozen=True, kw_only=True)
class Score:
    """The prediction of the unseen patient against the reference."""

    dice: float
    minimum: float
    predicted_ml: float
    reference_ml: float
    pixels_identical: bool
    """The datastore's frames are the pixels that were put in."""

    @property
    def ok(self) -> bool:
        return self.dice >= self.minimum


@dataclass(kw_only=True)
class Findings:
    """Everything is None or empty until its step has run."""

    environment: str
    started: str
    """ISO 8601, UTC."""
    minimum_dice: float
    versions: dict[str, str] = field(default_factory=dict)
    conformance_checked: bool | None = None
    """Whether dciodvfy was installed and found no error; None before that step."""
    ingest: IngestReport | None = None
    catalog: QueryResult | None = None
    deidentified: DeidentifiedStudy | None = None
    sent: SentStudy | None = None
    answers: tuple[Answer, ...] = ()
    """Of the catalog, to named queries."""
    label_ingest: IngestReport | None = None
    dataset: Dataset | None = None
    training: TrainingResult | None = None
    evaluation_files: EvaluationFiles | None = None
    """The evaluation's own report, beside this one."""
    approval: Approval | None = None
    prediction: Prediction | None = None
    prediction_seconds: float | None = None
    score: Score | None = None
    planes: tuple[Plane, ...] = ()
    snapshot: Snapshot | None = None
    """The picture for readers that the endpoint stored, where the environment asks for one."""
    ways: list[Way] = field(default_factory=list)
    """Every result, by the way on which it came."""
    batch: BatchResult | None = None
    arrival_ingest: IngestReport | None = None
    image_sets: dict[str, str] = field(default_factory=dict)
    """Image set ids by what they hold: lung1, lung1 label, lung2, lung2 label, lung2 prediction."""
    recorded_only: tuple[str, ...] | None = None
    error: WorkbenchError | None = None
    failed_step: str | None = None


def summary(findings: Findings, steps: Sequence[StepRecord]) -> dict[str, object]:
    """The content of summary.json; every key is always there, null where the demo did not get that far."""
    ingested = findings.ingest
    training = findings.training
    score = findings.score
    prediction = findings.prediction
    return {
        "ok": findings.error is None and all(step.ok for step in steps),
        "environment": findings.environment,
        "started": findings.started,
        "seconds": round(sum(step.seconds for step in steps), 2),
        "steps": [{"name": step.name, "ok": step.ok, "seconds": round(step.seconds, 2)} for step in steps],
        "failed_step": findings.failed_step,
        "error": findings.error.to_json() if findings.error else None,
        "dice": score.dice if score else None,
        "minimum_dice": findings.minimum_dice,
        "volumes_ml": {"predicted": score.predicted_ml, "reference": score.reference_ml} if score else None,
        "pixels_identical": score.pixels_identical if score else None,
        "segmentation": prediction.segmentation.to_json() if prediction else None,
        "prediction": prediction.to_json() if prediction else None,
        "prediction_seconds": findings.prediction_seconds,
        "image_sets": dict(findings.image_sets),
        "counts": {
            "imported_files": len(ingested.present) if ingested else 0,
            "failed_files": len(ingested.failed) if ingested else 0,
            "skipped_files": len(ingested.skipped) if ingested else 0,
            "image_sets": len(ingested.image_sets) if ingested else 0,
            "non_primary": len(ingested.non_primary) if ingested else 0,
            "catalog_rows": len(findings.catalog.rows) if findings.catalog else 0,
            "training_cases": len(findings.dataset.manifest.split("train")) if findings.dataset else 0,
        },
        "ingest": ingested.to_json() if ingested else None,
        "deidentified": findings.deidentified.to_json() if findings.deidentified else None,
        "received": findings.sent.to_json() if findings.sent else None,
        "named_queries": [one.to_json() for one in findings.answers],
        "manifest_uri": findings.dataset.uri if findings.dataset else None,
        "model_package_arn": training.model_package_arn if training else None,
        "evaluation": training.evaluation.to_json() if training and training.evaluation else None,
        "evaluation_files": findings.evaluation_files.to_json() if findings.evaluation_files else None,
        "model_card": training.model_card or None if training else None,
        "endpoint_name": findings.approval.endpoint_name if findings.approval else None,
        "in_service": [one.to_json() for one in findings.approval.in_service] if findings.approval else [],
        "ways": [way.to_json() for way in findings.ways],
        "transform_job": findings.batch.job if findings.batch else None,
        "dciodvfy": {None: None, True: "no errors", False: "not installed"}[findings.conformance_checked],
        "versions": dict(findings.versions),
        "recorded_only": list(findings.recorded_only) if findings.recorded_only is not None else [],
    }
