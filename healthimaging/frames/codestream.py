"""What a JPEG 2000 or HTJ2K codestream says of itself (ISO/IEC 15444-1 annex A).

A decoder believes the stream's main header: one flipped bit in it makes OpenJPH compute for minutes, or take
memory for an image that nobody has. So the header is compared with what is known before anything is decoded.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

_START = b"\xff\x4f\xff\x51"
"""SOC, and SIZ, which must follow."""
_SIZ, _COD, _COC, _SOT = 0xFF51, 0xFF52, 0xFF53, 0xFF90

_MOST_TILES = 65535
_MOST_DECOMPOSITIONS = 32


@dataclass(frozen=True, kw_only=True)
class Codestream:
    """The image that a codestream holds."""

    rows: int
    columns: int
    samples: int
    precision: int
    """Bits of a pixel of the first component."""
    signed: bool

    @property
    def shape(self) -> tuple[int, ...]:
        """(rows, columns), and (rows, columns, samples) for colour."""
        return (self.rows, self.columns, *((self.samples,) if self.samples > 1 else ()))

    @property
    def dtype(self) -> np.dtype[np.generic]:
        """Type that decoders give the pixels."""
        size = 1 if self.precision <= 8 else 2 if self.precision <= 16 else 4
        return np.dtype(f"{'i' if self.signed else 'u'}{size}")


def read_codestream(data: bytes) -> Codestream:
    """Reads and checks the main header; the stream may lie in the boxes of a file.

    Raises:
        ValueError: It is not a codestream, or its header is not what the standard allows.
    """
    start = data.find(_START)
    if start < 0:
        msg = "no codestream"
        raise ValueError(msg)
    found: Codestream | None = None
    styles = 0
    for marker, content in _segments(data, start + 2):
        if marker == _SIZ and found is None:
            found = _image(content)
        elif marker == _COD:
            styles += 1
            _require_coding(content[1:])
        elif marker == _COC:
            _require_coding_of_blocks(content[2 if found is not None and found.samples < 257 else 3 :])
    if found is None or styles != 1:
        msg = "a codestream without image size or coding style"
        raise ValueError(msg)
    return found


def _segments(data: bytes, position: int) -> Iterator[tuple[int, bytes]]:
    """(marker, content) of the main header."""
    while True:
        if position + 4 > len(data):
            msg = "a codestream that ends in its header"
            raise ValueError(msg)
        marker, length = struct.unpack_from(">HH", data, position)
        if marker == _SOT:
            return
        if marker < 0xFF00 or length < 2 or position + 2 + length > len(data):
            msg = "a codestream with a damaged header"
            raise ValueError(msg)
        yield marker, data[position + 4 : position + 2 + length]
        position += 2 + length


def _image(content: bytes) -> Codestream:
    """SIZ (section A.5.1)."""
    try:
        _, x1, y1, x0, y0, tile_x, tile_y, tile_x0, tile_y0, samples = struct.unpack_from(">H8IH", content)
        components = [struct.unpack_from(">BBB", content, 36 + 3 * k) for k in range(samples)]
    except struct.error as error:
        msg = "a codestream with a short image size"
        raise ValueError(msg) from error
    grid = (
        len(content) == 36 + 3 * samples
        and samples >= 1
        and x0 < x1
        and y0 < y1
        and tile_x0 <= x0 < tile_x0 + tile_x
        and tile_y0 <= y0 < tile_y0 + tile_y
        and -(-(x1 - tile_x0) // max(tile_x, 1)) * -(-(y1 - tile_y0) // max(tile_y, 1)) <= _MOST_TILES
    )
    # Components of one image, not subsampled: medical frames have no others.
    if not grid or len(set(components)) != 1 or components[0][1:] != (1, 1):
        msg = "a codestream with an image size that cannot be"
        raise ValueError(msg)
    precision = (components[0][0] & 0x7F) + 1
    if precision > 38:
        msg = f"a codestream of {precision} bits"
        raise ValueError(msg)
    return Codestream(
        rows=y1 - y0,
        columns=x1 - x0,
        samples=samples,
        precision=precision,
        signed=bool(components[0][0] & 0x80),
    )


def _require_coding(content: bytes) -> None:
    """Progression, layers, component transform, and what follows (COD without its style; section A.6.1)."""
    if len(content) < 9:
        msg = "a codestream with a short coding style"
        raise ValueError(msg)
    progression, layers, transform = struct.unpack_from(">BHB", content)
    if progression > 4 or not layers or transform > 1:
        msg = "a codestream with a coding style that cannot be"
        raise ValueError(msg)
    _require_coding_of_blocks(content[4:])


def _require_coding_of_blocks(content: bytes) -> None:
    """Decompositions and code-blocks (SPcod and SPcoc; table A.15)."""
    if len(content) < 5:
        msg = "a codestream with a short coding style"
        raise ValueError(msg)
    decompositions, width, height = content[0], content[1], content[2]
    if decompositions > _MOST_DECOMPOSITIONS or width > 8 or height > 8 or width + height > 8:
        msg = "a codestream with code-blocks that cannot be"
        raise ValueError(msg)
