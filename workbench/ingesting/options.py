"""What a person may choose about an ingest."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from arrival.importing.import_job import BYTES_PER_JOB, FILES_PER_JOB
from workbench.environment import REPOSITORY

JOBS_AT_ONCE = 4
UPLOAD_THREADS = 8
READING_THREADS = 4
JOURNALS = REPOSITORY / "build" / "ingest"
"""Where journals are kept, one a datastore."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """Choices of one ingest.

    Attributes:
        journal: The journal's file; None for `JOURNALS`/<datastore>.sqlite.
        deidentify: Whether files are de-identified before they leave this machine; None for what the
            environment file says.
        replace: Import an instance whose other content the datastore holds. A new version of its image set
            then has the new content.
        again: Import also what the datastore holds with the same content.
        jobs_at_once: Import jobs that run at the same time.
        files_per_job, bytes_per_job: The service's quotas, or less.
        every_seconds: How often jobs, late manifests and other runs are looked at.
    """

    journal: Path | None = None
    deidentify: bool | None = None
    replace: bool = False
    again: bool = False
    jobs_at_once: int = JOBS_AT_ONCE
    files_per_job: int = FILES_PER_JOB
    bytes_per_job: int = BYTES_PER_JOB
    every_seconds: float = 1.0

    def journal_of(self, datastore_id: str) -> Path:
        """The journal of a datastore."""
        return self.journal or JOURNALS / f"{datastore_id}.sqlite"
