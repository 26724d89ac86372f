"""Frames: decoded, and verified before anyone sees a pixel."""

from __future__ import annotations

import sys
from typing import Any

import imagecodecs
import numpy as np

from healthimaging.errors import (
    FrameChecksumError,
    FrameDecodeError,
    FrameLayoutError,
    UnsupportedTransferSyntaxError,
)
from healthimaging.frames.codecs import CODECS, Codec, FrameLayout, PixelArray
from healthimaging.metadata import FrameRecord, InstanceRecord


def decode_frame(
    data: bytes,
    *,
    instance: InstanceRecord,
    number: int,
    record: FrameRecord,
    level: int = 0,
    out: PixelArray | None = None,
) -> PixelArray:
    """Decodes and verifies one frame.

    Args:
        data: The stored bytes.
        instance: The instance that the frame belongs to.
        number: The frame's number, from 1.
        record: What the metadata says of the frame.
        level: How often rows and columns are halved: pixel (r, c) of level n lies at (r 2^n, c 2^n) of the
            full resolution. HTJ2K gives its own lower resolution, other syntaxes and signed pixels in
            unsigned streams every 2^n-th pixel. Where the metadata has no checksum for the level, the full
            resolution is decoded, too, and verified.
        out: Array to decode into, of the frame's shape and type; is used only where that saves a copy.

    Returns:
        Stored values as (rows, columns) or (rows, columns, samples), in the type that BitsAllocated and
        PixelRepresentation name; `out` itself where it was used.

    Raises:
        UnsupportedTransferSyntaxError: No decoder for the instance's transfer syntax.
        FrameDecodeError: The bytes are not a stream of that syntax, or have no such level.
        FrameChecksumError: The CRC32 differs from the metadata's, or the metadata has none.
        FrameLayoutError: The pixels are not of the announced shape or type.
    """
    where: dict[str, Any] = {
        "image_set_id": instance.image_set_id,
        "sop_instance_uid": instance.sop_instance_uid,
        "frame_number": number,
    }
    codec = CODECS.get(instance.transfer_syntax_uid)
    if codec is None:
        msg = f"Transfer syntax {instance.transfer_syntax_uid} is not supported"
        raise UnsupportedTransferSyntaxError(msg, **where)
    try:
        layout = FrameLayout.from_attributes(instance.attributes)
    except ValueError as error:
        raise FrameLayoutError(str(error), **where) from error
    if record.checksum is None:
        msg = "The metadata has no checksum for this frame, so its pixels cannot be verified"
        raise FrameChecksumError(msg, **where)
    over_pixels = _checksum_over_pixels(instance, codec)
    if not over_pixels and (checksum := _crc32_bytes(data)) != record.checksum:
        msg = f"The stored bytes have CRC32 {checksum}, the metadata says {record.checksum}"
        raise FrameChecksumError(msg, **where)
    fits = False
    if over_pixels and codec.announces is not None:
        # Nothing has vouched for these bytes yet.
        try:
            announced = codec.announces(data)
        except ValueError as error:
            msg = f"{codec.name} stream of {len(data)} bytes: {error}"
            raise FrameDecodeError(msg, **where) from error
        if announced.shape != layout.shape:
            msg = f"The frame has shape {announced.shape}, the header announces {layout.shape}"
            raise FrameLayoutError(msg, **where)
        # Only an array of the stream's own type: in another its bits would be other numbers.
        fits = out is not None and (out.shape, out.dtype) == (announced.shape, announced.dtype)
    if level == 0:
        pixels, decoded = _pixels(codec, data, layout, out if fits else None, where)
        if over_pixels and record.checksum not in _checksums(pixels, decoded):
            msg = f"The decoded pixels have CRC32 {_crc32(pixels)}, the metadata says {record.checksum}"
            raise FrameChecksumError(msg, **where)
        return pixels
    reduced = layout.at_level(level)
    if codec.reduce is not None:
        smaller, decoded = _pixels(codec, data, reduced, None, where, level=level)
        # Where signed pixels are written as if unsigned, the stream's own lower resolutions are means of -1
        # and 1 taken as 65535 and 1.
        if not (layout.signed and decoded.dtype.kind == "u"):
            known = record.reduced_checksums.get((reduced.rows, reduced.columns))
            if over_pixels and known not in _checksums(smaller, decoded):
                # A lower resolution is made of the same stream: where the whole is right, so is its part.
                decode_frame(data, instance=instance, number=number, record=record)
            return smaller
    pixels = decode_frame(data, instance=instance, number=number, record=record)
    return np.ascontiguousarray(pixels[:: 2**level, :: 2**level])


