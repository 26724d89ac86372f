"""Decoders of stored frames, by transfer syntax.

HealthImaging stores most frames as HTJ2K lossless and keeps some as they were imported (developer guide,
"Supported transfer syntaxes"). The frame's checksum is over the decoded pixels for the former and over the
stored bytes for the latter ("Pixel data verification").

A decoder turns bytes into pixels; whether they are the right ones is for `healthimaging.frames.decoding` to
say. OpenJPH in particular returns wrong pixels without an error for most damaged streams, so nothing here may
be trusted without that check.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import imagecodecs
import numpy as np
import numpy.typing as npt

from healthimaging.frames.codestream import Codestream, read_codestream
from healthimaging.metadata import Attributes

PixelArray = npt.NDArray[np.generic]


@dataclass(frozen=True, kw_only=True)
class FrameLayout:
    """What the header announces of every frame of an instance (DICOM PS3.3 section C.7.6.3.1)."""

    rows: int
    columns: int
    samples_per_pixel: int
    bits_allocated: int
    bits_stored: int
    signed: bool
    """PixelRepresentation is 1."""
    photometric_interpretation: str
    planar: bool
    """PlanarConfiguration is 1. It says how uncompressed colour is stored; decoded frames never are."""

    @classmethod
    def from_attributes(cls, attributes: Attributes) -> FrameLayout:
        """Reads the layout from an instance's attributes.

        Raises:
            ValueError: An attribute is missing or out of range; the message names it.
        """
        numbers: dict[str, int] = {}
        for keyword in ("Rows", "Columns", "BitsAllocated"):
            number = attributes.integer(keyword)
            if number is None or number < 1:
                msg = f"{keyword} is missing or not a positive number"
                raise ValueError(msg)
            numbers[keyword] = number
        representation = attributes.integer("PixelRepresentation")
        if representation not in (0, 1):
            msg = "PixelRepresentation is missing or neither 0 nor 1"
            raise ValueError(msg)
        bits = numbers["BitsAllocated"]
        if bits not in (1, 8, 16, 32):
            msg = f"BitsAllocated {bits} is not supported"
            raise ValueError(msg)
        stored = attributes.integer("BitsStored") or bits
        if stored > bits:
            msg = f"BitsStored {stored} exceeds BitsAllocated {bits}"
            raise ValueError(msg)
        return cls(
            rows=numbers["Rows"],
            columns=numbers["Columns"],
            samples_per_pixel=attributes.integer("SamplesPerPixel") or 1,
            bits_allocated=bits,
            bits_stored=stored,
            signed=representation == 1,
            photometric_interpretation=attributes.text("PhotometricInterpretation") or "MONOCHROME2",
            planar=attributes.integer("PlanarConfiguration") == 1,
        )

    def at_level(self, level: int) -> FrameLayout:
        """The layout with rows and columns halved so often, rounded up (ISO/IEC 15444-1 section B.5)."""
        if level < 0:
            msg = f"A level is 0 or more, not {level}"
            raise ValueError(msg)
        return replace(self, rows=-(-self.rows >> level), columns=-(-self.columns >> level))

    @property
    def dtype(self) -> np.dtype[np.generic]:
        """Type of a decoded pixel; bit-packed frames decode to uint8 of 0 and 1."""
        return np.dtype(f"{'i' if self.signed else 'u'}{max(self.bits_allocated // 8, 1)}")

    @property
    def shape(self) -> tuple[int, ...]:
        """(rows, columns), and (rows, columns, samples) for colour."""
        colour = (self.samples_per_pixel,) if self.samples_per_pixel > 1 else ()
        return (self.rows, self.columns, *colour)


@dataclass(frozen=True, kw_only=True)
class Codec:
    """A way of storing frames."""

    name: str
    decode: Callable[[bytes, FrameLayout, PixelArray | None], PixelArray]
    """Bytes to an array of `layout.shape`, native byte order; raises any exception on bytes that it cannot
    read. An array that is given, of the layout's shape and type, may be filled and returned.
    """
    checksum_over_pixels: bool
    """Whether the checksum is over the decoded pixels (little endian) rather than over the stored bytes."""
    announces: Callable[[bytes], Codestream] | None = None
    """What the stream's own header says of the whole frame; raises ValueError where that cannot be."""
    reduce: Callable[[bytes, int], PixelArray] | None = None
    """As `decode`, at a level: a lower resolution that the stream itself holds."""
    undoes: frozenset[str] = frozenset()
    """Values of PhotometricInterpretation whose colour transform decoding undoes: the pixels are RGB
    afterwards.
    """


def _htj2k(data: bytes, layout: FrameLayout, out: PixelArray | None) -> PixelArray:
    decoded: PixelArray = imagecodecs.htj2k_decode(data, out=out)
    return decoded


def _htj2k_reduced(data: bytes, level: int) -> PixelArray:
    decoded: PixelArray = imagecodecs.htj2k_decode(data, skipres=level)
    return decoded


def _jpeg2000(data: bytes, layout: FrameLayout, out: PixelArray | None) -> PixelArray:
    decoded: PixelArray = imagecodecs.jpeg2k_decode(data)
    return decoded


def _jpeg_xl(data: bytes, layout: FrameLayout, out: PixelArray | None) -> PixelArray:
    decoded: PixelArray = imagecodecs.jpegxl_decode(data)
    return decoded


