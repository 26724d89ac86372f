"""One bundle: random weights, this runtime's mask, MONAI's own, and how they compare. Needs the models'
environment: the driver starts it there and reads the JSON that it prints."""

from __future__ import annotations

import argparse
import json
import logging
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import torch
from monai.bundle import ConfigParser

from benchmarks.equivalence.phantom import GRIDS, values
from healthimaging import ImageSet, Volume, connect
from healthimaging.monai import load_metatensor
from runtime.bundles.bundle import Bundle, load_bundle
from runtime.bundles.channel_masks import channel_masks
from runtime.bundles.checkpoint import named_checkpoint
from runtime.bundles.configuration import Configuration, read_configuration
from runtime.bundles.evaluator import evaluator_options
from runtime.bundles.metadata import read_metadata
from runtime.errors import InferenceError

SEED = 20

_CUDA_DEVICE = re.compile(r"""torch\.device\(\s*(['"])cuda(:\d+)?\1\s*\)""")


def main() -> None:
    """`python -m benchmarks.equivalence.worker BUNDLE WORK --image-sets JSON`."""
    parser = argparse.ArgumentParser()
    parser.add_argument("bundle", type=Path)
    parser.add_argument("work", type=Path)
    parser.add_argument("--image-sets", required=True, help="{modality: [datastore, image set]}")
    arguments = parser.parse_args()
    logging.disable(logging.WARNING)
    places = {modality: tuple(place) for modality, place in json.loads(arguments.image_sets).items()}
    print(json.dumps(compare(arguments.bundle, arguments.work, places)))


def compare(original: Path, work: Path, places: dict[str, tuple[str, str]]) -> dict[str, Any]:
    """Run one bundle both ways; `verdict` is `identical`, `different`, `refused` or `not comparable`."""
    bundle_root = work / "bundle"
    shutil.copytree(original, bundle_root)
    try:
        metadata = read_metadata(bundle_root / "configs" / "metadata.json")
        configuration = _configuration(bundle_root)
        # Asked before anything is built, as it is cheap.
        evaluator_options(configuration)
        network = _write_random_weights(bundle_root, configuration)
        bundle = load_bundle(bundle_root)
        modality = metadata.modality or "CT"
        if modality not in places:
            return {"verdict": "refused", "detail": f"trained for {modality}, not for CT or MR"}
        volume = _volume(places[modality])
        _spread_classes(bundle, bundle_root, configuration, volume)
        bundle = load_bundle(bundle_root)
        prediction = bundle.predict(load_metatensor(volume))
    except InferenceError as error:
        return {"verdict": "refused", "detail": str(error).replace(f"{bundle_root}/", ""), "network": ""}
    found = {"network": network, "task": metadata.task.value, "modality": modality}
    nifti = work / "volume.nii.gz"
    array = np.ascontiguousarray(values(modality).transpose(2, 1, 0))
    nibabel.save(nibabel.Nifti1Image(array, GRIDS[modality].affine_ras), nifti)
    saved = _run_monai(bundle_root, nifti, work)
    if isinstance(saved, str):
        return {**found, "verdict": "not comparable", "detail": saved}
    return {**found, **_verdict(prediction, saved, bundle)}


def _configuration(root: Path) -> Configuration:
    name = next(name for name in ("inference.json", "inference.yaml") if (root / "configs" / name).is_file())
    return read_configuration(
        root, inference=root / "configs" / name, metadata=root / "configs" / "metadata.json"
    )


def _volume(place: tuple[str, str]) -> Volume:
    (volume,) = ImageSet.open(connect(), *place).volumes()
    return volume


def _write_random_weights(root: Path, configuration: Configuration) -> str:
    """Save the weights that the network has when it is made; returns the network's class."""
    (root / "models").mkdir(exist_ok=True)
    for file in (root / "models").iterdir():
        file.unlink()
    if "arch_ckpt_path" in configuration:
        _write_searched_architecture(Path(str(configuration.content("arch_ckpt_path"))), configuration)
    torch.manual_seed(SEED)
    network = configuration.content("network_def" if "network_def" in configuration else "network")
    _save(network, root, configuration)
    return type(network).__name__


def _write_searched_architecture(file: Path, configuration: Configuration) -> None:
    """What an architecture search leaves (DiNTS): every path open, operations drawn at random."""
    blocks = int(configuration.content("dints_space#num_blocks"))
    depths = int(configuration.content("dints_space#num_depths"))
    generator = np.random.default_rng(SEED)
    paths = 3 * depths - 2
    torch.save(
        {
            "arch_code_a": np.ones((blocks, paths)),
            "arch_code_c": generator.integers(0, 5, size=(blocks, paths)),
            "node_a": np.ones((blocks + 1, depths)),
        },
        file,
    )


def _save(network: torch.nn.Module, root: Path, configuration: Configuration) -> None:
    file = named_checkpoint(configuration).file or root / "models" / "model.pt"
    torch.save(network.state_dict(), file)


