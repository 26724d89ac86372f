"""Ledgers: what each import job brought into a datastore, kept in S3 so that every machine knows.

`ledger/<datastore>/<job>.ndjson` in the import bucket, one line an imported instance. It is written after the
job's manifest was read and never changed. De-identified instances stand in it under keyed hashes of their
original UID and content: no ledger leads from one to the other without the key.

Where several ledgers name one instance, one of them says what the datastore holds (`held` in the journal): of
those that name the same image set, the one with the highest version, since HealthImaging counts versions as
it imports, and ledgers may be written in another order. Of several image sets, the one whose newest ledger S3
took last: nothing else orders them.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable
from typing import Any

from arrival.errors import ArrivalError
from arrival.importing.import_job import Archive
from workbench.ingesting.journal import Journal

_BATCH = 500
_KEEP = (
    "INSERT INTO ledger (instance, job, content, at, image_set_id, version_id, newest_version_id, is_primary)"
    # S3's time takes the place of this machine's.
    " VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (instance, job) DO UPDATE SET at = excluded.at"
)


class LedgerError(ArrivalError):
    """An object below `ledger/` is not a ledger."""


def write_ledger(s3: Any, archive: Archive, *, job: str, lines: Iterable[dict[str, Any]]) -> None:
    """Write what a job imported; writing it once more changes nothing."""
    body = b"".join(json.dumps(line, separators=(",", ":")).encode() + b"\n" for line in lines)
    s3.put_object(
        Bucket=archive.import_bucket,
        Key=f"ledger/{archive.datastore_id}/{job}.ndjson",
        Body=body,
        ChecksumAlgorithm="SHA256",
    )


def line(row: Any) -> dict[str, Any]:
    """The line of an imported row of `chunk_file`."""
    return {
        "instance": row["instance"],
        "content": row["content"],
        "imageSetId": row["image_set_id"],
        "versionId": str(row["version_id"]),
        "isPrimary": bool(row["is_primary"]),
    }


def note_imported(journal: Journal, *, job: str, rows: Iterable[Any]) -> None:
    """Know at once what a job of this journal imported: another run may plan before it reads ledgers."""
    journal.many(
        _KEEP,
        [
            (
                *(row["instance"], job, row["content"], time.time()),
                *(row["image_set_id"], row["version_id"], row["version_id"], row["is_primary"]),
            )
            for row in rows
        ],
    )


def merge_ledgers(s3: Any, archive: Archive, journal: Journal) -> None:
    """Bring what is new below `ledger/` into the journal.

    Raises:
        LedgerError: An object there cannot be read as a ledger: what it says must not be ignored.
    """
    pages = s3.get_paginator("list_objects_v2").paginate(
        Bucket=archive.import_bucket, Prefix=f"ledger/{archive.datastore_id}/"
    )
    for page in pages:
        for one in page.get("Contents", []):
            if journal.one("SELECT 1 FROM merged WHERE key = ?", one["Key"]) is None:
                _merge(s3, archive, journal, one["Key"], one["LastModified"].timestamp())


def _merge(s3: Any, archive: Archive, journal: Journal, key: str, at: float) -> None:
    job = key.rpartition("/")[2].removesuffix(".ndjson")
    body = s3.get_object(Bucket=archive.import_bucket, Key=key)["Body"].read()
    try:
        rows = [
            (
                *(entry["instance"], job, entry["content"], at),
                *(entry["imageSetId"], int(entry["versionId"]), int(entry["versionId"])),
                bool(entry["isPrimary"]),
            )
            for entry in map(json.loads, body.splitlines())
        ]
    except (ValueError, KeyError, TypeError) as error:
        raise LedgerError(
            f"s3://{archive.import_bucket}/{key} is not a ledger ({type(error).__name__}).",
            advice="Restore its earlier version, or remove it: its instances are then imported again.",
        ) from error
    with journal.transaction():
        for start in range(0, len(rows), _BATCH):
            journal.many(_KEEP, rows[start : start + _BATCH])
        journal.execute("INSERT OR IGNORE INTO merged VALUES (?)", key)
