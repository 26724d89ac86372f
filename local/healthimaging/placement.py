"""Which image set an arriving instance belongs to (devguide: "Understanding image sets").

Instances are grouped by patient ID, study date, study UID, study ID, accession number, series UID and series
number. A group that agrees with the datastore's primary image sets joins or makes the one primary image set
of its series; a group that contradicts them makes a non-primary image set of its own, at every import anew.

An instance that the primary image set already holds is replaced, and the version rises, also when the file is
identical: HealthImaging describes no comparison of contents, so none is relied upon.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass

from local.healthimaging import image_sets
from local.healthimaging.documents import Document, Identity, add_instance, empty_document
from local.healthimaging.identifiers import Arns, new_id
from local.healthimaging.image_sets import ImageSet
from local.healthimaging.instances import ParsedInstance
from local.healthimaging.outbox import record_image_set

_STUDY_KEYS = ("patient_id", "study_date", "study_id", "accession_number")


@dataclass(frozen=True, kw_only=True)
class Placement:
    """Where one group went. `arrivals` are the positions of its instances in what was placed."""

    image_set_id: str
    version: int
    is_primary: bool
    created: bool
    arrivals: tuple[int, ...]


def place(
    connection: sqlite3.Connection,
    *,
    datastore_id: str,
    arrivals: Sequence[ParsedInstance],
    arns: Arns,
    now: float,
) -> list[Placement]:
    """Put instances into image sets, within the caller's transaction, with the events that tell of it."""
    groups: dict[tuple[str, ...], list[int]] = {}
    for position, arrival in enumerate(arrivals):
        groups.setdefault(tuple(str(value) for value in arrival.identity.values()), []).append(position)
    placements = []
    for positions in groups.values():
        group = [arrivals[position] for position in positions]
        placements.append(_place_group(connection, datastore_id, group, tuple(positions), arns, now))
    return placements


def _place_group(
    connection: sqlite3.Connection,
    datastore_id: str,
    group: Sequence[ParsedInstance],
    positions: tuple[int, ...],
    arns: Arns,
    now: float,
) -> Placement:
    identity = group[0].identity
    agrees, existing = primary_place(connection, datastore_id, identity)
    if agrees and existing is not None:
        document = image_sets.load_document(connection, existing.id, existing.latest_version)
        _fill(document, group)
        version = image_sets.add_version(
            connection, existing, document=document, workflow_status="UPDATED", now=now
        )
        image_set_id, created = existing.id, False
    else:
        document = empty_document()
        _fill(document, group)
        image_set_id, version, created = new_id(), 1, True
        image_sets.create(
            connection,
            image_set_id=image_set_id,
            datastore_id=datastore_id,
            is_primary=agrees,
            document=document,
            workflow_status="CREATED",
            now=now,
        )
    for instance in group:
        image_sets.add_frames(
            connection,
            image_set_id,
            instance.frames,
            transfer_syntax=instance.entry["stored_transfer_syntax"],
            decodable=instance.entry["decodable"],
        )
        image_sets.add_bulk(connection, image_set_id, instance.bulk)
    record_image_set(
        connection,
        detail_type="Image Set Created" if created else "Image Set Updated",
        datastore_id=datastore_id,
        image_set_id=image_set_id,
        version=version,
        is_primary=agrees,
        state="ACTIVE",
        workflow_status="CREATED" if created else "UPDATED",
        arn=arns.image_set(datastore_id, image_set_id),
    )
    return Placement(
        image_set_id=image_set_id, version=version, is_primary=agrees, created=created, arrivals=positions
    )


def _fill(document: Document, group: Sequence[ParsedInstance]) -> None:
    for instance in group:
        add_instance(
            document,
            series_uid=instance.identity["series_uid"],
            sop_instance_uid=instance.sop_instance_uid,
            attributes=instance.attributes,
            instance=instance.entry,
        )


def primary_place(
    connection: sqlite3.Connection, datastore_id: str, identity: Identity, *, besides: str = ""
) -> tuple[bool, ImageSet | None]:
    """Whether `identity` agrees with the primary image sets, and the primary image set of its series if there
    is one.

    `besides` names an image set that does not count.
    """
    rows = connection.execute(
        "SELECT * FROM image_sets WHERE datastore_id = ? AND is_primary = 1 AND state <> 'DELETED'"
        " AND id <> ? AND (study_uid = ? OR series_uid = ?)",
        (datastore_id, besides, identity["study_uid"], identity["series_uid"]),
    ).fetchall()
    existing = None
    for row in rows:
        # One series UID in two studies is a contradiction, too.
        if row["study_uid"] != identity["study_uid"]:
            return False, None
        if any(row[key] != value for key, value in identity.items() if key in _STUDY_KEYS):
            return False, None
        if row["series_uid"] == identity["series_uid"]:
            if row["series_number"] != identity["series_number"]:
                return False, None
            existing = image_sets.image_set_of(row)
    return True, existing
