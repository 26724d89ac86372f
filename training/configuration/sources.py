"""Where a bundle comes from: the image, or an archive in S3 whose content is in its name."""

from __future__ import annotations

import hashlib
import re
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from training.configuration.bundle import Bundle, named_bundle, read_bundle
from training.errors import BundleError

_ARCHIVE = re.compile(
    r"s3://(?P<bucket>[^/]+)/(?P<key>(?:.*/)?(?P<name>[^/]+)-(?P<sha256>[0-9a-f]{64})\.tar\.gz)"
)


def open_bundle(reference: str, *, scratch: Path, s3: Callable[[], Any]) -> Bundle:
    """Finds a bundle.

    Args:
        reference: Name of a bundle in the image, or `s3://.../NAME-SHA256.tar.gz`: an archive with `configs`
            at its root or in one folder, whose SHA-256 is the one in its name.
        scratch: Where an archive is unpacked; it must outlive the bundle.
        s3: Makes a boto3 S3 client; called for an archive only.

    Raises:
        JobConfigurationError: The image has no bundle of this name.
        BundleError: The archive cannot be fetched or unpacked, is not the one that its name promises, or
            holds no bundle.
    """
    if not reference.startswith("s3://"):
        return named_bundle(reference)
    found = _ARCHIVE.fullmatch(reference)
    if found is None:
        msg = f"{reference} does not end in NAME-SHA256.tar.gz: the archive's SHA-256 must be in its name"
        raise BundleError(msg)
    archive = scratch / "bundle.tar.gz"
    try:
        s3().download_file(found["bucket"], found["key"], str(archive))
    except ClientError as error:
        msg = f"{reference} cannot be fetched: {error.response['Error']['Code']}"
        raise BundleError(msg) from error
    except (BotoCoreError, OSError) as error:
        msg = f"{reference} cannot be fetched: {type(error).__name__}"
        raise BundleError(msg) from error
    with archive.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    if digest != found["sha256"]:
        msg = f"{reference} is not the archive that its name promises: its SHA-256 is {digest}"
        raise BundleError(msg)
    folder = scratch / "bundle"
    folder.mkdir()
    try:
        with tarfile.open(archive) as tar:
            tar.extractall(folder, filter="data")
    except (tarfile.TarError, OSError, EOFError) as error:
        msg = f"{reference} cannot be unpacked: {type(error).__name__}"
        raise BundleError(msg) from error
    archive.unlink()
    return read_bundle(_root(folder, reference))


def _root(folder: Path, reference: str) -> Path:
    if (folder / "configs").is_dir():
        return folder
    roots = [one for one in sorted(folder.iterdir()) if (one / "configs").is_dir()]
    if len(roots) != 1:
        msg = f"{reference} must hold one bundle, a folder with configs, and holds {len(roots)}"
        raise BundleError(msg)
    return roots[0]
