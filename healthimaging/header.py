"""The header of one version of one image set."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError
from urllib3.exceptions import HTTPError

from healthimaging.errors import ImageSetNotFoundError, MetadataError, ServiceError
from healthimaging.frames.connections import Cancellation, read_pieces
from healthimaging.frames.retries import Pace, RequestFailedError, retrying
from healthimaging.metadata import ImageSetMetadata
from healthimaging.reference import ImageSetRef
from healthimaging.refusals import exception_code
from healthimaging.threads import leave
from healthimaging.timings import Stopwatch

BODY_ATTEMPTS = 4
"""Attempts at reading an answer whose connection breaks in its body."""

_USUAL_VERSION = "1"
"""The version that most image sets have: what was imported once and not touched since."""


@dataclass(frozen=True, kw_only=True)
class Header:
    """What is known of an image set before any frame."""

    ref: ImageSetRef
    metadata: ImageSetMetadata
    is_primary: bool


def read_header(
    client: Any, *, datastore_id: str, image_set_id: str, version: str | None, stopwatch: Stopwatch
) -> Header:
    """Reads properties and metadata, side by side: a read waits for two round trips, not for three.

    The metadata must be that of the version which the properties name, so it is asked for by version: by the
    one that is wanted, else by the usual one, and once more where the latest version is another.

    Raises:
        ImageSetNotFoundError: It does not exist, is deleted, or has no such version.
        ServiceError: The service refused or failed.
        MetadataError: The metadata is malformed, or is that of another image set.
    """
    begin = time.perf_counter()
    identity = {"datastoreId": datastore_id, "imageSetId": image_set_id}
    expected = version or _USUAL_VERSION
    until = Cancellation()
    pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="header")
    early = pool.submit(_call, client, "GetImageSetMetadata", identity | {"versionId": expected}, until)
    try:
        pinned = {} if version is None else {"versionId": version}
        properties = _call(client, "GetImageSet", identity | pinned, until)
        if properties.get("imageSetState") == "DELETED":
            msg = "The image set is deleted"
            raise ImageSetNotFoundError(msg, image_set_id=image_set_id)
        # What the latest version was when it was opened is the version that everything reads.
        version_id = str(properties.get("versionId", ""))
        if not version_id:
            msg = "The properties of the image set name no version"
            raise MetadataError(msg, image_set_id=image_set_id)
        if version is not None and version_id != version:
            msg = f"Version {version} was asked for, the answer is of version {version_id}"
            raise MetadataError(msg, image_set_id=image_set_id)
        if version_id == expected:
            answer = early.result()
        else:
            answer = _call(client, "GetImageSetMetadata", identity | {"versionId": version_id}, until)
    finally:
        # After an error nobody waits for metadata that have stalled; their thread ends with the attempt.
        until.set()
        leave(pool, [early])
    try:
        metadata = ImageSetMetadata.from_bytes(answer["imageSetMetadataBlob"])
    except RecursionError as error:
        msg = "The metadata document is nested too deeply"
        raise MetadataError(msg, image_set_id=image_set_id) from error
    except MetadataError as error:
        error.image_set_id = image_set_id
        raise
    # Whatever lies between (a proxy, a cache) must never give one patient's header for another's.
    if (metadata.datastore_id, metadata.image_set_id) != (datastore_id, image_set_id):
        msg = f"The header is that of image set {metadata.image_set_id} in {metadata.datastore_id}"
        raise MetadataError(msg, image_set_id=image_set_id)
    stopwatch.add(header_seconds=time.perf_counter() - begin)
    return Header(
        ref=ImageSetRef(datastore_id=datastore_id, image_set_id=image_set_id, version_id=version_id),
        metadata=metadata,
        # Datastores from before primary image sets do not say; all their image sets are what WADO serves.
        is_primary=bool(properties.get("isPrimary", True)),
    )


_METHODS = {"GetImageSet": "get_image_set", "GetImageSetMetadata": "get_image_set_metadata"}


def _call(client: Any, operation: str, params: dict[str, str], until: Cancellation) -> dict[str, Any]:
    """One API call, its errors typed and its streaming body read."""
    image_set_id = params["imageSetId"]
    send = getattr(client, _METHODS[operation])

    def attempt() -> dict[str, Any]:
        try:
            answer: dict[str, Any] = send(**params)
        except (AttributeError, TypeError, ValueError, RecursionError) as error:  # of botocore's parser
            msg = f"The answer to {operation} is not what the service documents: {type(error).__name__}"
            raise MetadataError(msg, image_set_id=image_set_id) from error
        try:
            return {name: _read(value) if hasattr(value, "read") else value for name, value in answer.items()}
        except (BotoCoreError, HTTPError, OSError) as error:  # boto3 retries before the body only
            raise RequestFailedError(exception_code(error), transient=True) from error

    try:
        return retrying(attempt, pace=Pace(1), until=until, attempts=BODY_ATTEMPTS)
    except ClientError as error:
        code = exception_code(error)
        if code == "ResourceNotFoundException":
            msg = f"The image set does not exist in datastore {params['datastoreId']}"
            if "versionId" in params:
                msg += f", or has no version {params['versionId']}"
            raise ImageSetNotFoundError(msg, image_set_id=image_set_id) from error
        msg = f"{operation} failed: {code}"
        raise ServiceError(msg, operation=operation, code=code, image_set_id=image_set_id) from error
    # RuntimeError is what botocore raises when it is given credentials that are expired.
    except (RequestFailedError, BotoCoreError, HTTPError, OSError, RuntimeError) as error:
        code = error.code if isinstance(error, RequestFailedError) else exception_code(error)
        msg = f"{operation} failed: {code}"
        raise ServiceError(msg, operation=operation, code=code, image_set_id=image_set_id) from error


def _read(body: Any) -> bytes:
    """A streaming body."""
    raw = getattr(body, "_raw_stream", body)  # botocore's wrapper reads whole pieces only
    if not hasattr(raw, "read1"):
        return bytes(body.read())
    try:
        return read_pieces(raw.read1)
    except TimeoutError:
        body.close()
        raise
