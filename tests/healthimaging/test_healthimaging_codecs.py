"""Every transfer syntax with real frames against pydicom, and every kind of damage, which is refused."""

from __future__ import annotations

import zlib
from dataclasses import replace
from typing import Any

import imagecodecs
import numpy as np
import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.data import get_testdata_file
from pydicom.encaps import generate_frames

from healthimaging.errors import (
    FrameChecksumError,
    FrameDecodeError,
    FrameError,
    FrameLayoutError,
    UnsupportedTransferSyntaxError,
)
from healthimaging.frames.codecs import CODECS, FrameLayout
from healthimaging.frames.decoding import decode_frame
from healthimaging.metadata import Attributes, FrameRecord, InstanceRecord

HTJ2K_RPCL = "1.2.840.10008.1.2.4.202"
HTJ2K = "1.2.840.10008.1.2.4.203"
JPEG_2000_LOSSLESS = "1.2.840.10008.1.2.4.90"
JPEG_2000 = "1.2.840.10008.1.2.4.91"
JPEG_BASELINE = "1.2.840.10008.1.2.4.50"
JPEG_XL = "1.2.840.10008.1.2.4.112"
NATIVE = "1.2.840.10008.1.2.1"

LAYOUT_KEYWORDS = (
    *("Rows", "Columns", "SamplesPerPixel", "BitsAllocated", "BitsStored", "PixelRepresentation"),
    *("PhotometricInterpretation", "PlanarConfiguration"),
)


def stored_instance(
    syntax: str, *, checksum: int | None, checksum_type: str | None = None, **attributes: Any
) -> InstanceRecord:
    return InstanceRecord(
        datastore_id="d",
        image_set_id="i",
        sop_instance_uid="1.2.3",
        series_instance_uid="1.2",
        attributes=Attributes(attributes, {}),
        frames=(FrameRecord(frame_id="f", checksum=checksum, minimum=None, maximum=None),),
        transfer_syntax_uid=syntax,
        checksum_type=checksum_type,
    )


def header(dataset: pydicom.Dataset) -> dict[str, Any]:
    return {keyword: dataset[keyword].value for keyword in LAYOUT_KEYWORDS if keyword in dataset}


def grey(pixels: np.ndarray[Any, Any], **changed: Any) -> dict[str, Any]:
    bits = pixels.dtype.itemsize * 8
    return {
        "Rows": pixels.shape[0],
        "Columns": pixels.shape[1],
        "BitsAllocated": bits,
        "BitsStored": bits,
        "PixelRepresentation": int(pixels.dtype.kind == "i"),
        "PhotometricInterpretation": "MONOCHROME2",
        **changed,
    }


def decode(data: bytes, instance: InstanceRecord) -> np.ndarray[Any, Any]:
    return decode_frame(data, instance=instance, number=1, record=instance.frames[0])


def crc32(pixels: np.ndarray[Any, Any]) -> int:
    return zlib.crc32(np.ascontiguousarray(pixels).tobytes())


def ct() -> np.ndarray[Any, Any]:
    pixels: np.ndarray[Any, Any] = pydicom.dcmread(get_testdata_file("CT_small.dcm")).pixel_array
    return pixels


