"""The image store: images by digest, and names ("repository:tag") that point at them.

One folder, safe for two processes:

images/sha256-<hex>/config.json, images/sha256-<hex>/files/...      an image
images/names.json                                                  {"cdkasset-abc:latest": "sha256:..."}
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from local.containers.errors import ImageNotFoundError
from local.containers.image import Image, ImageConfig, digest_of

_DIGEST = re.compile("sha256:[0-9a-f]{64}")


def normalise(reference: str) -> str:
    """A name with its tag: "cdkasset-abc" is "cdkasset-abc:latest", as Docker has it."""
    if "@" in reference or ":" in reference.rsplit("/", 1)[-1]:
        return reference
    return f"{reference}:latest"


class ImageStore:
    """Images below `<state root>/images`."""

    def __init__(self, root: Path) -> None:
        self.folder = root / "images"
        self._names = self.folder / "names.json"

    def add(self, config: ImageConfig, files: Path) -> Image:
        """Take a folder of files in (it is moved) and give it its digest."""
        self.folder.mkdir(parents=True, exist_ok=True)
        digest = digest_of(config, files)
        place = self._place(digest)
        if not place.exists():
            new = Path(tempfile.mkdtemp(prefix="incoming-", dir=self.folder))
            (new / "config.json").write_text(json.dumps(config.to_json(), indent=1, sort_keys=True))
            shutil.move(files, new / "files")
            try:
                new.rename(place)
            except OSError:
                # Another build of the same content was faster: an image never changes, so either will do.
                shutil.rmtree(new)
        return self._load(digest)

    def tag(self, reference: str, name: str) -> Image:
        """Let `name` point at the image of `reference`."""
        image = self.find(reference)
        with self._lock():
            names = self.names()
            names[normalise(name)] = image.digest
            new = self._names.with_suffix(".new")
            new.write_text(json.dumps(names, indent=1, sort_keys=True))
            os.replace(new, self._names)
        return image

    def find(self, reference: str) -> Image:
        """The image of a digest, a name, a name with a tag, or "repository@sha256:..."."""
        digest: str | None = reference
        if "@" in reference:
            digest = reference.partition("@")[2]
        elif not reference.startswith("sha256:"):
            digest = self.names().get(normalise(reference))
        # What is no digest is no folder's name either: a manifest may say anything ("sha256:../..").
        if (
            digest is None
            or not _DIGEST.fullmatch(digest)
            or not (self._place(digest) / "config.json").exists()
        ):
            raise ImageNotFoundError(reference)
        return self._load(digest)

    def names(self) -> dict[str, str]:
        """Every name and its digest."""
        if not self._names.exists():
            return {}
        names: dict[str, str] = json.loads(self._names.read_text())
        return names

    def _place(self, digest: str) -> Path:
        return self.folder / digest.replace(":", "-")

    def _load(self, digest: str) -> Image:
        place = self._place(digest)
        config = ImageConfig.from_json(json.loads((place / "config.json").read_text()))
        return Image(digest=digest, config=config, files=place / "files")

    @contextmanager
    def _lock(self) -> Iterator[None]:
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / "lock").open("w") as handle:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield
