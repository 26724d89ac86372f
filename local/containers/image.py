"""An image: what its Dockerfile said, and the files that it copied."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any


@dataclass(frozen=True, kw_only=True)
class ImageConfig:
    """The part of an image that is not files. `requirements` are the lines of all its pip installs."""

    base: str
    workdir: str = "/"
    entrypoint: tuple[str, ...] = ()
    command: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    ports: tuple[str, ...] = ()
    requirements: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """As plain JSON."""
        return asdict(self)

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> ImageConfig:
        """From plain JSON; lists become tuples again."""
        members: dict[str, Any] = {
            key: tuple(value) if isinstance(value, list) else value for key, value in document.items()
        }
        return cls(**members)


@dataclass(frozen=True, kw_only=True)
class Image:
    """A stored image. `files` is the folder that stands for the image's root folder "/"."""

    digest: str
    config: ImageConfig
    files: Path

    def locate(self, path: str | PurePosixPath) -> Path:
        """Where an absolute path of the image is on this machine."""
        return self.files / PurePosixPath(path).relative_to("/")


def digest_of(config: ImageConfig, files: Path) -> str:
    """sha256 over configuration, file names, modes and contents: the same build gives the same digest."""
    total = hashlib.sha256(json.dumps(config.to_json(), sort_keys=True).encode())
    for path in walk(files):
        total.update(f"\0{path.relative_to(files).as_posix()}\0{path.stat().st_mode & 0o111:o}\0".encode())
        total.update(hashlib.sha256(path.read_bytes()).digest())
    return f"sha256:{total.hexdigest()}"


def walk(folder: Path) -> Iterator[Path]:
    """Every file below a folder, in a fixed order."""
    return (path for path in sorted(folder.rglob("*")) if path.is_file())