def _pixels(
    codec: Codec,
    data: bytes,
    layout: FrameLayout,
    out: PixelArray | None,
    where: dict[str, Any],
    *,
    level: int = 0,
) -> tuple[PixelArray, PixelArray]:
    """(pixels in the announced type, pixels in the stream's own type), not verified yet."""
    try:
        if level and codec.reduce is not None:
            decoded = codec.reduce(data, level)
        else:
            decoded = codec.decode(data, layout, out)
    except Exception as error:  # decoders raise types of their own; every failure is this one error
        at = f" at level {level}" if level else ""
        msg = f"{codec.name} stream of {len(data)} bytes{at}: {type(error).__name__}"
        raise FrameDecodeError(msg, **where) from error
    if decoded.shape != layout.shape:
        msg = f"The frame has shape {decoded.shape}, the header announces {layout.shape}"
        raise FrameLayoutError(msg, **where)
    try:
        return _announced_type(decoded, layout), decoded
    except ValueError as error:
        raise FrameLayoutError(str(error), **where) from error


def _checksum_over_pixels(instance: InstanceRecord, codec: Codec) -> bool:
    """`ChecksumType` decides where the metadata has it; older documents follow the transfer syntax."""
    if instance.checksum_type is None:
        return codec.checksum_over_pixels
    return instance.checksum_type == "DECOMPRESSED"


def _announced_type(decoded: PixelArray, layout: FrameLayout) -> PixelArray:
    """The decoded pixels in the type that the header announces, every value unchanged.

    The stream's own type follows its precision (8 bits stored in 16 decode to uint8) and signedness. Some
    encoders write signed pixels as if unsigned: their bits are read again as signed numbers of BitsStored
    bits, as PixelRepresentation demands.

    Raises:
        ValueError: The values do not fit.
    """
    if decoded.dtype == layout.dtype:
        return decoded
    if decoded.dtype.kind == "b":
        return decoded.astype(layout.dtype)
    if decoded.dtype.kind not in "iu":
        msg = f"The frame decodes to {decoded.dtype}, not to integers"
        raise ValueError(msg)
    if layout.signed and decoded.dtype.kind == "u":
        if decoded.max() >= 2**layout.bits_stored:
            msg = f"The frame's pixels exceed {layout.bits_stored} bits"
            raise ValueError(msg)
        shift = layout.bits_allocated - layout.bits_stored
        unsigned = decoded.astype(np.dtype(f"u{layout.dtype.itemsize}"))
        shifted: PixelArray = (unsigned << shift).view(layout.dtype) >> shift
        return shifted
    if not np.array_equal(decoded, decoded.astype(layout.dtype)):
        msg = f"The frame decodes to {decoded.dtype} values that {layout.dtype} cannot hold"
        raise ValueError(msg)
    return decoded.astype(layout.dtype)


def _checksums(pixels: PixelArray, decoded: PixelArray) -> set[int]:
    """CRC32 of the pixels, and of the stream's own type where that is another: either may be meant."""
    checksums = {_crc32(pixels)}
    if decoded.dtype != pixels.dtype:
        checksums.add(_crc32(decoded))
    return checksums


def _crc32(pixels: PixelArray) -> int:
    if sys.byteorder == "big":
        pixels = pixels.astype(pixels.dtype.newbyteorder("<"))
    return _crc32_bytes(np.ascontiguousarray(pixels))


def _crc32_bytes(data: bytes | PixelArray) -> int:
    # libdeflate uses the processor's carry-less multiplication: 15 times as fast as zlib.
    return int(imagecodecs.deflate_crc32(data))  # type: ignore[arg-type]  # takes every buffer
