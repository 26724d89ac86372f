"""The files of a MONAI bundle directory and what its metadata promises.

Layout (MONAI Bundle Specification, "Directory Structure"): ``configs/inference.json`` (or ``.yaml``),
``configs/metadata.json``, ``models/model.ts`` (TorchScript) or ``models/model.pt``.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runtime.errors import BundleError

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
class BundleFiles:
    """A bundle directory whose files exist and whose metadata this runtime can serve."""

    root: Path
    inference_config: Path
    metadata_config: Path
    weights: Path
    name: str
    version: str
    modality: str | None
    """Modality that the network was trained for, as in (0008,0060); None when the metadata is silent."""

    input_name: str
    output_name: str
    channels: tuple[Channel, ...]
    sha256: str
    """SHA-256 of the weights file, hexadecimal."""

    fingerprint: str
    """SHA-256 over the weights and every file of ``configs`` and ``scripts``, by name and content: all of the
    bundle that a result can depend on, since a configuration may refer to other files of these folders."""

    @property
    def is_torchscript(self) -> bool:
        return self.weights.suffix == ".ts"

    @property
    def segment_channels(self) -> tuple[Channel, ...]:
        return tuple(channel for channel in self.channels if not channel.is_background)


def read_bundle_files(root: Path) -> BundleFiles:
    """Find a bundle's files and read its metadata.

    Raises
    ------
    BundleError
        Naming the file or the key that is missing or cannot be served.
    """
    if not root.is_dir():
        raise BundleError(f"{root}: there is no model directory")
    configs = root / "configs"
    inference = _first(
        configs, ("inference.json", "inference.yaml", "inference.yml"), what="inference config"
    )
    metadata_file = _first(configs, ("metadata.json",), what="metadata")
    weights = _first(root / "models", ("model.ts", "model.pt"), what="weights")
    metadata = _read_metadata(metadata_file)
    data_format = _member(metadata, "network_data_format", metadata_file)
    inputs = _member(data_format, "inputs", metadata_file)
    outputs = _member(data_format, "outputs", metadata_file)
    input_name, image = _only(inputs, "inputs", metadata_file)
    output_name, prediction = _only(outputs, "outputs", metadata_file)
    channels_wanted = image.get("num_channels", 1)
    if channels_wanted != 1:
        msg = (
            f"{metadata_file}: the network wants {channels_wanted} input channels; "
            "a request gives one series, which is one channel"
        )
        raise BundleError(msg)
    weights_digest = _digest(weights)
    _require_recorded_weights(root / "provenance.json", weights, weights_digest)
    modality = image.get("modality")
    return BundleFiles(
        root=root,
        inference_config=inference,
        metadata_config=metadata_file,
        weights=weights,
        name=str(metadata.get("name") or "").strip() or _missing("name", metadata_file),
        version=str(metadata.get("version") or "").strip() or _missing("version", metadata_file),
        modality=_dicom_modality(modality),
        input_name=input_name,
        output_name=output_name,
        channels=_channels(prediction.get("channel_def"), metadata_file),
        sha256=weights_digest,
        fingerprint=_fingerprint(root, weights_digest),
    )


def _first(folder: Path, names: tuple[str, ...], *, what: str) -> Path:
    for name in names:
        if (folder / name).is_file():
            return folder / name
    raise BundleError(f"{folder}: no {what} ({' or '.join(names)}): this is not a MONAI bundle")


def _read_metadata(file: Path) -> Mapping[str, Any]:
    try:
        document = json.loads(file.read_bytes())
    except ValueError as error:
        raise BundleError(f"{file}: not a JSON document") from error
    if not isinstance(document, Mapping):
        raise BundleError(f"{file}: must be a JSON object")
    return document


def _missing(key: str, file: Path) -> str:
    raise BundleError(f"{file}: {key} is missing")


def _member(document: Mapping[str, Any], key: str, file: Path) -> Mapping[str, Any]:
    value = document.get(key)
    if not isinstance(value, Mapping):
        raise BundleError(f"{file}: {key} is missing or not an object")
    return value


def _only(members: Mapping[str, Any], key: str, file: Path) -> tuple[str, Mapping[str, Any]]:
    if len(members) != 1:
        raise BundleError(f"{file}: network_data_format.{key} must have one member, not {len(members)}")
    ((name, value),) = members.items()
    if not isinstance(value, Mapping):
        raise BundleError(f"{file}: network_data_format.{key}.{name} must be an object")
    return name, value


def _channels(definition: object, file: Path) -> tuple[Channel, ...]:
    place = f"{file}: network_data_format.outputs.pred.channel_def"
    if not isinstance(definition, Mapping) or not definition:
        raise BundleError(f"{place} is missing: without it the segments have no names")
    channels = []
    for key, name in definition.items():
        if not str(key).isdecimal() or not isinstance(name, str) or not name.strip():
            raise BundleError(f"{place} must map channel numbers to names, not {key!r} to {name!r}")
        channels.append(Channel(index=int(key), name=name.strip()))
    if all(channel.is_background for channel in channels):
        raise BundleError(f"{place} names nothing but background")
    return tuple(sorted(channels, key=lambda channel: channel.index))


def _dicom_modality(value: object) -> str | None:
    """Spell the metadata's modality as DICOM does: bundles write ``MRI`` where DICOM writes ``MR``."""
    if not isinstance(value, str) or value.strip().lower() in ("", "n/a"):
        return None
    modality = value.strip().upper()
    return "MR" if modality == "MRI" else modality


def _require_recorded_weights(provenance: Path, weights: Path, digest: str) -> None:
    """Refuses weights other than those that the training recorded: what was evaluated and approved."""
    if not provenance.exists():
        return
    recorded = _member(_read_metadata(provenance), "weights", provenance)
    if recorded.get(weights.name) != digest:
        raise BundleError(f"{weights}: is not the file that {provenance.name} records: SHA-256 {digest}")


def _fingerprint(root: Path, weights_digest: str) -> str:
    files = (file for name in ("configs", "scripts") for file in (root / name).rglob("*") if file.is_file())
    parts = sorted(f"{file.relative_to(root).as_posix()} {_digest(file)}" for file in files)
    return hashlib.sha256("\n".join([weights_digest, *parts]).encode()).hexdigest()


def _digest(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
