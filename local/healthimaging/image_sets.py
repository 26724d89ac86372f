"""Rows of image sets and their versions. Every function works within the transaction of the connection it
is given."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from local.healthimaging.documents import Document, dicom_tags, document_identity, pack, study_moment, unpack
from local.healthimaging.errors import conflict, not_found
from local.healthimaging.instances import StoredFrame


@dataclass(frozen=True, kw_only=True)
class ImageSet:
    """One image set at its latest version. Times are seconds since the epoch."""

    id: str
    datastore_id: str
    is_primary: bool
    state: str
    latest_version: int
    created_at: float
    updated_at: float
    study_uid: str
    series_uid: str
    dicom_tags: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Version:
    """One version of an image set, without its document."""

    number: int
    workflow_status: str
    state: str
    created_at: float
    updated_at: float
    deleted_at: float | None
    forced: bool


def image_set_of(row: sqlite3.Row) -> ImageSet:
    """The image set of a row of `image_sets`."""
    return ImageSet(
        id=row["id"],
        datastore_id=row["datastore_id"],
        is_primary=bool(row["is_primary"]),
        state=row["state"],
        latest_version=row["latest_version"],
        created_at=row["created_at"],
        updated_at=row["updated_at"],
        study_uid=row["study_uid"],
        series_uid=row["series_uid"],
        dicom_tags=json.loads(row["dicom_tags"]),
    )


def _version_of(row: sqlite3.Row) -> Version:
    return Version(
        number=row["version"],
        workflow_status=row["workflow_status"],
        state=row["state"],
        created_at=row["created_at"],
        updated_at=row["updated_at"],
        deleted_at=row["deleted_at"],
        forced=bool(row["forced"]),
    )


def find(connection: sqlite3.Connection, datastore_id: str, image_set_id: str) -> ImageSet:
    """An image set, deleted ones too. Raises ResourceNotFoundException."""
    row = connection.execute(
        "SELECT * FROM image_sets WHERE id = ? AND datastore_id = ?", (image_set_id, datastore_id)
    ).fetchone()
    if row is None:
        raise not_found(f"Image set {image_set_id}")
    return image_set_of(row)


def find_active(
    connection: sqlite3.Connection, datastore_id: str, image_set_id: str, latest_version: str | None = None
) -> ImageSet:
    """An image set that may be changed. Raises ConflictException unless `latest_version` is its latest
    one."""
    image_set = find(connection, datastore_id, image_set_id)
    if image_set.state != "ACTIVE":
        raise not_found(f"Image set {image_set_id}")
    if latest_version is not None and int(latest_version) != image_set.latest_version:
        msg = f"Image set {image_set_id} is at version {image_set.latest_version}, not at {latest_version}."
        raise conflict(msg)
    return image_set


def find_version(connection: sqlite3.Connection, image_set: ImageSet, number: int | None = None) -> Version:
    """A version, the latest one by default. Raises ResourceNotFoundException."""
    row = connection.execute(
        "SELECT * FROM versions WHERE image_set_id = ? AND version = ?",
        (image_set.id, image_set.latest_version if number is None else number),
    ).fetchone()
    if row is None:
        raise not_found(f"Version {number} of image set {image_set.id}")
    return _version_of(row)


def list_versions(connection: sqlite3.Connection, image_set: ImageSet) -> list[Version]:
    """All versions, newest first."""
    rows = connection.execute(
        "SELECT * FROM versions WHERE image_set_id = ? ORDER BY version DESC", (image_set.id,)
    )
    return [_version_of(row) for row in rows]


def load_document(connection: sqlite3.Connection, image_set_id: str, version: int) -> Document:
    """What a version says. Raises ResourceNotFoundException where there is no such version, or it is
    deleted."""
    row = connection.execute(
        "SELECT document FROM versions WHERE image_set_id = ? AND version = ?", (image_set_id, version)
    ).fetchone()
    if row is None or row["document"] is None:
        raise not_found(f"Version {version} of image set {image_set_id}")
    return unpack(row["document"])


def create(
    connection: sqlite3.Connection,
    *,
    image_set_id: str,
    datastore_id: str,
    is_primary: bool,
    document: Document,
    workflow_status: str,
    now: float,
    forced: bool = False,
) -> None:
    """A new image set at version 1."""
    identity = document_identity(document)
    connection.execute(
        "INSERT INTO image_sets (id, datastore_id, is_primary, state, latest_version, created_at, updated_at,"
        " study_uid, series_uid, patient_id, accession_number, study_id, study_date, study_moment,"
        " series_number, dicom_tags) VALUES (?, ?, ?, 'ACTIVE', 1, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            image_set_id,
            datastore_id,
            is_primary,
            now,
            now,
            identity["study_uid"],
            identity["series_uid"],
            identity["patient_id"],
            identity["accession_number"],
            identity["study_id"],
            identity["study_date"],
            study_moment(document),
            identity["series_number"],
            json.dumps(dicom_tags(document)),
        ),
    )
    _insert_version(connection, image_set_id, 1, document, workflow_status, now, forced)


def add_version(
    connection: sqlite3.Connection,
    image_set: ImageSet,
    *,
    document: Document,
    workflow_status: str,
    now: float,
    forced: bool = False,
) -> int:
    """The next version of an image set; returns its number."""
    number = image_set.latest_version + 1
    identity = document_identity(document)
    connection.execute(
        "UPDATE image_sets SET latest_version = ?, updated_at = ?, study_uid = ?, series_uid = ?,"
        " patient_id = ?, accession_number = ?, study_id = ?, study_date = ?, study_moment = ?,"
        " series_number = ?, dicom_tags = ? WHERE id = ?",
        (
            number,
            now,
            identity["study_uid"],
            identity["series_uid"],
            identity["patient_id"],
            identity["accession_number"],
            identity["study_id"],
            identity["study_date"],
            study_moment(document),
            identity["series_number"],
            json.dumps(dicom_tags(document)),
            image_set.id,
        ),
    )
    _insert_version(connection, image_set.id, number, document, workflow_status, now, forced)
    return number


def _insert_version(
    connection: sqlite3.Connection,
    image_set_id: str,
    number: int,
    document: Document,
    workflow_status: str,
    now: float,
    forced: bool,
) -> None:
    connection.execute(
        "INSERT INTO versions (image_set_id, version, workflow_status, state, created_at, updated_at, forced,"
        " document) VALUES (?, ?, ?, 'ACTIVE', ?, ?, ?, ?)",
        (image_set_id, number, workflow_status, now, now, forced, pack(document)),
    )


@dataclass(frozen=True, kw_only=True)
class FrameLocation:
    """Where a frame's bytes are. `decodable` is false for pixel data that was kept as one undivided blob."""

    digest: str
    transfer_syntax: str
    decodable: bool


