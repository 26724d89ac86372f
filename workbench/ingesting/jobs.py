"""Takes one chunk from where the journal says it is to its end."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from arrival.importing.import_job import Archive, JobFailedError, start_import, wait_for_end
from arrival.importing.job_output import JobOutput, read_job_output
from arrival.importing.pacing import StartPace
from workbench.ingesting.journal import Journal
from workbench.ingesting.ledger import line, note_imported, write_ledger
from workbench.ingesting.sending import Sender
from workbench.ingesting.watching import Watcher


@dataclass(frozen=True, kw_only=True)
class ChunkWork:
    """What the work on chunks needs.

    Attributes:
        journal: Every state is written there before the next step begins.
        archive: Where to.
        sender: Uploads.
        medical_imaging: boto3 client.
        s3: boto3 client.
        pace: When a job may be started.
        sleep: Waits; raises when the work shall end.
        watcher: Is told of jobs.
        every_seconds: How often a job is looked at.
    """

    journal: Journal
    archive: Archive
    sender: Sender
    medical_imaging: Any
    s3: Any
    pace: StartPace
    sleep: Callable[[float], None]
    watcher: Watcher
    every_seconds: float

    def finish(self, id: str) -> None:
        """Do what is left to do for a chunk.

        Raises:
            ImportFailedError: Its job does not end, or left no manifest. The chunk stays where it is.
            ClientError: A service refused. The chunk stays where it is.
        """
        steps: dict[str, Callable[[Any], None]] = {
            "planned": self._begin,
            "uploading": self._upload,
            "uploaded": self._start,
            "started": self._wait,
            "completed": self._read,
            "read": self._note,
        }
        while True:
            chunk = self.journal.one("SELECT * FROM chunk WHERE id = ?", id)
            step = steps.get(chunk["state"])
            if step is None:
                return
            step(chunk)

    def advance(
        self, chunk: Any, state: str, *, job: str | None = None, output_uri: str | None = None
    ) -> None:
        """Write down that a chunk has come to `state`."""
        self.journal.execute(
            "UPDATE chunk SET state = ?, job = coalesce(?, job), output_uri = coalesce(?, output_uri)"
            " WHERE id = ?",
            *(state, job, output_uri, chunk["id"]),
        )

    def _begin(self, chunk: Any) -> None:
        self.advance(chunk, "uploading")

    def _upload(self, chunk: Any) -> None:
        if chunk["deidentified"]:
            # What an interrupted upload left in the inbox has no sealed record, and its original may have
            # changed since: each attempt has a place of its own, and only that of the last one is imported.
            place = "/".join(chunk["prefix"].split("/")[:3])
            self.journal.execute(
                "UPDATE chunk SET prefix = ? WHERE id = ?", f"{place}/{uuid.uuid4().hex[:8]}/", chunk["id"]
            )
            chunk = self.journal.one("SELECT * FROM chunk WHERE id = ?", chunk["id"])
        self.sender.send(chunk)
        uploaded = self.journal.one(
            "SELECT 1 FROM chunk_file WHERE chunk = ? AND state = 'uploaded' LIMIT 1", chunk["id"]
        )
        # Of a chunk that is in quarantine as a whole there is nothing to import.
        self.advance(chunk, "uploaded" if uploaded is not None else "done")

    def _start(self, chunk: Any) -> None:
        job = self.pace.start(
            lambda: start_import(
                self.medical_imaging,
                self.archive,
                prefix=chunk["prefix"],
                client_token=chunk["token"],
                name=f"ingest-{chunk['id']}",
            )
        )
        self.advance(chunk, "started", job=job.job_id)
        self.watcher.line(f"import job {job.job_id} started")

    def _wait(self, chunk: Any) -> None:
        try:
            output_uri = wait_for_end(
                self.medical_imaging,
                self.archive,
                chunk["job"],
                every_seconds=self.every_seconds,
                sleep=self.sleep,
            )
        except JobFailedError as error:
            with self.journal.transaction():
                self.journal.execute(
                    "UPDATE chunk_file SET state = 'failed', kind = 'ImportJobFailed', reason = ?"
                    " WHERE chunk = ? AND state = 'uploaded'",
                    *(error.message, chunk["id"]),
                )
                self.advance(chunk, "failed")
            self.watcher.line(error.message)
        else:
            self.advance(chunk, "completed", output_uri=output_uri)
            self.watcher.line(f"import job {chunk['job']} completed")

    def _read(self, chunk: Any) -> None:
        output = read_job_output(
            self.s3,
            job_id=chunk["job"],
            input_uri=f"s3://{self.archive.inbox_bucket}/{chunk['prefix']}",
            output_uri=chunk["output_uri"],
            every_seconds=self.every_seconds,
        )
        with self.journal.transaction():
            self._apply(chunk["id"], output)
            self.advance(chunk, "read")

    def _apply(self, chunk: str, output: JobOutput) -> None:
        journal = self.journal
        # The manifest is the truth, also about a file that was thought not to have been uploaded.
        journal.many(
            "UPDATE chunk_file SET state = 'imported', kind = '', reason = '', image_set_id = ?,"
            " version_id = ?, is_primary = ? WHERE chunk = ? AND number = ?",
            [
                (one.image_set_id, one.version_id, one.is_primary, chunk, _number(one.file))
                for one in output.imported
            ],
        )
        journal.many(
            "UPDATE chunk_file SET state = 'failed', kind = ?, reason = ? WHERE chunk = ? AND number = ?",
            [(one.kind, one.reason, chunk, _number(one.file)) for one in output.failed],
        )
        journal.execute(
            "UPDATE chunk_file SET state = 'failed', kind = 'NotReported',"
            " reason = 'the import job says nothing about this file' WHERE chunk = ? AND state = 'uploaded'",
            chunk,
        )
        journal.execute("DELETE FROM warning WHERE chunk = ?", chunk)
        journal.many(
            "INSERT INTO warning VALUES (?, ?, ?, ?)",
            [(chunk, _number(one.file), one.code, one.message) for one in output.warnings],
        )

    def _note(self, chunk: Any) -> None:
        rows = self.journal.all(
            "SELECT * FROM chunk_file WHERE chunk = ? AND state = 'imported' ORDER BY number", chunk["id"]
        )
        if rows:
            write_ledger(self.s3, self.archive, job=chunk["job"], lines=map(line, rows))
        # Together: what is no longer under way is in, for every run of this journal.
        with self.journal.transaction():
            note_imported(self.journal, job=chunk["job"], rows=rows)
            self.advance(chunk, "done")


def _number(file: str) -> int:
    """Of the key below the chunk's prefix; -1 for a name that no ingest writes."""
    stem = file.removesuffix(".dcm")
    return int(stem) if stem.isdigit() else -1
