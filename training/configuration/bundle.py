"""A MONAI bundle under the platform: the bundle says how to train, the platform brings the data.

The platform lays an overlay over the bundle's configuration (MONAI Bundle Specification; the layout and the
key names are those of the MONAI model zoo). From the bundle come transforms, network, loss, optimizer,
schedule, inferers, metrics and the trainer itself; the overlay replaces datasets and loaders, and the
handlers that write files or run validation on their own. The bundle's files stay as they are, so that
`python -m monai.bundle run` works on them without the platform.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from monai.bundle import ConfigParser

from training.errors import BundleError, JobConfigurationError, TrainingError
from training.stopping import StoppedError

LIBRARY = Path(__file__).parents[1] / "bundles"
"""The bundles that come with the image."""

LOADING = frozenset({"LoadImage", "LoadImaged", "EnsureChannelFirst", "EnsureChannelFirstd"})
"""Transforms that read files: cases arrive as tensors, channel-first."""

SAVING = frozenset({"SaveImage", "SaveImaged"})
"""Transforms that write files."""

REPLACED_HANDLERS = frozenset(
    {"ValidationHandler", "CheckpointSaver", "CheckpointLoader", "StatsHandler", "MetricsSaver"}
    | {"TensorBoardHandler", "TensorBoardStatsHandler", "TensorBoardImageHandler"}
)
"""Handlers whose work the platform does itself, by steps and through SageMaker."""

BACKGROUND = "background"


@dataclass(frozen=True, kw_only=True)
class Bundle:
    """A bundle's folder and what its metadata says.

    Attributes:
        root: The folder that holds `configs/`.
        name: Of the bundle.
        version: Of the bundle.
        channels: The network's foreground channels: number by name.
        input_shape: (channels, x, y, z) of what the network takes.
    """

    root: Path
    name: str
    version: str
    channels: Mapping[str, int]
    input_shape: tuple[int, ...]

    def digest(self) -> str:
        """SHA-256 over the configuration files, by name and content."""
        sha256 = hashlib.sha256()
        for file in sorted((self.root / "configs").iterdir()):
            sha256.update(f"{file.name}\0{hashlib.sha256(file.read_bytes()).hexdigest()}\n".encode())
        return sha256.hexdigest()


def named_bundle(name: str) -> Bundle:
    """A bundle of this image.

    Raises:
        JobConfigurationError: There is none of this name.
    """
    known = sorted(folder.name for folder in LIBRARY.iterdir() if (folder / "configs").is_dir())
    if name not in known:
        msg = f"There is no bundle {name!r} in this image (there is: {', '.join(known)})"
        raise JobConfigurationError(msg)
    return read_bundle(LIBRARY / name)


def read_bundle(root: Path) -> Bundle:
    """Reads a bundle's metadata.

    Raises:
        BundleError: It is missing, malformed, or silent or ambiguous about the network's channels.
    """
    file = root / "configs" / "metadata.json"
    try:
        metadata = json.loads(file.read_text(encoding="utf-8"))
        formats = metadata["network_data_format"]
        definition = formats["outputs"]["pred"]["channel_def"]
        image = formats["inputs"]["image"]
        return Bundle(
            root=root,
            name=str(metadata.get("name") or root.name),
            version=str(metadata["version"]),
            channels=_foreground(definition),
            input_shape=(int(image["num_channels"]), *(int(n) for n in image["spatial_shape"])),
        )
    except OSError as error:
        msg = f"{root.name}: configs/metadata.json cannot be read"
        raise BundleError(msg) from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        msg = f"{root.name}: configs/metadata.json is not usable: {type(error).__name__} {error}"
        raise BundleError(msg) from error


def _foreground(definition: Mapping[str, str]) -> dict[str, int]:
    """Number by name of the channels that are not background.

    Labels are maps of channel numbers in which 0 stands for "none of them": a foreground channel 0 would
    vanish from the reference, and its Dice would compare background with background.
    """
    named = [(str(name), int(number)) for number, name in definition.items()]
    channels = [(name, number) for name, number in named if name.strip().casefold() != BACKGROUND]
    if any(number < 1 for _, number in channels):
        msg = "channel_def must give channel 0 to background"
        raise ValueError(msg)
    if len({name.strip().casefold() for name, _ in channels}) < len(channels):
        msg = "channel_def has two channels of one name"
        raise ValueError(msg)
    return dict(channels)


class TrainingConfiguration:
    """A bundle's `train.json` with the platform's overlay.

    Args:
        bundle: The bundle.
        max_steps: Optimizer steps; None takes the bundle's own `max_steps`.
        seed: None takes the bundle's own `seed`, else 0.

    Raises:
        BundleError: The configuration cannot be read or lacks a part.
        JobConfigurationError: Nobody says how many steps.
    """

    def __init__(self, bundle: Bundle, *, max_steps: int | None = None, seed: int | None = None) -> None:
        self._bundle = bundle
        self._parser = _read(bundle, "train.json")
        steps = max_steps if max_steps is not None else self._parser.config.get("max_steps")
        if not isinstance(steps, int):
            msg = f"Bundle {bundle.name} has no max_steps of its own: give it as a hyperparameter"
            raise JobConfigurationError(msg)
        own_seed = self._parser.config.get("seed", 0)
        self.max_steps = steps
        self.seed = seed if seed is not None else int(own_seed)
        # Schedules of our bundles span the training by this key.
        self._parser["max_steps"] = steps

    def bring_data(self, *, training: Sequence[Any], validation: Sequence[Any], steps_per_epoch: int) -> None:
        """Puts the cases in the place of the bundle's files. Nothing is read before a part is asked for.

        Args:
            training: Items with `image` and `label`; no list, into which the parser would walk and read all.
            validation: Likewise; may be empty.
            steps_per_epoch: Batches in once through the training items.
        """
        parser = self._parser
        _disable(parser, LOADING | SAVING)
        parser["platform"] = {"training": training, "validation": validation}
        parser["train#dataset"] = _cached("@platform#training", "@train#preprocessing")
        parser["train#dataloader"] = {
            "_target_": "training.data.sampling.StepLoader",
            "dataset": "@train#dataset",
            "batch_size": self.batch_size,
            "seed": self.seed,
        }
        parser["train#trainer#max_epochs"] = -(-self.max_steps // steps_per_epoch)
        parser["train#trainer#epoch_length"] = steps_per_epoch
        _drop_handlers(parser, "train#handlers")
        if validation:
            parser["validate#dataset"] = _cached("@platform#validation", "@validate#preprocessing")
            _drop_handlers(parser, "validate#handlers")

    @property
    def batch_size(self) -> int:
        """Items a step; each may give several patches."""
        return int(_at(self._parser, "train#dataloader").get("batch_size", 1))

    def part(self, key: str) -> Any:
        """The object that a key of the configuration describes; always the same one.

        Raises:
            BundleError: The bundle has no such key, or it cannot be built.
        """
        return _part(self._parser, self._bundle, key)

    def has(self, key: str) -> bool:
        return key in self._parser


class InferenceConfiguration:
    """A bundle's `inference.json`, for volumes that are in memory already."""

    def __init__(self, bundle: Bundle) -> None:
        self._bundle = bundle
        self._parser = _read(bundle, "inference.json")
        _disable(self._parser, LOADING | SAVING)

    def part(self, key: str) -> Any:
        """As `TrainingConfiguration.part`."""
        return _part(self._parser, self._bundle, key)