def _spread_classes(bundle: Bundle, root: Path, configuration: Configuration, volume: Volume) -> None:
    """Shift the last layer so that every class is about as frequent: else most masks would be empty."""
    classes = len(bundle.files.channels)
    last = None
    for module in bundle.network.modules():
        if isinstance(module, torch.nn.Conv2d | torch.nn.Conv3d) and module.out_channels == classes:
            last = module if module.bias is not None else last
    if last is None or last.bias is None:
        return
    batch = bundle._network_output(load_metatensor(volume), _untimed)
    logits = torch.as_tensor(batch["pred"]).as_subclass(torch.Tensor)
    with torch.no_grad():
        last.bias -= logits.transpose(0, 1).flatten(1).median(dim=1).values
    _save(bundle.network, root, configuration)


def _untimed(name: str) -> Any:
    from contextlib import nullcontext

    return nullcontext()


def _run_monai(root: Path, nifti: Path, work: Path) -> Path | str:
    """Run the bundle's own configuration by MONAI's command; only paths, devices and workers are ours.

    Returns the file that the bundle's own writer saved, or what MONAI said instead.
    """
    file = _configuration(root).file
    document = ConfigParser.load_config_file(str(file))
    output = work / "saved"
    overlay: dict[str, Any] = {
        "dataset#data": [{"image": str(nifti)}],
        "dataset_dir": str(nifti.parent),
        "output_dir": str(output),
        "dataloader#num_workers": 0,
        "device": "$torch.device('cpu')",
        **dict(_device_changes(document)),
    }
    (work / "overlay.json").write_text(json.dumps(overlay))
    run_id = next(name for name in ("run", "evaluating", "inference") if name in document)
    finished = subprocess.run(
        [
            *(sys.executable, "-m", "monai.bundle", "run", run_id),
            *("--config_file", f"['{file}','{work / 'overlay.json'}']"),
            *("--meta_file", str(root / "configs" / "metadata.json"), "--bundle_root", str(root)),
        ],
        cwd=root,
        capture_output=True,
        text=True,
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join([str(root), os.environ.get("REFERENCE_PYTHONPATH", "")]),
            "HOLOSCAN_LOG_LEVEL": "OFF",
            # Searched architectures are NumPy arrays, which torch.load refuses by default since 2.6.
            "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD": "1",
        },
    )
    files = sorted(output.rglob("*.nii*"))
    if finished.returncode != 0 or len(files) != 1:
        lines = [line.strip() for line in finished.stderr.splitlines() if line.strip()]
        errors = [line for line in lines if "Error" in line] or lines or ["no word"]
        return f"monai.bundle run saves {len(files)} files: {errors[-1][:200]}"
    return files[0]


def _device_changes(config: Any, key: str = "") -> Iterator[tuple[str, str]]:
    """Values that name a CUDA device outright, with the CPU instead."""
    if isinstance(config, str) and _CUDA_DEVICE.search(config):
        yield key, _CUDA_DEVICE.sub("torch.device('cpu')", config)
    elif isinstance(config, dict | list):
        members = config.items() if isinstance(config, dict) else enumerate(config)
        for name, value in members:
            yield from _device_changes(value, f"{key}#{name}" if key else str(name))


def _verdict(prediction: torch.Tensor, saved: Path, bundle: Bundle) -> dict[str, Any]:
    image = nibabel.load(saved)
    reference = torch.from_numpy(np.asarray(image.dataobj).astype(np.float32))
    reference = reference.unsqueeze(0) if reference.ndim == 3 else reference.permute(3, 0, 1, 2)
    if tuple(reference.shape) != tuple(prediction.shape):
        detail = f"shapes {tuple(prediction.shape)} and {tuple(reference.shape)}"
        return {"verdict": "different", "detail": detail, "labels": 0}
    ours = channel_masks(prediction, bundle.files.channels)
    theirs = channel_masks(reference, bundle.files.channels)
    labels = int(np.count_nonzero(ours.reshape(len(ours), -1).any(axis=1)))
    voxels = int((ours != theirs).any(axis=0).sum())
    raw = torch.as_tensor(prediction).as_subclass(torch.Tensor).float()
    apart = float((raw - reference).abs().max())
    same_place = np.allclose(image.affine, GRIDS[_modality(bundle)].affine_ras, atol=1e-4)
    found = {"labels": labels, "segments": len(ours), "foreground": round(float(ours.any(axis=0).mean()), 3)}
    if not same_place:
        return {**found, "verdict": "different", "detail": "saved with another affine"}
    if voxels:
        detail = f"{voxels} of {ours[0].size} voxels differ"
        return {**found, "verdict": "different", "detail": detail}
    return {**found, "verdict": "identical", "detail": _remark(raw, apart)}


def _modality(bundle: Bundle) -> str:
    return bundle.files.modality or "CT"


def _remark(raw: torch.Tensor, apart: float) -> str:
    if bool((raw != raw.round()).any()):
        return "the bundle interpolates labels; both are rounded to the nearest"
    return "" if apart == 0 else f"values are up to {apart:.1g} apart"


if __name__ == "__main__":
    main()
