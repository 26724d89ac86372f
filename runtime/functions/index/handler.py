"""Index function: keeps one Parquet object a table and image set in step with the datastore.

Reads image set events from SQS (EventBridge puts them there) and writes the rows of the image set's LATEST
version, whatever version the event speaks of. So events may come twice, late or in any order: each one
leads to the same objects. When the image set is gone, so are its objects.

Environment:
    CATALOG_BUCKET: The bucket of the catalog's tables.
"""

from __future__ import annotations

import json
import logging
import os
from datetime import UTC, datetime
from typing import Any

import boto3
from botocore.exceptions import ClientError

from healthimaging.catalog_rows import TABLES, catalog_rows
from healthimaging.client import connect
from healthimaging.metadata import ImageSetMetadata
from runtime.functions.index.tables import parquet

logger = logging.getLogger(__name__)
logger.setLevel(logging.INFO)

ROUNDS = 5
"""How often a changing image set is read again before the event goes back to the queue."""


class MalformedEventError(Exception):
    """A message is not an image set event; failing, it reaches the dead-letter queue, where it is seen."""


def handle(event: dict[str, Any], context: object) -> dict[str, Any]:
    """Lambda handler for batches of SQS messages.

    Args:
        event: `Records` of SQS, each body one EventBridge event of source `aws.medical-imaging`.
        context: Lambda's context; not used.

    Returns:
        `batchItemFailures`: the messages to deliver again
        (https://docs.aws.amazon.com/lambda/latest/dg/services-sqs-errorhandling.html#services-sqs-batchfailurereporting).
    """
    bucket = os.environ["CATALOG_BUCKET"]
    medical_imaging, s3 = connect(), boto3.client("s3")
    failures = []
    done: set[tuple[str, str]] = set()
    for record in event["Records"]:
        subject = f"message {record['messageId']}"
        try:
            image_set = image_set_of(record["body"])
            subject = f"image set {image_set[1]}"
            # A batch often holds several events of one image set; the first one has already read its latest
            # version.
            if image_set not in done:
                index(*image_set, medical_imaging=medical_imaging, s3=s3, bucket=bucket)
                done.add(image_set)
        # One bad message must not keep the rest of its batch from being indexed, whatever is wrong with it.
        except Exception as error:  # noqa: BLE001 - reported as this message's failure
            logger.error("indexing failed: %s, %s", subject, _describe(error))
            failures.append({"itemIdentifier": record["messageId"]})
    return {"batchItemFailures": failures}


def image_set_of(body: str) -> tuple[str, str]:
    """(datastore id, image set id) that an EventBridge event speaks of.

    Raises:
        MalformedEventError: It speaks of none.
    """
    try:
        detail = json.loads(body)["detail"]
        # The service's documentation spells it `imagesetId`, its samples `imageSetId`.
        image_set_id = detail.get("imagesetId") or detail["imageSetId"]
        datastore_id = detail["datastoreId"]
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        msg = f"The message is not an image set event: {type(error).__name__}"
        raise MalformedEventError(msg) from error
    if not isinstance(image_set_id, str) or not isinstance(datastore_id, str):
        msg = "The message is not an image set event: its identifiers are not text"
        raise MalformedEventError(msg)
    return datastore_id, image_set_id


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


def latest(medical_imaging: Any, datastore_id: str, image_set_id: str) -> dict[str, Any] | None:
    """GetImageSet of the latest version; None when the image set is gone."""
    try:
        properties: dict[str, Any] = medical_imaging.get_image_set(
            datastoreId=datastore_id, imageSetId=image_set_id
        )
    except ClientError as error:
        if _code(error) == "ResourceNotFoundException":
            return None
        raise
    gone = properties["imageSetState"] == "DELETED" or properties.get("imageSetWorkflowStatus") == "DELETED"
    return None if gone else properties


def _objects(
    medical_imaging: Any, datastore_id: str, image_set_id: str, properties: dict[str, Any]
) -> dict[str, bytes] | None:
    """Parquet by table name; None when the image set went away since it was looked up."""
    try:
        answer = medical_imaging.get_image_set_metadata(
            datastoreId=datastore_id, imageSetId=image_set_id, versionId=properties["versionId"]
        )
    except ClientError as error:
        if _code(error) == "ResourceNotFoundException":
            return None
        raise
    rows = catalog_rows(
        ImageSetMetadata.from_bytes(answer["imageSetMetadataBlob"].read()),
        version_id=int(properties["versionId"]),
        is_primary=properties.get("isPrimary"),
        indexed_at=datetime.now(UTC).replace(tzinfo=None),
    )
    return {table: parquet(table, table_rows) for table, table_rows in rows.items()}


def _code(error: ClientError) -> str:
    return str(error.response.get("Error", {}).get("Code", "Unknown"))


def _describe(error: Exception) -> str:
    """The error without what it may quote: a header value in an Arrow error is patient data."""
    if isinstance(error, ClientError):
        return f"{error.operation_name}: {_code(error)}"
    return type(error).__name__
