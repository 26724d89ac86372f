"""The journal of ingests into one datastore: a SQLite file that says how far each file has come.

It is what bounds the memory of an ingest, and what makes one that was broken off go on. It holds names of
files and UIDs, so it can be read by its owner only. Several processes may use one journal at the same time.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
import threading
import uuid
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from workbench.errors import WorkbenchError

VERSION = 2

_SCHEMA = """
CREATE TABLE run (id TEXT PRIMARY KEY, started REAL NOT NULL);
-- One row a file that a run was given.
CREATE TABLE given (
    run TEXT NOT NULL, number INTEGER NOT NULL,
    place TEXT NOT NULL, path TEXT NOT NULL, member TEXT NOT NULL, name TEXT NOT NULL,
    stamp TEXT NOT NULL, size INTEGER NOT NULL,
    instance TEXT, content TEXT, study TEXT,
    -- pending: to be settled, blocked: other content is under way, waiting: in another run's chunk,
    -- sent: in a chunk of this run. Then imported, already, duplicate, failed, quarantined, skipped.
    state TEXT NOT NULL, kind TEXT NOT NULL DEFAULT '', reason TEXT NOT NULL DEFAULT '',
    chunk TEXT, image_set_id TEXT, version_id INTEGER, is_primary INTEGER,
    PRIMARY KEY (run, number)
) WITHOUT ROWID;
CREATE UNIQUE INDEX given_identity ON given (run, path, member);
CREATE INDEX given_folded ON given (run, lower(path), lower(member));
CREATE INDEX given_instance ON given (run, instance);
CREATE INDEX given_state ON given (run, state);
CREATE INDEX given_chunk ON given (chunk);
-- What a DICOMDIR says is there.
CREATE TABLE reference (
    run TEXT NOT NULL, place TEXT NOT NULL, path TEXT NOT NULL, member TEXT NOT NULL, name TEXT NOT NULL,
    PRIMARY KEY (run, path, member)
) WITHOUT ROWID;
-- What reading a file found: it is not read again while its stamp is the same.
CREATE TABLE seen (
    path TEXT NOT NULL, member TEXT NOT NULL, stamp TEXT NOT NULL, uid TEXT NOT NULL, study TEXT NOT NULL,
    sha256 TEXT NOT NULL, PRIMARY KEY (path, member)
) WITHOUT ROWID;
-- One import job each, with the token that was chosen before its start.
CREATE TABLE chunk (
    id TEXT PRIMARY KEY, run TEXT NOT NULL, number INTEGER NOT NULL,
    -- planned, uploading, uploaded, started, completed, read, then done or failed.
    state TEXT NOT NULL, deidentified INTEGER NOT NULL, prefix TEXT NOT NULL, token TEXT NOT NULL,
    job TEXT, output_uri TEXT
) WITHOUT ROWID;
CREATE INDEX chunk_state ON chunk (state);
CREATE TABLE chunk_file (
    chunk TEXT NOT NULL, number INTEGER NOT NULL,
    instance TEXT NOT NULL, content TEXT NOT NULL,
    place TEXT NOT NULL, path TEXT NOT NULL, member TEXT NOT NULL, stamp TEXT NOT NULL, size INTEGER NOT NULL,
    -- planned, uploaded, then imported, failed, quarantined.
    state TEXT NOT NULL, kind TEXT NOT NULL DEFAULT '', reason TEXT NOT NULL DEFAULT '',
    image_set_id TEXT, version_id INTEGER, is_primary INTEGER,
    PRIMARY KEY (chunk, number)
) WITHOUT ROWID;
CREATE INDEX chunk_file_instance ON chunk_file (instance);
CREATE TABLE warning (
    chunk TEXT NOT NULL, number INTEGER NOT NULL, code TEXT NOT NULL, message TEXT NOT NULL
);
CREATE INDEX warning_chunk ON warning (chunk);
-- Chunks that need more work, and the files that they claim.
CREATE VIEW open_chunk AS SELECT * FROM chunk WHERE state NOT IN ('done', 'failed');
CREATE VIEW claimed AS
    SELECT f.instance, f.content, f.chunk FROM chunk_file f JOIN open_chunk c ON c.id = f.chunk
    WHERE f.state <> 'failed';
-- Chunks without work and without a run that tells of them: history, which the ledgers keep.
CREATE VIEW past_chunk AS SELECT id FROM chunk WHERE state IN ('done', 'failed')
    AND run NOT IN (SELECT id FROM run) AND id NOT IN (SELECT chunk FROM given WHERE state = 'waiting');
