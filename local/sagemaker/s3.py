"""S3 URIs, and folders to and from S3 with the credentials of a job's role."""

from __future__ import annotations

import shutil
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from local.sagemaker.errors import validation

_CHUNK_BYTES = 1024 * 1024


def split(uri: str) -> tuple[str, str]:
    """Bucket and key of "s3://bucket/key"."""
    if not uri.startswith("s3://"):
        raise validation(f"{uri!r} is not an S3 URI (s3://bucket/key).")
    bucket, _, key = uri[5:].partition("/")
    if not bucket:
        raise validation(f"{uri!r} names no bucket.")
    return bucket, key


def join(uri: str, *parts: str) -> str:
    """An S3 URI below another one."""
    return "/".join([uri.rstrip("/"), *(part.strip("/") for part in parts)])


class EmptyPrefixError(Exception):
    """Nothing in S3 begins with this URI."""

    def __init__(self, uri: str) -> None:
        self.uri = uri
        super().__init__(f"No S3 objects found under {uri}")


def objects(client: Any, uri: str) -> Iterator[dict[str, Any]]:
    """Every object below a prefix, in the order of keys; folders' own empty objects are left out."""
    bucket, prefix = split(uri)
    for page in client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix):
        for entry in page.get("Contents", []):
            if not entry["Key"].endswith("/"):
                yield entry


def relative_name(prefix: str, key: str) -> str:
    """Where an object of a prefix lands below the channel's folder: what follows the prefix's last folder.

    The object that the prefix names exactly keeps its file name. S3Prefix is a plain prefix: "s3://b/train"
    also takes "train-2.csv" (API_S3DataSource: "a key name prefix"), which lands under its own name.
    """
    if not prefix:
        return key
    rest = key[len(prefix) :]
    if rest and (prefix.endswith("/") or rest.startswith("/")):
        return rest.lstrip("/")
    return key.rsplit("/", 1)[-1] if "/" not in rest else key[prefix.rfind("/") + 1 :]


def download_prefix(client: Any, uri: str, folder: Path, *, shard: tuple[int, int] = (0, 1)) -> int:
    """Copy every object of a prefix below a folder; how many the prefix has.

    With `shard` (number, of) only every `of`-th object is copied, from the one of this number on: the shares
    of all numbers are all objects, and a share is empty when there are fewer objects than shares.

    Raises:
        EmptyPrefixError: there is none.
    """
    bucket, prefix = split(uri)
    number, shards = shard
    count = 0
    for position, entry in enumerate(objects(client, uri)):
        count += 1
        if position % shards != number:
            continue
        target = (folder / relative_name(prefix, entry["Key"])).resolve()
        if not target.is_relative_to(folder.resolve()):
            raise validation(f"the key {entry['Key']!r} leads out of its folder.")
        target.parent.mkdir(parents=True, exist_ok=True)
        download_object(client, bucket, entry["Key"], target)
    if not count:
        raise EmptyPrefixError(uri)
    return count


def download_object(client: Any, bucket: str, key: str, target: Path) -> None:
    """Copy one object to a file.

    By GetObject alone: boto3's transfer begins with a HeadObject, whose refusal gives no reason ("403").
    """
    body = client.get_object(Bucket=bucket, Key=key)["Body"]
    with target.open("wb") as file:
        shutil.copyfileobj(body, file, _CHUNK_BYTES)


def upload_folder(client: Any, folder: Path, uri: str, *, kms_key: str | None = None) -> int:
    """Copy every file of a folder below an S3 URI; how many."""
    bucket, key = split(uri)
    count = 0
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            name = f"{key.rstrip('/')}/{path.relative_to(folder).as_posix()}".lstrip("/")
            client.upload_file(str(path), bucket, name, ExtraArgs=encryption(kms_key))
            count += 1
    return count


def upload_file(client: Any, path: Path, uri: str, *, kms_key: str | None = None) -> None:
    """Copy one file."""
    bucket, key = split(uri)
    client.upload_file(str(path), bucket, key, ExtraArgs=encryption(kms_key))


def encryption(kms_key: str | None) -> dict[str, str]:
    """The arguments that encrypt a new object with a KMS key; none leaves it to the bucket's default."""
    return {"ServerSideEncryption": "aws:kms", "SSEKMSKeyId": kms_key} if kms_key else {}


def pack(folders: Sequence[Path], archive: Path) -> None:
    """A tar.gz of what is in some folders, with paths relative to each; they share no name."""
    with tarfile.open(archive, "w:gz") as tar:
        for path in sorted((path for folder in folders for path in folder.iterdir()), key=lambda p: p.name):
            tar.add(path, arcname=path.name)


def unpack(archive: Path, folder: Path) -> None:
    """Unpack a tar.gz; members that lead out of the folder are refused (tarfile's data filter, PEP 706)."""
    folder.mkdir(parents=True, exist_ok=True)
    with tarfile.open(archive, "r:gz") as tar:
        tar.extractall(folder, filter="data")
