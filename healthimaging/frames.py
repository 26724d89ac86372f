"""Frames: fetched concurrently, decoded, and verified before anyone sees a pixel.

GetImageFrame allows 1000 requests a second, against 50 of DICOMweb, so frames are fetched with it. Threads
fetch and decode: the decoders release the interpreter's lock. A bounded number of frames is under way at
any time, so memory does not grow with the image set.
"""

from __future__ import annotations

import random
import sys
import time
import zlib
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from botocore.exceptions import BotoCoreError, ClientError, HTTPClientError, IncompleteReadError
from urllib3.exceptions import HTTPError as TransportError

from healthimaging.codecs import CODECS, Codec, FrameLayout, PixelArray
from healthimaging.errors import (
    FrameChecksumError,
    FrameDecodeError,
    FrameLayoutError,
    FrameUnavailableError,
    UnsupportedTransferSyntaxError,
)
from healthimaging.metadata import FrameRecord, InstanceRecord
from healthimaging.reference import ImageSetRef

WORKERS = 16
"""Frames under way at once: decoding needs a thread a core, the others hide the latency of requests."""

BODY_ATTEMPTS = 4
"""Attempts at reading a frame whose connection breaks in the body; botocore retries only before that."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Frame:
    """One verified frame."""

    instance_uid: str
    """SOP Instance UID."""
    number: int
    """Counted from 1 within the instance, as DICOM does."""
    pixels: PixelArray
    """(rows, columns), or (rows, columns, samples) for colour: stored values before any rescale."""


def fetch_frames(
    client: Any, ref: ImageSetRef, instances: Iterable[InstanceRecord], *, workers: int = WORKERS
) -> Iterator[Frame]:
    """Yields every frame of the instances, in their order, as they arrive.

    Closing the iterator early stops the work: frames that are not yet under way are not fetched.

    Args:
        client: boto3 `medical-imaging` client.
        ref: The image set.
        instances: Instances whose frames are wanted.
        workers: Frames fetched and decoded at once; twice as many may wait to be taken.

    Raises:
        FrameError: A frame cannot be delivered; the subclass says why and the fields say which.
    """
    jobs = (
        (instance, number, record)
        for instance in instances
        for number, record in enumerate(instance.frames, start=1)
    )
    pool = ThreadPoolExecutor(max_workers=workers, thread_name_prefix="frame")
    under_way: deque[Future[Frame]] = deque()
    try:
        for instance, number, record in jobs:
            under_way.append(pool.submit(_deliver, client, ref, instance, number, record))
            if len(under_way) >= 2 * workers:
                yield under_way.popleft().result()
        while under_way:
            yield under_way.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _deliver(
    client: Any, ref: ImageSetRef, instance: InstanceRecord, number: int, record: FrameRecord
) -> Frame:
    data = _download(client, ref, instance, number, record)
    pixels = decode_frame(
        data, image_set_id=ref.image_set_id, instance=instance, number=number, record=record
    )
    return Frame(instance_uid=instance.sop_instance_uid, number=number, pixels=pixels)


def _download(
    client: Any, ref: ImageSetRef, instance: InstanceRecord, number: int, record: FrameRecord
) -> bytes:
    def unavailable(code: str) -> FrameUnavailableError:
        return FrameUnavailableError(
            f"The frame could not be read: GetImageFrame: {code}",
            code=code,
            image_set_id=ref.image_set_id,
            sop_instance_uid=instance.sop_instance_uid,
            frame_number=number,
        )

    for attempt in range(1, BODY_ATTEMPTS + 1):
        try:
            answer = client.get_image_frame(
                datastoreId=ref.datastore_id,
                imageSetId=ref.image_set_id,
                imageFrameInformation={"imageFrameId": record.frame_id},
            )
            body: bytes = answer["imageFrameBlob"].read()
            return body
        except ClientError as error:
            raise unavailable(error.response.get("Error", {}).get("Code", "Unknown")) from error
        except (IncompleteReadError, HTTPClientError, TransportError, OSError) as error:
            if attempt == BODY_ATTEMPTS:
                raise unavailable(type(error).__name__) from error
            # Full jitter: workers whose connections broke together must not come back together.
            time.sleep(random.uniform(0, 0.1 * 2**attempt))  # noqa: S311 - jitter, not a secret
        except BotoCoreError as error:
            raise unavailable(type(error).__name__) from error
    raise AssertionError("the last attempt returns or raises")


def decode_frame(
    data: bytes, *, image_set_id: str, instance: InstanceRecord, number: int, record: FrameRecord
) -> PixelArray:
    """Decodes and verifies one frame.

    Args:
        data: The stored bytes.
        image_set_id: For errors.
        instance: The instance that the frame belongs to.
        number: The frame's number, from 1.
        record: What the metadata says of the frame.

    Returns:
        Stored values as (rows, columns) or (rows, columns, samples), in the type that BitsAllocated and
        PixelRepresentation name.

    Raises:
        UnsupportedTransferSyntaxError: No decoder for the instance's transfer syntax.
        FrameDecodeError: The bytes are not a stream of that syntax.
        FrameChecksumError: The CRC32 differs from the metadata's, or the metadata has none.
        FrameLayoutError: The pixels are not of the announced shape or type.
    """
    where: dict[str, Any] = {
        "image_set_id": image_set_id,
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
    over_pixels = _checksum_over_pixels(instance, codec)
    if not over_pixels and record.checksum is not None and zlib.crc32(data) != record.checksum:
        msg = f"The stored bytes have CRC32 {zlib.crc32(data)}, the metadata says {record.checksum}"
        raise FrameChecksumError(msg, **where)
    if record.checksum is None:
        msg = "The metadata has no checksum for this frame, so its pixels cannot be verified"
        raise FrameChecksumError(msg, **where)
    try:
        decoded = codec.decode(data, layout)
    except Exception as error:  # decoders raise types of their own; every failure is this one error
        msg = f"{codec.name} stream of {len(data)} bytes: {type(error).__name__}"
        raise FrameDecodeError(msg, **where) from error
    if decoded.shape != layout.shape:
        msg = f"The frame has shape {decoded.shape}, the header announces {layout.shape}"
        raise FrameLayoutError(msg, **where)
    try:
        pixels = _announced_type(decoded, layout)
    except ValueError as error:
        raise FrameLayoutError(str(error), **where) from error
    if over_pixels and record.checksum not in _checksums(pixels, decoded):
        msg = f"The decoded pixels have CRC32 {_crc32(pixels)}, the metadata says {record.checksum}"
        raise FrameChecksumError(msg, **where)
    return pixels


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
    return zlib.crc32(np.ascontiguousarray(pixels).data)
