"""What a training job may be told, read from the strings that SageMaker passes."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from training.errors import JobConfigurationError

_HIGHEST = 2**31


@dataclass(frozen=True, kw_only=True)
class Hyperparameters:
    """What a training job may be told; every one has a default.

    Attributes:
        bundle: Name of a bundle in this image, or `s3://.../NAME-SHA256.tar.gz`.
        max_steps: Optimizer steps of the whole training.
        max_epochs: Times through the training cases, instead of `max_steps`. Without both the bundle decides.
        seed: Of initial weights, order and augmentation; None leaves it to the bundle.
        batch_size: Items of a rank's micro-batch; None leaves it to the bundle.
        accumulate: Micro-batches whose gradients an optimizer step adds up.
        validate_every: Optimizer steps between two validations.
        checkpoint_every: Optimizer steps between two checkpoints.
        patience: Validations without a better key metric after which training ends; 0: never.
        deterministic: Refuse operations whose result differs from run to run. Slower on GPUs.
        amp: Mixed precision: "auto" (as the bundle says), "on" or "off".
        overrides: Values by key of the bundle's configuration.
        resolution: "auto" reads images no finer than the bundle's grid needs; "full" always all of them.
        cache_gib: How much the cache of prepared cases may take on each host; 0: no cache; None: four fifths
            of what is free.
        cache_folder: Where it lies; None: the temporary folder, which machines with NVMe disks have there.
        workers: Threads of each rank that prepare items; None: by the number of cores.
        processes_per_host: Ranks on each host; None: one a GPU, and at least one.
    """

    bundle: str = "ct_segmentation"
    max_steps: int | None = None
    max_epochs: int | None = None
    seed: int | None = None
    batch_size: int | None = None
    accumulate: int = 1
    validate_every: int = 50
    checkpoint_every: int = 50
    patience: int = 0
    deterministic: bool = False
    amp: str = "auto"
    overrides: Mapping[str, Any] = field(default_factory=dict)
    resolution: str = "auto"
    cache_gib: float | None = None
    cache_folder: Path | None = None
    workers: int | None = None
    processes_per_host: int | None = None

    @classmethod
    def from_strings(cls, values: Mapping[str, Any]) -> Hyperparameters:
        """Reads hyperparameters as SageMaker passes them: every value is a string.

        The SDK's version 3 writes each value as JSON into the string, so that text arrives in quotes.
        Names that start with `sagemaker_` (the SDK's) or `_` (the tuner's) are not ours and are passed over.

        Raises:
            JobConfigurationError: Unknown names and unusable values, all at once.
        """
        problems: list[str] = []
        read: dict[str, Any] = {}
        for name, text in values.items():
            if name.startswith(("sagemaker_", "_")):
                continue
            reader = _READERS.get(name)
            if reader is None:
                problems.append(f"{name} is unknown (known: {', '.join(_READERS)})")
                continue
            value = _unquoted(text if isinstance(text, str) else json.dumps(text))
            try:
                read[name] = reader(value)
            except ValueError as error:
                problems.append(f"{name} is {value!r}, not {error}")
        if "max_steps" in read and "max_epochs" in read:
            problems.append("max_steps and max_epochs are both given; give one")
        if problems:
            raise JobConfigurationError("Hyperparameters: " + "; ".join(problems))
        return cls(**read)

    def as_strings(self) -> dict[str, str]:
        """What was decided, for the provenance record; what was left to the bundle is left out."""
        return {
            one.name: value if isinstance(value, str) else json.dumps(value, default=str)
            for one in fields(self)
            if (value := getattr(self, one.name)) is not None
        }


def _unquoted(text: str) -> str:
    try:
        value = json.loads(text)
    except ValueError:
        return text
    return value if isinstance(value, str) else text


def _whole(lowest: int) -> Callable[[str], int]:
    def read(text: str) -> int:
        if not (text.isascii() and text.isdecimal() and lowest <= int(text) < _HIGHEST):
            msg = f"a whole number from {lowest}"
            raise ValueError(msg)
        return int(text)

    return read


def _one_of(*known: str) -> Callable[[str], str]:
    def read(text: str) -> str:
        if text not in known:
            msg = f"one of {', '.join(known)}"
            raise ValueError(msg)
        return text

    return read


def _yes_or_no(text: str) -> bool:
    return _one_of("true", "false")(text.lower()) == "true"


def _bundle(text: str) -> str:
    # A name becomes a path: it must stay in the folder of bundles.
    if not text.startswith("s3://") and not text.replace("_", "").isalnum():
        msg = "letters, digits and underscores, nor an s3:// URI"
        raise ValueError(msg)
    return text


def _object(text: str) -> Mapping[str, Any]:
    try:
        value = json.loads(text)
    except ValueError:
        value = None
    if not isinstance(value, dict):
        msg = "a JSON object"
        raise ValueError(msg)
    return value


def _gib(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < _HIGHEST:
        msg = "a number of GiB from 0"
        raise ValueError(msg)
    return value


def _folder(text: str) -> Path:
    if not text.startswith("/"):
        msg = "the absolute path of a folder"
        raise ValueError(msg)
    return Path(text)


_READERS: Mapping[str, Callable[[str], Any]] = {
    "bundle": _bundle,
    "max_steps": _whole(1),
    "max_epochs": _whole(1),
    "seed": _whole(0),
    "batch_size": _whole(1),
    "accumulate": _whole(1),
    "validate_every": _whole(1),
    "checkpoint_every": _whole(1),
    "patience": _whole(0),
    "deterministic": _yes_or_no,
    "amp": _one_of("auto", "on", "off"),
    "overrides": _object,
    "resolution": _one_of("auto", "full"),
    "cache_gib": _gib,
    "cache_folder": _folder,
    "workers": _whole(1),
    "processes_per_host": _whole(1),
}