def add_frames(
    connection: sqlite3.Connection,
    image_set_id: str,
    frames: Iterable[StoredFrame],
    *,
    transfer_syntax: str,
    decodable: bool,
) -> None:
    """Make frames retrievable from an image set, in all its versions."""
    connection.executemany(
        "INSERT OR IGNORE INTO frames (image_set_id, id, digest, transfer_syntax, decodable)"
        " VALUES (?, ?, ?, ?, ?)",
        [(image_set_id, frame.id, frame.digest, transfer_syntax, decodable) for frame in frames],
    )


def add_bulk(connection: sqlite3.Connection, image_set_id: str, values: Iterable[StoredFrame]) -> None:
    """Make bulk data retrievable from an image set."""
    connection.executemany(
        "INSERT OR IGNORE INTO bulk (image_set_id, id, digest) VALUES (?, ?, ?)",
        [(image_set_id, value.id, value.digest) for value in values],
    )


def share_content(
    connection: sqlite3.Connection,
    *,
    source_id: str,
    destination_id: str,
    frame_ids: Iterable[str],
    bulk_ids: Iterable[str],
) -> None:
    """Make frames and bulk data of one image set retrievable from another (a copy shares the files)."""
    connection.executemany(
        "INSERT OR IGNORE INTO frames (image_set_id, id, digest, transfer_syntax, decodable)"
        " SELECT ?, id, digest, transfer_syntax, decodable FROM frames WHERE image_set_id = ? AND id = ?",
        [(destination_id, source_id, frame_id) for frame_id in frame_ids],
    )
    connection.executemany(
        "INSERT OR IGNORE INTO bulk (image_set_id, id, digest)"
        " SELECT ?, id, digest FROM bulk WHERE image_set_id = ? AND id = ?",
        [(destination_id, source_id, bulk_id) for bulk_id in bulk_ids],
    )


