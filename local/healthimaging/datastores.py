"""Datastores: CreateDatastore, GetDatastore, ListDatastores, DeleteDatastore, and their quota."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from local.healthimaging import transfer_syntaxes as ts
from local.healthimaging.context import Context
from local.healthimaging.errors import conflict, invalid, not_found, quota_exceeded
from local.healthimaging.identifiers import new_id
from local.healthimaging.outbox import record_datastore
from local.healthimaging.paging import page_of
from local.service import Call, Handler

MAXIMUM_DATASTORES = 10
"""Datastores a region and account (service quota); enforced where limits are switched on."""

STORAGE_SYNTAXES = {"HTJ2K": ts.HTJ2K_LOSSLESS_RPCL, "JPEG_2000_LOSSLESS": ts.JPEG_2000_LOSSLESS}


def moment(seconds: float) -> datetime:
    """A stored time as the aware datetime that the protocol serialises."""
    return datetime.fromtimestamp(seconds, tz=UTC)


def active_datastore(connection: sqlite3.Connection, datastore_id: str) -> sqlite3.Row:
    """The row of a datastore that can be used. Raises ResourceNotFoundException."""
    row: sqlite3.Row | None = connection.execute(
        "SELECT * FROM datastores WHERE id = ? AND status = 'ACTIVE'", (datastore_id,)
    ).fetchone()
    if row is None:
        raise not_found(f"Datastore {datastore_id}")
    return row


class Datastores:
    """The operations on datastores."""

    def __init__(self, context: Context, *, enforce_quota: bool) -> None:
        self._context = context
        self._enforce_quota = enforce_quota

    def handlers(self) -> Mapping[str, Handler]:
        """By operation."""
        return {
            "CreateDatastore": self.create,
            "GetDatastore": self.get,
            "ListDatastores": self.list,
            "DeleteDatastore": self.delete,
        }

    def create(self, call: Call) -> dict[str, Any]:
        """The datastore is ACTIVE when the call returns; the answer says CREATING, as AWS's does."""
        params = dict(call.params)
        token = params.pop("clientToken")
        if "lambdaAuthorizerArn" in params:
            raise invalid(
                "lambdaAuthorizerArn is not supported by the local cloud: DICOMweb requests are signed."
            )
        request = json.dumps(params, sort_keys=True)
        context = self._context
        with context.database.transaction() as connection:
            earlier = connection.execute(
                "SELECT * FROM datastores WHERE client_token = ?", (token,)
            ).fetchone()
            if earlier is not None:
                if earlier["request"] != request:
                    raise conflict("The clientToken was used before with other parameters.")
                return {"datastoreId": earlier["id"], "datastoreStatus": earlier["status"]}
            alive, position = connection.execute(
                "SELECT COUNT(*) FILTER (WHERE status = 'ACTIVE'), COUNT(*) FROM datastores"
            ).fetchone()
            if self._enforce_quota and alive >= MAXIMUM_DATASTORES:
                raise quota_exceeded(f"The account has {alive} datastores, the most that the quota allows.")
            datastore_id, now = new_id(), context.clock()
            name = params.get("datastoreName", datastore_id)
            arn = context.arns.datastore(datastore_id)
            connection.execute(
                "INSERT INTO datastores VALUES (?, ?, ?, 'ACTIVE', ?, ?, ?, ?, ?, ?)",
                (
                    datastore_id,
                    position,
                    name,
                    params.get("losslessStorageFormat", "HTJ2K"),
                    params.get("kmsKeyArn"),
                    token,
                    request,
                    now,
                    now,
                ),
            )
            connection.executemany(
                "INSERT INTO tags (arn, key, value) VALUES (?, ?, ?)",
                [(arn, key, value) for key, value in params.get("tags", {}).items()],
            )
            for detail_type, status in (
                ("Data Store Creating", "CREATING"),
                ("Data Store Created", "ACTIVE"),
            ):
                record_datastore(
                    connection,
                    detail_type=detail_type,
                    datastore_id=datastore_id,
                    name=name,
                    status=status,
                    arn=arn,
                )
        context.publisher.wake()
        return {"datastoreId": datastore_id, "datastoreStatus": "CREATING"}

    def get(self, call: Call) -> dict[str, Any]:
        """A datastore's properties; a deleted one is still shown, with the status DELETED."""
        row = (
            self._context.database.reader()
            .execute("SELECT * FROM datastores WHERE id = ?", (call.params["datastoreId"],))
            .fetchone()
        )
        if row is None:
            raise not_found(f"Datastore {call.params['datastoreId']}")
        properties = {**self._summary(row), "losslessStorageFormat": row["storage_format"]}
        if row["kms_key_arn"] is not None:
            properties["kmsKeyArn"] = row["kms_key_arn"]
        return {"datastoreProperties": properties}

    def list(self, call: Call) -> dict[str, Any]:
        """Datastores in the order of their creation."""
        status = call.params.get("datastoreStatus")
        rows = (
            self._context.database.reader()
            .execute(
                "SELECT * FROM datastores WHERE ? IS NULL OR status = ? ORDER BY position", (status, status)
            )
            .fetchall()
        )
        page, following = page_of(
            rows,
            token=call.params.get("nextToken"),
            maximum=call.params.get("maxResults"),
            scope=f"datastores {status}",
        )
        answer: dict[str, Any] = {"datastoreSummaries": [self._summary(row) for row in page]}
        if following is not None:
            answer["nextToken"] = following
        return answer

    def delete(self, call: Call) -> dict[str, Any]:
        """Only an empty datastore can be deleted."""
        datastore_id = call.params["datastoreId"]
        context = self._context
        with context.database.transaction() as connection:
            row = active_datastore(connection, datastore_id)
            image_sets, jobs = connection.execute(
                "SELECT (SELECT COUNT(*) FROM image_sets WHERE datastore_id = ? AND state <> 'DELETED'),"
                " (SELECT COUNT(*) FROM jobs WHERE datastore_id = ?"
                " AND status IN ('SUBMITTED', 'IN_PROGRESS'))",
                (datastore_id, datastore_id),
            ).fetchone()
            if image_sets:
                raise conflict(f"Datastore {datastore_id} is not empty: it holds {image_sets} image sets.")
            if jobs:
                raise conflict(f"Datastore {datastore_id} has {jobs} import jobs in progress.")
            connection.execute(
                "UPDATE datastores SET status = 'DELETED', updated_at = ? WHERE id = ?",
                (context.clock(), datastore_id),
            )
            arn = context.arns.datastore(datastore_id)
            connection.execute("DELETE FROM tags WHERE arn = ?", (arn,))
            for detail_type, status in (
                ("Data Store Deleting", "DELETING"),
                ("Data Store Deleted", "DELETED"),
            ):
                record_datastore(
                    connection,
                    detail_type=detail_type,
                    datastore_id=datastore_id,
                    name=row["name"],
                    status=status,
                    arn=arn,
                )
        context.publisher.wake()
        return {"datastoreId": datastore_id, "datastoreStatus": "DELETING"}

    def _summary(self, row: sqlite3.Row) -> dict[str, Any]:
        return {
            "datastoreId": row["id"],
            "datastoreName": row["name"],
            "datastoreStatus": row["status"],
            "datastoreArn": self._context.arns.datastore(row["id"]),
            "createdAt": moment(row["created_at"]),
            "updatedAt": moment(row["updated_at"]),
        }
