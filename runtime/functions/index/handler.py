"""Index function: writes the rows of image sets into the catalog as they change.

Reads image set events from SQS: those that EventBridge puts there, and those by which the reconcile function
asks for what no event has brought. Whatever version an event speaks of, the LATEST one is read and written
(`changes.py` says why that converges). That an image set is gone is final, so two have to say it: the service
and the message. The service alone could mean an image set too new to be found; then nothing is written, and
what was missed is found by the reconcile function, as is a deletion whose event was lost.

Environment:
    CATALOG_BUCKET: The bucket of the catalog's tables.
"""

from __future__ import annotations

import logging
import os
from datetime import UTC, datetime
from typing import Any

import boto3

from healthimaging.catalog.rows import Version, catalog_rows
from healthimaging.client import connect
from healthimaging.errors import HealthImagingError, MetadataError
from healthimaging.reference import ImageSetRef
from runtime.functions.batches.batch import work_off
from runtime.functions.image_sets.events import ImageSetEvent, image_set_event
from runtime.functions.image_sets.reading import latest, metadata_of
from runtime.functions.index.changes import Changes

logger = logging.getLogger(__name__)
logger.setLevel(logging.INFO)


def handle(event: dict[str, Any], context: Any) -> dict[str, Any]:
    """Lambda handler for batches of SQS messages.

    Args:
        event: `Records` of SQS, each body one EventBridge event of source `aws.medical-imaging`.
        context: Lambda's context.

    Returns:
        `batchItemFailures`: the messages to deliver again.
    """
    medical_imaging = connect()
    changes = Changes(s3=boto3.client("s3"), bucket=os.environ["CATALOG_BUCKET"])

    def work(item: ImageSetEvent) -> bool:
        # It reads the latest version, which is what every other event of the image set asks for.
        return index(item, medical_imaging=medical_imaging, changes=changes)

    return work_off(
        event,
        context=context,
        doing="indexing",
        read=image_set_event,
        work=work,
        speaking=(HealthImagingError,),
    )


def index(event: ImageSetEvent, *, medical_imaging: Any, changes: Changes) -> bool:
    """Write what the image set is now: the rows of its latest version, or that it is gone.

    Returns:
        False: the image set was not found, and the event does not say that it was deleted.

    Raises:
        MetadataError: Its metadata are damaged, or missing though it is there: it is being made or deleted.
    """
    datastore_id, image_set_id = event.datastore_id, event.image_set_id
    properties = latest(medical_imaging, datastore_id, image_set_id)
    if properties is not None:
        version_id = int(properties["versionId"])
        image_set = ImageSetRef(
            datastore_id=datastore_id, image_set_id=image_set_id, version_id=str(version_id)
        )
        metadata = metadata_of(medical_imaging, image_set)
        if metadata is not None:
            version = Version(
                version_id=version_id,
                is_primary=properties.get("isPrimary"),
                created_at=properties.get("createdAt"),
                updated_at=properties.get("updatedAt"),
            )
            rows = catalog_rows(metadata, version=version, indexed_at=datetime.now(UTC))
            changes.write(datastore_id, image_set_id, version_id=version_id, rows=rows)
            logger.info("indexed: image set %s, version %d", image_set_id, version_id)
            return True
        if latest(medical_imaging, datastore_id, image_set_id) is not None:
            msg = f"image set {image_set_id} has no metadata of version {version_id}"
            raise MetadataError(msg, image_set_id=image_set_id)
    if not event.deleted:
        logger.info("not found: image set %s; its deletion has a message of its own", image_set_id)
        return False
    changes.delete(datastore_id, image_set_id)
    logger.info("indexed: image set %s is deleted", image_set_id)
    return True
