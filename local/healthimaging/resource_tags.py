"""TagResource, UntagResource, ListTagsForResource, for datastores and image sets."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from typing import Any

from local.healthimaging import image_sets
from local.healthimaging.context import Context
from local.healthimaging.datastores import active_datastore
from local.healthimaging.errors import invalid
from local.healthimaging.identifiers import parse_arn
from local.service import Call, Handler

MAXIMUM_TAGS = 50


class ResourceTags:
    """The operations on tags."""

    def __init__(self, context: Context) -> None:
        self._context = context

    def handlers(self) -> Mapping[str, Handler]:
        """By operation."""
        return {"TagResource": self.tag, "UntagResource": self.untag, "ListTagsForResource": self.list}

    def tag(self, call: Call) -> dict[str, Any]:
        """Add tags, and give new values to those that are there."""
        arn = call.params["resourceArn"]
        with self._context.database.transaction() as connection:
            self._require(connection, arn)
            connection.executemany(
                "INSERT INTO tags (arn, key, value) VALUES (?, ?, ?)"
                " ON CONFLICT (arn, key) DO UPDATE SET value = excluded.value",
                [(arn, key, value) for key, value in call.params["tags"].items()],
            )
            (number,) = connection.execute("SELECT COUNT(*) FROM tags WHERE arn = ?", (arn,)).fetchone()
            if number > MAXIMUM_TAGS:
                raise invalid(f"A resource has at most {MAXIMUM_TAGS} tags.")
        return {}

    def untag(self, call: Call) -> dict[str, Any]:
        """Remove tags; keys that are not there are no error."""
        arn = call.params["resourceArn"]
        with self._context.database.transaction() as connection:
            self._require(connection, arn)
            connection.executemany(
                "DELETE FROM tags WHERE arn = ? AND key = ?", [(arn, key) for key in call.params["tagKeys"]]
            )
        return {}

    def list(self, call: Call) -> dict[str, Any]:
        """All tags of a resource."""
        connection = self._context.database.reader()
        self._require(connection, call.params["resourceArn"])
        rows = connection.execute("SELECT key, value FROM tags WHERE arn = ?", (call.params["resourceArn"],))
        return {"tags": {row["key"]: row["value"] for row in rows}}

    @staticmethod
    def _require(connection: sqlite3.Connection, arn: str) -> None:
        named = parse_arn(arn)
        if named is None:
            raise invalid(f"{arn} is not the ARN of a datastore or an image set.")
        active_datastore(connection, named.datastore_id)
        if named.image_set_id is not None:
            image_sets.find_active(connection, named.datastore_id, named.image_set_id)