"""

_LEDGERS = """
-- What the datastore holds, as ledgers in S3 say it; `at` is when S3 took the ledger, `version_id` what the
-- job made of the image set, `newest_version_id` what it has become since.
CREATE TABLE ledger (
    sequence INTEGER PRIMARY KEY AUTOINCREMENT,
    instance TEXT NOT NULL, job TEXT NOT NULL, content TEXT NOT NULL, at REAL NOT NULL,
    image_set_id TEXT NOT NULL, version_id INTEGER NOT NULL, newest_version_id INTEGER NOT NULL,
    is_primary INTEGER NOT NULL,
    UNIQUE (instance, job)
);
CREATE INDEX ledger_image_set ON ledger (image_set_id);
CREATE TABLE merged (key TEXT PRIMARY KEY) WITHOUT ROWID;
-- The entry of each instance that says what the datastore holds; `workbench.ingesting.ledger` has the rule.
CREATE VIEW held AS
    SELECT l.instance, l.content, l.image_set_id, l.newest_version_id AS version_id, l.is_primary
    FROM ledger l WHERE NOT EXISTS (SELECT 1 FROM ledger n WHERE n.instance = l.instance AND (
        (n.image_set_id = l.image_set_id
            AND (n.version_id, n.at, n.sequence) > (l.version_id, l.at, l.sequence))
        OR (n.image_set_id <> l.image_set_id AND (n.at, n.sequence) > (
            SELECT m.at, m.sequence FROM ledger m WHERE m.instance = l.instance
            AND m.image_set_id = l.image_set_id ORDER BY m.at DESC, m.sequence DESC LIMIT 1))));