def _jpeg(data: bytes, layout: FrameLayout, out: PixelArray | None) -> PixelArray:
    if layout.samples_per_pixel == 1:
        grey: PixelArray = imagecodecs.jpeg8_decode(data)
        return grey
    # With an Adobe or JFIF marker the stream says itself which colours it holds, and the decoder follows it;
    # without, libjpeg guesses YCbCr, which is wrong for streams that DICOM declares as RGB.
    stored_as_rgb = layout.photometric_interpretation == "RGB" and not _names_its_colours(data)
    decoded: PixelArray = imagecodecs.jpeg8_decode(
        data, colorspace="RGB" if stored_as_rgb else None, outcolorspace="RGB"
    )
    return decoded


def _names_its_colours(data: bytes) -> bool:
    """Whether a JPEG stream has a JFIF or Adobe marker of full length, which tells libjpeg the colours."""
    position = 2
    while position + 4 <= len(data) and data[position] == 0xFF:
        marker, length = data[position + 1], int.from_bytes(data[position + 2 : position + 4], "big")
        content = data[position + 4 : position + 2 + length]
        if marker == 0xE0 and content.startswith(b"JFIF\0") and len(content) >= 14:
            return True
        if marker == 0xEE and content.startswith(b"Adobe") and len(content) >= 12:
            return True
        if marker == 0xDA:  # the scan: no markers of this kind follow
            return False
        position += 2 + length
    return False


def _uncompressed(data: bytes, layout: FrameLayout, out: PixelArray | None) -> PixelArray:
    if layout.bits_allocated == 1:
        return _bit_packed(data, layout)
    count = int(np.prod(layout.shape))
    expected = count * layout.dtype.itemsize
    # A frame of odd length may carry DICOM's padding byte (PS3.5 section 8.1.1).
    if len(data) not in (expected, expected + expected % 2):
        msg = f"{len(data)} bytes where {expected} are expected"
        raise ValueError(msg)
    pixels = np.frombuffer(data, dtype=layout.dtype.newbyteorder("<"), count=count)
    if layout.planar and layout.samples_per_pixel > 1:
        planes = pixels.reshape(layout.samples_per_pixel, layout.rows, layout.columns)
        return np.ascontiguousarray(np.moveaxis(planes, 0, -1)).astype(layout.dtype, copy=False)
    return pixels.reshape(layout.shape).astype(layout.dtype, copy=False)


def _bit_packed(data: bytes, layout: FrameLayout) -> PixelArray:
    """One bit a pixel, the first in the lowest bit (DICOM PS3.5 section 8.1.1); a frame starts on a byte."""
    count = layout.rows * layout.columns * layout.samples_per_pixel
    expected = (count + 7) // 8
    if len(data) not in (expected, expected + expected % 2):
        msg = f"{len(data)} bytes where {expected} are expected"
        raise ValueError(msg)
    bits = np.unpackbits(np.frombuffer(data, dtype=np.uint8), count=count, bitorder="little")
    return bits.reshape(layout.shape)


_JPEG_COLOURS = frozenset({"YBR_FULL", "YBR_FULL_422", "YBR_PARTIAL_420", "XYB"})
_JPEG_2000_COLOURS = frozenset({"YBR_RCT", "YBR_ICT"})

CODECS: Mapping[str, Codec] = {
    "1.2.840.10008.1.2.4.201": Codec(
        name="HTJ2K lossless",
        decode=_htj2k,
        reduce=_htj2k_reduced,
        checksum_over_pixels=True,
        announces=read_codestream,
        undoes=_JPEG_2000_COLOURS,
    ),
    "1.2.840.10008.1.2.4.202": Codec(
        name="HTJ2K lossless RPCL",
        decode=_htj2k,
        reduce=_htj2k_reduced,
        checksum_over_pixels=True,
        announces=read_codestream,
        undoes=_JPEG_2000_COLOURS,
    ),
    "1.2.840.10008.1.2.4.203": Codec(
        name="HTJ2K",
        decode=_htj2k,
        reduce=_htj2k_reduced,
        checksum_over_pixels=False,
        undoes=_JPEG_2000_COLOURS,
    ),
    "1.2.840.10008.1.2.4.90": Codec(
        name="JPEG 2000 lossless",
        decode=_jpeg2000,
        checksum_over_pixels=True,
        announces=read_codestream,
        undoes=_JPEG_2000_COLOURS,
    ),
    "1.2.840.10008.1.2.4.91": Codec(
        name="JPEG 2000", decode=_jpeg2000, checksum_over_pixels=False, undoes=_JPEG_2000_COLOURS
    ),
    "1.2.840.10008.1.2.4.50": Codec(
        name="JPEG baseline", decode=_jpeg, checksum_over_pixels=False, undoes=_JPEG_COLOURS
    ),
    "1.2.840.10008.1.2.4.112": Codec(
        name="JPEG XL", decode=_jpeg_xl, checksum_over_pixels=False, undoes=_JPEG_COLOURS
    ),
    "1.2.840.10008.1.2.1": Codec(name="uncompressed", decode=_uncompressed, checksum_over_pixels=False),
}
"""By Transfer Syntax UID. Video is not here: its frames are not separate streams."""
