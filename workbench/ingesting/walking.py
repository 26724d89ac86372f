"""Files below folders, members of zip files, objects below an S3 prefix: one by one, never as a list."""

from __future__ import annotations

import os
import stat
import zipfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from arrival.s3_uri import split_s3_uri
from workbench.errors import WorkbenchError
from workbench.ingesting.content import NotDicom, Refused
from workbench.ingesting.found import Found, shown

MEMBERS_PER_ZIP = 200_000
"""The directory of a zip is read into memory: about 1 KB a member."""
BOMB_BYTES = 1 << 30
BOMB_RATIO = 200
"""A zip that claims to hold more than `BOMB_BYTES`, and `BOMB_RATIO` times its own size, is refused. Deflate
makes at most 1032 of 1; images make 2 to 5, empty planes up to 100.
"""


def walk(given: str, *, s3: Any) -> Iterator[Found]:
    """Everything below `given`: a file, a folder, a zip file or an S3 URI.

    Raises:
        WorkbenchError: There is no such path.
    """
    if given.startswith("s3://"):
        yield from _objects(given, s3)
        return
    path = Path(given)
    if not os.path.lexists(path):
        raise WorkbenchError(
            f"{given} does not exist.", advice="Give DICOM files, folders or zip files with them, or s3://..."
        )
    if path.is_dir():
        yield from _folder(path)
    else:
        yield from _file(str(path))


def _folder(top: Path) -> Iterator[Found]:
    """Follows links to folders, each folder once, so that links in a circle end."""
    seen: set[tuple[int, int]] = set()
    waiting = [str(top)]
    while waiting:
        folder = waiting.pop()
        try:
            status = os.stat(folder)
            if (status.st_dev, status.st_ino) in seen:
                continue
            seen.add((status.st_dev, status.st_ino))
            real = os.path.realpath(folder)
            entries = os.scandir(folder)
        except OSError as error:
            yield _unreadable(folder, error)
            continue
        with entries:
            while True:
                try:
                    entry = next(entries, None)
                except OSError as error:
                    # A scratched disc or a network drive: what was not listed must not seem to be nothing.
                    yield _unreadable(folder, error)
                    break
                if entry is None:
                    break
                # A link to nowhere or in a circle is no folder; it is reported as a file.
                if _is_folder(entry):
                    waiting.append(entry.path)
                else:
                    # Resolved once a folder: looking up every part of every path would take most of the time.
                    within = None if entry.is_symlink() else os.path.join(real, entry.name)
                    yield from _file(entry.path, real=within)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:
        return False


def _file(path: str, *, real: str | None = None) -> Iterator[Found]:
    """`real` is the path without links, where that is known."""
    try:
        status = os.stat(path)
    except OSError as error:
        yield _unreadable(path, error)
        return
    if not stat.S_ISREG(status.st_mode):
        # A pipe or a device: reading it might never end.
        reason = NotDicom(reason="not a regular file")
        yield Found(place="file", path=real or os.path.realpath(path), name=shown(path), problem=reason)
        return
    stamp = f"{status.st_size}:{status.st_mtime_ns}:{status.st_ctime_ns}:{status.st_ino}"
    real = real or os.path.realpath(path)
    if path.lower().endswith(".zip"):
        yield from _members(path, real, stamp)
        return
    yield Found(
        place="file",
        path=real,
        link=os.path.abspath(path),
        name=shown(path),
        size=status.st_size,
        stamp=stamp,
    )


def _unreadable(path: str, error: OSError) -> Found:
    reason = Refused(kind="Unreadable", reason=error.strerror or type(error).__name__)
    # Absolute, but not resolved: this may be a link that cannot be.
    return Found(place="file", path=os.path.abspath(path), name=shown(path), problem=reason)


def _is_folder_member(one: zipfile.ZipInfo) -> bool:
    r"""Some programs of Windows write "\" between folders, against APPNOTE 4.4.17.1, and "DICOM\" for one."""
    return one.filename.endswith(("/", "\\")) and not one.file_size


def _members(path: str, real: str, stamp: str) -> Iterator[Found]:
    def refused(kind: str, reason: str, member: str = "") -> Found:
        name = f"{shown(path)}/{member}" if member else shown(path)
        return Found(
            place="zip", path=real, member=member, name=name, problem=Refused(kind=kind, reason=reason)
        )

    try:
        archive = zipfile.ZipFile(path)
    except OSError as error:
        yield refused("Unreadable", error.strerror or type(error).__name__)
        return
    except (zipfile.BadZipFile, ValueError, NotImplementedError):
        yield refused("BadZip", "it is named .zip and is not a readable zip file")
        return
    with archive:
        # is_dir() of zipfile breaks on a member without a name.
        members = [one for one in archive.infolist() if not _is_folder_member(one)]
        claimed = sum(one.file_size for one in members)
        if len(members) > MEMBERS_PER_ZIP:
            yield refused("TooManyMembers", f"{len(members)} members; the most is {MEMBERS_PER_ZIP}")
        elif claimed > BOMB_BYTES and claimed > BOMB_RATIO * max(os.path.getsize(path), 1):
            yield refused("ZipBomb", f"it claims to hold {claimed} bytes, too many for its size")
        else:
            if not members:
                reason = NotDicom(reason="an empty zip file")
                yield Found(place="zip", path=real, name=shown(path), problem=reason)
            names = Counter(one.filename for one in members)
            for number, one in enumerate(members, start=1):
                if names[one.filename] > 1:
                    # A member is opened by its name, and which of them that is is each unpacker's choice:
                    # the content of one would pass for the other's.
                    apart = f"{one.filename}#{number}"
                    while apart in names:
                        apart += "#"
                    yield refused("RepeatedMember", "the zip has several members of this name", apart)
                elif one.flag_bits & 0x1:
                    yield refused("EncryptedZip", "the member is encrypted", one.filename)
                elif one.filename.lower().endswith(".zip"):
                    yield refused("ZipInZip", "a zip within a zip: unpack it first", one.filename)
                else:
                    yield Found(
                        place="zip",
                        path=real,
                        member=one.filename,
                        name=f"{shown(path)}/{one.filename}",
                        size=one.file_size,
                        stamp=f"{stamp}:{one.CRC}:{one.file_size}",
                    )


def objects_below(folder: str, *, s3: Any) -> Iterator[Found]:
    """Everything in S3 below the URI `folder`, which ends with a slash; nothing if there is nothing."""
    yield from _objects(folder, s3, may_be_empty=True)


def _objects(uri: str, s3: Any, *, may_be_empty: bool = False) -> Iterator[Found]:
    bucket, prefix = split_s3_uri(uri)
    found = False
    for page in s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix):
        for one in page.get("Contents", []):
            key, size = one["Key"], int(one.get("Size", 0))
            # "export" means the object or the folder of that name, not "exported".
            within = not prefix or prefix.endswith("/") or key == prefix or key.startswith(f"{prefix}/")
            if not within or (key.endswith("/") and not size):
                continue
            found = True
            name = f"s3://{bucket}/{key}"
            stamp = str(one.get("ETag", ""))
            zipped = key.lower().endswith(".zip")
            yield Found(
                place="s3",
                path=name,
                name=name,
                size=size,
                stamp=stamp,
                problem=Refused(kind="ZipInS3", reason="a zip file in S3: unpack it first")
                if zipped
                else None,
            )
    if not found and not may_be_empty:
        raise WorkbenchError(
            f"There is nothing below {uri}.",
            advice="Check the bucket's name and the prefix; nothing was done.",
        )
