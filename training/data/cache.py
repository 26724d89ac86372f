"""Prepared items in files that all processes of a host share.

Files are named by what they hold (a SHA-256 of everything that it depends on), so nothing in the folder is
ever out of date. They are written under another name and renamed, by one process and thread at a time for
each key. A folder that is full, not writable or damaged costs time, never a training.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from training.data.item_file import UnkeepableError, encode, read, size_of, write
from training.stopping import StopRequest

_LOG = logging.getLogger(__name__)

_LOOK_EVERY_SECONDS = 0.05
"""How often one who waits for another's item looks again."""

_GIB = 2**30


class ItemCache:
    """A folder of prepared items. Threads and processes may share it.

    Args:
        folder: Made when it is missing, for this user alone, since patients' images are in it. Its file
            system should be a local disk or memory.
        limit_bytes: Of all files in it together.
    """

    def __init__(self, folder: Path, *, limit_bytes: int) -> None:
        self._folder = folder
        self._limit = limit_bytes
        self._verified: set[str] = set()
        self._telling = threading.Lock()
        self.takes_more = limit_bytes > 0
        """Whether further items are kept: not after the limit was reached or a write failed."""
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            # A folder for all, such as /tmp, is where somebody else could have laid it out before.
            if os.geteuid() not in (0, folder.stat().st_uid):
                self._give_up("is somebody else's")
                return
            with tempfile.TemporaryFile(dir=folder):
                pass
        except OSError as error:
            self._give_up(f"cannot be written ({error.strerror})")

    def item(self, key: str, make: Callable[[], Any], *, stop: StopRequest) -> Any:
        """The item of a key, made if nobody has made it yet. The caller owns it and may change it.

        Args:
            key: SHA-256 of all that the item depends on.
            make: Makes the item. Whatever it raises is raised.
            stop: Looked at while another process makes the item.

        Raises:
            StoppedError: The job was asked to stop.
        """
        found = self._read(key)
        if found is not None:
            return found
        if not self.takes_more:
            return make()
        with self._only_one(key, stop) as alone:
            found = self._read(key)
            if found is not None:
                return found
            item = make()
            if not (alone and self._write(key, item)):
                return item
        # What has just been written, so that the memory of what was made is free again.
        kept = self._read(key)
        return item if kept is None else kept

    def keep(self, key: str, make: Callable[[], Any]) -> None:
        """Makes an item and keeps it, unless it is there or somebody else is making it."""
        if not self.takes_more or self._file(key).exists():
            return
        with self._lock_file(key) as lock:
            if lock is None or not _locked(lock):
                return
            if not self._file(key).exists():
                self._write(key, make())

    def _file(self, key: str) -> Path:
        return self._folder / f"{key}.item"

    def _read(self, key: str) -> Any | None:
        found = read(self._file(key), key=key, verify=key not in self._verified)
        if found is not None:
            self._verified.add(key)
        return found

    @contextlib.contextmanager
    def _only_one(self, key: str, stop: StopRequest) -> Iterator[bool]:
        """Until the end of the block nobody else makes the item; False where locks do not work."""
        with self._lock_file(key) as lock:
            if lock is None:
                yield False
                return
            while not _locked(lock):
                stop.check()
                time.sleep(_LOOK_EVERY_SECONDS)
            yield True

    @contextlib.contextmanager
    def _lock_file(self, key: str) -> Iterator[int | None]:
        """An open file to be locked. The lock ends with it, also when the process is killed.

        Lock files stay: one that is deleted could be locked by two under the same name.
        """
        try:
            file = os.open(self._folder / f"{key}.lock", os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            self._give_up(f"cannot be written ({error.strerror})")
            yield None
            return
        try:
            yield file
        finally:
            os.close(file)

    def _write(self, key: str, item: Any) -> bool:
        """Whether the item is kept now."""
        try:
            encoded = encode(item)
        except UnkeepableError as error:
            self._give_up(f"cannot hold what the bundle's transforms give ({error})")
            return False
        used = bytes_in(self._folder)
        if used + size_of(encoded) > self._limit:
            self._give_up(f"is full: {used / _GIB:.3g} of {self._limit / _GIB:.3g} GiB are used")
            return False
        # Only the holder of the key's lock writes it: what a killed process left is written over.
        part = self._folder / f"{key}.part"
        try:
            with open(part, "wb", buffering=0, opener=_for_this_user) as file:
                write(file, encoded, key=key)
            part.replace(self._file(key))
        except OSError as error:
            free = ""
            with contextlib.suppress(OSError):
                part.unlink(missing_ok=True)
                free = f", {shutil.disk_usage(self._folder).free / _GIB:.3g} GiB of its disk are free"
            self._give_up(f"took {used / _GIB:.3g} GiB and no more ({error.strerror}{free})")
            return False
        return True

    def _give_up(self, why: str) -> None:
        """No further item is kept; what is there is still read."""
        with self._telling:
            if self.takes_more:
                self.takes_more = False
                _LOG.warning(
                    "the cache of prepared cases in %s %s: cases that are not in it are read and prepared "
                    "anew each time. Give the instance more storage, or cache_folder another place",
                    self._folder,
                    why,
                )


def bytes_in(folder: Path) -> int:
    """Of all files in a folder, also those that others are writing; 0 where there is none."""
    used = 0
    # A folder that is missing or no folder is told by `ItemCache`, which also wants to write there.
    with contextlib.suppress(FileNotFoundError, NotADirectoryError), os.scandir(folder) as entries:
        for entry in entries:
            with contextlib.suppress(FileNotFoundError):
                used += entry.stat().st_size
    return used


def _for_this_user(path: str, flags: int) -> int:
    return os.open(path, flags, mode=0o600)


def _locked(file: int) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    # A file system without locks: several may make the same item, and the last one's file stays.
    except OSError:
        return True
    return True
