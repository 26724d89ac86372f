"""Index function: keeps one Parquet object a table and image set in step with the datastore.

Reads image set events from SQS (EventBridge puts them there) and writes the rows of the image set's LATEST
version, whatever version the event speaks of. So events may come twice, late or in any order: each one
leads to the same objects. When the image set is gone, so are its objects.

Environment:
    CATALOG_BUCKET: The bucket of the catalog's tables.
"""

from __future__ import annotations

import logging
import os
from datetime import UTC, datetime
from typing import Any

import boto3

from healthimaging.catalog_rows import TABLES, catalog_rows
from healthimaging.client import connect
from healthimaging.errors import HealthImagingError
from healthimaging.reference import ImageSetRef
from runtime.functions.batches.batch import work_off
from runtime.functions.image_sets.events import ImageSetEvent, image_set_event
from runtime.functions.image_sets.reading import latest, metadata_of
from runtime.functions.index.tables import parquet

logger = logging.getLogger(__name__)
logger.setLevel(logging.INFO)

ROUNDS = 5
"""How often a changing image set is read again before the event goes back to the queue."""


def handle(event: dict[str, Any], context: Any) -> dict[str, Any]:
    """Lambda handler for batches of SQS messages.

    Args:
        event: `Records` of SQS, each body one EventBridge event of source `aws.medical-imaging`.
        context: Lambda's context.

    Returns:
        `batchItemFailures`: the messages to deliver again.
    """
    bucket = os.environ["CATALOG_BUCKET"]
    medical_imaging, s3 = connect(), boto3.client("s3")

    def work(item: ImageSetEvent) -> bool:
        index(item.datastore_id, item.image_set_id, medical_imaging=medical_imaging, s3=s3, bucket=bucket)
        # It has read the latest version, which is what every other event of the image set asks for.
        return True

    return work_off(
        event,
        context=context,
        doing="indexing",
        read=image_set_event,
        work=work,
        speaking=(HealthImagingError,),
    )


def index(datastore_id: str, image_set_id: str, *, medical_imaging: Any, s3: Any, bucket: str) -> None:
    """Brings the catalog's objects of one image set to its latest version.

    After writing, the version is looked up again and the work repeated if it has changed. So of two
    invocations that overlap, the one that writes last has seen the latest version, and the catalog ends
    right without a lock.
    """
    keys = {table: f"{table}/{datastore_id}/{image_set_id}.parquet" for table in TABLES}
    properties = latest(medical_imaging, datastore_id, image_set_id)
    for _ in range(ROUNDS):
        objects = (
            None if properties is None else _objects(medical_imaging, datastore_id, image_set_id, properties)
        )
        for table, key in keys.items():
            if objects is None:
                s3.delete_object(Bucket=bucket, Key=key)
            else:
                s3.put_object(
                    Bucket=bucket, Key=key, Body=objects[table], ContentType="application/vnd.apache.parquet"
                )
        version = None if objects is None or properties is None else properties["versionId"]
        properties = latest(medical_imaging, datastore_id, image_set_id)
        if version == (None if properties is None else properties["versionId"]):
            logger.info("indexed: image set %s, version %s", image_set_id, version or "(deleted)")
            return
    msg = f"image set {image_set_id} keeps changing"
    raise RuntimeError(msg)


def _objects(
    medical_imaging: Any, datastore_id: str, image_set_id: str, properties: dict[str, Any]
) -> dict[str, bytes] | None:
    """Parquet by table name; None when the image set went away since it was looked up."""
    version = str(properties["versionId"])
    image_set = ImageSetRef(datastore_id=datastore_id, image_set_id=image_set_id, version_id=version)
    metadata = metadata_of(medical_imaging, image_set)
    if metadata is None:
        return None
    rows = catalog_rows(
        metadata,
        version_id=int(version),
        is_primary=properties.get("isPrimary"),
        indexed_at=datetime.now(UTC).replace(tzinfo=None),
    )
    return {table: parquet(table, table_rows) for table, table_rows in rows.items()}
