"""Divides what goes up into chunks, each of which one import job takes."""

from __future__ import annotations

import uuid

from workbench.ingesting.journal import Journal
from workbench.ingesting.options import Options


def make_chunks(journal: Journal, run: str, options: Options, *, deidentified: bool, prefix: str) -> None:
    """Put every pending file of the run into a chunk, within the caller's transaction.

    A study stays together where it fits: two jobs that extend one series at the same time would race for its
    image set. Names in S3 are numbers, not the given names: exports carry patients' names in folders and
    files, and a key is seen in access logs and import manifests.
    """
    row = journal.one("SELECT coalesce(max(number), -1) + 1 FROM chunk WHERE run = ?", run)
    number = int(row[0]) - 1
    chunk, files, bytes_ = "", 0, 0
    study = None
    # A cursor would see the rows that the loop changes.
    journal.execute("DROP TABLE IF EXISTS temp.outgoing")
    journal.execute(
        "CREATE TEMP TABLE outgoing AS SELECT number, instance, content, place, path, member, stamp, size,"
        " study, count(*) OVER (PARTITION BY study) AS study_files,"
        " sum(size) OVER (PARTITION BY study) AS study_bytes"
        " FROM given WHERE run = ? AND state = 'pending' ORDER BY study, name, number",
        run,
    )
    for one in journal.each("SELECT * FROM temp.outgoing ORDER BY rowid"):
        full = files >= options.files_per_job or bytes_ + one["size"] > options.bytes_per_job
        if one["study"] != study:
            study = one["study"]
            fits_alone = (
                one["study_files"] <= options.files_per_job and one["study_bytes"] <= options.bytes_per_job
            )
            full = full or (
                fits_alone
                and (
                    files + one["study_files"] > options.files_per_job
                    or bytes_ + one["study_bytes"] > options.bytes_per_job
                )
            )
        if not chunk or (full and files):
            number += 1
            chunk, files, bytes_ = f"{run}-{number:04d}", 0, 0
            # The token is kept before the job is started: a start whose answer is lost is asked for again
            # with it, and is then the same job.
            journal.execute(
                "INSERT INTO chunk (id, run, number, state, deidentified, prefix, token)"
                " VALUES (?, ?, ?, 'planned', ?, ?, ?)",
                *(chunk, run, number, deidentified, f"{prefix}{run}/{number:04d}/", uuid.uuid4().hex),
            )
        journal.execute(
            "INSERT INTO chunk_file (chunk, number, instance, content, place, path, member, stamp, size,"
            " state) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, 'planned')",
            *(chunk, files, one["instance"], one["content"], one["place"], one["path"], one["member"]),
            *(one["stamp"], one["size"]),
        )
        journal.execute(
            "UPDATE given SET state = 'sent', chunk = ? WHERE run = ? AND number = ?",
            *(chunk, run, one["number"]),
        )
        files += 1
        bytes_ += one["size"]
    journal.execute("DROP TABLE temp.outgoing")
