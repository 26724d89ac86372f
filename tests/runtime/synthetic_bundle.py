"""Small bundles with networks of random weights, written as the model zoo writes its bundles."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from monai.bundle import ConfigParser
from monai.networks.nets import UNet

_ROI = (32, 32, 16)


class CalibratedUNet(torch.nn.Module):
    """A randomly initialised UNet whose classes are about equally frequent on a phantom.

    Without it a random network may call everything background, and the tests would compare empty masks.
    """

    def __init__(self, *, classes: int, seed: int) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.unet = UNet(
            spatial_dims=3, in_channels=1, out_channels=classes, channels=(4, 8, 16), strides=(2, 2)
        )
        self.unet.eval()
        with torch.no_grad():
            generator = torch.Generator().manual_seed(seed)
            logits = self.unet(torch.rand((1, 1, *_ROI), generator=generator))
            offset = logits.flatten(2).median(dim=2).values.reshape(1, classes, 1, 1, 1)
        self.register_buffer("offset", offset)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = 10.0 * (self.unet(x) - self.offset)
        return logits


def inference_config(**changes: Any) -> dict[str, Any]:
    """An inference configuration as the model zoo writes them."""
    config: dict[str, Any] = {
        "imports": ["$import glob"],
        "bundle_root": ".",
        "output_dir": "$@bundle_root + '/eval'",
        "dataset_dir": "data",
        "datalist": "$list(sorted(glob.glob(@dataset_dir + '/*')))",
        "device": "$torch.device('cuda' if torch.cuda.is_available() else 'cpu')",
        "network": "$torch.jit.load(@bundle_root + '/models/model.ts').to(@device)",
        "preprocessing": {
            "_target_": "Compose",
            "transforms": [
                {"_target_": "LoadImaged", "keys": "image"},
                {"_target_": "EnsureChannelFirstd", "keys": "image"},
                {"_target_": "Orientationd", "keys": "image", "axcodes": "RAS"},
                {"_target_": "Spacingd", "keys": "image", "pixdim": [2.0, 2.0, 3.0], "mode": "bilinear"},
                {
                    "_target_": "ScaleIntensityRanged",
                    "keys": "image",
                    "a_min": -1000,
                    "a_max": 400,
                    "b_min": 0.0,
                    "b_max": 1.0,
                    "clip": True,
                },
                {"_target_": "EnsureTyped", "keys": "image"},
            ],
        },
        "dataset": {
            "_target_": "Dataset",
            "data": "$[{'image': i} for i in @datalist]",
            "transform": "@preprocessing",
        },
        "dataloader": {"_target_": "DataLoader", "dataset": "@dataset", "batch_size": 1},
        "inferer": {
            "_target_": "SlidingWindowInferer",
            "roi_size": list(_ROI),
            "sw_batch_size": 2,
            "overlap": 0.25,
        },
        "postprocessing": {
            "_target_": "Compose",
            "transforms": [
                {"_target_": "Activationsd", "keys": "pred", "softmax": True},
                {
                    "_target_": "Invertd",
                    "keys": "pred",
                    "transform": "@preprocessing",
                    "orig_keys": "image",
                    "nearest_interp": False,
                    "to_tensor": True,
                },
                {"_target_": "AsDiscreted", "keys": "pred", "argmax": True},
                {"_target_": "SaveImaged", "keys": "pred", "output_dir": "@output_dir"},
            ],
        },
        "evaluator": {
            "_target_": "SupervisedEvaluator",
            "device": "@device",
            "val_data_loader": "@dataloader",
            "network": "@network",
            "inferer": "@inferer",
            "postprocessing": "@postprocessing",
            "amp": True,
        },
        "run": ["$@evaluator.run()"],
    }
    return config | changes


def changed(path: str, value: Any, config: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """A configuration with one value set (``a#0#b``), or left out for None."""
    document: dict[str, Any] = copy.deepcopy(dict(config or inference_config()))
    *parents, last = path.split("#")
    place: Any = document
    for part in parents:
        place = place[int(part)] if isinstance(place, list) else place[part]
    if value is None:
        del place[last]
    else:
        place[int(last) if isinstance(place, list) else last] = value
    return document


def metadata(channels: Mapping[str, str], **changes: Any) -> dict[str, Any]:
    """Bundle metadata with what the runtime reads."""
    return {
        "name": "test segmentation",
        "version": "0.1.0",
        "network_data_format": {
            "inputs": {"image": {"type": "image", "modality": "CT", "num_channels": 1}},
            "outputs": {"pred": {"type": "image", "channel_def": dict(channels)}},
        },
    } | changes


def write_bundle(
    root: Path,
    *,
    channels: Mapping[str, str] | None = None,
    config: Mapping[str, Any] | None = None,
    meta: Mapping[str, Any] | None = None,
    seed: int = 0,
) -> Path:
    """Write a bundle with a TorchScript network of random weights."""
    names = channels or {"0": "background", "1": "lung"}
    _write_configs(root, config or inference_config(), meta or metadata(names))
    network = torch.jit.script(CalibratedUNet(classes=max(2, len(names)), seed=seed).eval())
    torch.jit.save(network, str(root / "models" / "model.ts"))
    return root


def write_checkpoint_bundle(
    root: Path,
    *,
    channels: Mapping[str, str],
    network: Mapping[str, Any],
    config: Mapping[str, Any] | None = None,
    output: Mapping[str, Any] | None = None,
    image: Mapping[str, Any] | None = None,
    weights: str = "model.pt",
    suffix: str = "json",
    seed: int = 0,
) -> Path:
    """Write a bundle whose configuration defines its network and loads a checkpoint into it.

    Parameters
    ----------
    root
        Where; modules that the network comes from are there already.
    network
        The component under ``network_def``.
    output, image
        Additions to the metadata of ``pred`` and ``image``.
    weights
        Name of the file in ``models``.
    suffix
        ``json`` or ``yaml``: how the configuration is written.
    """
    meta = metadata(channels)
    meta["network_data_format"]["outputs"]["pred"] |= dict(output or {})
    meta["network_data_format"]["inputs"]["image"] |= dict(image or {})
    handlers = [
        {
            "_target_": "CheckpointLoader",
            "load_path": f"$@bundle_root + '/models/{weights}'",
            "load_dict": {"model": "@network"},
        }
    ]
    complete = {
        **(config or inference_config()),
        "network_def": dict(network),
        "network": "$@network_def.to(@device)",
        "handlers": handlers,
    }
    complete["evaluator"] = {**complete["evaluator"], "val_handlers": "@handlers"}
    _write_configs(root, complete, meta, suffix=suffix)
    torch.manual_seed(seed)
    made = ConfigParser({"network_def": dict(network)}).get_parsed_content("network_def")
    torch.save(
        {"model": _calibrated(made, 2 if "SliceInferer" in str(complete["inferer"]) else 3)},
        root / "models" / weights,
    )
    return root


def _calibrated(network: torch.nn.Module, dimensions: int) -> dict[str, torch.Tensor]:
    """The weights, with the last bias such that every output channel is positive for half of the voxels."""
    network.eval()
    image = torch.rand((1, 1, *_ROI[:dimensions]), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        logits = network(image)
        bias = [value for name, value in network.named_parameters() if name.endswith("bias")][-1]
        bias -= logits.transpose(0, 1).flatten(1).median(dim=1).values
    return network.state_dict()


def _write_configs(
    root: Path, config: Mapping[str, Any], meta: Mapping[str, Any], *, suffix: str = "json"
) -> None:
    (root / "configs").mkdir(parents=True, exist_ok=True)
    (root / "models").mkdir(exist_ok=True)
    ConfigParser.export_config_file(
        dict(config), str(root / "configs" / f"inference.{suffix}"), fmt=suffix, **_PLAIN.get(suffix, {})
    )
    (root / "configs" / "metadata.json").write_text(json.dumps(meta))


_PLAIN: dict[str, dict[str, Any]] = {"json": {"indent": 2}}
