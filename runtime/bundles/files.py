"""The files of a MONAI bundle directory: which are used, and what they amount to.

Layout (MONAI Bundle Specification, "Directory Structure"): ``configs/inference.json`` (or ``.yaml``),
``configs/metadata.json``, ``models/model.ts`` (TorchScript) or ``models/model.pt``.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from zipfile import BadZipFile, ZipFile

from runtime.bundles.checkpoint import Checkpoint, named_checkpoint
from runtime.bundles.configuration import Configuration, read_configuration
from runtime.bundles.metadata import BundleMetadata, Channel, read_mapping, read_metadata
from runtime.errors import BundleError

_NOT_PART_OF_A_RESULT = frozenset({"docs", "eval", "LICENSE", "README.md", "provenance.json"})
"""What lies in a bundle's folder and cannot change what it computes: documents, results, and the record of
the training."""


@dataclass(frozen=True, kw_only=True)
class BundleFiles:
    """A bundle directory whose files exist and whose metadata this runtime can serve."""

    root: Path
    inference_config: Path
    metadata_config: Path
    metadata: BundleMetadata
    weights: Path
    sha256: str
    """SHA-256 of the weights file, hexadecimal."""

    fingerprint: str
    """SHA-256 over the weights, wherever they lie, and every file of the folder but documents, by name and
    content: all of the bundle that a result can depend on, since a configuration may refer to any of them."""

    is_torchscript: bool
    """Whether ``weights`` holds the network itself."""

    @property
    def name(self) -> str:
        return self.metadata.name

    @property
    def version(self) -> str:
        return self.metadata.version

    @property
    def modality(self) -> str | None:
        return self.metadata.modality

    @property
    def channels(self) -> tuple[Channel, ...]:
        return self.metadata.channels

    @property
    def segment_channels(self) -> tuple[Channel, ...]:
        return tuple(channel for channel in self.channels if not channel.is_background)


@dataclass(frozen=True, kw_only=True)
class OpenedBundle:
    """A bundle's files, and its configuration before anything of it is built."""

    files: BundleFiles
    configuration: Configuration
    checkpoint: Checkpoint
    """How the weights are to be loaded, unless they are TorchScript."""


def read_bundle_files(root: Path) -> BundleFiles:
    """Find a bundle's files and read its metadata.

    Raises
    ------
    BundleError
        Naming the file or the key that is missing or cannot be served.
    """
    return open_bundle(root).files


def open_bundle(root: Path) -> OpenedBundle:
    """Read what a bundle says about itself.

    Raises
    ------
    BundleError
        As `read_bundle_files`.
    """
    if not root.is_dir():
        raise BundleError(f"{root}: there is no model directory")
    configs = root / "configs"
    inference = _first(
        configs, ("inference.json", "inference.yaml", "inference.yml"), what="inference config"
    )
    metadata_file = _first(configs, ("metadata.json", "metadata.yaml", "metadata.yml"), what="metadata")
    metadata = read_metadata(metadata_file)
    configuration = read_configuration(root, inference=inference, metadata=metadata_file)
    checkpoint = named_checkpoint(configuration)
    weights = _weights(root, checkpoint)
    digest = _digest(weights)
    _require_recorded_weights(root / "provenance.json", weights, digest)
    files = BundleFiles(
        root=root,
        inference_config=inference,
        metadata_config=metadata_file,
        metadata=metadata,
        weights=weights,
        sha256=digest,
        fingerprint=_fingerprint(root, digest),
        is_torchscript=_is_torchscript(weights),
    )
    return OpenedBundle(files=files, configuration=configuration, checkpoint=checkpoint)


def _first(folder: Path, names: tuple[str, ...], *, what: str) -> Path:
    for name in names:
        if (folder / name).is_file():
            return folder / name
    raise BundleError(f"{folder}: no {what} ({' or '.join(names)}): this is not a MONAI bundle")


def _weights(root: Path, checkpoint: Checkpoint) -> Path:
    """Choose the file of weights.

    ``model.ts`` is ``model.pt`` with its network (Bundle Specification, "Archive Format"). A configuration
    that loads a checkpoint of another name means another network.
    """
    own = [] if checkpoint.file is None else [checkpoint.file]
    exports = [root / "models" / "model.ts", root / "models" / "model.pt"]
    wanted = own + exports if own and own[0] not in exports else exports
    for file in wanted:
        if file.is_file():
            return file
    names = " or ".join(file.name for file in wanted)
    raise BundleError(f"{root / 'models'}: no weights ({names}): this is not a complete MONAI bundle")


def _is_torchscript(weights: Path) -> bool:
    if weights.suffix == ".ts":
        return True
    try:
        with ZipFile(weights) as archive:
            return any(name.endswith("/constants.pkl") for name in archive.namelist())
    except BadZipFile:
        return False


def _require_recorded_weights(provenance: Path, weights: Path, digest: str) -> None:
    """Refuses weights other than those that the training recorded: what was evaluated and approved."""
    if not provenance.exists():
        return
    recorded = read_mapping(provenance).get("weights")
    if not isinstance(recorded, Mapping) or recorded.get(weights.name) != digest:
        raise BundleError(f"{weights}: is not the file that {provenance.name} records: SHA-256 {digest}")


def _fingerprint(root: Path, weights_digest: str) -> str:
    parts = [weights_digest]
    for file in sorted(root.rglob("*")):
        place = file.relative_to(root)
        if (
            file.is_file()
            and place.parts[0] not in _NOT_PART_OF_A_RESULT
            and "__pycache__" not in place.parts
        ):
            parts.append(f"{place.as_posix()} {_digest(file)}")
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def _digest(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
