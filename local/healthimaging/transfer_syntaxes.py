"""What HealthImaging does with each transfer syntax (developer guide: "Supported transfer syntaxes")."""

from __future__ import annotations

from pydicom.uid import UID

_ITEM_TAG = b"\xfe\xff\x00\xe0"
EXPLICIT_LITTLE_ENDIAN = "1.2.840.10008.1.2.1"
JPEG_BASELINE = "1.2.840.10008.1.2.4.50"
JPEG_EXTENDED = "1.2.840.10008.1.2.4.51"
JPEG_LOSSLESS = frozenset({"1.2.840.10008.1.2.4.57", "1.2.840.10008.1.2.4.70"})
JPEG_LS = frozenset({"1.2.840.10008.1.2.4.80", "1.2.840.10008.1.2.4.81"})
JPEG_2000_LOSSLESS = "1.2.840.10008.1.2.4.90"
JPEG_2000 = "1.2.840.10008.1.2.4.91"
JPEG_2000_ANY = frozenset({JPEG_2000_LOSSLESS, JPEG_2000, "1.2.840.10008.1.2.4.92", "1.2.840.10008.1.2.4.93"})
HTJ2K_LOSSLESS_RPCL = "1.2.840.10008.1.2.4.202"
HTJ2K = "1.2.840.10008.1.2.4.203"
HTJ2K_ANY = frozenset({"1.2.840.10008.1.2.4.201", HTJ2K_LOSSLESS_RPCL, HTJ2K})
JPEG_XL = "1.2.840.10008.1.2.4.112"
MPEG2 = frozenset(
    {
        "1.2.840.10008.1.2.4.100",
        "1.2.840.10008.1.2.4.100.1",
        "1.2.840.10008.1.2.4.101",
        "1.2.840.10008.1.2.4.101.1",
    }
)
H264 = frozenset(
    f"1.2.840.10008.1.2.4.{suffix}"
    for suffix in ("102", "102.1", "103", "103.1", "104", "104.1", "105", "105.1", "106", "106.1")
)
HEVC = frozenset({"1.2.840.10008.1.2.4.107", "1.2.840.10008.1.2.4.108"})
VIDEO = MPEG2 | H264 | HEVC

KEPT_AS_IMPORTED = frozenset({JPEG_BASELINE, JPEG_2000, HTJ2K, JPEG_XL}) | VIDEO
"""Frames of these are stored as they came, with the checksum of their own bytes. (A binary segmentation
is, too, as explicit VR little endian.) Everything else is transcoded without loss to the format of the
datastore."""

CHECKSUM_OF_PIXELS = "DECOMPRESSED"
"""ChecksumType of transcoded frames: CRC32 of the decoded pixels, native little endian, samples
interleaved."""
CHECKSUM_OF_STORED_BYTES = "ORIGINAL"
"""ChecksumType of frames that are kept as imported: CRC32 of the stored bytes."""


def is_encapsulated(transfer_syntax: str, pixel_data: bytes) -> bool:
    """Whether pixel data is fragments (PS3.5 A.4); for an unknown syntax, by how it begins."""
    try:
        return bool(UID(transfer_syntax).is_encapsulated)
    except ValueError:
        return pixel_data.startswith(_ITEM_TAG)


def content_type(transfer_syntax: str) -> str:
    """Content-Type of GetImageFrame for a stored transfer syntax (API reference: GetImageFrame)."""
    if transfer_syntax == EXPLICIT_LITTLE_ENDIAN:
        return "application/octet-stream"
    if transfer_syntax == JPEG_BASELINE:
        return "image/jpeg"
    if transfer_syntax in (JPEG_2000, JPEG_2000_LOSSLESS):
        return "image/j2c"
    if transfer_syntax == HTJ2K:
        return "image/jphc"
    if transfer_syntax == JPEG_XL:
        return "image/jxl"
    if transfer_syntax in MPEG2:
        return "video/mpeg"
    if transfer_syntax in H264:
        return "video/mp4"
    if transfer_syntax in HEVC:
        return "video/H256"
    return "image/jph"
