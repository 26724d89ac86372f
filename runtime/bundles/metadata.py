"""What a bundle's metadata promises about its network: task, input, and the names of its channels.

``configs/metadata.json`` is described by the MONAI Bundle Specification, "metadata.json File". The
vocabulary of ``network_data_format`` is loose in practice; what is read here is what the bundles of the
public model zoo write.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from monai.bundle import ConfigParser

from runtime.bundles.task import Task
from runtime.errors import BundleError, UnsuitablePredictionError

BACKGROUND = "background"
"""Channel name that stands for "none of the others"; it never becomes a segment."""


@dataclass(frozen=True, kw_only=True)
class Channel:
    """One value of ``channel_def``: the index that the network's output gives the name to."""

    index: int
    name: str

    @property
    def is_background(self) -> bool:
        return self.name.strip().lower() == BACKGROUND


@dataclass(frozen=True, kw_only=True)
class BundleMetadata:
    """The part of the metadata that a result depends on or is described by."""

    name: str
    version: str
    task: Task
    modality: str | None
    """Modality that the network was trained for, as in (0008,0060); None when the metadata is silent."""

    input_name: str
    output_name: str
    two_dimensional: bool
    """Whether the network looks at images and not at volumes."""

    channels: tuple[Channel, ...]
    """By index: the segments, or the classes."""


def require_places(channels: Sequence[Channel]) -> None:
    """Make sure that the numbers of ``channel_def`` say which of a network's output channels is which.

    Labels may leave numbers out; channels are counted, from 0 or, where ``channel_def`` has no background, 1.

    Raises
    ------
    UnsuitablePredictionError
        When numbers are left out or used twice: every name after the gap would be a guess.
    """
    numbers = [channel.index for channel in channels]
    first = numbers[0]
    if first > 1 or numbers != list(range(first, first + len(numbers))):
        msg = (
            f"channel_def numbers its entries {', '.join(map(str, numbers))}, and the network gives "
            f"{len(numbers)} channels: it must number them from 0 without gaps"
        )
        raise UnsuitablePredictionError(msg)


def read_metadata(file: Path) -> BundleMetadata:
    """Read the metadata and see whether it describes something that this runtime does.

    Raises
    ------
    BundleError
        Naming the key that is missing, or saying why such a network cannot be served.
    """
    document = read_mapping(file)
    data_format = _member(document, "network_data_format", file)
    output_name, output = _output(_member(data_format, "outputs", file), file)
    task = _task(output, file)
    input_name, image = _input(_member(data_format, "inputs", file), file)
    shape = image.get("spatial_shape")
    return BundleMetadata(
        name=_text(document, "name", file),
        version=_text(document, "version", file),
        task=task,
        modality=_dicom_modality(image.get("modality")),
        input_name=input_name,
        output_name=output_name,
        two_dimensional=isinstance(shape, list) and len(shape) == 2,
        channels=_channels(output, task, f"{file}: network_data_format.outputs.{output_name}"),
    )


def read_mapping(file: Path) -> Mapping[str, Any]:
    """Read a JSON or YAML file that holds one object.

    Raises
    ------
    BundleError
        When it does not.
    """
    try:
        document = ConfigParser.load_config_file(str(file))
    except Exception as error:
        kind = "JSON" if file.suffix == ".json" else "YAML"
        raise BundleError(f"{file}: not a {kind} document") from error
    if not isinstance(document, Mapping):
        raise BundleError(f"{file}: must be an object with keys")
    return document


def _member(document: Mapping[str, Any], key: str, file: Path) -> Mapping[str, Any]:
    value = document.get(key)
    if not isinstance(value, Mapping):
        raise BundleError(f"{file}: {key} is missing or not an object")
    return value


def _text(document: Mapping[str, Any], key: str, file: Path) -> str:
    value = str(document.get(key) or "").strip()
    if not value:
        raise BundleError(f"{file}: {key} is missing")
    return value


