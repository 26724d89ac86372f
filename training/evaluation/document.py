"""What an evaluation leaves: `evaluation.json`, `report.html`, `model-card.json` and `pictures/`."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from healthimaging import Manifest
from training.evaluation.comparison import Verdict
from training.evaluation.gate import Gate, HeldOut
from training.evaluation.intervals import Interval
from training.evaluation.measurement import CaseResult
from training.evaluation.model import ModelFolder
from training.evaluation.model_card import model_card
from training.evaluation.pictures import Picture
from training.evaluation.report import report

SCHEMA = "monai-on-aws/evaluation/2"


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """Everything that is known when all cases are measured.

    Attributes:
        opened: The model.
        manifest: The data set.
        manifest_name: Its file's name.
        manifest_sha256: Of its bytes.
        split: The side of the split that was measured on.
        held_out: Whether the model has not seen these patients.
        device: What the model ran on.
        gate: What the model is judged by.
        metrics: By name; None where undefined.
        intervals: By metric.
        details: What a task has beyond metrics: segments; or classes, confusion and calibration.
        cases: One document a case.
        verdict: Against the model in use.
        pictures: Of the worst cases, the worst first.
    """

    opened: ModelFolder
    manifest: Manifest
    manifest_name: str
    manifest_sha256: str
    split: str
    held_out: HeldOut
    device: str
    gate: Gate
    metrics: Mapping[str, float | None]
    intervals: Mapping[str, Interval | None]
    details: Mapping[str, Any]
    cases: tuple[Mapping[str, Any], ...]
    verdict: Verdict
    pictures: tuple[Picture, ...]

    @property
    def picture_files(self) -> tuple[str, ...]:
        return tuple(f"pictures/worst-{number}.png" for number in range(1, len(self.pictures) + 1))

    def as_document(self) -> dict[str, Any]:
        """`evaluation.json`."""
        opened, verdict = self.opened, self.verdict
        return {
            "schema": SCHEMA,
            "task": opened.bundle.task.value,
            "bundle": {"name": opened.bundle.name, "version": opened.bundle.version},
            "weights": dict(opened.weights),
            "modelArchive": None
            if opened.archive_sha256 is None
            else {
                "sha256": opened.archive_sha256,
                **({"uri": self.gate.archive_uri} if self.gate.archive_uri else {}),
            },
            "manifest": {"name": self.manifest_name, "sha256": self.manifest_sha256},
            "split": self.split,
            "heldOut": self.held_out.value,
            "heldOutReason": self.held_out.reason,
            "device": self.device,
            "patients": len({case["patientKey"] for case in self.cases}),
            "metrics": dict(self.metrics),
            "intervals": {
                name: None if one is None else one.as_document() for name, one in self.intervals.items()
            },
            **self.details,
            "gate": {
                "metric": self.gate.metric,
                "heldOut": int(self.held_out.value),
                "improvement": verdict.improvement,
            },
            "baseline": verdict.document,
            **({"baselineReason": verdict.reason} if verdict.reason else {}),
            "pictures": [
                {"file": file, "imageSetId": picture.image_set_id}
                for file, picture in zip(self.picture_files, self.pictures, strict=True)
            ],
            "cases": [dict(case) for case in self.cases],
        }


def case_document(result: CaseResult, *, seconds: Mapping[str, float]) -> dict[str, Any]:
    """One case of `evaluation.json`."""
    return {
        "patientKey": result.case.patient_key,
        "imageSetId": result.case.image.image_set_id,
        "versionId": result.case.image.version_id,
        **result.as_document(),
        "seconds": {name: round(value, 3) for name, value in seconds.items()},
    }


def write_results(evaluation: Evaluation, *, folder: Path) -> dict[str, Any]:
    """Writes everything; returns what `evaluation.json` holds."""
    document = evaluation.as_document()
    files = {
        **{
            name: picture.png
            for name, picture in zip(evaluation.picture_files, evaluation.pictures, strict=True)
        },
        "report.html": report(
            document, provenance=evaluation.opened.provenance, pictures=evaluation.pictures
        ).encode(),
        "model-card.json": _json(model_card(document, provenance=evaluation.opened.provenance)),
        # The last one: where it is, the others are.
        "evaluation.json": _json(document),
    }
    for name, content in files.items():
        _write(folder / name, content)
    return document


def _json(document: Mapping[str, Any]) -> bytes:
    return (json.dumps(document, indent=2, allow_nan=False) + "\n").encode()


def _write(file: Path, content: bytes) -> None:
    """The folder is uploaded as it is when the job ends: a half-written file must not look like a result."""
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_name(f".{file.name}.partial")
    partial.write_bytes(content)
    os.replace(partial, file)
