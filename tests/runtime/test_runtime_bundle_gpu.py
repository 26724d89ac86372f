"""What is done on a GPU and only there, seen on a machine without one: layout and mixed precision."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from synthetic_bundle import inference_config, write_checkpoint_bundle

from runtime.bundles.bundle import Bundle, load_bundle


@pytest.fixture
def as_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Networks move to a GPU without moving, and take the layout that they are given."""
    to = torch.nn.Module.to

    def move(network: torch.nn.Module, *args: Any, **kwargs: Any) -> torch.nn.Module:
        return network if args == (torch.device("cuda"),) else to(network, *args, **kwargs)

    monkeypatch.setattr(torch.nn.Module, "to", move)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)


def _bundle(folder: Path, **evaluator: Any) -> Bundle:
    config = inference_config()
    config["evaluator"] |= evaluator
    network = {"_target_": "UNet", "spatial_dims": 3, "in_channels": 1, "channels": [4, 8], "strides": [2]}
    channels = {"0": "background", "1": "lung"}
    return load_bundle(
        write_checkpoint_bundle(
            folder, channels=channels, network=network | {"out_channels": 2}, config=config
        )
    )


def _is_channels_last(bundle: Bundle) -> bool:
    weights = [one for one in bundle.network.parameters() if one.dim() == 5 and one.shape[1] > 1]
    assert weights, "a convolution of one channel looks the same in both layouts"
    return all(one.is_contiguous(memory_format=torch.channels_last_3d) for one in weights)


@pytest.mark.usefixtures("as_on_a_gpu")
def test_three_dimensional_networks_are_laid_out_channels_last(tmp_path: Path) -> None:
    bundle = _bundle(tmp_path)
    assert bundle.device.type == "cuda"
    assert _is_channels_last(bundle)


def test_on_a_cpu_they_are_not(tmp_path: Path) -> None:
    assert not _is_channels_last(_bundle(tmp_path))


@pytest.mark.filterwarnings("ignore:User provided device_type of 'cuda'")
def test_mixed_precision_is_the_evaluators_and_of_gpus_alone(tmp_path: Path) -> None:
    bundle = _bundle(tmp_path, amp=True, amp_kwargs={"dtype": "$torch.bfloat16"})
    assert isinstance(bundle._autocast(), nullcontext)
    on_gpu = replace(bundle, device=torch.device("cuda"))
    context = on_gpu._autocast()
    assert isinstance(context, torch.autocast)
    assert (context.device, context.fast_dtype) == ("cuda", torch.bfloat16)
    assert isinstance(replace(on_gpu, mixed_precision=False)._autocast(), nullcontext)
