"""Puts objects into S3 so that one can say: it is kept."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from arrival.errors import NotKeptError

_JSON = "application/json"
_DICOM = "application/dicom"


def keep(s3: Any, *, bucket: str, key: str, body: bytes) -> None:
    """Put a DICOM file. When this returns, S3 has said that it keeps these very bytes.

    S3 answers a PutObject when the object is stored redundantly. It compares the bytes with the checksum in
    the request and refuses others (BadDigest), and repeats the checksum in its answer
    (https://docs.aws.amazon.com/AmazonS3/latest/userguide/checking-object-integrity.html).

    Raises:
        NotKeptError: S3 refused, did not answer, or answered something else.
    """
    _put(s3, bucket=bucket, key=key, body=body, content_type=_DICOM)


def keep_json(s3: Any, *, bucket: str, key: str, document: Mapping[str, object]) -> None:
    """As `keep`, of a JSON document."""
    _put(s3, bucket=bucket, key=key, body=json.dumps(document).encode("utf-8"), content_type=_JSON)


def keep_bytes(s3: Any, *, bucket: str, key: str, body: bytes) -> None:
    """As `keep`, of bytes that only their reader understands."""
    _put(s3, bucket=bucket, key=key, body=body, content_type="application/octet-stream")


def _put(s3: Any, *, bucket: str, key: str, body: bytes, content_type: str) -> None:
    checksum = base64.b64encode(hashlib.sha256(body).digest()).decode("ascii")
    try:
        answer = s3.put_object(
            Bucket=bucket, Key=key, Body=body, ChecksumSHA256=checksum, ContentType=content_type
        )
    except (ClientError, BotoCoreError) as error:
        raise NotKeptError(f"S3 did not keep {key}: {code_of(error)}.") from error
    if not answer.get("ETag") or answer.get("ChecksumSHA256", checksum) != checksum:
        raise NotKeptError(f"S3 answered something else than that it keeps {key}.")


def code_of(error: Exception) -> str:
    """What a service's refusal is called: its error code, or the exception's type. Never its text."""
    if isinstance(error, ClientError):
        return str(error.response["Error"].get("Code", "ClientError"))
    return type(error).__name__
