"""The pixel data of an instance as stored frames: kept as imported, or transcoded without loss."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np
from pydicom.dataset import Dataset
from pydicom.encaps import generate_fragments, generate_frames
from pydicom.uid import UID, RLELossless

from local.healthimaging import transfer_syntaxes as ts
from local.healthimaging.codecs import (
    CodecError,
    PixelDescription,
    Pixels,
    decode_frame,
    decode_native,
    decoded_photometric,
    describe,
    encode_frame,
)
from local.healthimaging.elements import Attributes
from local.healthimaging.warning_codes import ImportWarning, WarningCode

PIXEL_DATA = 0x7FE00010
_OFFSET_TABLES = frozenset({0x7FE00001, 0x7FE00002})
PIXEL_TAGS = _OFFSET_TABLES | {PIXEL_DATA}


@dataclass(frozen=True, kw_only=True)
class NewFrame:
    """One frame as it will be stored.

    `checksum` is the CRC32 that its `ChecksumType` says. `minimum` and `maximum` are over the stored pixel
    values of all samples, None where the frame is kept as imported.
    """

    digest: str
    size: int
    width: int
    height: int
    checksum: int
    minimum: int | None
    maximum: int | None


@dataclass(frozen=True, kw_only=True)
class StoredPixels:
    """All frames of an instance, and what storing them changed in its attributes."""

    transfer_syntax: str
    checksum_type: str
    frames: tuple[NewFrame, ...]
    decodable: bool = True
    coerced: Attributes = field(default_factory=dict)
    warnings: tuple[ImportWarning, ...] = ()


def store_pixels(dataset: Dataset, *, storage_syntax: str, put: Callable[[bytes], str]) -> StoredPixels:
    """Bring the PixelData of `dataset` into its stored form; `put` stores bytes and answers their digest.

    Pixel data that cannot be transcoded is stored as one blob with a warning, as HealthImaging does (0xB100).
    """
    source = str(dataset.file_meta.TransferSyntaxUID)
    try:
        return _store(dataset, source, storage_syntax, put)
    except FramesError as error:
        return _blob(dataset, source, put, ImportWarning(code=error.code, message=str(error)))
    except CodecError as error:
        return _blob(
            dataset, source, put, ImportWarning(code=WarningCode.TRANSCODING_EXCEPTION, message=str(error))
        )


class FramesError(Exception):
    """Pixel data that cannot be divided into its frames, for the reason of a warning code."""

    def __init__(self, code: WarningCode, message: str) -> None:
        super().__init__(message)
        self.code = code


def _store(dataset: Dataset, source: str, storage_syntax: str, put: Callable[[bytes], str]) -> StoredPixels:
    # pydicom's dictionary is older than JPEG XL in DICOM.
    if source not in ts.KEPT_AS_IMPORTED and (UID(source).is_private or not UID(source).is_transfer_syntax):
        msg = f"Transfer syntax {source} is not known"
        raise FramesError(WarningCode.UNSUPPORTED_TRANSFER_SYNTAX, msg)
    if source in ts.VIDEO:
        stream = b"".join(generate_fragments(dataset.PixelData))
        return _kept(dataset, source, [stream], put)
    description = describe(dataset)
    if description.bits_allocated == 1:
        frames = [pack_bits(array) for array in _decoded(dataset, source, description)]
        return _kept(dataset, ts.EXPLICIT_LITTLE_ENDIAN, frames, put)
    if source in ts.KEPT_AS_IMPORTED:
        return _kept(dataset, source, list(split_frames(dataset, description.frames)), put)
    if description.bits_allocated not in (8, 16, 32):
        msg = f"BitsAllocated {description.bits_allocated} is not supported"
        raise CodecError(msg)
    frames_stored = []
    for array in _decoded(dataset, source, description):
        data = encode_frame(array, storage_syntax)
        frames_stored.append(
            NewFrame(
                digest=put(data),
                size=len(data),
                width=description.columns,
                height=description.rows,
                checksum=checksum(array),
                minimum=int(array.min()),
                maximum=int(array.max()),
            )
        )
    coerced = _coerced(dataset, description, source)
    return StoredPixels(
        transfer_syntax=storage_syntax,
        checksum_type=ts.CHECKSUM_OF_PIXELS,
        frames=tuple(frames_stored),
        coerced=coerced,
        warnings=(ImportWarning(code=WarningCode.COERCION_OF_DATA_ELEMENTS, message=_changes(coerced)),)
        if coerced
        else (),
    )


def checksum(array: Pixels) -> int:
    """CRC32 of the pixels as little-endian bytes, samples interleaved."""
    return zlib.crc32(np.ascontiguousarray(array.astype(array.dtype.newbyteorder("<"), copy=False)).tobytes())


def pack_bits(array: Pixels) -> bytes:
    """A frame of zeros and ones as bits, first pixel in the lowest bit (PS3.5 8.1.1), starting at a byte
    of its own."""
    return np.packbits(array.reshape(-1).astype(np.uint8), bitorder="little").tobytes()


def unpack_bits(data: bytes, pixels: int) -> Pixels:
    """The first `pixels` bits of packed data as zeros and ones, uint8."""
    return np.unpackbits(np.frombuffer(data, dtype=np.uint8), count=pixels, bitorder="little")


def _decoded(dataset: Dataset, source: str, description: PixelDescription) -> Iterator[Pixels]:
    if ts.is_encapsulated(source, dataset.PixelData) and source != RLELossless:
        for data in split_frames(dataset, description.frames):
            yield decode_frame(data, source, description)
        return
    if description.bits_allocated == 1:
        every = decode_native(dataset, source, None)
        yield from every.reshape(description.frames, *description.shape)
        return
    for index in range(description.frames):
        array = decode_native(dataset, source, index)
        if array.shape != description.shape:
            msg = f"frame has shape {array.shape}, the attributes say {description.shape}"
            raise CodecError(msg)
        yield array


def split_frames(dataset: Dataset, number: int) -> Iterator[bytes]:
    """The encapsulated frames of a dataset, which must be `number` (PS3.5 A.4)."""
    tables = None
    if "ExtendedOffsetTable" in dataset and "ExtendedOffsetTableLengths" in dataset:
        tables = (dataset.ExtendedOffsetTable, dataset.ExtendedOffsetTableLengths)
    try:
        frames = list(generate_frames(dataset.PixelData, number_of_frames=number, extended_offsets=tables))
    except Exception as error:
        msg = f"frames cannot be found in the pixel data: {type(error).__name__}"
        raise FramesError(WarningCode.FRAMES_EXTRACTION_FAILURE, msg) from error
    if len(frames) != number:
        msg = f"NumberOfFrames is {number}, the pixel data holds {len(frames)}"
        raise FramesError(WarningCode.FRAME_NUMBER_MISMATCH, msg)
    yield from frames


def _kept(dataset: Dataset, syntax: str, frames: list[bytes], put: Callable[[bytes], str]) -> StoredPixels:
    return StoredPixels(
        transfer_syntax=syntax,
        checksum_type=ts.CHECKSUM_OF_STORED_BYTES,
        frames=tuple(
            NewFrame(
                digest=put(data),
                size=len(data),
                width=int(dataset.get("Columns") or 0),
                height=int(dataset.get("Rows") or 0),
                checksum=zlib.crc32(data),
                minimum=None,
                maximum=None,
            )
            for data in frames
        ),
    )


def _blob(dataset: Dataset, source: str, put: Callable[[bytes], str], warning: ImportWarning) -> StoredPixels:
    kept = _kept(dataset, source, [bytes(dataset.PixelData)], put)
    return StoredPixels(
        transfer_syntax=source,
        checksum_type=kept.checksum_type,
        frames=kept.frames,
        decodable=False,
        warnings=(warning,),
    )


def _coerced(dataset: Dataset, description: PixelDescription, source: str) -> Attributes:
    """Attributes that decoding and re-encoding changes: the colour space, and samples by pixel instead of
    by plane."""
    coerced: Attributes = {}
    photometric = decoded_photometric(description, source)
    if photometric != description.photometric:
        coerced["00280004"] = {"vr": "CS", "value": [photometric]}
    if description.samples > 1 and dataset.get("PlanarConfiguration") != 0:
        coerced["00280006"] = {"vr": "US", "value": [0]}
    return coerced


def _changes(coerced: Attributes) -> str:
    return "Changed by transcoding: " + ", ".join(
        f"{tag} = {element['value'][0]}" for tag, element in coerced.items()
    )
