"""Tables of many small Parquet objects, kept in memory between queries.

Opening a file costs more than reading such a one, and a view reads its tables several times. A file is known
by its path, size and time, so that one which is new, gone or written again is noticed.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pyarrow as pa

WHOLE = 3 * 1024 * 1024
"""Smaller files are read as a whole, by Trino too (parquet.small-file-threshold)."""

_FEWEST = 16
"""Fewer files are left to DuckDB."""
_MOST_ON_DISK = 64 * 1024 * 1024
_MOST_IN_MEMORY = 256 * 1024 * 1024
"""Of all tables together; a table that alone has more is not kept."""

_FILE = "$file"
_Identity = tuple[int, int]


@dataclass(frozen=True, kw_only=True)
class _Kept:
    numbers: Mapping[tuple[Path, _Identity], int]
    """What the rows of a file have in the column `_FILE`."""
    rows: pa.Table


class SmallFiles:
    """Rows of tables by their names."""

    def __init__(self) -> None:
        self._kept: OrderedDict[str, _Kept] = OrderedDict()
        self._lock = threading.Lock()

    def rows(self, name: str, files: Sequence[Path]) -> tuple[pa.Table, int] | None:
        """The rows of all files, a column that a file lacks is null, and the bytes that they have; None where
        the files are few or large, or do not fit each other."""
        if len(files) < _FEWEST:
            return None
        found: dict[tuple[Path, _Identity], None] = {}
        total = 0
        for file in files:
            about = file.stat()
            total += about.st_size
            if about.st_size > WHOLE or total > _MOST_ON_DISK:
                return None
            found[file, (about.st_size, about.st_mtime_ns)] = None
        with self._lock:
            kept = self._kept.get(name)
        kept = _read(list(found), kept)
        if kept is None:
            return None
        self._keep(name, kept)
        return kept.rows.drop_columns([_FILE]), total

    def _keep(self, name: str, kept: _Kept) -> None:
        with self._lock:
            self._kept[name] = kept
            self._kept.move_to_end(name)
            while self._kept and sum(one.rows.nbytes for one in self._kept.values()) > _MOST_IN_MEMORY:
                self._kept.popitem(last=False)


def _read(files: Sequence[tuple[Path, _Identity]], kept: _Kept | None) -> _Kept | None:
    """What was kept, without what is gone and with what is new."""
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    numbers = dict(kept.numbers) if kept else {}
    wanted = set(files)
    parts = []
    if kept is not None:
        left = [number for one, number in numbers.items() if one in wanted]
        keep = kept.rows
        if len(left) < len(numbers):
            keep = keep.filter(pc.is_in(keep[_FILE], pa.array(left, pa.int64())))
        parts.append(keep)
    following = max(numbers.values(), default=-1) + 1
    numbers = {one: number for one, number in numbers.items() if one in wanted}
    for place, one in enumerate(new for new in files if new not in numbers):
        rows = pq.ParquetFile(one[0]).read()
        numbers[one] = following + place
        parts.append(rows.append_column(_FILE, pa.array([following + place] * rows.num_rows, pa.int64())))
    try:
        # One file's types may be wider than another's.
        together = pa.concat_tables(parts, promote_options="permissive").combine_chunks()
    except (pa.ArrowInvalid, pa.ArrowTypeError):
        return None
    return _Kept(numbers=numbers, rows=together)


SMALL_FILES = SmallFiles()
"""Of this process."""
