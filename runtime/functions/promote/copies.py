"""Copies of a model and its evaluation, as they were when the package was registered.

A package names both by address, and an object can be overwritten. So neither may be younger than the
package. The evaluation names what was measured by its SHA-256 (training/evaluation/document.py): the archive
as a whole, and the weights in it. What was copied has to be these. An evaluation of the first version names
the weights only: for the archive's other files (configurations, scripts) the date alone speaks then; S3 dates
an upload in parts from its beginning.
"""

from __future__ import annotations

import hashlib
import json
import tarfile
from collections.abc import Mapping
from datetime import datetime
from typing import IO, Any

from runtime.functions.promote.errors import DifferentModelError, UnsupportedPackageError
from runtime.functions.promote.package import S3Object

_CHUNK = 1 << 20
_LARGEST_EVALUATION = 16 << 20


class _Hashing:
    """A stream that is read once, and its SHA-256."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self._sha256 = hashlib.sha256()
        self.length = 0

    def read(self, size: int = -1) -> bytes:
        data = self._stream.read(size) if size >= 0 else self._stream.read()
        self._sha256.update(data)
        self.length += len(data)
        return data

    def drain(self) -> None:
        while self.read(_CHUNK):
            pass

    @property
    def sha256(self) -> str:
        return self._sha256.hexdigest()


def copy_evaluation(
    s3: Any, source: S3Object, target: S3Object, *, owner: str, registered: datetime
) -> dict[str, Any]:
    """Copy the evaluation; returns what it says.

    Raises:
        DifferentModelError: It is younger than the package, which was `registered` then.
        UnsupportedPackageError: It is not one that this platform's training writes.
    """
    answer = _registered_object(s3, source, owner=owner, registered=registered)
    if answer["ContentLength"] > _LARGEST_EVALUATION:
        msg = f"The evaluation has {answer['ContentLength']} bytes"
        raise UnsupportedPackageError(msg)
    content = answer["Body"].read()
    evaluation = _evaluation(content)
    s3.put_object(Bucket=target.bucket, Key=target.key, Body=content, ContentType="application/json")
    return evaluation


def archive_of(evaluation: Mapping[str, Any]) -> str | None:
    """SHA-256 of the archive that was measured; None where the evaluation does not name it."""
    archive = evaluation.get("modelArchive")
    return str(archive["sha256"]) if archive else None


def copy_model(
    s3: Any,
    source: S3Object,
    target: S3Object,
    *,
    owner: str,
    registered: datetime,
    weights: Mapping[str, str],
    sha256: str | None,
) -> str:
    """Copy the model's archive; returns its SHA-256.

    It is streamed: a function has little memory, and a copy inside S3 says nothing of the content. The copy
    is then read again, so that what is compared is what is stored.

    Args:
        s3: boto3 client.
        source: The archive.
        target: The copy.
        owner: Account that the source belongs to.
        registered: When the package was.
        weights: SHA-256 of the weights that were measured, by file name.
        sha256: Of the archive that was measured; None where the evaluation does not name it.

    Raises:
        DifferentModelError: The model is younger than the package, or the copy is not equal to it or not what
            was measured.
    """
    answer = _registered_object(s3, source, owner=owner, registered=registered)
    original = _Hashing(answer["Body"])
    s3.upload_fileobj(original, target.bucket, target.key, ExtraArgs={"ContentType": "application/gzip"})
    if original.length != answer["ContentLength"]:
        msg = f"{source.uri} ended after {original.length} of {answer['ContentLength']} bytes"
        raise DifferentModelError(msg)
    copied = _Hashing(s3.get_object(Bucket=target.bucket, Key=target.key)["Body"])
    found = _weights(copied)
    copied.drain()
    if copied.sha256 != original.sha256:
        msg = f"{target.uri} is not equal to {source.uri}"
        raise DifferentModelError(msg)
    if sha256 is not None and copied.sha256 != sha256:
        msg = f"{source.uri} is not the archive that was evaluated"
        raise DifferentModelError(msg)
    if found != dict(weights):
        msg = f"The weights in {source.uri} are not those that were evaluated"
        raise DifferentModelError(msg)
    return original.sha256


def _evaluation(content: bytes) -> dict[str, Any]:
    try:
        evaluation = json.loads(content)
        weights = evaluation["weights"]
        archive_of(evaluation)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        msg = "The evaluation does not say which weights it is about"
        raise UnsupportedPackageError(msg) from error
    if not isinstance(weights, dict) or not weights:
        msg = "The evaluation does not say which weights it is about"
        raise UnsupportedPackageError(msg)
    return dict(evaluation)


def _registered_object(s3: Any, source: S3Object, *, owner: str, registered: datetime) -> dict[str, Any]:
    answer: dict[str, Any] = s3.get_object(Bucket=source.bucket, Key=source.key, ExpectedBucketOwner=owner)
    if answer["LastModified"] > registered:
        msg = f"{source.uri} was written after the package was registered"
        raise DifferentModelError(msg)
    return answer


def _weights(archive: _Hashing) -> dict[str, str]:
    """SHA-256 of each file in the folder `models` of the archive's bundle, by name."""
    found = {}
    try:
        with tarfile.open(fileobj=archive, mode="r|gz") as tar:  # type: ignore[call-overload]  # reads in one pass
            for member in tar:
                parts = member.name.removeprefix("./").split("/")
                if not member.isfile() or len(parts) < 2 or parts[-2] != "models":
                    continue
                content = tar.extractfile(member)
                if content is not None:
                    found[parts[-1]] = hashlib.file_digest(content, "sha256").hexdigest()
    except (tarfile.TarError, EOFError, OSError) as error:
        msg = "The model is not an archive"
        raise DifferentModelError(msg) from error
    return found
