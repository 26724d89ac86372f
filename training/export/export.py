"""The model folder that SageMaker packs into model.tar.gz: the bundle with its trained network."""

from __future__ import annotations

import json
import logging
import os
import platform
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from monai.bundle import ConfigParser
from monai.networks.utils import convert_to_torchscript

from training.configuration.bundle import Bundle, Task, config_file, read_metadata
from training.configuration.inference import InferenceConfiguration
from training.configuration.overrides import change_bundle
from training.errors import BundleError, ExportError
from training.export.digests import code_digest, file_digest

_LOG = logging.getLogger(__name__)

PACKAGES = ("torch", "monai", "pytorch-ignite", "numpy", "pydicom", "highdicom", "imagecodecs", "boto3")
"""Whose versions a result may depend on."""

SCHEMA = "monai-on-aws/provenance/2"

PARTIAL = ".export"
"""Where an export is made; SageMaker packs a stopped job's folder too, and half a model must not look like
one.
"""

_LEFT_OUT = ("models", "eval", "provenance.json", PARTIAL)

_TOLERANCE = 1e-4
"""How far the network may answer differently as TorchScript, relative and absolute: single precision, another
order of additions."""

_SPARE_BYTES = 64 * 2**20
"""Disk space beyond the weights, for the bundle's files."""


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
        world_size: Ranks that trained together.
        train_patients: Keys of the patients whose cases were trained on; a later evaluation on them would say
            nothing about unseen patients.
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
    world_size: int = 1
    train_patients: Sequence[str] = field(default=())


def export_model(
    *,
    bundle: Bundle,
    network: torch.nn.Module,
    folder: Path,
    provenance: Provenance,
    overrides: Mapping[str, Any] | None = None,
) -> None:
    """Writes the bundle with its overrides, `models/model.pt`, `models/model.ts` and `provenance.json`.

    A network that TorchScript cannot compile, or that answers differently when it is compiled, is exported as
    weights alone: `network_def` of the inference configuration makes the network that they belong to.

    Args:
        bundle: What was trained.
        network: The trained network; it is moved to the CPU.
        folder: The model folder. Whatever is in it is replaced in the end, `configs` last: without that
            folder it is no model.
        provenance: Written with package versions and the hashes of code and weights.
        overrides: What the job changed in the bundle's configuration.

    Raises:
        BundleError: The overrides do not fit the bundle.
        ExportError: The exported bundle would not answer as the trained network does, or the disk is full.
    """
    network = network.cpu().eval()
    partial = folder / PARTIAL
    shutil.rmtree(partial, ignore_errors=True)
    _require_space(folder, network)
    try:
        bundle = _write_bundle(bundle, partial, overrides or {})
        models = partial / "models"
        models.mkdir()
        torch.save(network.state_dict(), models / "model.pt")
        _write_network(bundle, network, partial)
        document = _document(bundle, provenance, overrides or {}, partial)
        (partial / "provenance.json").write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
        _move_into_place(partial, folder)
    except OSError as error:
        msg = f"Bundle {bundle.name}: the model cannot be written: {error.strerror}"
        raise ExportError(msg) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _require_space(folder: Path, network: torch.nn.Module) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    weights = sum(tensor.numel() * tensor.element_size() for tensor in network.state_dict().values())
    needed, free = 2 * weights + _SPARE_BYTES, shutil.disk_usage(folder).free
    if free < needed:
        msg = (
            f"The model needs {needed >> 20} MiB of disk and {free >> 20} MiB are free: take a larger volume"
        )
        raise ExportError(msg)


def _write_bundle(bundle: Bundle, folder: Path, overrides: Mapping[str, Any]) -> Bundle:
    """The bundle's files, with the overrides written in; and what they make of the bundle."""

    def left_out(place: str, names: list[str]) -> list[str]:
        # Bundles' own code may lie in folders of these names.
        top = Path(place) == bundle.root
        return [name for name in names if name == "__pycache__" or (top and name in _LEFT_OUT)]

    shutil.copytree(bundle.root, folder, ignore=left_out)
    original = replace(bundle, root=folder)
    if not overrides:
        return original
    changed = change_bundle(original, overrides)
    _rewrite(folder, "train", changed.train)
    if changed.inference is not None:
        _rewrite(folder, "inference", changed.inference)
    if changed.classes is not None:
        _rewrite(folder, "metadata", _metadata(folder, changed.classes, changed.bundle.task))
    return changed.bundle


def _metadata(folder: Path, classes: Sequence[str], task: Task) -> dict[str, Any]:
    """The metadata with the classes that were trained: they are what the runtime calls its results."""
    metadata = dict(read_metadata(folder))
    (output,) = metadata["network_data_format"]["outputs"].values()
    definition = "channel_def" if output.get("channel_def") else "label_def"
    # One channel may hold the numbers of all labels, and still does.
    if int(output["num_channels"]) == len(output[definition]):
        output["num_channels"] = len(classes)
    output[definition] = {str(number): name for number, name in enumerate(classes)}
    if task is Task.CLASSIFICATION:
        output["spatial_shape"] = [1, len(classes)]
    told = ", ".join(f"{number} is {name}" for number, name in enumerate(classes))
    metadata |= {name: told for name in ("label_classes", "pred_classes") if name in metadata}
    return metadata


