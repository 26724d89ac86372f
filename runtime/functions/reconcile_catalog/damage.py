"""Change objects that Athena cannot read: one of them makes it refuse every query over its table.

Nothing here skips rows in silence. Athena names the object that it stopped at; if that is no whole Parquet
file it goes, and the image set is indexed again from what the datastore has. The bucket is versioned: the
object stays there as an old version, for whoever looks for the cause.
"""

from __future__ import annotations

import logging
from typing import Any

from botocore.exceptions import ClientError

from runtime.functions.batches.errors import code_of
from runtime.functions.catalog_queries.change_objects import ChangeObject, change_object
from runtime.functions.catalog_queries.queries import QueryFailedError

logger = logging.getLogger(__name__)

_MAGIC = b"PAR1"
_LENGTH_BYTES = 4
"""Before the magic number at the end: how long the footer is
(https://parquet.apache.org/docs/file-format/).
"""


def remove_damaged(error: QueryFailedError, *, s3: Any, bucket: str) -> ChangeObject | None:
    """Remove the change object at which a query stopped, if it is damaged.

    Returns:
        What to index again; None: it is whole, no object of the index function, or the query failed for
        another reason.
    """
    where = f"s3://{bucket}/"
    if error.unreadable is None or not error.unreadable.startswith(where):
        return None
    key = error.unreadable.removeprefix(where)
    change = change_object(key)
    if change is None:
        logger.error("unreadable, and not written by the index function: %s; remove it", key)
        return None
    try:
        body = s3.get_object(Bucket=bucket, Key=key)["Body"].read()
    except ClientError as missing:
        if code_of(missing) != "NoSuchKey":
            raise
        # The compact function was faster.
        return change
    if is_whole(body):
        # Unreadable for a moment, or not of the table's types: the same would be written again.
        logger.error("unreadable, though it is a whole file: %s", key)
        return None
    s3.delete_object(Bucket=bucket, Key=key)
    logger.error("damaged change object removed, its image set is indexed again: %s", key)
    return change


def is_whole(body: bytes) -> bool:
    """Whether bytes begin and end as a Parquet file does, and have room for the footer that they announce."""
    if len(body) < 2 * len(_MAGIC) + _LENGTH_BYTES or body[:4] != _MAGIC or body[-4:] != _MAGIC:
        return False
    footer = int.from_bytes(body[-8:-4], "little")
    return 0 < footer <= len(body) - 2 * len(_MAGIC) - _LENGTH_BYTES
