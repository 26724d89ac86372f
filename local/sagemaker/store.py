"""State of SageMaker: JSON documents by kind and name in one SQLite file under the state root.

A document is written whole in one transaction, so a kill at any moment leaves the last complete state.
"""

from __future__ import annotations

import json
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

Document = dict[str, Any]

_SCHEMA = """
CREATE TABLE IF NOT EXISTS documents (
    kind TEXT NOT NULL,
    name TEXT NOT NULL,
    sequence INTEGER NOT NULL,
    body TEXT NOT NULL,
    PRIMARY KEY (kind, name)
);
"""


def now() -> datetime:
    """The time to the millisecond, as SageMaker gives it."""
    moment = datetime.now(UTC)
    return moment.replace(microsecond=moment.microsecond // 1000 * 1000)


class Store:
    """Documents of every kind. Safe for threads; a change is atomic."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._lock = threading.RLock()
        self._database = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
        self._database.execute("PRAGMA journal_mode=WAL")
        self._database.execute("PRAGMA synchronous=NORMAL")
        self._database.executescript(_SCHEMA)

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._database.close()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Several reads and writes as one."""
        with self._lock:
            if self._database.in_transaction:
                yield
                return
            self._database.execute("BEGIN IMMEDIATE")
            try:
                yield
            except BaseException:
                self._database.execute("ROLLBACK")
                raise
            self._database.execute("COMMIT")

    def add(self, kind: str, name: str, body: Document) -> bool:
        """Write a new document; False if there is one of this kind and name."""
        with self._lock:
            cursor = self._database.execute(
                "INSERT INTO documents "
                "VALUES (?, ?, (SELECT COALESCE(MAX(sequence), 0) + 1 FROM documents), ?) "
                "ON CONFLICT DO NOTHING",
                (kind, name, _encode(body)),
            )
            return cursor.rowcount == 1

    def get(self, kind: str, name: str) -> Document | None:
        """The document, or None."""
        with self._lock:
            row = self._database.execute(
                "SELECT body FROM documents WHERE kind = ? AND name = ?", (kind, name)
            ).fetchone()
        return _decode(row[0]) if row else None

    def put(self, kind: str, name: str, body: Document) -> None:
        """Write a document anew."""
        with self._lock:
            self._database.execute(
                "UPDATE documents SET body = ? WHERE kind = ? AND name = ?", (_encode(body), kind, name)
            )

    def change(self, kind: str, name: str, change: Callable[[Document], None]) -> Document | None:
        """Read, change and write in one transaction; the new document, None if there is none."""
        with self.transaction():
            body = self.get(kind, name)
            if body is not None:
                change(body)
                self.put(kind, name, body)
            return body

    def delete(self, kind: str, name: str) -> bool:
        """Remove a document; whether there was one."""
        with self._lock:
            cursor = self._database.execute("DELETE FROM documents WHERE kind = ? AND name = ?", (kind, name))
            return cursor.rowcount == 1

    def all(self, kind: str) -> list[Document]:
        """Every document of a kind, oldest first."""
        with self._lock:
            rows = self._database.execute(
                "SELECT body FROM documents WHERE kind = ? ORDER BY sequence", (kind,)
            ).fetchall()
        return [_decode(row[0]) for row in rows]


def _encode(body: Document) -> str:
    return json.dumps(body, default=_encode_value)


def _encode_value(value: Any) -> Any:
    if isinstance(value, datetime):
        return {"$time": value.timestamp()}
    if isinstance(value, bytes):
        return {"$bytes": value.hex()}
    raise TypeError(f"cannot store a {type(value).__name__}")


def _decode(text: str) -> Document:
    body: Document = json.loads(text, object_hook=_decode_value)
    return body


def _decode_value(value: dict[str, Any]) -> Any:
    if len(value) == 1:
        if "$time" in value:
            return datetime.fromtimestamp(value["$time"], UTC)
        if "$bytes" in value:
            return bytes.fromhex(value["$bytes"])
    return value