def _rewrite(folder: Path, name: str, config: Mapping[str, Any]) -> None:
    file = config_file(folder, name)
    assert file is not None
    ConfigParser.export_config_file(
        dict(config), str(file), fmt="json" if file.suffix == ".json" else "yaml", indent=4
    )


def _write_network(bundle: Bundle, network: torch.nn.Module, folder: Path) -> None:
    """TorchScript where it can be had, and in any case the proof that what is served answers as trained."""
    example = torch.rand((1, *bundle.input_shape), generator=torch.Generator().manual_seed(0))
    expected = _answer(network, example)
    script = folder / "models" / "model.ts"
    served = InferenceConfiguration(bundle)
    try:
        rebuilt = served.untrained_network()
        if rebuilt is not None:
            rebuilt.load_state_dict(network.state_dict())
    except (BundleError, RuntimeError) as error:
        msg = f"Bundle {bundle.name}: network_def of inference.json is not what was trained: {error}"
        raise ExportError(msg) from error
    if rebuilt is not None and not _same(_answer(rebuilt.cpu().eval(), example), expected):
        msg = f"Bundle {bundle.name}: network_def of inference.json answers differently from what was trained"
        raise ExportError(msg)
    # Training may have exchanged layers for ones that talk to other ranks, which cannot be compiled.
    reason = _compile(network if rebuilt is None else rebuilt, script, example)
    if reason is not None:
        script.unlink(missing_ok=True)
        if rebuilt is None:
            msg = f"Bundle {bundle.name}: {reason}, and the inference configuration defines no network"
            raise ExportError(msg)
        _LOG.warning("%s: exported as weights alone", reason)
    given = expected[0].shape[1]
    # One channel may hold the numbers of all labels.
    if given != bundle.outputs and not (bundle.task is Task.SEGMENTATION and given == 1):
        msg = (
            f"Bundle {bundle.name}: the network gives {given} channels and channel_def names {bundle.outputs}"
        )
        raise ExportError(msg)


def _compile(network: torch.nn.Module, script: Path, example: torch.Tensor) -> str | None:
    """Writes TorchScript; the reason in one line where that cannot be done."""
    try:
        convert_to_torchscript(
            network,
            str(script),
            verify=True,
            inputs=[example],
            device=torch.device("cpu"),
            rtol=_TOLERANCE,
            atol=_TOLERANCE,
        )
    except AssertionError:
        return "compiled to TorchScript, the network answers differently"
    except OSError:
        raise
    # The compiler raises what it likes: RuntimeError, SyntaxError, TypeError, torch's own.
    except Exception as error:  # noqa: BLE001 - any of them means the same, and is told
        line = next(iter(str(error).strip().splitlines()), type(error).__name__)
        return f"the network cannot be compiled to TorchScript ({line})"
    return None


@torch.no_grad()
def _answer(network: torch.nn.Module, example: torch.Tensor) -> list[torch.Tensor]:
    """A network's outputs; some give several, the one that counts first."""
    answer = network(example)
    return [answer] if isinstance(answer, torch.Tensor) else [one for one in answer if torch.is_tensor(one)]


def _same(ours: Sequence[torch.Tensor], theirs: Sequence[torch.Tensor]) -> bool:
    return len(ours) == len(theirs) and all(
        one.shape == other.shape and torch.allclose(one, other, rtol=_TOLERANCE, atol=_TOLERANCE)
        for one, other in zip(ours, theirs, strict=True)
    )


def _document(
    bundle: Bundle, provenance: Provenance, overrides: Mapping[str, Any], folder: Path
) -> dict[str, Any]:
    return {
        "schema": SCHEMA,
        "bundle": {"name": bundle.name, "version": bundle.version},
        **{_camel(name): value for name, value in asdict(provenance).items()},
        "overrides": dict(overrides),
        # The pipeline names the image that it starts, by digest.
        "image": os.environ.get("TRAINING_IMAGE") or None,
        "codeSha256": code_digest(),
        "python": platform.python_version(),
        "packages": {name: version(name) for name in PACKAGES},
        "weights": {file.name: file_digest(file) for file in sorted((folder / "models").iterdir())},
    }


def _move_into_place(partial: Path, folder: Path) -> None:
    for entry in ("configs", *(entry.name for entry in folder.iterdir())):
        old = folder / entry
        if old.is_dir() and entry != PARTIAL:
            shutil.rmtree(old)
        elif old.is_file():
            old.unlink()
    names = sorted((entry.name for entry in partial.iterdir()), key=lambda name: name == "configs")
    for name in names:
        os.replace(partial / name, folder / name)


def _camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(word.capitalize() for word in rest)
