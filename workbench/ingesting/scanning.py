"""Reads everything that was given into the journal: one row a file, whatever becomes of it."""

from __future__ import annotations

import os
import warnings
import zipfile
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from io import BytesIO
from pathlib import PurePosixPath

from botocore.exceptions import BotoCoreError, ClientError

from arrival.importing.import_job import BYTES_PER_FILE
from workbench.ingesting.content import (
    BEGIN,
    Content,
    Index,
    Instance,
    NotDicom,
    Refused,
    read_content,
)
from workbench.ingesting.directory_file import folder_of, references
from workbench.ingesting.fate import NOT_THE_FILES
from workbench.ingesting.found import Found, Opener
from workbench.ingesting.journal import Journal
from workbench.ingesting.options import READING_THREADS
from workbench.ingesting.walking import objects_below, walk
from workbench.ingesting.watching import Watcher

Identify = Callable[[Instance], tuple[str, str]]
"""How the instance and its content are named in the journal and in ledgers."""

_BATCH = 200
_WINDOW = 64
"""Files that are being read or wait to be written down; what bounds the memory."""


_MISSING = (
    "SELECT * FROM reference r WHERE run = ? AND NOT EXISTS"
    " (SELECT 1 FROM given g WHERE g.run = r.run AND lower(g.path) = lower(r.path)"
    # Some zips of Windows have backslashes in the names of members.
    " AND lower(g.member) IN (lower(r.member), lower(replace(r.member, '/', char(92)))))"
)
"""What a run's DICOMDIRs name and it was not given."""