# Frames kept as they were imported -------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [
        "693_J2KI.dcm",
        "J2K_pixelrep_mismatch.dcm",
        "JPEG2000.dcm",
        "MR_small_jp2klossless.dcm",
        "SC_jpeg_no_color_transform.dcm",
        "SC_jpeg_no_color_transform_2.dcm",
        "SC_rgb_dcmtk_+eb+cr.dcm",
        "SC_rgb_dcmtk_+eb+cy+n1.dcm",
        "SC_rgb_dcmtk_+eb+cy+n2.dcm",
        "SC_rgb_dcmtk_+eb+cy+np.dcm",
        "SC_rgb_dcmtk_+eb+cy+s2.dcm",
        "SC_rgb_dcmtk_+eb+cy+s4.dcm",
        "SC_rgb_gdcm_KY.dcm",
        "SC_rgb_jpeg.dcm",
        "SC_rgb_jpeg_app14_dcmd.dcm",
        "SC_rgb_jpeg_dcmtk.dcm",
        "SC_rgb_jpeg_lossy_gdcm.dcm",
        "SC_rgb_small_odd_jpeg.dcm",
        "examples_jpeg2k.dcm",
        "examples_ybr_color.dcm",
    ],
)
@pytest.mark.filterwarnings("ignore::UserWarning:pydicom")  # its remarks on its own test files
def test_real_encapsulated_frames_decode_as_pydicom_decodes_them(name: str) -> None:
    dataset = pydicom.dcmread(get_testdata_file(name))
    syntax = str(dataset.file_meta.TransferSyntaxUID)
    frames = int(dataset.get("NumberOfFrames") or 1)
    data = next(generate_frames(dataset.PixelData, number_of_frames=frames))
    expected = dataset.pixel_array if frames == 1 else dataset.pixel_array[0]
    stored = stored_instance(syntax, checksum=zlib.crc32(data), checksum_type="ORIGINAL", **header(dataset))
    decoded = decode(data, stored)
    assert decoded.shape == expected.shape
    # JPEG decoders may round the colour transform and the cosine transform differently; the others are exact.
    tolerance = 3 if syntax == JPEG_BASELINE else 0
    assert np.abs(decoded.astype(int) - expected.astype(int)).max() <= tolerance
    assert decoded.dtype.itemsize == expected.dtype.itemsize


def test_jpeg_that_says_rgb_without_a_marker_stays_rgb() -> None:
    rgb = np.zeros((16, 16, 3), np.uint8)
    rgb[..., 0] = 200
    data = imagecodecs.jpeg8_encode(rgb, colorspace="RGB", outcolorspace="RGB", level=100)
    start = data.find(b"\xff\xee")  # the Adobe marker, which says that these are RGB
    if start >= 0:
        length = int.from_bytes(data[start + 2 : start + 4], "big")
        data = data[:start] + data[start + 2 + length :]
    stored = stored_instance(
        JPEG_BASELINE,
        checksum=zlib.crc32(data),
        **grey(rgb[..., 0], SamplesPerPixel=3, PhotometricInterpretation="RGB"),
    )
    assert np.abs(decode(data, stored).astype(int) - rgb).max() <= 3


