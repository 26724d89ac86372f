"""HealthImaging's events of image sets, as EventBridge puts them into a queue.

Source: https://docs.aws.amazon.com/healthimaging/latest/devguide/using-eventbridge.html
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass

from runtime.functions.batches.errors import MalformedEventError

_IDENTIFIER = re.compile(r"[0-9a-z]{32}")
"""Of a data store or an image set (HealthImaging API reference). They become parts of object keys."""

_VERSION = re.compile(r"[0-9]{1,19}")


@dataclass(frozen=True, kw_only=True)
class ImageSetEvent:
    """Something happened to an image set."""

    datastore_id: str
    image_set_id: str
    version: int | None = None
    """The version that came of it. None: the event does not say."""
    deleted: bool = False
    """It says that the image set is gone, or its sender knows no version of it any more."""

    @property
    def subject(self) -> str:
        return f"image set {self.image_set_id} of data store {self.datastore_id}"


def image_set_event(body: str) -> ImageSetEvent:
    """The event in a message's body.

    Raises:
        MalformedEventError: It is none.
    """
    try:
        document = json.loads(body)
        detail = document["detail"]
        # The service's documentation spells it `imagesetId`, its samples `imageSetId`.
        datastore_id, image_set_id = detail["datastoreId"], detail.get("imagesetId") or detail["imageSetId"]
        version = str(detail.get("imageSetVersion"))
        deleted = (
            document.get("detail-type") == "Image Set Deleted" or detail.get("imageSetState") == "DELETED"
        )
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        msg = f"The message is not an image set event: {type(error).__name__}"
        raise MalformedEventError(msg) from error
    for one in (datastore_id, image_set_id):
        if not isinstance(one, str) or not _IDENTIFIER.fullmatch(one):
            msg = "The message is not an image set event: its identifiers are not of HealthImaging's form"
            raise MalformedEventError(msg)
    known = _VERSION.fullmatch(version) is not None
    return ImageSetEvent(
        datastore_id=datastore_id,
        image_set_id=image_set_id,
        version=int(version) if known else None,
        deleted=deleted or not known,
    )
