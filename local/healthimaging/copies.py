"""CopyImageSet: to a new image set, into another one, or into the primary hierarchy."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Mapping
from typing import Any

from local.healthimaging import image_sets
from local.healthimaging.context import Context
from local.healthimaging.datastores import active_datastore, moment
from local.healthimaging.documents import (
    Document,
    add_instance,
    document_identity,
    effective_attributes,
    instances,
)
from local.healthimaging.elements import Attributes
from local.healthimaging.errors import conflict, invalid, not_found, quota_exceeded
from local.healthimaging.identifiers import new_id
from local.healthimaging.image_sets import ImageSet
from local.healthimaging.outbox import record_image_set
from local.healthimaging.placement import primary_place
from local.service import Call, Handler

MAXIMUM_FRAMES = 1_000
"""Frames of one copy into an existing image set (service quota)."""


class Copies:
    """The operation that copies."""

    def __init__(self, context: Context) -> None:
        self._context = context

    def handlers(self) -> Mapping[str, Handler]:
        """By operation."""
        return {"CopyImageSet": self.copy}

    def copy(self, call: Call) -> dict[str, Any]:
        """The copy is there when the call returns; the answer says COPYING, as AWS's does.

        A new image set is non-primary unless `promoteToPrimary`. The destination's patient, study and series
        attributes must be those of the source unless `force`, which keeps the destination's.
        """
        params = call.params
        datastore_id = params["datastoreId"]
        information = params["copyImageSetInformation"]
        force, promote = params.get("force", False), params.get("promoteToPrimary", False)
        asked = information.get("destinationImageSet")
        if promote and asked is not None:
            raise invalid("promoteToPrimary finds its destination itself; leave out destinationImageSet.")
        context = self._context
        with context.database.transaction() as connection:
            active_datastore(connection, datastore_id)
            source = image_sets.find_active(
                connection,
                datastore_id,
                params["sourceImageSetId"],
                information["sourceImageSet"]["latestVersionId"],
            )
            document = image_sets.load_document(connection, source.id, source.latest_version)
            copies = information["sourceImageSet"].get("DICOMCopies")
            if copies is not None:
                _select(document, copies["copiableAttributes"])
            destination = self._destination(connection, source, document, asked, promote)
            now = context.clock()
            if destination is None:
                destination_id, version, is_primary = new_id(), 1, promote
                image_sets.create(
                    connection,
                    image_set_id=destination_id,
                    datastore_id=datastore_id,
                    is_primary=is_primary,
                    document=document,
                    workflow_status="COPIED",
                    now=now,
                    forced=force,
                )
                created_at = now
            else:
                destination_id, is_primary = destination.id, destination.is_primary
                merged = image_sets.load_document(connection, destination.id, destination.latest_version)
                _merge(merged, document, force=force, promote=promote)
                version = image_sets.add_version(
                    connection, destination, document=merged, workflow_status="COPIED", now=now, forced=force
                )
                created_at = destination.created_at
            image_sets.share_content(
                connection,
                source_id=source.id,
                destination_id=destination_id,
                frame_ids=[frame["id"] for _, _, entry in instances(document) for frame in entry["frames"]],
                bulk_ids=list(_bulk_ids(document)),
            )
            self._tell(connection, source, destination_id, version, is_primary)
        context.publisher.wake()
        return {
            "datastoreId": datastore_id,
            "sourceImageSetProperties": {
                "imageSetId": source.id,
                "latestVersionId": str(source.latest_version),
                "imageSetState": "LOCKED",
                "imageSetWorkflowStatus": "COPYING_WITH_READ_ONLY_ACCESS",
                "createdAt": moment(source.created_at),
                "updatedAt": moment(source.updated_at),
                "imageSetArn": context.arns.image_set(datastore_id, source.id),
            },
            "destinationImageSetProperties": {
                "imageSetId": destination_id,
                "latestVersionId": str(version),
                "imageSetState": "LOCKED",
                "imageSetWorkflowStatus": "COPYING",
                "createdAt": moment(created_at),
                "updatedAt": moment(now),
                "imageSetArn": context.arns.image_set(datastore_id, destination_id),
            },
        }

    @staticmethod
    def _destination(
        connection: sqlite3.Connection,
        source: ImageSet,
        document: Document,
        asked: Mapping[str, str] | None,
        promote: bool,
    ) -> ImageSet | None:
        if promote:
            if source.is_primary:
                raise invalid(f"Image set {source.id} is primary already.")
            agrees, primary = primary_place(connection, source.datastore_id, document_identity(document))
            if not agrees:
                raise conflict(
                    f"Image set {source.id} contradicts the primary image sets; update its metadata first."
                )
            return primary
        if asked is None:
            return None
        if asked["imageSetId"] == source.id:
            raise invalid("Source and destination are the same image set.")
        destination = image_sets.find_active(
            connection, source.datastore_id, asked["imageSetId"], asked["latestVersionId"]
        )
        if sum(len(entry["frames"]) for _, _, entry in instances(document)) > MAXIMUM_FRAMES:
            raise quota_exceeded(f"A copy into an image set takes at most {MAXIMUM_FRAMES} frames.")
        return destination

    def _tell(
        self,
        connection: sqlite3.Connection,
        source: ImageSet,
        destination_id: str,
        version: int,
        is_primary: bool,
    ) -> None:
        arns, datastore_id = self._context.arns, source.datastore_id
        source_arn = arns.image_set(datastore_id, source.id)
        record_image_set(
            connection,
            detail_type="Image Set Copying With Read Only Access",
            datastore_id=datastore_id,
            image_set_id=source.id,
            version=source.latest_version,
            is_primary=source.is_primary,
            state="LOCKED",
            workflow_status="COPYING_WITH_READ_ONLY_ACCESS",
            arn=source_arn,
        )
        for detail_type, status, state in (
            ("Image Set Copying", "COPYING", "LOCKED"),
            ("Image Set Copied", "COPIED", "ACTIVE"),
        ):
            record_image_set(
                connection,
                detail_type=detail_type,
                datastore_id=datastore_id,
                image_set_id=destination_id,
                version=version,
                is_primary=is_primary,
                state=state,
                workflow_status=status,
                arn=arns.image_set(datastore_id, destination_id),
                source_arn=source_arn,
            )


def _select(document: Document, copiable: str) -> None:
    """Keep only the instances that `copiable` names: {"Study": {"Series": {uid: {"Instances": {uid:
    {}}}}}}."""
    try:
        named = json.loads(copiable)["Study"]["Series"]
        wanted = {uid: set(series["Instances"]) for uid, series in named.items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise invalid("copiableAttributes does not name SOP instances below Study.Series.") from error
    for series_uid, uids in wanted.items():
        present = document["series"].get(series_uid)
        missing = uids - set(present["instances"] if present else ())
        if missing:
            raise not_found(f"SOP instance {sorted(missing)[0]}")
    for series_uid in list(document["series"]):
        keep = wanted.get(series_uid, set())
        series = document["series"][series_uid]
        series["instances"] = {uid: entry for uid, entry in series["instances"].items() if uid in keep}
        if not series["instances"]:
            del document["series"][series_uid]
    if not document["series"]:
        raise invalid("copiableAttributes names no SOP instance.")


def _merge(destination: Document, source: Document, *, force: bool, promote: bool) -> None:
    """Add the source's instances to the destination.

    On promotion source and destination agree in what identifies them: instances of the same UID are replaced,
    and an instance keeps values of its own where its levels differ, as in an import.
    """
    if promote:
        for series_uid, sop_instance_uid, entry in list(instances(source)):
            add_instance(
                destination,
                series_uid=series_uid,
                sop_instance_uid=sop_instance_uid,
                attributes=effective_attributes(source, series_uid, sop_instance_uid),
                instance=entry,
            )
        return
    if not force and (destination["patient"], destination["study"]) != (source["patient"], source["study"]):
        raise conflict(
            "Patient or study attributes of source and destination differ; use force to keep the latter."
        )
    fallback = next(iter(destination["series"]))
    for series_uid, series in source["series"].items():
        target = destination["series"].get(series_uid, destination["series"][fallback])
        if not force and target["attributes"] != series["attributes"]:
            raise conflict(
                "Series attributes of source and destination differ; use force to keep the latter."
            )
        both = set(target["instances"]) & set(series["instances"])
        if both and not force:
            raise conflict(f"The destination already holds SOP instance {sorted(both)[0]}.")
        target["instances"].update(series["instances"])


def _bulk_ids(document: Document) -> Iterator[str]:
    yield from _bulk_in(document["patient"])
    yield from _bulk_in(document["study"])
    for series in document["series"].values():
        yield from _bulk_in(series["attributes"])
        for entry in series["instances"].values():
            yield from _bulk_in(entry["attributes"])


def _bulk_in(attributes: Attributes) -> Iterator[str]:
    for element in attributes.values():
        if "bulk" in element:
            yield element["bulk"]
        if element["vr"] == "SQ":
            for item in element["value"]:
                yield from _bulk_in(item)
