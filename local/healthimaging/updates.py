"""UpdateImageSetMetadata: a new version with changed attributes, or with what an earlier version said."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from typing import Any

from local.healthimaging import image_sets
from local.healthimaging.context import Context
from local.healthimaging.datastores import active_datastore, moment
from local.healthimaging.documents import Document, document_identity
from local.healthimaging.errors import invalid
from local.healthimaging.image_sets import ImageSet
from local.healthimaging.metadata_changes import Rules, apply_removal, apply_update, parse_change
from local.healthimaging.outbox import record_image_set
from local.service import Call, Handler


class Updates:
    """The operation that updates."""

    def __init__(self, context: Context) -> None:
        self._context = context

    def handlers(self) -> Mapping[str, Handler]:
        """By operation."""
        return {"UpdateImageSetMetadata": self.update}

    def update(self, call: Call) -> dict[str, Any]:
        """The new version is there when the call returns; the answer says UPDATING, as AWS's does.

        With `includeStudyImageSets`, patient and study attributes change in all primary image sets of the
        study, in the same transaction.
        """
        params = call.params
        datastore_id = params["datastoreId"]
        updates = params["updateImageSetMetadataUpdates"]
        force, whole_study = params.get("force", False), params.get("includeStudyImageSets", False)
        revert = updates.get("revertToVersionId")
        if revert is not None and whole_study:
            raise invalid("includeStudyImageSets is not supported with revertToVersionId.")
        context = self._context
        with context.database.transaction() as connection:
            active_datastore(connection, datastore_id)
            image_set = image_sets.find_active(
                connection, datastore_id, params["imageSetId"], params["latestVersionId"]
            )
            changed: list[tuple[ImageSet, Document]]
            if revert is not None:
                changed = [(image_set, self._reverted(connection, image_set, int(revert)))]
            else:
                affected = [image_set, *(_siblings(connection, image_set) if whole_study else ())]
                changed = [
                    (
                        each,
                        _changed(
                            image_sets.load_document(connection, each.id, each.latest_version),
                            updates.get("DICOMUpdates", {}),
                            Rules(force=force, primary=image_set.is_primary, whole_study=whole_study),
                        ),
                    )
                    for each in affected
                ]
            if image_set.is_primary:
                _check_hierarchy(connection, changed)
            now = context.clock()
            versions = [
                image_sets.add_version(
                    connection, each, document=document, workflow_status="UPDATED", now=now, forced=force
                )
                for each, document in changed
            ]
            for (each, _), version in zip(changed, versions, strict=True):
                self._tell(connection, each, version)
        context.publisher.wake()
        return {
            "datastoreId": datastore_id,
            "imageSetId": image_set.id,
            "latestVersionId": str(versions[0]),
            "imageSetState": "LOCKED",
            "imageSetWorkflowStatus": "UPDATING",
            "createdAt": moment(image_set.created_at),
            "updatedAt": moment(now),
        }

    def _tell(self, connection: sqlite3.Connection, image_set: ImageSet, version: int) -> None:
        for status, state in (("UPDATING", "LOCKED"), ("UPDATED", "ACTIVE")):
            record_image_set(
                connection,
                detail_type=f"Image Set {status.capitalize()}",
                datastore_id=image_set.datastore_id,
                image_set_id=image_set.id,
                version=version,
                is_primary=image_set.is_primary,
                state=state,
                workflow_status=status,
                arn=self._context.arns.image_set(image_set.datastore_id, image_set.id),
            )

    @staticmethod
    def _reverted(connection: sqlite3.Connection, image_set: ImageSet, version: int) -> Document:
        if version >= image_set.latest_version:
            raise invalid(f"revertToVersionId {version} is not an earlier version.")
        return image_sets.load_document(connection, image_set.id, version)


def _changed(document: Document, updates: Mapping[str, bytes], rules: Rules) -> Document:
    if not updates:
        raise invalid("Either DICOMUpdates or revertToVersionId is required.")
    if "removableAttributes" in updates:
        apply_removal(document, parse_change(updates["removableAttributes"], "removableAttributes"), rules)
    if "updatableAttributes" in updates:
        change = parse_change(updates["updatableAttributes"], "updatableAttributes")
        if rules.whole_study and "Series" in change.get("Study", {}):
            raise invalid("includeStudyImageSets changes patient and study attributes only.")
        apply_update(document, change, rules)
    return document


def _siblings(connection: sqlite3.Connection, image_set: ImageSet) -> list[ImageSet]:
    if not image_set.is_primary:
        raise invalid("includeStudyImageSets needs a primary image set.")
    rows = connection.execute(
        "SELECT * FROM image_sets WHERE datastore_id = ? AND study_uid = ? AND is_primary = 1"
        " AND state = 'ACTIVE' AND id <> ?",
        (image_set.datastore_id, image_set.study_uid, image_set.id),
    )
    return [image_sets.image_set_of(row) for row in rows]


def _check_hierarchy(connection: sqlite3.Connection, changed: list[tuple[ImageSet, Document]]) -> None:
    """A primary image set may not come to contradict the others of its study."""
    ids = {image_set.id for image_set, _ in changed}
    image_set, document = changed[0]
    identity = document_identity(document)
    rows = connection.execute(
        "SELECT * FROM image_sets WHERE datastore_id = ? AND study_uid = ? AND is_primary = 1"
        " AND state = 'ACTIVE'",
        (image_set.datastore_id, identity["study_uid"]),
    )
    for row in rows:
        if row["id"] not in ids and (
            row["patient_id"] != identity["patient_id"]
            or row["study_date"] != identity["study_date"]
            or row["study_id"] != identity["study_id"]
            or row["accession_number"] != identity["accession_number"]
        ):
            raise invalid(
                f"The change would make primary image set {image_set.id} contradict image set {row['id']}"
                " of the same study; use includeStudyImageSets."
            )
