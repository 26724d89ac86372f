"""S3 as the receiver uses it: every write is checked by S3 against a checksum before it counts."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from botocore.exceptions import ClientError

_GONE = frozenset({"NoSuchKey", "404", "NotFound"})
_TAKEN = frozenset({"PreconditionFailed", "412"})
"""Not ConditionalRequestConflict (409): another request for the key is under way, and may fail
(https://docs.aws.amazon.com/AmazonS3/latest/userguide/conditional-writes.html). Who gets
it tries again later.
"""


@dataclass(frozen=True, kw_only=True)
class StoredObject:
    """One object of a listing."""

    key: str
    size: int
    modified: datetime


@dataclass(frozen=True, kw_only=True)
class Objects:
    """The objects of one bucket."""

    s3: Any
    bucket: str

    def put(self, key: str, body: bytes) -> None:
        """Write an object. When this returns, S3 has it and has compared its SHA-256.

        Raises:
            ClientError, BotoCoreError: It has not.
        """
        checksum = base64.b64encode(hashlib.sha256(body).digest()).decode()
        self.s3.put_object(
            Bucket=self.bucket,
            Key=key,
            Body=body,
            ContentType="application/dicom" if key.endswith(".dcm") else "application/octet-stream",
            ChecksumSHA256=checksum,
        )

    def put_json(self, key: str, document: Any) -> None:
        """Write a document."""
        self.put(key, json.dumps(document, indent=2).encode())

    def put_new(self, key: str, body: bytes) -> bool:
        """Write an object that nobody has written before; False if somebody has."""
        try:
            self.s3.put_object(Bucket=self.bucket, Key=key, Body=body, IfNoneMatch="*")
        except ClientError as error:
            if error.response["Error"]["Code"] in _TAKEN:
                return False
            raise
        return True

    def read(self, key: str) -> bytes | None:
        """The object; None if there is none."""
        try:
            return bytes(self.s3.get_object(Bucket=self.bucket, Key=key)["Body"].read())
        except ClientError as error:
            if error.response["Error"]["Code"] in _GONE:
                return None
            raise

    def list(self, prefix: str) -> Iterator[StoredObject]:
        """Every object below a prefix, in the order of keys."""
        for page in self.s3.get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=prefix):
            for one in page.get("Contents", ()):
                yield StoredObject(key=one["Key"], size=one["Size"], modified=one["LastModified"])

    def move(self, key: str, to: str) -> None:
        """Copy, then delete: whatever ends this in between leaves the object at least once."""
        self.s3.copy_object(Bucket=self.bucket, Key=to, CopySource={"Bucket": self.bucket, "Key": key})
        self.delete(key)

    def delete(self, key: str) -> None:
        """Delete an object, which may be gone already."""
        self.s3.delete_object(Bucket=self.bucket, Key=key)