"""
_FORGET_LEDGERS = """
DROP VIEW held;
DROP TABLE ledger;
DROP TABLE merged;
"""
"""Of version 1, which kept no versions of their own: what ledgers say is read again from S3."""

_STEPS = {0: _SCHEMA + _LEDGERS, 1: _FORGET_LEDGERS + _LEDGERS}
"""What makes a journal of this version of an empty file, and of one of an earlier version."""
_BUSY_SECONDS = 60.0


class Journal:
    """One open journal, for all threads of a process.

    Args:
        path: The file; made, with its folder, where it is missing.
        original: The journal that this one is a copy of: its runs are alive here, too.

    Raises:
        WorkbenchError: The file is not a journal of this version.
    """

    def __init__(self, path: Path, *, original: Path | None = None) -> None:
        self.path = path
        self.locks = _locks(path)
        self._all_locks = [self.locks] if original is None else [self.locks, _locks(original)]
        self._lock = threading.RLock()
        self._held: dict[str, int] = {}
        try:
            self.locks.mkdir(parents=True, exist_ok=True, mode=0o700)
            # Made here: SQLite makes its other files with the mode of this one.
            os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
        except OSError as error:
            raise WorkbenchError(
                f"{path} cannot be written: {error.strerror or type(error).__name__}.",
                advice="Name a journal in a folder that you may write to: --journal FILE.",
            ) from error
        self._connection = sqlite3.connect(
            path, timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False
        )
        self._connection.row_factory = sqlite3.Row
        try:
            self._connection.execute("PRAGMA journal_mode = WAL")
            # What is written down survives the power, too: an image set is made before it stands here.
            self._connection.execute("PRAGMA synchronous = FULL")
            with self.transaction():
                (version,) = self._connection.execute("PRAGMA user_version").fetchone()
                if version in _STEPS:
                    if version and original is None:
                        self._refuse_while_alive()
                    for statement in _STEPS[version].split(";\n"):
                        self._connection.execute(statement)
                    self._connection.execute(f"PRAGMA user_version = {VERSION}")
        except WorkbenchError:
            self._connection.close()
            raise
        except sqlite3.DatabaseError as error:
            self._connection.close()
            raise WorkbenchError(
                f"{path} is not a journal of ingests: {error}.",
                advice="Name another with --journal. What the archive holds is in the ledgers in S3, too.",
            ) from error
        if version not in (*_STEPS, VERSION):
            self._connection.close()
            raise WorkbenchError(
                f"{path} is a journal of version {version}, and this program writes version {VERSION}.",
                advice="Name another with --journal. What the archive holds is in the ledgers in S3, too.",
            )

    def close(self) -> None:
        """Close it; runs that are still open count as broken off from now on."""
        for run in list(self._held):
            self._release(run)
        self._connection.close()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Everything within it happens at once or not at all; nobody else writes meanwhile."""
        with self._lock:
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield
            except BaseException:
                self._connection.execute("ROLLBACK")
                raise
            self._connection.execute("COMMIT")

    def execute(self, sql: str, *values: Any) -> int:
        """Run a statement; the number of rows that it changed."""
        with self._lock:
            return self._connection.execute(sql, values).rowcount

    def many(self, sql: str, rows: Sequence[Sequence[Any]]) -> int:
        """Run a statement for every row of values; the number of rows that it changed."""
        with self._lock:
            return self._connection.executemany(sql, rows).rowcount if rows else 0

    def one(self, sql: str, *values: Any) -> Any:
        """The first row of a query, or None."""
        with self._lock:
            return self._connection.execute(sql, values).fetchone()

    def all(self, sql: str, *values: Any) -> list[sqlite3.Row]:
        """All rows of a query whose number is bounded."""
        with self._lock:
            return self._connection.execute(sql, values).fetchall()

    def each(self, sql: str, *values: Any) -> Iterator[sqlite3.Row]:
        """The rows of a query one after the other; to be read to their end by one thread."""
        cursor = self._connection.execute(sql, values)
        while rows := self._fetch(cursor):
            yield from rows

    def _fetch(self, cursor: sqlite3.Cursor) -> list[sqlite3.Row]:
        with self._lock:
            return cursor.fetchmany(500)

    def begin_run(self, *, now: float) -> str:
        """A new run; it is alive until `end_run`, `close`, or the end of the process."""
        run = uuid.uuid4().hex
        # Locked before anyone can read of it: who finds it unlocked takes over its work.
        handle = os.open(self.locks / run, os.O_CREAT | os.O_RDWR, 0o600)
        fcntl.flock(handle, fcntl.LOCK_EX)
        self._held[run] = handle
        self.execute("INSERT INTO run VALUES (?, ?)", run, now)
        return run

    def end_run(self, run: str) -> None:
        """The run's report has been made: forget what it was given."""
        with self.transaction():
            self._forget(run)
        self._release(run)

    def alive(self, run: str) -> bool:
        """Whether the process of a run still works on it."""
        return run in self._held or any(_locked(folder / run) for folder in self._all_locks)

    def forget_dead_runs(self) -> None:
        """Remove what runs were given that were broken off; their chunks stay."""
        for row in self.all("SELECT id FROM run"):
            if not self.alive(row["id"]):
                with self.transaction():
                    self._forget(row["id"])
                (self.locks / row["id"]).unlink(missing_ok=True)

    @classmethod
    def copy_of(cls, original: Path, to: Path) -> Journal:
        """A copy that may be changed without any effect on the original, which is only read. It knows the
        same runs as alive.

        Raises:
            WorkbenchError: The original is not a journal, or cannot be read.
        """
        os.close(os.open(to, os.O_CREAT | os.O_RDWR, 0o600))
        try:
            with (
                closing(sqlite3.connect(f"{original.resolve().as_uri()}?mode=ro", uri=True)) as source,
                closing(sqlite3.connect(to)) as target,
            ):
                source.backup(target)
        except sqlite3.DatabaseError as error:
            raise WorkbenchError(
                f"{original} is not a journal of ingests, or cannot be read: {error}.",
                advice="Name another with --journal. What the archive holds is in the ledgers in S3, too.",
            ) from error
        return cls(to, original=original)

    def _refuse_while_alive(self) -> None:
        """An earlier version's program would go on in tables that it does not know any more."""
        if any(self.alive(row["id"]) for row in self._connection.execute("SELECT id FROM run")):
            raise WorkbenchError(
                f"An ingest of an earlier version of this program is working with {self.path}.",
                advice="Wait for its end, or end it: this one goes on where it was.",
            )

    def _forget(self, run: str) -> None:
        self.execute("DELETE FROM given WHERE run = ?", run)
        self.execute("DELETE FROM reference WHERE run = ?", run)
        self.execute("DELETE FROM run WHERE id = ?", run)
        self.execute("DELETE FROM warning WHERE chunk IN (SELECT id FROM past_chunk)")
        self.execute("DELETE FROM chunk_file WHERE chunk IN (SELECT id FROM past_chunk)")
        self.execute("DELETE FROM chunk WHERE id IN (SELECT id FROM past_chunk)")

    def _release(self, run: str) -> None:
        os.close(self._held.pop(run))
        if not self.one("SELECT 1 FROM run WHERE id = ?", run):
            (self.locks / run).unlink(missing_ok=True)


def _locks(path: Path) -> Path:
    """Folder of the files that say which runs of a journal are alive."""
    return path.with_name(f"{path.name}.runs")


def _locked(path: Path) -> bool:
    try:
        handle = os.open(path, os.O_RDWR)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(handle)
    return False