def _cached(data: str, transform: str) -> dict[str, Any]:
    # Two threads: one waits for frames while the other resamples.
    return {
        "_target_": "CacheDataset",
        "data": data,
        "transform": transform,
        "num_workers": 2,
        "progress": False,
    }


def _read(bundle: Bundle, name: str) -> ConfigParser:
    parser = ConfigParser()
    try:
        parser.read_config(str(bundle.root / "configs" / name))
    except (OSError, ValueError) as error:
        msg = f"{bundle.name}: configs/{name} cannot be read: {type(error).__name__}"
        raise BundleError(msg) from error
    parser["bundle_root"] = str(bundle.root)
    return parser


def _at(parser: ConfigParser, key: str) -> dict[str, Any]:
    value = parser.get(key, {})
    return value if isinstance(value, dict) else {}


def _part(parser: ConfigParser, bundle: Bundle, key: str) -> Any:
    if key not in parser:
        msg = f"{bundle.name}: the configuration has no {key.replace('#', '.')}"
        raise BundleError(msg)
    try:
        return parser.get_parsed_content(key)
    except Exception as error:
        # Building a part may read cases; what went wrong with them lies below MONAI's own errors.
        cause: BaseException | None = error
        while cause is not None:
            if isinstance(cause, TrainingError | StoppedError):
                raise cause from None
            cause = cause.__cause__
        msg = f"{bundle.name}: {key.replace('#', '.')} cannot be built: {_root(error)}"
        raise BundleError(msg) from error


def _root(error: BaseException) -> str:
    """The first error of a chain: MONAI wraps what a component raises into its own description."""
    while error.__cause__ is not None:
        error = error.__cause__
    return f"{type(error).__name__}: {error}"


def _components(config: Any, names: frozenset[str]) -> Iterator[dict[str, Any]]:
    """Every component of a raw configuration whose class has one of the names."""
    if isinstance(config, dict):
        target = config.get("_target_")
        if isinstance(target, str) and target.rpartition(".")[2] in names:
            yield config
    children = config.values() if isinstance(config, dict) else config if isinstance(config, list) else ()
    for child in children:
        yield from _components(child, names)


def _disable(parser: ConfigParser, names: frozenset[str]) -> None:
    for component in _components(parser.config, names):
        component["_disabled_"] = True


def _drop_handlers(parser: ConfigParser, key: str) -> None:
    handlers = parser.get(key, [])
    if isinstance(handlers, list):
        parser[key] = [handler for handler in handlers if not any(_components([handler], REPLACED_HANDLERS))]
