"""A processing job that measures a trained model on held-out cases, the way it will be served.

The model runs by its `inference.json`, from the volume as the archive holds it to labels on the same grid:
what is measured is what a patient's segmentation will be, resampling included.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
import os
import tarfile
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from monai.data import MetaTensor, decollate_batch, list_data_collate
from monai.metrics import compute_dice

from healthimaging import Case, Manifest
from healthimaging.manifest import Split
from training.configuration.bundle import Bundle, InferenceConfiguration, read_bundle
from training.data.cases import check_cases, read_manifest
from training.errors import EvaluationError
from training.job.contract import EvaluationJob
from training.loop.train import OpenReader
from training.stopping import StopRequest

_LOG = logging.getLogger(__name__)

SCHEMA = "monai-on-aws/evaluation/1"

PREFERENCE: tuple[Split, ...] = ("test", "validation", "train")
"""The split that says most about unseen patients comes first. A result on training cases is better than none
for a first look, and says so.
"""


_load_torchscript: Callable[..., Any] = torch.jit.load  # torch leaves it without types


@dataclass(frozen=True, kw_only=True)
class SegmentScore:
    """How well one segment of one case was found; `dice` is None when neither side has a voxel of it."""

    label: str
    dice: float | None
    reference_ml: float
    predicted_ml: float


def evaluate(job: EvaluationJob, *, open_reader: OpenReader, stop: StopRequest) -> dict[str, Any]:
    """Evaluates and writes `evaluation.json`.

    Returns:
        What was written.

    Raises:
        TrainingError: Model or cases cannot be used, or no case has anything to find.
        StoppedError: The job was stopped.
    """
    manifest = read_manifest(job.manifest_file)
    split, cases = held_out(manifest)
    if split == "train":
        _LOG.warning("measured on training cases: the result says nothing about patients not seen before")
    with tempfile.TemporaryDirectory() as scratch:
        bundle = read_bundle(unpack_model(job.model_dir, Path(scratch)))
        weights = weights_digests(bundle.root)
        model = Model(bundle)
        reader = open_reader(bundle.channels)
        check_cases(cases, reader)
        results = []
        for case in cases:
            stop.check()
            started = time.monotonic()
            item = reader.read(case)
            read_seconds = time.monotonic() - started
            prediction = model.predict(item["image"])
            scores = score(prediction, item["label"], bundle.channels)
            results.append(_case_document(case, scores, started=started, read_seconds=read_seconds))
            _LOG.info("image set %s: mean dice %s", case.image.image_set_id, results[-1]["meanDice"])
        dice = mean_dice(results)
        document = {
            "schema": SCHEMA,
            "bundle": {"name": bundle.name, "version": bundle.version},
            "weights": weights,
            "split": split,
            "metrics": {"mean_dice": dice},
            "cases": results,
        }
    job.output_dir.mkdir(parents=True, exist_ok=True)
    # The folder is uploaded as it is when the job ends: a half-written file must not look like a result.
    partial = job.output_dir / ".evaluation.partial"
    partial.write_text(json.dumps(document, indent=2, allow_nan=False) + "\n", encoding="utf-8")
    os.replace(partial, job.output_dir / "evaluation.json")
    print(f"split={split} mean_dice={dice:.6g}", flush=True)
    return document


def held_out(manifest: Manifest) -> tuple[Split, tuple[Case, ...]]:
    """The cases to evaluate on, and which split they are."""
    for split in PREFERENCE:
        cases = manifest.split(split)
        if cases:
            return split, cases
    msg = "The manifest has no case"
    raise EvaluationError(msg)


def unpack_model(folder: Path, scratch: Path) -> Path:
    """The bundle's folder: the given one, or model.tar.gz from it unpacked.

    Raises:
        EvaluationError: There is no model, or the archive is damaged or leaves its folder.
    """
    archive = folder / "model.tar.gz"
    if not archive.exists():
        if (folder / "configs").is_dir():
            return folder
        msg = f"There is no model: {folder.name} holds neither model.tar.gz nor a bundle"
        raise EvaluationError(msg)
    try:
        with tarfile.open(archive) as tar:
            tar.extractall(scratch, filter="data")
    except (tarfile.TarError, OSError, EOFError) as error:
        msg = f"model.tar.gz cannot be unpacked: {type(error).__name__}"
        raise EvaluationError(msg) from error
    return scratch


class Model:
    """A trained bundle, ready for volumes."""

    def __init__(self, bundle: Bundle) -> None:
        configuration = InferenceConfiguration(bundle)
        file = bundle.root / "models" / "model.ts"
        try:
            network = _load_torchscript(str(file), map_location="cpu")
        except (RuntimeError, ValueError) as error:
            msg = f"{bundle.name}: models/model.ts cannot be loaded"
            raise EvaluationError(msg) from error
        self._device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self._network = network.to(self._device).eval()
        self._preprocessing = configuration.part("preprocessing")
        self._inferer = configuration.part("inferer")
        self._postprocessing = configuration.part("postprocessing")

    @torch.no_grad()
    def predict(self, image: MetaTensor) -> torch.Tensor:
        """Labels or one-hot channels on the grid of the image: (1 or channels, columns, rows, slices)."""
        batch = list_data_collate([self._preprocessing({"image": image})])
        inputs = batch["image"].to(self._device)
        (item,) = decollate_batch({"image": inputs, "pred": self._inferer(inputs, self._network)})
        prediction = self._postprocessing(item)["pred"]
        if prediction.shape[1:] != image.shape[1:]:
            msg = f"The model answers {tuple(prediction.shape[1:])} to an image of {tuple(image.shape[1:])}"
            raise EvaluationError(msg)
        # A shape alone does not tell a mirrored answer from a right one.
        if not isinstance(prediction, MetaTensor) or not torch.allclose(
            prediction.affine.cpu().double(), image.affine.cpu().double(), atol=1e-3
        ):
            msg = "The model's answer does not lie where the image lies"
            raise EvaluationError(msg)
        return torch.as_tensor(prediction).cpu()


def score(prediction: torch.Tensor, label: MetaTensor, channels: Any) -> list[SegmentScore]:
    """Compares a prediction with the reference, segment by segment.

    Args:
        prediction: (1, ...) of labels, or (channels, ...) of masks.
        label: (1, ...) of labels, with an affine in mm.
        channels: Foreground channels: number by name.
    """
    voxel_ml = abs(float(torch.linalg.det(label.affine[:3, :3].double()))) / 1000
    reference = torch.as_tensor(label)[0]
    scores = []
    for name, number in channels.items():
        found = prediction[0] == number if prediction.shape[0] == 1 else prediction[number] > 0.5
        wanted = reference == number
        dice = float(compute_dice(found[None, None].float(), wanted[None, None].float(), ignore_empty=False))
        nothing = not bool(found.any()) and not bool(wanted.any())
        scores.append(
            SegmentScore(
                label=name,
                dice=None if nothing else dice,
                reference_ml=float(wanted.sum()) * voxel_ml,
                predicted_ml=float(found.sum()) * voxel_ml,
            )
        )
    return scores


def mean_dice(results: Sequence[dict[str, Any]]) -> float:
    """The mean over cases of each case's mean over segments; cases without a number do not count.

    Raises:
        EvaluationError: No case has a number.
    """
    numbers = [result["meanDice"] for result in results if result["meanDice"] is not None]
    if not numbers:
        msg = "No case has a voxel to find or found: there is no Dice to report"
        raise EvaluationError(msg)
    return math.fsum(numbers) / len(numbers)


def _case_document(
    case: Case, scores: Sequence[SegmentScore], *, started: float, read_seconds: float
) -> dict[str, Any]:
    numbers = [one.dice for one in scores if one.dice is not None]
    return {
        "patientKey": case.patient_key,
        "imageSetId": case.image.image_set_id,
        "versionId": case.image.version_id,
        "meanDice": math.fsum(numbers) / len(numbers) if numbers else None,
        "segments": [
            {
                "label": one.label,
                "dice": one.dice,
                "referenceMl": round(one.reference_ml, 3),
                "predictedMl": round(one.predicted_ml, 3),
            }
            for one in scores
        ],
        "seconds": {"read": round(read_seconds, 3), "total": round(time.monotonic() - started, 3)},
    }


def weights_digests(root: Path) -> dict[str, str]:
    """SHA-256 of the weights files, so that the result says which weights it is about.

    Raises:
        EvaluationError: They are not the ones that the training recorded.
    """
    digests = {
        file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in sorted(root.glob("models/*"))
    }
    provenance = root / "provenance.json"
    if provenance.exists() and json.loads(provenance.read_text(encoding="utf-8"))["weights"] != digests:
        msg = "The weights in models/ are not those that provenance.json records"
        raise EvaluationError(msg)
    return digests
