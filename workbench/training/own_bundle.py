"""Packs a bundle of one's own for training, and puts it where training jobs find it.

The same folder gives the same archive, named by its content: what a model was trained from stays known, and
a training that is started again is found again.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import re
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from workbench.content_named import put_once
from workbench.deployment import Deployment
from workbench.errors import BundleUnusable

BUNDLE_FOLDER = "bundles/"
"""Prefix of the model bucket."""

LEFT_OUT = frozenset({"models", "eval", "__pycache__"})
"""Folders that are results or caches: weights are trained, not packed."""

LARGEST_BYTES = 50_000_000
"""A bundle without weights is text; a larger folder holds data that does not belong into it."""

CONFIGURATIONS = (".json", ".yaml", ".yml")

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,62}")


@dataclass(frozen=True, kw_only=True)
class PackedBundle:
    """An archive of a bundle.

    Attributes:
        name: Of the folder, which is also the folder in the archive.
        content: The bytes of the .tar.gz.
    """

    name: str
    content: bytes

    @property
    def file_name(self) -> str:
        return f"{self.name}-{hashlib.sha256(self.content).hexdigest()}.tar.gz"


def pack_bundle(folder: Path) -> PackedBundle:
    """The bundle in `folder` without its weights, as a tar archive that depends on nothing but its files.

    Raises:
        BundleUnusable: It lacks what a training needs, or holds what an archive must not; all at once.
    """
    root = folder.resolve()
    files = list(_files(root)) if root.is_dir() else []
    problems = _problems(root, files)
    if problems:
        raise BundleUnusable(
            f"{folder} is no bundle that can be trained: {'; '.join(problems)}.",
            advice="A bundle is a folder with configs/metadata.json and configs/train.json (or .yaml), as "
            "`python -m monai.bundle init_bundle` makes it.",
        )
    buffer = io.BytesIO()
    # Neither time nor owner: an archive made on another day or by another person is the same one.
    with (
        gzip.GzipFile(fileobj=buffer, mode="wb", mtime=0) as compressed,
        tarfile.open(fileobj=compressed, mode="w", format=tarfile.USTAR_FORMAT) as archive,
    ):
        for file in files:
            entry = tarfile.TarInfo(f"{root.name}/{file.relative_to(root).as_posix()}")
            entry.size = file.stat().st_size
            entry.mode = 0o644
            with file.open("rb") as stream:
                archive.addfile(entry, stream)
    return PackedBundle(name=root.name, content=buffer.getvalue())


def upload_bundle(deployment: Deployment, bundle: PackedBundle) -> str:
    """Put a packed bundle into the model bucket, if it is not there; its S3 URI."""
    bucket = deployment.stack("data")["ModelBucketName"]
    key = BUNDLE_FOLDER + bundle.file_name
    put_once(
        deployment.session.client("s3"),
        bucket=bucket,
        key=key,
        body=bundle.content,
        content_type="application/gzip",
    )
    return f"s3://{bucket}/{key}"


def _files(root: Path) -> Iterator[Path]:
    for path in sorted(root.rglob("*")):
        parts = path.relative_to(root).parts
        hidden = any(part.startswith(".") for part in parts)
        if not hidden and not LEFT_OUT.intersection(parts) and (path.is_file() or path.is_symlink()):
            yield path


def _problems(root: Path, files: list[Path]) -> list[str]:
    problems = []
    if not root.is_dir():
        return ["it is not a folder"]
    if not _NAME.fullmatch(root.name):
        problems.append("its name has other characters than letters, digits, _ and -")
    present = {file.relative_to(root).as_posix() for file in files}
    for needed in ("metadata", "train"):
        if not any(f"configs/{needed}{suffix}" in present for suffix in CONFIGURATIONS):
            problems.append(f"configs/{needed}.json is missing")
    metadata = root / "configs" / "metadata.json"
    if metadata.is_file():
        try:
            json.loads(metadata.read_bytes())
        except ValueError as error:
            problems.append(f"configs/metadata.json is not JSON ({error})")
    outside = [file for file in files if file.is_symlink() and not file.resolve().is_relative_to(root)]
    problems += [f"{file.relative_to(root)} is a link to outside of it" for file in outside]
    broken = [file for file in files if file not in outside and not file.is_file()]
    problems += [f"{file.relative_to(root)} is a link to nowhere" for file in broken]
    size = sum(file.stat().st_size for file in files if file not in broken and file not in outside)
    if size > LARGEST_BYTES:
        problems.append(f"without models/ it has {size / 1e6:.0f} MB, more than {LARGEST_BYTES / 1e6:.0f}")
    return problems
