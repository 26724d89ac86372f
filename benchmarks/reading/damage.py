"""One stored frame of a series, damaged on the server's disk."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

Damage = Callable[[bytes], bytes]


def flip_a_byte(data: bytes) -> bytes:
    """One byte in the middle, where it is in coded pixels."""
    middle = len(data) // 2
    return data[:middle] + bytes([data[middle] ^ 0xFF]) + data[middle + 1 :]


def cut_in_half(data: bytes) -> bytes:
    """The second half is missing."""
    return data[: len(data) // 2]


def overwrite_the_header(data: bytes) -> bytes:
    """The stream's main header is zero: no decoder can begin."""
    return bytes(64) + data[64:]


DAMAGES: dict[str, Damage] = {
    "a flipped byte": flip_a_byte,
    "cut in half": cut_in_half,
    "no stream header": overwrite_the_header,
}


def damage_stored(root: Path, frame: bytes, damage: Damage) -> None:
    """Replace the frame in the state folder of the local cloud, which keeps a frame as a file named by its
    SHA-256, and does not look at it when it is read.

    Args:
        root: State folder of the cloud.
        frame: The frame's stored bytes as they are when intact.
        damage: What is done to them.
    """
    (file,) = root.rglob(hashlib.sha256(frame).hexdigest())
    file.write_bytes(damage(frame))