# Frames that are transcoded on import ----------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int16, np.uint16, np.int32])
@pytest.mark.parametrize("shape", [(1, 1), (5, 7), (64, 33)])
def test_htj2k_is_exact_to_the_extremes(dtype: Any, shape: tuple[int, int]) -> None:
    limits = np.iinfo(dtype)
    rng = np.random.default_rng(1)
    pixels = rng.integers(limits.min // 4, limits.max // 4, size=shape, dtype=dtype)
    if dtype != np.int32:  # the encoder takes 31 bits at most
        pixels.flat[0], pixels.flat[-1] = limits.min, limits.max
    data = imagecodecs.htj2k_encode(pixels)
    decoded = decode(data, stored_instance(HTJ2K_RPCL, checksum=crc32(pixels), **grey(pixels)))
    assert decoded.dtype == dtype
    assert np.array_equal(decoded, pixels)


def test_jpeg_2000_lossless_datastore() -> None:
    pixels = ct()
    data = imagecodecs.jpeg2k_encode(pixels, level=0, codecformat="j2k", reversible=True)
    stored = stored_instance(JPEG_2000_LOSSLESS, checksum=crc32(pixels), **grey(pixels))
    assert np.array_equal(decode(data, stored), pixels)


def test_jpeg_xl() -> None:
    pixels = np.arange(64 * 48, dtype=np.uint8).reshape(64, 48)
    data = imagecodecs.jpegxl_encode(pixels, lossless=True)
    stored = stored_instance(JPEG_XL, checksum=zlib.crc32(data), **grey(pixels))
    assert np.array_equal(decode(data, stored), pixels)


def test_eight_bits_stored_in_sixteen_come_back_in_sixteen() -> None:
    narrow = np.arange(256, dtype=np.uint8).reshape(16, 16)
    data = imagecodecs.htj2k_encode(narrow)
    for checksum in (crc32(narrow), crc32(narrow.astype(np.uint16))):
        stored = stored_instance(
            HTJ2K_RPCL, checksum=checksum, **grey(narrow.astype(np.uint16), BitsStored=8)
        )
        decoded = decode(data, stored)
        assert decoded.dtype == np.uint16
        assert np.array_equal(decoded, narrow)


def test_signed_pixels_in_an_unsigned_stream_are_read_as_signed() -> None:
    pixels = np.array([[-2048, -1], [0, 2047]], dtype=np.int16)
    data = imagecodecs.htj2k_encode(pixels.view(np.uint16) & 0x0FFF)
    stored = stored_instance(HTJ2K, checksum=zlib.crc32(data), **grey(pixels, BitsStored=12))
    assert np.array_equal(decode(data, stored), pixels)


def test_uncompressed_in_any_layout() -> None:
    words = np.array([[1, -2], [3, 4]], dtype=np.int16)
    data = words.astype("<i2").tobytes()
    assert np.array_equal(
        decode(data, stored_instance(NATIVE, checksum=zlib.crc32(data), **grey(words))), words
    )
    colour = np.arange(12, dtype=np.uint8).reshape(2, 2, 3)
    planes = np.moveaxis(colour, -1, 0).tobytes()
    stored = stored_instance(
        NATIVE,
        checksum=zlib.crc32(planes),
        **grey(colour[..., 0], SamplesPerPixel=3, PlanarConfiguration=1, PhotometricInterpretation="RGB"),
    )
    assert np.array_equal(decode(planes, stored), colour)
    odd = np.arange(9, dtype=np.uint8).reshape(3, 3)
    padded = odd.tobytes() + b"\0"
    assert np.array_equal(
        decode(padded, stored_instance(NATIVE, checksum=zlib.crc32(padded), **grey(odd))), odd
    )


@given(st.integers(1, 20), st.integers(1, 20), st.randoms(use_true_random=False))
def test_bit_packed_segmentation(rows: int, columns: int, random: Any) -> None:
    mask = np.array([[random.random() < 0.5 for _ in range(columns)] for _ in range(rows)], dtype=np.uint8)
    data = np.packbits(mask.reshape(-1), bitorder="little").tobytes()
    layout = grey(mask, BitsAllocated=1, BitsStored=1)
    stored = stored_instance(NATIVE, checksum=zlib.crc32(data), **layout)
    assert np.array_equal(decode(data, stored), mask)


# Damage ----------------------------------------------------------------------------------------------


def encoded_ct(syntax: str) -> tuple[bytes, InstanceRecord]:
    """A stored CT frame of each syntax that keeps 16 bits."""
    pixels = ct()
    if syntax == NATIVE:
        data = pixels.astype(pixels.dtype.newbyteorder("<")).tobytes()
    elif syntax in (HTJ2K_RPCL, HTJ2K):
        data = imagecodecs.htj2k_encode(pixels)
    else:
        data = imagecodecs.jpeg2k_encode(pixels, level=0, codecformat="j2k", reversible=True)
    checksum = crc32(pixels) if CODECS[syntax].checksum_over_pixels else zlib.crc32(data)
    return data, stored_instance(syntax, checksum=checksum, **grey(pixels))


SYNTAXES = [HTJ2K_RPCL, HTJ2K, JPEG_2000_LOSSLESS, JPEG_2000, NATIVE]


@pytest.mark.parametrize("syntax", SYNTAXES)
@pytest.mark.parametrize("share", [0, 0.01, 0.1, 0.5, 0.9, 0.999])
def test_truncated_frames_are_refused(syntax: str, share: float) -> None:
    data, stored = encoded_ct(syntax)
    with pytest.raises(FrameError) as caught:
        decode(data[: int(len(data) * share)], stored)
    assert caught.value.image_set_id == "i"
    assert caught.value.sop_instance_uid == "1.2.3"
    assert caught.value.frame_number == 1


@settings(max_examples=60, deadline=None)
@given(st.sampled_from([HTJ2K_RPCL, NATIVE, HTJ2K]), st.floats(0, 0.9999), st.integers(0, 7))
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # the decoder drops its own
def test_a_flipped_bit_never_gives_other_pixels(syntax: str, place: float, bit: int) -> None:
    data, stored = encoded_ct(syntax)
    damaged = bytearray(data)
    damaged[int(place * len(data))] ^= 1 << bit
    try:
        decoded = decode(bytes(damaged), stored)
    except FrameError:
        return
    # Some bits mean nothing, for example in a comment; then the pixels must be the right ones.
    assert syntax == HTJ2K_RPCL
    assert np.array_equal(decoded, ct())


@pytest.mark.parametrize("syntax", SYNTAXES)
def test_wrong_checksum_is_refused(syntax: str) -> None:
    data, stored = encoded_ct(syntax)
    record = stored.frames[0]
    assert record.checksum is not None
    wrong = replace(stored, frames=(replace(record, checksum=record.checksum ^ 1),))
    with pytest.raises(FrameChecksumError, match="CRC32"):
        decode(data, wrong)


def test_a_frame_that_cannot_be_verified_is_refused() -> None:
    data, stored = encoded_ct(HTJ2K_RPCL)
    with pytest.raises(FrameChecksumError, match="no checksum"):
        decode(data, replace(stored, frames=(replace(stored.frames[0], checksum=None),)))


def test_checksum_type_of_the_document_decides() -> None:
    data, stored = encoded_ct(HTJ2K_RPCL)
    original = replace(
        stored, checksum_type="ORIGINAL", frames=(replace(stored.frames[0], checksum=zlib.crc32(data)),)
    )
    assert np.array_equal(decode(data, original), ct())
    with pytest.raises(FrameChecksumError):
        decode(data, replace(original, checksum_type="DECOMPRESSED"))


@pytest.mark.parametrize(
    "changed",
    [
        {"Rows": 64},
        {"Columns": 129},
        {"Rows": None},
        {"Columns": 0},
        {"BitsAllocated": None},
        {"BitsAllocated": 12},
        {"BitsAllocated": 8, "BitsStored": 8},
        {"BitsStored": 17},
        {"SamplesPerPixel": 3},
    ],
)
def test_pixels_that_are_not_as_announced_are_refused(changed: dict[str, Any]) -> None:
    data, _ = encoded_ct(HTJ2K_RPCL)
    stored = stored_instance(HTJ2K_RPCL, checksum=crc32(ct()), **grey(ct(), **changed))
    with pytest.raises(FrameLayoutError):
        decode(data, stored)


@pytest.mark.parametrize("syntax", sorted(CODECS))
def test_bytes_of_another_kind_are_refused(syntax: str) -> None:
    noise = bytes(range(256)) * 4
    stored = stored_instance(syntax, checksum=zlib.crc32(noise), **grey(np.zeros((8, 8), np.uint8)))
    with pytest.raises(FrameDecodeError):
        decode(noise, stored)


@pytest.mark.parametrize("syntax", ["1.2.840.10008.1.2.4.102", "1.2.3"])
def test_unsupported_syntax_is_named(syntax: str) -> None:
    stored = stored_instance(syntax, checksum=0, **grey(ct()))
    with pytest.raises(UnsupportedTransferSyntaxError, match=syntax):
        decode(b"", stored)


def test_layout_names_what_is_wrong() -> None:
    with pytest.raises(ValueError, match="Rows"):
        FrameLayout.from_attributes(Attributes({"Columns": 3, "BitsAllocated": 8}, {}))
    for unsaid in (None, 2):
        with pytest.raises(ValueError, match="PixelRepresentation"):
            FrameLayout.from_attributes(Attributes(grey(ct(), PixelRepresentation=unsaid), {}))