def find_frame(connection: sqlite3.Connection, image_set_id: str, frame_id: str) -> FrameLocation:
    """Where a frame of an image set is. Raises ResourceNotFoundException."""
    row = connection.execute(
        "SELECT digest, transfer_syntax, decodable FROM frames WHERE image_set_id = ? AND id = ?",
        (image_set_id, frame_id),
    ).fetchone()
    if row is None:
        raise not_found(f"Image frame {frame_id} of image set {image_set_id}")
    return FrameLocation(
        digest=row["digest"], transfer_syntax=row["transfer_syntax"], decodable=bool(row["decodable"])
    )


def find_active_frame(
    connection: sqlite3.Connection, datastore_id: str, image_set_id: str, frame_id: str
) -> FrameLocation | None:
    """Where a frame is, None unless the datastore, the image set and the frame are all there: in one query,
    since frames are read by the thousand."""
    row = connection.execute(
        "SELECT frames.digest, frames.transfer_syntax, frames.decodable"
        " FROM frames, image_sets, datastores"
        " WHERE frames.image_set_id = ? AND frames.id = ?"
        " AND image_sets.id = frames.image_set_id AND image_sets.state = 'ACTIVE'"
        " AND image_sets.datastore_id = ?"
        " AND datastores.id = image_sets.datastore_id AND datastores.status = 'ACTIVE'",
        (image_set_id, frame_id, datastore_id),
    ).fetchone()
    if row is None:
        return None
    return FrameLocation(digest=row[0], transfer_syntax=row[1], decodable=bool(row[2]))


def latest_version(connection: sqlite3.Connection, image_set_id: str) -> int | None:
    """The number of the latest version, also of a deleted image set; None where there is none."""
    row = connection.execute("SELECT latest_version FROM image_sets WHERE id = ?", (image_set_id,)).fetchone()
    return None if row is None else int(row[0])


def find_bulk(connection: sqlite3.Connection, image_set_id: str, bulk_id: str) -> str:
    """Digest of a bulk data value of an image set. Raises ResourceNotFoundException."""
    row = connection.execute(
        "SELECT digest FROM bulk WHERE image_set_id = ? AND id = ?", (image_set_id, bulk_id)
    ).fetchone()
    if row is None:
        raise not_found(f"Bulk data {bulk_id} of image set {image_set_id}")
    return str(row["digest"])


def erase(connection: sqlite3.Connection, image_set: ImageSet, *, now: float) -> set[str]:
    """Mark an image set deleted and forget what it said; returns the digests of the content that it named."""
    digests = {
        row["digest"]
        for table in ("frames", "bulk")
        for row in connection.execute(
            f"SELECT DISTINCT digest FROM {table} WHERE image_set_id = ?",  # noqa: S608 - the two names above
            (image_set.id,),
        )
    }
    connection.execute("DELETE FROM frames WHERE image_set_id = ?", (image_set.id,))
    connection.execute("DELETE FROM bulk WHERE image_set_id = ?", (image_set.id,))
    connection.execute(
        "UPDATE versions SET state = 'DELETED', workflow_status = 'DELETED', deleted_at = ?, updated_at = ?,"
        " document = NULL WHERE image_set_id = ?",
        (now, now, image_set.id),
    )
    connection.execute(
        "UPDATE image_sets SET state = 'DELETED', updated_at = ?, patient_id = '', accession_number = '',"
        " study_id = '', study_date = '', study_moment = '', dicom_tags = '{}' WHERE id = ?",
        (now, image_set.id),
    )
    return digests


def unnamed(connection: sqlite3.Connection, digests: Iterable[str]) -> set[str]:
    """Those digests that no image set names."""
    return {
        digest
        for digest in digests
        if connection.execute(
            "SELECT 1 FROM frames WHERE digest = ? UNION SELECT 1 FROM bulk WHERE digest = ?",
            (digest, digest),
        ).fetchone()
        is None
    }


def named_digests(connection: sqlite3.Connection) -> set[str]:
    """Every digest that some image set names."""
    return {row[0] for row in connection.execute("SELECT digest FROM frames UNION SELECT digest FROM bulk")}
