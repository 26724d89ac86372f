"""The model folder that SageMaker packs into model.tar.gz: the bundle with its trained network."""

from __future__ import annotations

import hashlib
import json
import platform
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path

import torch
from monai.networks.utils import convert_to_torchscript

from training.configuration.bundle import Bundle
from training.errors import ExportError

PACKAGES = ("torch", "monai", "pytorch-ignite", "numpy", "pydicom", "highdicom", "imagecodecs", "boto3")
"""Whose versions a result may depend on."""

SCHEMA = "monai-on-aws/provenance/1"


@dataclass(frozen=True, kw_only=True)
class Provenance:
    """Where a model comes from: enough to train it again.

    Attributes:
        training_job: Name of the job.
        manifest_name: File name of the manifest.
        manifest_sha256: Of its bytes; the manifest pins every image set to a version.
        datastore_id: Where the image sets lie.
        cases: Count by split.
        bundle_sha256: Of the bundle's configuration files.
        hyperparameters: Of the job, its defaults included.
        seed: Of initial weights, sampling and augmentation.
        steps: Optimizer steps of the training.
        step_of_weights: The step after which the exported weights were taken.
        device: What it was trained on.
    """

    training_job: str
    manifest_name: str
    manifest_sha256: str
    datastore_id: str
    cases: Mapping[str, int]
    bundle_sha256: str
    hyperparameters: Mapping[str, str]
    seed: int
    steps: int
    step_of_weights: int
    device: str


def export_model(*, bundle: Bundle, network: torch.nn.Module, folder: Path, provenance: Provenance) -> None:
    """Writes the bundle with `models/model.pt`, `models/model.ts` and `provenance.json`.

    Args:
        bundle: What was trained.
        network: The trained network; it is moved to the CPU.
        folder: The model folder, emptied of an earlier export's files of the same names.
        provenance: Written with package versions and the hashes of the weights.

    Raises:
        ExportError: The network cannot be compiled, or compiled it answers differently.
    """
    shutil.copytree(
        bundle.root,
        folder,
        dirs_exist_ok=True,
        ignore=shutil.ignore_patterns("models", "eval", "__pycache__"),
    )
    models = folder / "models"
    models.mkdir(parents=True, exist_ok=True)
    network = network.cpu().eval()
    torch.save(network.state_dict(), models / "model.pt")
    example = torch.rand((1, *bundle.input_shape), generator=torch.Generator().manual_seed(0))
    try:
        convert_to_torchscript(
            network,
            str(models / "model.ts"),
            verify=True,
            inputs=[example],
            device=torch.device("cpu"),
            rtol=1e-4,
            atol=1e-4,
        )
    except AssertionError as error:
        msg = f"Bundle {bundle.name}: compiled to TorchScript, the network answers differently"
        raise ExportError(msg) from error
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[0]
        msg = f"Bundle {bundle.name}: the network cannot be compiled to TorchScript: {reason}"
        raise ExportError(msg) from error
    document = {
        "schema": SCHEMA,
        "bundle": {"name": bundle.name, "version": bundle.version},
        **{_camel(name): value for name, value in asdict(provenance).items()},
        "python": platform.python_version(),
        "packages": {name: version(name) for name in PACKAGES},
        "weights": {file: _sha256(models / file) for file in ("model.pt", "model.ts")},
    }
    (folder / "provenance.json").write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")


def _camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(word.capitalize() for word in rest)


def _sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
