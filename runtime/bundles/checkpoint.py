"""The weights of a bundle, loaded as its configuration's own checkpoint loader would."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from monai.networks.utils import copy_model_state

from runtime.bundles.configuration import Configuration
from runtime.errors import BundleError

_LOADER = frozenset({"CheckpointLoader"})
_NETWORKS = ("@network", "@network_def")

_NOT_A_WEIGHT = "num_batches_tracked"
"""Counts batches of the training; no result depends on it (torch.nn.BatchNorm3d)."""


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """Where a configuration loads its network's weights from, and how (monai.handlers.CheckpointLoader)."""

    file: Path | None = None
    """None when the configuration leaves that to whoever runs it."""

    member: str = "model"
    """Key of the weights in a checkpoint that holds more than them."""

    strict: bool = True
    strict_shape: bool = True


def named_checkpoint(configuration: Configuration) -> Checkpoint:
    """Find the checkpoint that the configuration loads into its network.

    Raises
    ------
    BundleError
        When its path cannot be worked out.
    """
    for key, component in configuration.components(_LOADER):
        targets = component.get("load_dict")
        if not isinstance(targets, Mapping) or "load_path" not in component:
            continue
        for member, target in targets.items():
            if target in _NETWORKS:
                path = configuration.content(f"{key}#load_path")
                return Checkpoint(
                    file=configuration.root / str(path),
                    member=str(member),
                    strict=_flag(component.get("strict", True)),
                    strict_shape=_flag(component.get("strict_shape", True)),
                )
    return Checkpoint()


def load_torchscript(weights: Path, device: torch.device) -> torch.nn.Module:
    """Load a network with its weights.

    Raises
    ------
    BundleError
        When the file is not TorchScript.
    """
    try:
        # torch does not annotate this function; mypy wants to be told what it gives.
        load: Callable[..., torch.nn.Module] = torch.jit.load
        return load(str(weights), map_location=device)
    except (RuntimeError, ValueError) as error:
        raise BundleError(f"{weights}: is not a TorchScript file") from error


def load_weights(network: torch.nn.Module, weights: Path, checkpoint: Checkpoint) -> None:
    """Load a state dictionary, or a checkpoint that holds one.

    The file is read with ``weights_only``: it can hold tensors, and no code. Where the configuration says so
    (``strict``, ``strict_shape``), it may hold more than the network, but never less: a network that stays
    in part as random as it was made gives results that look like any other's.

    Raises
    ------
    BundleError
        When the file holds something else, or weights of another network.
    """
    try:
        content = torch.load(weights, map_location="cpu", weights_only=True)
    except Exception as error:
        raise BundleError(f"{weights}: is not a file of weights: {type(error).__name__}") from error
    state = content.get(checkpoint.member, content) if isinstance(content, Mapping) else content
    try:
        if not (checkpoint.strict and checkpoint.strict_shape):
            _require_all_of(network, cast(Mapping[str, Any], state), weights)
        if not checkpoint.strict_shape:
            state = copy_model_state(network, cast(Mapping[str, Any], state), inplace=False)[0]
        network.load_state_dict(state, strict=checkpoint.strict)
    except (RuntimeError, TypeError, AttributeError) as error:
        raise BundleError(f"{weights}: does not fit network_def: {error}") from error


def _require_all_of(network: torch.nn.Module, state: Mapping[str, Any], weights: Path) -> None:
    random = [
        name
        for name, value in network.state_dict().items()
        if (name not in state or state[name].shape != value.shape) and not name.endswith(_NOT_A_WEIGHT)
    ]
    if random:
        named = ", ".join(random[:3]) + (f" and {len(random) - 3} more" if len(random) > 3 else "")
        raise BundleError(f"{weights}: leaves {named} of network_def as random as it was made")


def _flag(value: object) -> bool:
    """Zoo bundles write ``"True"`` where they mean true."""
    return str(value).strip().lower() != "false"