class Scanner:
    """Writes what was given into `given`, one run's rows.

    Args:
        journal: Where to.
        run: Whose rows.
        opener: Opens files; its S3 client lists and reads with the caller's rights.
        s3: That client.
        identify: Names an instance and its content.
        leave_out: Whether a file, by its path, belongs to the ingest itself.
        watcher: Is told how many were read.
        stopped: Raises when the work shall end.
    """

    def __init__(
        self,
        journal: Journal,
        run: str,
        *,
        opener: Opener,
        s3: object,
        identify: Identify,
        leave_out: Callable[[str], bool],
        watcher: Watcher,
        stopped: Callable[[], None],
    ) -> None:
        self._journal, self._run = journal, run
        self._opener, self._s3 = opener, s3
        self._identify, self._watcher, self._stopped = identify, watcher, stopped
        self._leave_out = leave_out
        self._rows: list[tuple[object, ...]] = []
        self._seen: list[tuple[str | bytes, ...]] = []
        self._number = self._given = 0
        self._references = False
        self._folders: set[str] = set()
        """Of DICOMDIRs in S3."""

    def scan(self, given: Iterable[str]) -> int:
        """Read all of it; the number of files that were given, each counted once."""
        with warnings.catch_warnings():
            # pydicom warns of odd values, and quotes them. What is odd is the import's to judge.
            warnings.simplefilter("ignore")
            self._read(one for path in given for one in walk(path, s3=self._s3))
            self._read(self._in_s3())
            self._read(self._missing())
        return self._given

    def _read(self, found: Iterable[Found]) -> None:
        pool = ThreadPoolExecutor(READING_THREADS, thread_name_prefix="reading")
        window: deque[tuple[Found, Future[Content]]] = deque()
        try:
            for one in found:
                self._stopped()
                if one.place == "file" and self._leave_out(one.path):
                    continue
                window.append((one, pool.submit(self._content, one)))
                if len(window) >= _WINDOW:
                    self._write(*self._next(window))
            while window:
                self._write(*self._next(window))
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
        self._flush()

    @staticmethod
    def _next(window: deque[tuple[Found, Future[Content]]]) -> tuple[Found, Content]:
        one, future = window.popleft()
        return one, future.result()

    def _content(self, one: Found) -> Content:
        if one.problem is not None:
            return one.problem
        known = self._journal.one(
            "SELECT uid, study, sha256 FROM seen WHERE path = ? AND member = ? AND stamp = ?",
            one.stored_path,
            one.member,
            one.stamp,
        )
        if known is not None:
            return Instance(
                sop_instance_uid=known["uid"], study_instance_uid=known["study"], sha256=known["sha256"]
            )
        etag = one.stamp if one.place == "s3" else ""
        try:
            if one.size > BYTES_PER_FILE:
                # Not opened: what a zip or S3 holds would be unpacked or fetched whole.
                begin = self._opener.begin(one.place, one.stored_path, one.member, BEGIN, etag=etag)
                return read_content(BytesIO(begin), name=one.file_name, size=one.size)
            with self._opener.open(one.place, one.path, one.member, etag=etag) as stream:
                content = read_content(stream, name=one.file_name, size=one.size)
                if isinstance(content, Index):
                    stream.seek(0)
                    listed = references(stream, one)
                    if isinstance(listed, Refused):
                        return listed
                    self._journal.many(
                        "INSERT OR IGNORE INTO reference VALUES (?, ?, ?, ?, ?)",
                        [(self._run, *reference) for reference in listed],
                    )
                    self._references = True
                    if one.place == "s3":
                        self._folders.add(folder_of(one.path))
                return content
        except BotoCoreError:
            # Of the network; some are an OSError as well, and are not the file's fault.
            raise
        except OSError as error:
            return Refused(kind="Unreadable", reason=error.strerror or type(error).__name__)
        except zipfile.BadZipFile:
            return Refused(kind="BadZip", reason="the member cannot be unpacked: the zip file is damaged")
        except ClientError as error:
            code = error.response["Error"].get("Code", "")
            if code in NOT_THE_FILES:
                raise
            return Refused(kind="Unreadable", reason=f"S3 does not give it: {code}")

    def _write(self, one: Found, content: Content) -> None:
        self._number += 1
        instance = key = study = None
        state, kind, reason = "pending", "", ""
        match content:
            case Instance():
                instance, key = self._identify(content)
                study = content.study_instance_uid
                self._seen.append(
                    (
                        *(one.stored_path, one.member, one.stamp),
                        *(content.sop_instance_uid, content.study_instance_uid, content.sha256),
                    )
                )
            case Refused():
                state, kind, reason = "failed", content.kind, content.reason
            case NotDicom():
                state, reason = "skipped", content.reason
            case Index():
                state, reason = "skipped", "a DICOMDIR: a list of files, checked against them"
        self._rows.append(
            (
                *(self._run, self._number, one.place, one.stored_path, one.member),
                *(one.name, one.stamp, one.size),
                *(instance, key, study, state, kind, reason),
            )
        )
        self._watcher.read(1, one.size)
        if len(self._rows) >= _BATCH:
            self._flush()

    def _flush(self) -> None:
        if self._rows:
            with self._journal.transaction():
                # A file that two of the given paths lead to is one file.
                self._given += self._journal.many(
                    "INSERT OR IGNORE INTO given (run, number, place, path, member, name, stamp, size,"
                    " instance, content, study, state, kind, reason)"
                    " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                    self._rows,
                )
                self._journal.many("INSERT OR REPLACE INTO seen VALUES (?, ?, ?, ?, ?, ?)", self._seen)
            self._rows.clear()
            self._seen.clear()

    def _in_s3(self) -> Iterator[Found]:
        """Objects that DICOMDIRs in S3 name and nobody gave, in whatever case their keys are written.

        One listing of each DICOMDIR's folder: a question for each file of it would take hours.
        """
        for folder in sorted(self._folders):
            if self._journal.one(f"{_MISSING} AND r.place = 's3' LIMIT 1", self._run) is None:
                return
            for one in objects_below(folder, s3=self._s3):
                below = one.path.removeprefix(folder)
                named = self._journal.one(
                    # All spellings that occur, and not lower(r.path), for which there is no index.
                    f"{_MISSING} AND r.place = 's3' AND r.path IN (?, ?, ?) LIMIT 1",
                    *(self._run, one.path, folder + below.upper(), folder + below.lower()),
                )
                if named is not None:
                    yield one

    def _missing(self) -> Iterator[Found]:
        """What DICOMDIRs name and nobody gave: read where it is there, else a failure."""
        if not self._references:
            return
        for row in self._journal.all(_MISSING, self._run):
            named = os.fsdecode(row["path"])
            path = _on_disk(named) if row["place"] == "file" else None
            if path is not None:
                yield from walk(path, s3=self._s3)
            else:
                reason = Refused(kind="MissingReference", reason="a DICOMDIR names it, and it is not there")
                yield Found(
                    place=row["place"],
                    path=named,
                    member=row["member"],
                    name=row["name"],
                    problem=reason,
                )


def _on_disk(path: str) -> str | None:
    """The file of that path, in whatever case its name was written: CDs are read in either."""
    if os.path.exists(path):
        return path
    at = "/"
    for part in PurePosixPath(path).parts[1:]:
        exact = os.path.join(at, part)
        if os.path.exists(exact):
            at = exact
            continue
        try:
            same = [name for name in os.listdir(at) if name.lower() == part.lower()]
        except OSError:
            return None
        if len(same) != 1:
            return None
        at = os.path.join(at, same[0])
    return at
