"""The most memory that this process has had."""

from __future__ import annotations

from pathlib import Path


def peak_bytes() -> int:
    """Resident memory at its most since the program started. `getrusage` would count what its parent had
    before it became this program.
    """
    lines = Path("/proc/self/status").read_text().splitlines()
    (peak,) = (line for line in lines if line.startswith("VmHWM:"))
    return int(peak.split()[1]) * 1024
