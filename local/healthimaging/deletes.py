"""DeleteImageSet: all versions, frames and bulk data of an image set."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from local.healthimaging import image_sets
from local.healthimaging.context import Context
from local.healthimaging.datastores import active_datastore
from local.healthimaging.outbox import record_image_set
from local.service import Call, Handler


class Deletes:
    """The operation that deletes."""

    def __init__(self, context: Context) -> None:
        self._context = context

    def handlers(self) -> Mapping[str, Handler]:
        """By operation."""
        return {"DeleteImageSet": self.delete}

    def delete(self, call: Call) -> dict[str, Any]:
        """The image set is gone when the call returns; the answer says DELETING, as AWS's does."""
        datastore_id, image_set_id = call.params["datastoreId"], call.params["imageSetId"]
        context = self._context
        arn = context.arns.image_set(datastore_id, image_set_id)
        with context.database.transaction() as connection:
            active_datastore(connection, datastore_id)
            image_set = image_sets.find_active(connection, datastore_id, image_set_id)
            digests = image_sets.erase(connection, image_set, now=context.clock())
            connection.execute("DELETE FROM tags WHERE arn = ?", (arn,))
            for status, state in (("DELETING", "LOCKED"), ("DELETED", "DELETED")):
                record_image_set(
                    connection,
                    detail_type=f"Image Set {status.capitalize()}",
                    datastore_id=datastore_id,
                    image_set_id=image_set_id,
                    version=image_set.latest_version,
                    is_primary=image_set.is_primary,
                    state=state,
                    workflow_status=status,
                    arn=arn,
                )
        context.publisher.wake()
        # Files go after the commit, and within a transaction so that no import can name one of them
        # meanwhile.
        with context.database.transaction() as connection:
            context.content.remove(image_sets.unnamed(connection, digests))
        return {
            "datastoreId": datastore_id,
            "imageSetId": image_set_id,
            "imageSetState": "LOCKED",
            "imageSetWorkflowStatus": "DELETING",
        }
