"""Reads image sets, of which a function knows neither whether they are still there nor how large they are."""

from __future__ import annotations

import gzip
import zlib
from io import BytesIO
from typing import Any

from botocore.exceptions import ClientError

from healthimaging.errors import MetadataError
from healthimaging.metadata import ImageSetMetadata
from healthimaging.reference import ImageSetRef
from runtime.functions.batches.errors import FunctionError, code_of

MOST_METADATA_BYTES = 128 * 2**20
"""Of a metadata document, without compression. HealthImaging itself allows 50 MB an image set
(https://docs.aws.amazon.com/general/latest/gr/healthimaging-quotas.html). Read, a document takes eight times
its size of memory (67 MB of JSON: 510 MB): this one still fits into a function with 2 GB.
"""

_GZIP = b"\x1f\x8b"
_CHUNK = 2**20


class MetadataTooLargeError(FunctionError):
    """The metadata document is larger than the function has memory for."""


def latest(medical_imaging: Any, datastore_id: str, image_set_id: str) -> dict[str, Any] | None:
    """GetImageSet of the latest version; None when the image set is gone."""
    try:
        properties: dict[str, Any] = medical_imaging.get_image_set(
            datastoreId=datastore_id, imageSetId=image_set_id
        )
    except ClientError as error:
        if code_of(error) == "ResourceNotFoundException":
            return None
        raise
    gone = properties["imageSetState"] == "DELETED" or properties.get("imageSetWorkflowStatus") == "DELETED"
    return None if gone else properties


def metadata_of(medical_imaging: Any, image_set: ImageSetRef) -> ImageSetMetadata | None:
    """The metadata of a version; None when the image set went away since it was looked up.

    Raises:
        MetadataTooLargeError: It would not fit into the function. Nothing of it has been read further.
        healthimaging.errors.MetadataError: It is damaged.
    """
    try:
        answer = medical_imaging.get_image_set_metadata(
            datastoreId=image_set.datastore_id,
            imageSetId=image_set.image_set_id,
            versionId=image_set.version_id,
        )
    except ClientError as error:
        if code_of(error) == "ResourceNotFoundException":
            return None
        raise
    document = _bounded(answer["imageSetMetadataBlob"], subject=f"image set {image_set.image_set_id}")
    if document.startswith(_GZIP):
        try:
            with gzip.open(BytesIO(document)) as unpacked:
                document = _bounded(unpacked, subject=f"image set {image_set.image_set_id}")
        except (OSError, EOFError, zlib.error) as error:
            msg = f"The metadata document cannot be read: {type(error).__name__}"
            raise MetadataError(msg) from error
    return ImageSetMetadata.from_bytes(document)


def _bounded(stream: Any, *, subject: str) -> bytes:
    """All of the stream."""
    read = bytearray()
    while chunk := stream.read(_CHUNK):
        read += chunk
        if len(read) > MOST_METADATA_BYTES:
            msg = (
                f"{subject}: its metadata is larger than {MOST_METADATA_BYTES // 2**20} MB. Give the "
                "function more memory and raise the limit, then redrive the message"
            )
            raise MetadataTooLargeError(msg)
    return bytes(read)
