"""The SQLite file behind the service: one transaction a change, readers never wait for writers (WAL)."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_SCHEMA = """
CREATE TABLE IF NOT EXISTS datastores (
    id TEXT PRIMARY KEY, position INTEGER NOT NULL, name TEXT NOT NULL, status TEXT NOT NULL,
    storage_format TEXT NOT NULL, kms_key_arn TEXT,
    client_token TEXT NOT NULL, request TEXT NOT NULL, created_at REAL NOT NULL, updated_at REAL NOT NULL,
    UNIQUE (client_token));
CREATE TABLE IF NOT EXISTS tags (
    arn TEXT NOT NULL, key TEXT NOT NULL, value TEXT NOT NULL, PRIMARY KEY (arn, key));
CREATE TABLE IF NOT EXISTS jobs (
    id TEXT PRIMARY KEY, position INTEGER NOT NULL, datastore_id TEXT NOT NULL, name TEXT NOT NULL,
    status TEXT NOT NULL, role_arn TEXT NOT NULL, input_uri TEXT NOT NULL, output_uri TEXT NOT NULL,
    input_owner TEXT, client_token TEXT NOT NULL, request TEXT NOT NULL, submitted_at REAL NOT NULL,
    ended_at REAL, message TEXT, result TEXT, UNIQUE (datastore_id, client_token));
CREATE TABLE IF NOT EXISTS image_sets (
    id TEXT PRIMARY KEY, datastore_id TEXT NOT NULL, is_primary INTEGER NOT NULL, state TEXT NOT NULL,
    latest_version INTEGER NOT NULL, created_at REAL NOT NULL, updated_at REAL NOT NULL,
    study_uid TEXT NOT NULL, series_uid TEXT NOT NULL, patient_id TEXT NOT NULL,
    accession_number TEXT NOT NULL, study_id TEXT NOT NULL, study_date TEXT NOT NULL,
    study_moment TEXT NOT NULL, series_number TEXT NOT NULL,
    dicom_tags TEXT NOT NULL);
CREATE INDEX IF NOT EXISTS image_sets_by_study ON image_sets (datastore_id, study_uid, series_uid);
CREATE UNIQUE INDEX IF NOT EXISTS one_primary_image_set_a_series ON image_sets (datastore_id, series_uid)
    WHERE is_primary = 1 AND state <> 'DELETED';
CREATE TABLE IF NOT EXISTS versions (
    image_set_id TEXT NOT NULL, version INTEGER NOT NULL, workflow_status TEXT NOT NULL, state TEXT NOT NULL,
    created_at REAL NOT NULL, updated_at REAL NOT NULL, deleted_at REAL, forced INTEGER NOT NULL,
    document BLOB, PRIMARY KEY (image_set_id, version));
CREATE TABLE IF NOT EXISTS frames (
    image_set_id TEXT NOT NULL, id TEXT NOT NULL, digest TEXT NOT NULL, transfer_syntax TEXT NOT NULL,
    decodable INTEGER NOT NULL, PRIMARY KEY (image_set_id, id)) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS frames_by_digest ON frames (digest);
CREATE TABLE IF NOT EXISTS bulk (
    image_set_id TEXT NOT NULL, id TEXT NOT NULL, digest TEXT NOT NULL,
    PRIMARY KEY (image_set_id, id)) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS bulk_by_digest ON bulk (digest);
CREATE TABLE IF NOT EXISTS outbox (
    position INTEGER PRIMARY KEY AUTOINCREMENT, detail_type TEXT NOT NULL, detail TEXT NOT NULL,
    resource TEXT NOT NULL);
"""


class _Lent:
    """A connection while a thread has it. When the thread ends, it goes back to those that are idle."""

    def __init__(self, connection: sqlite3.Connection, idle: list[sqlite3.Connection]) -> None:
        self.connection = connection
        self._idle = idle

    def __del__(self) -> None:
        self._idle.append(self.connection)


class Database:
    """Connections to the SQLite file, one a thread, and the lock that puts writers in a row.

    Most requests have a thread of their own, and opening a connection costs more than its queries do: the
    next thread goes on with that of one that has ended.
    """

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path = path
        self._local = threading.local()
        self._idle: list[sqlite3.Connection] = []
        self._writing = threading.RLock()
        with self.transaction() as connection:
            for statement in _SCHEMA.split(";"):
                connection.execute(statement)

    def reader(self) -> sqlite3.Connection:
        """This thread's connection, for queries."""
        lent: _Lent | None = getattr(self._local, "lent", None)
        if lent is None:
            try:
                connection = self._idle.pop()
            except IndexError:
                connection = self._open()
            lent = self._local.lent = _Lent(connection, self._idle)
        return lent.connection

    def _open(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self._path, timeout=60, isolation_level=None, check_same_thread=False)
        connection.row_factory = sqlite3.Row
        connection.execute("PRAGMA journal_mode=WAL")
        # A killed process loses nothing with NORMAL; only a power cut could lose the last transactions,
        # whole.
        connection.execute("PRAGMA synchronous=NORMAL")
        return connection

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """All or nothing: commits when the block ends, rolls back when it raises. May not be nested."""
        with self._writing:
            connection = self.reader()
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield connection
            except BaseException:
                connection.execute("ROLLBACK")
                raise
            connection.execute("COMMIT")
