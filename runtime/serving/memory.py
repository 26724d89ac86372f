"""How much memory there is, and how much this process has."""

from __future__ import annotations

import ctypes
import gc
import os
from pathlib import Path

MIB = 1024 * 1024

SHARE = 0.6
"""Of the container's memory, what the models of a multi-model endpoint get together. The rest is for Python
and its libraries (some 700 MiB with torch, MONAI and the App SDK) and for the one volume in work."""

_LIMITS = (
    Path("/sys/fs/cgroup/memory.max"),
    Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"),
)
"""Of control groups version 2 and 1, as a container sees its own."""


def memory_limit(*, limits: tuple[Path, ...] = _LIMITS) -> int:
    """Bytes that this container may use: its control group's limit, or the machine's memory."""
    found = [os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")]
    for path in limits:
        # Version 2 says "max" for no limit, version 1 a number larger than any machine.
        if path.is_file() and (text := path.read_text().strip()).isdecimal():
            found.append(int(text))
    return min(found)


def resident_bytes() -> int:
    """Bytes of this process that are in memory (proc(5), statm)."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def give_back() -> None:
    """Collect what is no longer used, and have glibc return it to the system (malloc_trim(3))."""
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    # Other C libraries have no such function, and return memory by themselves.
    if trim is not None:
        trim(0)
