"""A trained bundle, run the way it is served: from the volume as the archive holds it to the answer."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from monai.data import MetaTensor, decollate_batch, list_data_collate

from training.configuration.bundle import Bundle, Task, read_bundle
from training.configuration.inference import InferenceConfiguration
from training.errors import EvaluationError
from training.export.digests import file_digest

ARCHIVE = "model.tar.gz"

_OUT_OF_RANGE = 1e-3
"""How far half precision may carry a probability out of 0 to 1; the runtime serves as much."""


@dataclass(frozen=True, kw_only=True)
class ModelFolder:
    """An unpacked model and what identifies it.

    Attributes:
        bundle: Its bundle.
        archive_sha256: Of model.tar.gz; None where the model came unpacked.
        weights: SHA-256 of each file in `models/`, by name.
        provenance: What the training recorded; empty where there is no record.
    """

    bundle: Bundle
    archive_sha256: str | None
    weights: Mapping[str, str]
    provenance: Mapping[str, Any]


def open_model(folder: Path, scratch: Path) -> ModelFolder:
    """Opens a model as SageMaker hands it to a job.

    Args:
        folder: Holds model.tar.gz, or the bundle unpacked.
        scratch: An empty folder to unpack into.

    Raises:
        EvaluationError: There is no model, its archive is damaged or leaves its folder, or its weights are
            not those that its training recorded.
        BundleError: It is no bundle.
    """
    archive = folder / ARCHIVE
    if archive.exists():
        root, sha256 = _unpacked(archive, scratch), file_digest(archive)
    elif (folder / "configs").is_dir():
        root, sha256 = folder, None
    else:
        msg = f"There is no model: {folder.name} holds neither {ARCHIVE} nor a bundle"
        raise EvaluationError(msg)
    provenance = _provenance(root)
    weights = {file.name: file_digest(file) for file in sorted(root.glob("models/*")) if file.is_file()}
    # A record that names no weights vouches for none.
    if provenance and provenance.get("weights") != weights:
        msg = "The weights in models/ are not those that provenance.json records"
        raise EvaluationError(msg)
    return ModelFolder(
        bundle=read_bundle(root), archive_sha256=sha256, weights=weights, provenance=provenance
    )


class Model:
    """A trained bundle, ready for volumes.

    Args:
        bundle: Unpacked, with its weights.

    Attributes:
        bundle: The bundle.
        device: Where the network runs: the GPU if there is one.

    Raises:
        BundleError: The weights or the inference configuration cannot be loaded.
    """

    def __init__(self, bundle: Bundle) -> None:
        configuration = InferenceConfiguration(bundle)
        self.bundle = bundle
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self._network = configuration.trained_network().to(self.device).eval()
        self._preprocessing = configuration.part("preprocessing")
        self._inferer = configuration.part("inferer")
        self._postprocessing = configuration.part("postprocessing")

    def segment(self, image: MetaTensor) -> torch.Tensor:
        """Labels or channels on the grid of the image.

        Args:
            image: (1, columns, rows, slices) with an affine in RAS mm.

        Returns:
            (1 or channels, columns, rows, slices), on the CPU.

        Raises:
            EvaluationError: The answer is not finite or lies elsewhere than the image.
        """
        prediction = self._answer(image)
        if prediction.shape[1:] != image.shape[1:]:
            msg = f"The model answers {tuple(prediction.shape[1:])} to an image of {tuple(image.shape[1:])}"
            raise EvaluationError(msg)
        # A shape alone does not tell a mirrored answer from a right one.
        if not isinstance(prediction, MetaTensor) or not torch.allclose(
            prediction.affine.cpu().double(), image.affine.cpu().double(), atol=1e-3
        ):
            msg = "The model's answer does not lie where the image lies"
            raise EvaluationError(msg)
        plain: torch.Tensor = prediction.as_tensor()
        return plain.cpu()

    def classify(self, image: MetaTensor) -> dict[str, float]:
        """The probability of each class, in the order of the bundle's channels.

        Args:
            image: (1, columns, rows, slices) with an affine in RAS mm.

        Raises:
            EvaluationError: The answer is not finite, or no probability for each class.
        """
        vector = torch.as_tensor(self._answer(image)).cpu().double().flatten().tolist()
        names = sorted(self.bundle.channels, key=lambda name: self.bundle.channels[name])
        if len(vector) != len(names):
            msg = f"The model gives {len(vector)} values for {len(names)} classes"
            raise EvaluationError(msg)
        if not all(-_OUT_OF_RANGE <= value <= 1 + _OUT_OF_RANGE for value in vector):
            msg = (
                f"The model's values run from {min(vector):g} to {max(vector):g}, which are no "
                "probabilities: postprocessing of inference.json must apply softmax or sigmoid"
            )
            raise EvaluationError(msg)
        return {name: min(max(value, 0.0), 1.0) for name, value in zip(names, vector, strict=True)}

    @torch.no_grad()
    def _answer(self, image: MetaTensor) -> Any:
        batch = list_data_collate([self._preprocessing({"image": image})])
        inputs = batch["image"].to(self.device)
        raw = self._inferer(inputs, self._network)
        # Looked for here, because a threshold turns what is no number into a quiet "nothing found".
        if isinstance(raw, torch.Tensor) and not bool(torch.isfinite(raw).all()):
            msg = (
                "The image holds voxels that are not finite numbers"
                if not bool(torch.isfinite(image).all())
                else "The network's answer holds values that are not finite numbers: its training diverged"
            )
            raise EvaluationError(msg)
        (item,) = decollate_batch({"image": inputs, "pred": raw})
        return self._postprocessing(item)["pred"]

    def describe_device(self) -> str:
        """The device for people, for example `cuda (NVIDIA A10G)`."""
        if self.device.type == "cuda":
            return f"cuda ({torch.cuda.get_device_name(self.device)})"
        return self.device.type


def same_task(model: Model, other: Model) -> str | None:
    """Why two models cannot be measured on the same references; None when they can."""
    if model.bundle.task is not other.bundle.task:
        return f"it does {other.bundle.task.value}, this model {model.bundle.task.value}"
    mine, theirs = set(model.bundle.channels), set(other.bundle.channels)
    if mine != theirs:
        what = "classes" if model.bundle.task is Task.CLASSIFICATION else "segments"
        return f"its {what} are {', '.join(sorted(theirs))}, this model's {', '.join(sorted(mine))}"
    return None


def _unpacked(archive: Path, scratch: Path) -> Path:
    try:
        with tarfile.open(archive) as tar:
            tar.extractall(scratch, filter="data")
    except (tarfile.TarError, OSError, EOFError) as error:
        msg = f"{ARCHIVE} cannot be unpacked: {type(error).__name__}"
        raise EvaluationError(msg) from error
    return scratch


def _provenance(root: Path) -> Mapping[str, Any]:
    file = root / "provenance.json"
    if not file.exists():
        return {}
    try:
        document = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        msg = "provenance.json is not JSON"
        raise EvaluationError(msg) from error
    if not isinstance(document, dict):
        msg = "provenance.json is not an object"
        raise EvaluationError(msg)
    return document
