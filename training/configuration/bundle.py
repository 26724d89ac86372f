"""A MONAI bundle as training sees it: its folder, its task and the names of what its network gives.

The layout and the key names are those of the MONAI Bundle Specification and of the MONAI model zoo. Nothing
of a bundle's folder is ever changed here, so that `python -m monai.bundle run` works on it without the
platform.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

from monai.bundle import ConfigParser

from training.configuration.shapes import example_shape
from training.errors import BundleError, JobConfigurationError

LIBRARY = Path(__file__).parents[1] / "bundles"
"""The bundles that come with the image."""

BACKGROUND = "background"

SUFFIXES = ("json", "yaml", "yml")
"""Of configuration files, in the order in which they are looked for."""

_NOT_CONFIGURATION = frozenset({"docs", "eval", "models", "LICENSE", "provenance.json"})
"""What lies in a bundle's folder and does not change how it trains."""


class Task(Enum):
    """What a network does."""

    SEGMENTATION = "segmentation"
    CLASSIFICATION = "classification"


@dataclass(frozen=True, kw_only=True)
class Bundle:
    """A bundle's folder and what its metadata says.

    Attributes:
        root: The folder that holds `configs/`.
        name: Of the bundle.
        version: Of the bundle.
        channels: Number by name. Of a segmentation: the foreground channels, from 1. Of a classification:
            every class, from 0.
        input_shape: (channels, x, y, z) or (channels, x, y) of what the network takes; an example where the
            metadata allows several.
        task: What the network does.
        outputs: Channels or classes that the network gives, background included.
    """

    root: Path
    name: str
    version: str
    channels: Mapping[str, int]
    input_shape: tuple[int, ...]
    task: Task = Task.SEGMENTATION
    outputs: int = 0

    def digest(self) -> str:
        """SHA-256 over the configuration files and the bundle's own code, by name and content."""
        sha256 = hashlib.sha256()
        for file in sorted(self.root.rglob("*")):
            place = file.relative_to(self.root)
            if (
                file.is_file()
                and place.parts[0] not in _NOT_CONFIGURATION
                and "__pycache__" not in place.parts
            ):
                content = hashlib.sha256(file.read_bytes()).hexdigest()
                sha256.update(f"{place.as_posix()}\0{content}\n".encode())
        return sha256.hexdigest()


def config_file(root: Path, name: str) -> Path | None:
    """`configs/NAME.json`, or the same in YAML; None when there is neither."""
    files = (root / "configs" / f"{name}.{suffix}" for suffix in SUFFIXES)
    return next((file for file in files if file.is_file()), None)


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
        BundleError: It is missing, malformed, silent or ambiguous about the network's channels, or describes
            a network that one image set cannot feed or whose answer is neither masks nor classes.
    """
    metadata = read_metadata(root)
    try:
        formats = metadata["network_data_format"]
        image, output = _only(formats, "inputs"), _only(formats, "outputs")
        input_channels, task = _one_series(image), _task(output)
        outputs = int(output["num_channels"])
        definition = output.get("channel_def") or output.get("label_def") or {}
        if not definition:
            msg = "channel_def is missing: without it nothing has a name"
            raise ValueError(msg)
        return Bundle(
            root=root,
            name=str(metadata.get("name") or root.name),
            version=str(metadata["version"]),
            channels=_channels(definition, task),
            input_shape=(input_channels, *example_shape(image["spatial_shape"])),
            task=task,
            # A network may give one channel of label numbers; classes may come as one vector.
            outputs=max(outputs, len(definition)),
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        reason = f"{error} is missing" if isinstance(error, KeyError) else str(error)
        msg = f"{root.name}: configs/metadata.json is not usable: {reason}"
        raise BundleError(msg) from error


def read_metadata(root: Path) -> Mapping[str, Any]:
    """A bundle's metadata as it is written.

    Raises:
        BundleError: It is missing or malformed.
    """
    file = config_file(root, "metadata")
    try:
        document = None if file is None else ConfigParser.load_config_file(str(file))
    except Exception as error:
        msg = f"{root.name}: configs/metadata.json cannot be read: {type(error).__name__}"
        raise BundleError(msg) from error
    if not isinstance(document, Mapping):
        msg = f"{root.name}: configs/metadata.json cannot be read: there is no such file, or it is no object"
        raise BundleError(msg)
    return document


def named_channels(names: Sequence[str], task: Task) -> dict[str, int]:
    """The channels of a network whose outputs have these names, in this order.

    Raises:
        ValueError: Names are used twice, or a segmentation's first channel is not background.
    """
    return _channels({str(number): name for number, name in enumerate(names)}, task)


def _only(formats: Mapping[str, Any], kind: str) -> Mapping[str, Any]:
    members = formats[kind]
    if len(members) != 1:
        msg = f"the network has {len(members)} {kind} ({', '.join(sorted(members))}); wanted is one"
        raise ValueError(msg)
    (value,) = members.values()
    return dict(value)


def _one_series(image: Mapping[str, Any]) -> int:
    wanted = int(image["num_channels"])
    if wanted != 1:
        msg = f"the network wants {wanted} input channels; a case is one series, which is one channel"
        raise ValueError(msg)
    return wanted


def _task(output: Mapping[str, Any]) -> Task:
    """As the inference image tells it (docs/bundles.md): by the output's type, format and shape."""
    kind, form = (str(output.get(key) or "").strip().lower() for key in ("type", "format"))
    shape = output.get("spatial_shape")
    if form in ("classes", "classification") or (
        isinstance(shape, list) and len(shape) == 2 and shape[0] == 1
    ):
        return Task.CLASSIFICATION
    if kind not in ("object", "tuples") and form in ("", "segmentation", "labels"):
        return Task.SEGMENTATION
    msg = f"the network gives {form or kind!r}; trained are segmentation and classification"
    raise ValueError(msg)


def _channels(definition: Mapping[str, str], task: Task) -> dict[str, int]:
    """Number by name, without background where there is one.

    Labels of a segmentation are maps of channel numbers in which 0 stands for "none of them": a foreground
    channel 0 would vanish from the reference, and its Dice would compare background with background.
    """
    named = [(str(name).strip(), int(number)) for number, name in definition.items()]
    if task is Task.SEGMENTATION:
        named = [(name, number) for name, number in named if name.casefold() != BACKGROUND]
        if any(number < 1 for _, number in named):
            msg = "channel_def must give channel 0 to background"
            raise ValueError(msg)
    elif sorted(number for _, number in named) != list(range(len(named))):
        msg = "channel_def must number the classes from 0 without gaps"
        raise ValueError(msg)
    if len({name.casefold() for name, _ in named}) < len(named):
        msg = "channel_def has two channels of one name"
        raise ValueError(msg)
    return dict(named)
