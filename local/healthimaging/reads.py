"""GetImageSet, ListImageSetVersions, GetImageSetMetadata, GetImageFrame.

Reading image sets is most of what a client does, so these are quick: a frame is one query and one file, read
on the event loop; metadata that was made before is kept. Nothing else is remembered: what a query says is
what was committed last.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from local.healthimaging import image_sets
from local.healthimaging.context import Context
from local.healthimaging.datastores import active_datastore, moment
from local.healthimaging.errors import not_acceptable, not_found
from local.healthimaging.image_sets import FrameLocation, ImageSet, Version
from local.healthimaging.metadata_json import metadata_blob
from local.healthimaging.metadata_store import MetadataStore
from local.healthimaging.paging import page_of
from local.healthimaging.transfer_syntaxes import content_type
from local.service import Call, Handler, Prompt

_METADATA_BYTES = 64_000_000
"""How much metadata is kept, as gzip: some thousand image sets of a few hundred instances."""


class Reads:
    """The operations that read one image set."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._made = MetadataStore(_METADATA_BYTES)

    def handlers(self) -> Mapping[str, Handler]:
        """By operation."""
        return {
            "GetImageSet": self.get,
            "ListImageSetVersions": self.list_versions,
            "GetImageSetMetadata": self.get_metadata,
            "GetImageFrame": self.get_frame,
        }

    def prompt(self) -> Mapping[str, Prompt]:
        """Those that need no thread of their own, and when."""
        return {
            "GetImageSet": lambda call: True,
            "GetImageSetMetadata": self._metadata_is_made,
            "GetImageFrame": lambda call: True,
        }

    def get(self, call: Call) -> dict[str, Any]:
        """Properties of a version; a deleted image set is still shown, with the state DELETED."""
        image_set, version = self._version(call)
        return {
            "datastoreId": image_set.datastore_id,
            "imageSetArn": self._context.arns.image_set(image_set.datastore_id, image_set.id),
            "lastAccessedAt": moment(image_set.updated_at),
            "storageTier": "FREQUENT_ACCESS",
            **_properties(image_set, version),
            "imageSetWorkflowStatus": version.workflow_status,
        }

    def list_versions(self, call: Call) -> dict[str, Any]:
        """All versions, newest first."""
        connection = self._context.database.reader()
        image_set = image_sets.find(connection, call.params["datastoreId"], call.params["imageSetId"])
        page, following = page_of(
            image_sets.list_versions(connection, image_set),
            token=call.params.get("nextToken"),
            maximum=call.params.get("maxResults"),
            scope=f"versions {image_set.id}",
        )
        answer: dict[str, Any] = {
            "imageSetPropertiesList": [
                # The model spells this member with a capital I, in this operation only.
                {**_properties(image_set, version), "ImageSetWorkflowStatus": version.workflow_status}
                for version in page
            ]
        }
        if following is not None:
            answer["nextToken"] = following
        return answer

    def get_metadata(self, call: Call) -> dict[str, Any]:
        """The metadata of a version as gzip."""
        image_set, version = self._version(call)
        if image_set.state == "DELETED":
            raise not_found(f"Image set {image_set.id}")
        blob = self._made.get(image_set.id, version.number)
        if blob is None:
            connection = self._context.database.reader()
            document = image_sets.load_document(connection, image_set.id, version.number)
            blob = metadata_blob(document, datastore_id=image_set.datastore_id, image_set_id=image_set.id)
            self._made.put(image_set.id, version.number, blob)
        return {
            "imageSetMetadataBlob": blob,
            "contentType": "application/json",
            "contentEncoding": "gzip",
        }

    def get_frame(self, call: Call) -> dict[str, Any]:
        """A frame as stored. Pixel data that was kept as one blob has no frames to give: 406."""
        frame_id = call.params["imageFrameInformation"]["imageFrameId"]
        frame = self._frame(call.params["datastoreId"], call.params["imageSetId"], frame_id)
        if not frame.decodable:
            raise not_acceptable(f"Image frame {frame_id} could not be transcoded when it was imported.")
        try:
            data = self._context.content.get(frame.digest)
        except FileNotFoundError:
            # Deleted since the query: the same query says so now. Else a file is missing, which is a defect.
            self._frame(call.params["datastoreId"], call.params["imageSetId"], frame_id)
            raise
        return {"imageFrameBlob": data, "contentType": content_type(frame.transfer_syntax)}

    def _frame(self, datastore_id: str, image_set_id: str, frame_id: str) -> FrameLocation:
        connection = self._context.database.reader()
        frame = image_sets.find_active_frame(connection, datastore_id, image_set_id, frame_id)
        if frame is not None:
            return frame
        # One of these says what is missing.
        active_datastore(connection, datastore_id)
        image_sets.find_active(connection, datastore_id, image_set_id)
        return image_sets.find_frame(connection, image_set_id, frame_id)

    def _metadata_is_made(self, call: Call) -> bool:
        """Making it of an image set of thousands of instances would hold the event loop."""
        image_set_id, number = call.params["imageSetId"], call.params.get("versionId")
        if number is None:
            number = image_sets.latest_version(self._context.database.reader(), image_set_id)
        return number is not None and (image_set_id, int(number)) in self._made

    def _version(self, call: Call) -> tuple[ImageSet, Version]:
        connection = self._context.database.reader()
        active_datastore(connection, call.params["datastoreId"])
        image_set = image_sets.find(connection, call.params["datastoreId"], call.params["imageSetId"])
        number = call.params.get("versionId")
        return image_set, image_sets.find_version(connection, image_set, int(number) if number else None)


def _properties(image_set: ImageSet, version: Version) -> dict[str, Any]:
    properties: dict[str, Any] = {
        "imageSetId": image_set.id,
        "versionId": str(version.number),
        "imageSetState": version.state,
        "createdAt": moment(version.created_at),
        "updatedAt": moment(version.updated_at),
        "isPrimary": image_set.is_primary,
    }
    if version.deleted_at is not None:
        properties["deletedAt"] = moment(version.deleted_at)
    if version.forced:
        properties["overrides"] = {"forced": True}
    return properties
