"""A processing job that measures a trained model on held-out cases, the way it will be served.

The model runs by its `inference.json`, from the volume as the archive holds it to labels on the same grid or
to probabilities of classes: what is measured is what a patient's result will be, resampling included. The
model that is in use is measured beside it.
"""

from __future__ import annotations

import hashlib
import logging
import os
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from healthimaging import Case, Manifest
from healthimaging.manifest import Split
from training.configuration.bundle import Task
from training.data.cases import check_cases, read_manifest
from training.data.labels import check_labels
from training.errors import EvaluationError
from training.evaluation.baseline import Connect, connected
from training.evaluation.classification_scores import ClassifiedCase
from training.evaluation.comparison import Comparison
from training.evaluation.document import Evaluation, case_document, write_results
from training.evaluation.gate import Gate, held_out
from training.evaluation.intervals import estimate, intervals
from training.evaluation.measurement import CaseResult, Measured, measure, scores_of, why_undefined
from training.evaluation.model import Model, open_model
from training.evaluation.pictures import Gallery, draw_classification, draw_segmentation
from training.evaluation.segmentation_scores import SegmentedCase, SegmentScore
from training.job.contract import EvaluationJob
from training.stopping import StopRequest

if TYPE_CHECKING:
    from training.loop.train import OpenReader

_LOG = logging.getLogger(__name__)

PREFERENCE: tuple[Split, ...] = ("test", "validation", "train")
"""The split that says most about unseen patients comes first. A result on training cases is better than none
for a first look, and says so.
"""


def evaluate(
    job: EvaluationJob,
    *,
    open_reader: OpenReader,
    stop: StopRequest,
    environ: Mapping[str, str] = os.environ,
    connect: Connect = connected,
) -> dict[str, Any]:
    """Evaluates, and writes `evaluation.json`, the report, the model card and the pictures.

    Args:
        job: Folders.
        open_reader: Where cases come from.
        stop: Looked at between cases.
        environ: Names what the model is judged by (`training.evaluation.gate`).
        connect: Makes AWS clients, for the model that is in use.

    Returns:
        What was written to `evaluation.json`.

    Raises:
        TrainingError: Model or cases cannot be used, or the metric that the model is judged by is no number.
        StoppedError: The job was stopped.
    """
    gate = Gate.from_environment(environ)
    manifest = read_manifest(job.manifest_file)
    manifest_sha256 = hashlib.sha256(job.manifest_file.read_bytes()).hexdigest()
    split, cases = cases_to_evaluate(manifest)
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        for name in ("model", "baseline"):
            (scratch / name).mkdir()
        opened = open_model(job.model_dir, scratch / "model")
        unseen = held_out(
            split=split,
            patients={case.patient_key for case in cases},
            manifest_sha256=manifest_sha256,
            provenance=opened.provenance,
        )
        if not unseen.value:
            _LOG.warning("the result says nothing about patients not seen before: %s", unseen.reason)
        model = Model(opened.bundle)
        _LOG.info("measuring on %s", model.describe_device())
        reader = open_reader(opened.bundle.channels)
        check_labels(
            cases,
            opened.bundle.channels,
            classification=opened.bundle.task is Task.CLASSIFICATION,
            every_class=False,
        )
        check_cases(cases, reader)
        comparison = Comparison(gate, model, scratch=scratch / "baseline", connect=connect)
        gallery = Gallery()
        results: list[CaseResult] = []
        documents = []
        for case in cases:
            stop.check()
            started = time.monotonic()
            item = reader.read(case)
            read_seconds = time.monotonic() - started
            measured = measure(model, case, item, channels=opened.bundle.channels)
            seconds = {"read": read_seconds, "total": time.monotonic() - started}
            results.append(measured.result)
            documents.append(case_document(measured.result, seconds=seconds))
            _picture(gallery, measured, item, channels=opened.bundle.channels)
            comparison.measure(case, item)
            _LOG.info("image set %s measured in %.1f s", case.image.image_set_id, seconds["total"])
        scores = scores_of(results)
        metrics = estimate(scores)
        _require(opened.bundle.task, metrics, results)
        score = gate.score(metrics, why_none=why_undefined(results))
        evaluation = Evaluation(
            opened=opened,
            manifest=manifest,
            manifest_name=job.manifest_file.name,
            manifest_sha256=manifest_sha256,
            split=split,
            held_out=unseen,
            device=model.describe_device(),
            gate=gate,
            metrics=metrics,
            intervals=intervals(scores),
            details=scores.details(),
            cases=tuple(documents),
            verdict=comparison.verdict(results, score),
            pictures=gallery.pictures,
        )
        document = write_results(evaluation, folder=job.output_dir)
    for name, value in metrics.items():
        if value is not None:
            print(f"split={split} {name}={value:.6g}", flush=True)
    return document


def cases_to_evaluate(manifest: Manifest) -> tuple[Split, tuple[Case, ...]]:
    """The cases to evaluate on, and which split they are."""
    for split in PREFERENCE:
        cases = manifest.split(split)
        if cases:
            return split, cases
    msg = "The manifest has no case"
    raise EvaluationError(msg)


def _require(task: Task, metrics: Mapping[str, float | None], results: list[CaseResult]) -> None:
    """A segmentation without a single Dice measured nothing at all."""
    if task is Task.SEGMENTATION and metrics["mean_dice"] is None:
        msg = f"No case has a voxel to find or found: there is no Dice to report on {len(results)} cases"
        raise EvaluationError(msg)


def _picture(
    gallery: Gallery, measured: Measured, item: Mapping[str, Any], *, channels: Mapping[str, int]
) -> None:
    result, image_set_id = measured.result, measured.result.case.image.image_set_id
    if isinstance(result, ClassifiedCase):
        gallery.consider(image_set_id, result.badness, lambda: draw_classification(item["image"], result))
    elif result.badness is not None:
        worst = _worst_segment(result)
        gallery.consider(
            image_set_id,
            result.badness,
            lambda: draw_segmentation(
                item["image"],
                reference=item["label"].as_tensor()[0] == channels[worst.label],
                prediction=measured.masks[worst.label],
                segment=worst,
                image_set_id=image_set_id,
            ),
        )


def _worst_segment(result: SegmentedCase) -> SegmentScore:
    measured = [
        (one.dice, -abs(one.predicted_ml - one.reference_ml), one)
        for one in result.segments
        if one.dice is not None
    ]
    return min(measured, key=lambda scored: scored[:2])[2]