def _output(outputs: Mapping[str, Any], file: Path) -> tuple[str, Mapping[str, Any]]:
    """The only output; a network that gives several things at once has no single mask."""
    if len(outputs) != 1:
        names = ", ".join(sorted(outputs)) or "none"
        msg = f"{file}: network_data_format.outputs must have one member, not {len(outputs)} ({names})"
        raise BundleError(msg)
    ((name, value),) = outputs.items()
    if not isinstance(value, Mapping):
        raise BundleError(f"{file}: network_data_format.outputs.{name} must be an object")
    return name, value


def _input(inputs: Mapping[str, Any], file: Path) -> tuple[str, Mapping[str, Any]]:
    if len(inputs) != 1:
        names = ", ".join(sorted(inputs)) or "none"
        msg = f"{file}: the network wants {len(inputs)} inputs ({names}); a request gives one volume"
        raise BundleError(msg)
    ((name, value),) = inputs.items()
    if not isinstance(value, Mapping):
        raise BundleError(f"{file}: network_data_format.inputs.{name} must be an object")
    if _word(value, "type") in ("noise", "tuples") or _word(value, "format") == "latent":
        raise BundleError(f"{file}: the network makes images of noise; a request gives a volume to look at")
    wanted = value.get("num_channels", 1)
    if wanted != 1:
        names = ", ".join(str(one) for one in _mapping(value.get("channel_def")).values())
        described = f" ({names})" if len(_mapping(value.get("channel_def"))) > 1 else ""
        msg = (
            f"{file}: the network wants {wanted} input channels{described}; "
            "a request gives one series, which is one channel"
        )
        raise BundleError(msg)
    return name, value


def _task(output: Mapping[str, Any], file: Path) -> Task:
    """Tell the task by the output's type, format and shape.

    Classifications call their format ``classes``, or give one vector (``spatial_shape`` [1, classes]).
    """
    kind, form = _word(output, "type"), _word(output, "format")
    if kind == "object" or form == "dict":
        raise BundleError(f"{file}: the network detects objects; served are segmentation and classification")
    if kind == "tuples" or form == "points":
        raise BundleError(f"{file}: the network gives points; served are segmentation and classification")
    if form in ("classes", "classification") or _is_vector(output):
        return Task.CLASSIFICATION
    if form in ("", "segmentation", "labels"):
        return Task.SEGMENTATION
    given = f"{form!r} ({kind or 'no type'})"
    raise BundleError(f"{file}: the network gives {given}; served are segmentation and classification")


def _is_vector(output: Mapping[str, Any]) -> bool:
    shape = output.get("spatial_shape")
    return isinstance(shape, list) and len(shape) == 2 and shape[0] == 1


def _channels(output: Mapping[str, Any], task: Task, place: str) -> tuple[Channel, ...]:
    definition = output.get("channel_def") or output.get("label_def")
    if not isinstance(definition, Mapping) or not definition:
        raise BundleError(f"{place}.channel_def is missing: without it nothing has a name")
    channels = []
    for key, name in definition.items():
        if not str(key).isdecimal() or not isinstance(name, str) or not name.strip():
            msg = f"{place}.channel_def must map channel numbers to names, not {key!r} to {name!r}"
            raise BundleError(msg)
        channels.append(Channel(index=int(key), name=name.strip()))
    if task is Task.SEGMENTATION and all(channel.is_background for channel in channels):
        raise BundleError(f"{place}.channel_def names nothing but background")
    return tuple(sorted(channels, key=lambda channel: channel.index))


_MODALITIES = {"": None, "N/A": None, "NONE": None, "MRI": "MR", "MAMMOGRAM": "MG"}
"""What bundles write where DICOM has another word, or none."""


def _dicom_modality(value: object) -> str | None:
    """Spell the metadata's modality as DICOM does."""
    if not isinstance(value, str):
        return None
    modality = value.strip().upper()
    return _MODALITIES.get(modality, modality)


def _word(document: Mapping[str, Any], key: str) -> str:
    value = document.get(key)
    return value.strip().lower() if isinstance(value, str) else ""


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
