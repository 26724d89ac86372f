"""One file as a source found it, and how its bytes are read again."""

from __future__ import annotations

import lzma
import os
import threading
import zipfile
import zlib
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import PurePosixPath
from tempfile import SpooledTemporaryFile
from typing import IO, Any, BinaryIO, Literal, cast

from arrival.s3_uri import split_s3_uri
from workbench.ingesting.content import NotDicom, Refused

Place = Literal["file", "zip", "s3"]

IN_MEMORY = 16 << 20
"""What comes from a zip or from S3 is kept in memory up to this size, and in a temporary file beyond it."""
_OPEN_ZIPS = 4
_BLOCK = 1 << 20


@dataclass(frozen=True, kw_only=True)
class Found:
    """A file of a folder, a member of a zip, or an object in S3."""

    place: Place
    path: str
    """The file, the zip file, or the S3 URI; links are resolved, so that one file has one path."""
    member: str = ""
    """Name within the zip."""
    link: str = ""
    """Of a file: its path as it was come upon, with links. What a DICOMDIR names lies beside it."""
    name: str
    """As the person who gave it would recognise it."""
    size: int = 0
    stamp: str = ""
    """Changes when the content does: size, times and inode, or the ETag."""
    problem: Refused | NotDicom | None = None
    """Known without reading: a broken link, a folder that may not be listed, a zip within a zip."""

    @property
    def stored_path(self) -> str | bytes:
        """The path as the journal has it."""
        return storable(self.path)

    @property
    def file_name(self) -> str:
        """The last part of the name."""
        return PurePosixPath((self.member or self.path).replace("\\", "/")).name


def storable(path: str) -> str | bytes:
    """A path as SQLite takes it: bytes where it is no UTF-8. `os.fsdecode` makes a path of either."""
    try:
        path.encode()
    except UnicodeEncodeError:
        return os.fsencode(path)
    return path


def shown(path: str | bytes) -> str:
    r"""The path as it can be printed: bytes that are no UTF-8, as old archives have them, become \xNN."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


class Opener:
    """Opens what was found; safe for several threads.

    Args:
        s3: boto3 `s3` client with the caller's own rights.
    """

    def __init__(self, s3: Any) -> None:
        self._s3 = s3
        self._zips: OrderedDict[str, zipfile.ZipFile] = OrderedDict()
        self._lock = threading.Lock()

    @contextmanager
    def open(self, place: Place, path: str | bytes, member: str, *, etag: str = "") -> Iterator[BinaryIO]:
        """The bytes at their begin, seekable; `path` as `Found` or the journal has it.

        Raises:
            OSError: It cannot be read.
            zipfile.BadZipFile: The zip is damaged there, or no longer has the member.
            ClientError: S3 refuses, also where the object is no longer the one with `etag`.
        """
        path = os.fsdecode(path)
        if place == "file":
            with open(path, "rb") as file:
                yield file
            return
        with SpooledTemporaryFile(max_size=IN_MEMORY) as spool:
            if place == "zip":
                self._unpack(path, member, spool)
            else:
                _copy(self._object(path, etag), spool)
            spool.seek(0)
            yield cast(BinaryIO, spool)

    def begin(self, place: Place, path: str | bytes, member: str, length: int, *, etag: str = "") -> bytes:
        """The first `length` bytes, or all where there are fewer; nothing else is unpacked or fetched.

        Raises:
            OSError, zipfile.BadZipFile, ClientError: As `open`.
        """
        path = os.fsdecode(path)
        if place == "file":
            with open(path, "rb") as file:
                return file.read(length)
        if place == "zip":
            with _damage(), self._zip(path).open(member) as source:
                return source.read(length)
        return bytes(self._object(path, etag, Range=f"bytes=0-{length - 1}").read())

    def close(self) -> None:
        """Close the zip files."""
        with self._lock:
            while self._zips:
                self._zips.popitem()[1].close()

    def _object(self, uri: str, etag: str, **more: str) -> Any:
        """The body of an object of S3, as long as it is the one with `etag`."""
        bucket, key = split_s3_uri(uri)
        condition = {"IfMatch": etag} if etag else {}
        return self._s3.get_object(Bucket=bucket, Key=key, **condition, **more)["Body"]

    def _unpack(self, path: str, member: str, target: Any) -> None:
        with _damage(), self._zip(path).open(member) as source:
            _copy(source, target)

    def _zip(self, path: str) -> zipfile.ZipFile:
        with self._lock:
            if path in self._zips:
                self._zips.move_to_end(path)
            else:
                self._zips[path] = zipfile.ZipFile(path)
                # Not closed here: another thread may be reading from it. The last reference closes it.
                while len(self._zips) > _OPEN_ZIPS:
                    self._zips.popitem(last=False)
            return self._zips[path]


@contextmanager
def _damage() -> Iterator[None]:
    """What zipfile and the codecs raise on damage (in a name: UnicodeDecodeError, a ValueError), on unknown
    compressions, and for missing members, as BadZipFile.
    """
    try:
        yield
    except (
        *(zlib.error, lzma.LZMAError, EOFError, NotImplementedError, RuntimeError, KeyError),
        *(ValueError, IndexError),
    ) as error:
        raise zipfile.BadZipFile(type(error).__name__) from error


def _copy(source: IO[bytes], target: Any) -> None:
    while block := source.read(_BLOCK):
        target.write(block)
