"""Writes the demo's bundle with weights: `python -m benchmarks.inferring.make_model FOLDER`.

Runs in the models' environment. The folder becomes a bundle with `models/model.pt` and `models/model.ts`, as
training exports it; beside them `models/archive/model.ts` is the one file that MONAI Deploy's
MonaiBundleInferenceOperator takes, the same network with the configuration inside.

The weights are random, with a fixed seed: what a request costs depends on the network's shape and not on
them. Only the last layer is adjusted, so that the lungs' intensity comes out as foreground and soft tissue as
background: a mask of noise, or none, would make writing the segmentation cheaper or dearer than it is.
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import torch
from monai.bundle import ConfigParser
from monai.data import save_net_with_metadata
from monai.networks.utils import convert_to_torchscript

BUNDLE = Path(__file__).resolve().parents[2] / "training" / "bundles" / "ct_segmentation"
LUNG, TISSUE = 0.107, 0.743
"""-850 HU and 40 HU on the scale of the network's input, which is 0 at -1000 HU and 1 at 400 HU."""
CERTAINTY = 8.0
"""Difference of the two channels' outputs between lung and soft tissue: probabilities of 0.98 and 0.02."""


def main() -> None:
    """Write the bundle."""
    folder = Path(sys.argv[1])
    shutil.copytree(BUNDLE, folder)
    parser = ConfigParser()
    parser.read_config(str(folder / "configs" / "inference.json"))
    torch.manual_seed(0)
    network: Any = parser.get_parsed_content("network_def").eval()
    patch = parser["patch_size"]
    _tell_lung_from_tissue(network, patch)
    archive = folder / "models" / "archive" / "model.ts"
    archive.parent.mkdir(parents=True)
    torch.save(network.state_dict(), folder / "models" / "model.pt")
    compiled = convert_to_torchscript(network, str(folder / "models" / "model.ts"))
    configs = folder / "configs"
    save_net_with_metadata(
        compiled,
        str(archive),
        include_config_vals=False,
        meta_values=json.loads((configs / "metadata.json").read_text()),
        more_extra_files={"inference.json": (configs / "inference.json").read_bytes()},
    )


def _tell_lung_from_tissue(network: Any, patch: list[int]) -> None:
    """Scale and shift the last layer, whose two channels are background and foreground."""

    def foreground(intensity: float) -> float:
        with torch.no_grad():
            background, foreground = network(torch.full((1, 1, *patch), intensity))[0]
        return float((foreground - background).mean())

    last = [module for module in network.modules() if isinstance(module, torch.nn.ConvTranspose3d)][-1]
    with torch.no_grad():
        last.bias.zero_()
        last.weight.mul_(CERTAINTY / (foreground(LUNG) - foreground(TISSUE)))
        last.bias[1] = -(foreground(LUNG) + foreground(TISSUE)) / 2


if __name__ == "__main__":
    main()
