"""Compressed frames to pixels and back, with imagecodecs and pydicom.

Arrays are (rows, columns) or (rows, columns, samples), native byte order, in the data type that Bits
Allocated and Pixel Representation name. The compiled codecs release the GIL: frames are worked on by several
threads at once.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import imagecodecs
import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset
from pydicom.pixels.decoders.base import get_decoder
from pydicom.uid import UID

from local.healthimaging import transfer_syntaxes as ts

Pixels = npt.NDArray[Any]

# The HTJ2K encoder fills its tables when it is first used, and a second thread does not wait for that: in one
# of some 240 cold starts with eight threads a frame came out wrong, and was refused by the proof below. So
# one thread alone uses it first.
for _dtype in ("u1", "i4"):
    imagecodecs.htj2k_encode(np.zeros((4, 4), _dtype))


class CodecError(Exception):
    """Pixel data that cannot be decoded, or not encoded without loss."""


@dataclass(frozen=True, kw_only=True)
class PixelDescription:
    """The Image Pixel Module (PS3.3 C.7.6.3) of one instance."""

    rows: int
    columns: int
    samples: int
    bits_allocated: int
    bits_stored: int
    signed: bool
    photometric: str
    frames: int

    @property
    def dtype(self) -> np.dtype[Any]:
        """Data type of one sample in native byte order; one byte a pixel for single-bit data once
        unpacked."""
        size = max(self.bits_allocated // 8, 1)
        return np.dtype(f"{'i' if self.signed else 'u'}{size}")

    @property
    def shape(self) -> tuple[int, ...]:
        """(rows, columns), and the samples where there are several."""
        return (self.rows, self.columns) if self.samples == 1 else (self.rows, self.columns, self.samples)


def describe(dataset: Dataset) -> PixelDescription:
    """The pixel description of a dataset. Raises `CodecError` naming the attribute that is missing or
    wrong."""
    values: dict[str, int] = {}
    for keyword in (
        "Rows",
        "Columns",
        "SamplesPerPixel",
        "BitsAllocated",
        "BitsStored",
        "PixelRepresentation",
    ):
        value = dataset.get(keyword)
        if not isinstance(value, int):
            msg = f"DICOM attribute {keyword} does not exist"
            raise CodecError(msg)
        values[keyword] = value
    try:
        frames = int(dataset.get("NumberOfFrames") or 1)
    except (TypeError, ValueError) as error:
        msg = "DICOM attribute NumberOfFrames is not a number"
        raise CodecError(msg) from error
    return PixelDescription(
        rows=values["Rows"],
        columns=values["Columns"],
        samples=values["SamplesPerPixel"],
        bits_allocated=values["BitsAllocated"],
        bits_stored=values["BitsStored"],
        signed=values["PixelRepresentation"] == 1,
        photometric=str(dataset.get("PhotometricInterpretation", "")),
        frames=max(frames, 1),
    )


def decoded_photometric(description: PixelDescription, transfer_syntax: str) -> str:
    """The photometric interpretation of what `decode_frame` and `decode_native` return.

    The colour transforms that belong to a codec are undone with it (PS3.5 8.2); chroma is upsampled.
    """
    if description.photometric in ("YBR_RCT", "YBR_ICT"):
        return "RGB"
    if description.samples == 3 and transfer_syntax in (ts.JPEG_BASELINE, ts.JPEG_EXTENDED, ts.JPEG_XL):
        return "RGB"
    if description.photometric == "YBR_FULL_422":
        return "YBR_FULL"
    return description.photometric


def decode_native(dataset: Dataset, transfer_syntax: str, index: int | None) -> Pixels:
    """Frame `index` (from 0) of uncompressed or RLE pixel data, without any colour conversion.

    None is for all frames at once. Of single-bit data pydicom finds only those frames that begin at a byte.
    """
    try:
        array, _ = get_decoder(UID(transfer_syntax)).as_array(dataset, index=index, raw=True)
    except Exception as error:
        msg = f"pixel data cannot be decoded: {type(error).__name__}"
        raise CodecError(msg) from error
    return np.ascontiguousarray(array.astype(array.dtype.newbyteorder("="), copy=False))


def decode_frame(data: bytes, transfer_syntax: str, description: PixelDescription) -> Pixels:
    """One encapsulated frame."""
    try:
        array = _decode(data, transfer_syntax, description)
    except CodecError:
        raise
    except Exception as error:
        msg = f"frame cannot be decoded as {transfer_syntax}: {type(error).__name__}"
        raise CodecError(msg) from error
    if array.shape != description.shape:
        msg = f"frame has shape {array.shape}, the attributes say {description.shape}"
        raise CodecError(msg)
    return _as_described(array, description)


def _decode(data: bytes, transfer_syntax: str, description: PixelDescription) -> Pixels:
    array: Pixels
    if transfer_syntax in ts.HTJ2K_ANY:
        array = imagecodecs.htj2k_decode(data)
    elif transfer_syntax in ts.JPEG_2000_ANY:
        array = imagecodecs.jpeg2k_decode(data)
    elif transfer_syntax in ts.JPEG_LS:
        array = imagecodecs.jpegls_decode(data)
    elif transfer_syntax in ts.JPEG_LOSSLESS:
        array = imagecodecs.jpegsof3_decode(data)
    elif transfer_syntax in (ts.JPEG_BASELINE, ts.JPEG_EXTENDED):
        array = _decode_jpeg(data, description)
    elif transfer_syntax == ts.JPEG_XL:
        array = imagecodecs.jpegxl_decode(data)
    else:
        msg = f"transfer syntax {transfer_syntax} is not supported"
        raise CodecError(msg)
    return array


def _decode_jpeg(data: bytes, description: PixelDescription) -> Pixels:
    """Lossy JPEG; colour comes out as RGB.

    Without a JFIF or Adobe marker libjpeg guesses the colour space of three components; the attribute knows
    better.
    """
    if description.samples == 1:
        array: Pixels = imagecodecs.jpeg8_decode(data)
        return array
    adobe = data.find(b"Adobe", 0, 1024)
    transformed = data[adobe + 11] == 1 if adobe >= 0 else description.photometric.startswith("YBR")
    colorspace = "YCBCR" if transformed else "RGB"
    rgb: Pixels = imagecodecs.jpeg8_decode(data, colorspace=colorspace, outcolorspace="RGB")
    return rgb


def _as_described(array: Pixels, description: PixelDescription) -> Pixels:
    """The array in the described data type; a sign that the codestream did not carry is restored from Bits
    Stored."""
    wanted = description.dtype
    if array.dtype.kind not in "iu":
        msg = f"frame decodes to {array.dtype}, not to integers"
        raise CodecError(msg)
    bits = description.bits_stored
    if description.signed and array.dtype.kind == "u":
        shift = wanted.itemsize * 8 - bits
        return np.ascontiguousarray((array.astype(wanted) << shift) >> shift)
    if not description.signed and array.dtype.kind == "i":
        return np.ascontiguousarray(array.astype(wanted) & wanted.type((1 << bits) - 1))
    return np.ascontiguousarray(array.astype(wanted, copy=False))


def encode_frame(array: Pixels, transfer_syntax: str) -> bytes:
    """Encode without loss, as HTJ2K with RPCL progression or as JPEG 2000, and prove it by decoding.

    The codecs read memory as if it were of native byte order, so the array must be.
    """
    if not array.dtype.isnative:
        msg = f"array is not of native byte order: {array.dtype}"
        raise CodecError(msg)
    if transfer_syntax == ts.HTJ2K_LOSSLESS_RPCL:
        data = bytes(imagecodecs.htj2k_encode(array))
        decoded = imagecodecs.htj2k_decode(data)
    elif transfer_syntax == ts.JPEG_2000_LOSSLESS:
        data = bytes(imagecodecs.jpeg2k_encode(array, level=0, reversible=True, codecformat="j2k"))
        decoded = imagecodecs.jpeg2k_decode(data)
    else:
        msg = f"transfer syntax {transfer_syntax} is not a storage format"
        raise CodecError(msg)
    if decoded.dtype != array.dtype or not np.array_equal(decoded, array):
        msg = f"{array.dtype} pixels do not survive encoding as {transfer_syntax}"
        raise CodecError(msg)
    return data
