"""A bundle's inference configuration, for volumes that are in memory already."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from monai.bundle import ConfigParser

from training.configuration.bundle import Bundle
from training.configuration.parts import build, prepare_for_memory, read_raw
from training.errors import BundleError

NETWORKS = ("network_def", "network")
"""Where a configuration defines its network, the one without a device first."""

_load_torchscript: Callable[..., Any] = torch.jit.load  # torch leaves it without types


class InferenceConfiguration:
    """A bundle's `inference.json` (or `.yaml`).

    Raises:
        BundleError: It is missing or cannot be read.
    """

    def __init__(self, bundle: Bundle) -> None:
        self._bundle = bundle
        self._parser = ConfigParser(read_raw(bundle, "inference"))
        prepare_for_memory(self._parser, bundle)

    def has(self, key: str) -> bool:
        return key in self._parser

    def part(self, key: str) -> Any:
        """The object that a key describes; always the same one.

        Raises:
            BundleError: There is no such key, or it cannot be built.
        """
        return build(self._parser, self._bundle, key)

    def untrained_network(self) -> torch.nn.Module | None:
        """The network without its weights; None where the configuration only knows a TorchScript file.

        Raises:
            BundleError: It cannot be built.
        """
        key = next((key for key in NETWORKS if key in self._parser), None)
        if key is None:
            return None
        network = self.part(key)
        return network if isinstance(network, torch.nn.Module) else None

    def trained_network(self) -> torch.nn.Module:
        """The network as it is served: `models/model.ts`, else `network_def` with `models/model.pt`; on the
        CPU.

        Raises:
            BundleError: Neither can be loaded.
        """
        models = self._bundle.root / "models"
        name = "model.ts" if (models / "model.ts").exists() else "model.pt"
        try:
            if name == "model.ts":
                script: torch.nn.Module = _load_torchscript(str(models / name), map_location="cpu")
                return script.eval()
            weights = torch.load(models / name, map_location="cpu", weights_only=True)
        except Exception as error:
            msg = f"{self._bundle.name}: models/{name} cannot be loaded: {type(error).__name__}"
            raise BundleError(msg) from error
        network = self.untrained_network()
        if network is None:
            msg = f"{self._bundle.name}: models/model.pt holds weights, and inference.json defines no network"
            raise BundleError(msg)
        try:
            network.load_state_dict(weights)
        except RuntimeError as error:
            msg = f"{self._bundle.name}: models/model.pt does not fit network_def of inference.json"
            raise BundleError(msg) from error
        return network.cpu().eval()
