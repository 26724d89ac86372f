"""Files for what the packages' files do not show: the other transfer syntaxes, VRs and layouts of pixels.

Each is a dataset with the file meta information of its transfer syntax and identifiers of its own.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from io import BytesIO
from typing import Any

import imagecodecs
import numpy as np
import pydicom
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.sequence import Sequence
from pydicom.uid import (
    UID,
    ExplicitVRLittleEndian,
    generate_uid,
)
from real_files import FILES, expected

_SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
JPEG_XL = UID("1.2.840.10008.1.2.4.112")


def header(**attributes: Any) -> Dataset:
    """An instance with identifiers of its own and no pixels."""
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.SOPClassUID = _SECONDARY_CAPTURE
    dataset.SOPInstanceUID = generate_uid()
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = generate_uid(), generate_uid()
    dataset.Modality = "OT"
    dataset.PatientID = "MADE"
    for keyword, value in attributes.items():
        setattr(dataset, keyword, value)
    return dataset


def image(pixels: np.ndarray[Any, Any], *, frames: int = 1, **attributes: Any) -> Dataset:
    """An instance with pixels of shape (frames,) rows, columns(, samples) as explicit VR little endian."""
    shape = pixels.shape[1:] if frames > 1 else pixels.shape
    bits = pixels.dtype.itemsize * 8
    dataset = header(
        Rows=shape[0],
        Columns=shape[1],
        SamplesPerPixel=shape[2] if len(shape) > 2 else 1,
        PhotometricInterpretation="RGB" if len(shape) > 2 else "MONOCHROME2",
        BitsAllocated=bits,
        BitsStored=bits,
        HighBit=bits - 1,
        PixelRepresentation=int(pixels.dtype.kind == "i"),
    )
    if len(shape) > 2:
        dataset.PlanarConfiguration = 0
    if frames > 1:
        dataset.NumberOfFrames = frames
    data = np.ascontiguousarray(pixels.astype(pixels.dtype.newbyteorder("<"))).tobytes()
    dataset.add_new("PixelData", "OW" if bits > 8 else "OB", data + b"\0" * (len(data) % 2))
    for keyword, value in attributes.items():
        setattr(dataset, keyword, value)
    return dataset


def compressed(dataset: Dataset, transfer_syntax: str, streams: list[bytes], **attributes: Any) -> Dataset:
    """The dataset with other pixel data: one stream a frame."""
    made = copy.deepcopy(dataset)
    made.SOPInstanceUID, made.SeriesInstanceUID = generate_uid(), generate_uid()
    made.file_meta.TransferSyntaxUID = UID(transfer_syntax)
    made.add_new("PixelData", "OB", encapsulate(streams))
    made["PixelData"].is_undefined_length = True
    for keyword, value in attributes.items():
        setattr(made, keyword, value)
    return made


def encoded(dataset: Dataset) -> bytes:
    """The dataset as a file of its transfer syntax."""
    meta = dataset.file_meta
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = (
        dataset.SOPClassUID,
        dataset.SOPInstanceUID,
    )
    buffer = BytesIO()
    if meta.TransferSyntaxUID != JPEG_XL:
        encoding = {"implicit_vr": False, "little_endian": True} if meta.TransferSyntaxUID.is_private else {}
        dataset.save_as(buffer, enforce_file_format=True, **encoding)
        return buffer.getvalue()
    # pydicom 3.0 does not know it, and so does not write it.
    meta.TransferSyntaxUID = UID("1.2.840.10008.1.2.4.203")
    dataset.save_as(buffer, enforce_file_format=True)
    meta.TransferSyntaxUID = JPEG_XL
    return buffer.getvalue().replace(b"1.2.840.10008.1.2.4.203", JPEG_XL.encode(), 1)


SIGNED = np.random.default_rng(1).integers(-1024, 3072, (24, 30), dtype=np.int16)
COLOUR = np.random.default_rng(2).integers(0, 256, (24, 30, 3), dtype=np.uint8)
GREY = COLOUR[..., 0].copy()


def transcoded() -> Iterator[tuple[str, Dataset, np.ndarray[Any, Any]]]:
    """(name, dataset, pixels that it holds): transfer syntaxes that no file of the packages has."""
    signed, colour, grey = image(SIGNED), image(COLOUR), image(GREY)
    for suffix in ("201", "202", "203"):
        syntax = f"1.2.840.10008.1.2.4.{suffix}"
        yield (
            f"signed HTJ2K .{suffix}",
            compressed(signed, syntax, [bytes(imagecodecs.htj2k_encode(SIGNED))]),
            SIGNED,
        )
        yield (
            f"colour HTJ2K .{suffix}",
            compressed(
                colour,
                syntax,
                [bytes(imagecodecs.htj2k_encode(COLOUR))],
                PhotometricInterpretation="YBR_RCT",
            ),
            COLOUR,
        )
    for suffix in ("90", "91", "92", "93"):
        stream = bytes(imagecodecs.jpeg2k_encode(SIGNED, level=0, reversible=True, codecformat="j2k"))
        yield (
            f"JPEG 2000 .{suffix}",
            compressed(signed, f"1.2.840.10008.1.2.4.{suffix}", [stream]),
            SIGNED,
        )
    stream = bytes(imagecodecs.jpegls_encode(GREY))
    yield "JPEG-LS .80", compressed(grey, "1.2.840.10008.1.2.4.80", [stream]), GREY
    stream = bytes(imagecodecs.jpegls_encode(GREY, level=3))
    lossy = imagecodecs.jpegls_decode(stream)
    yield (
        "near-lossless JPEG-LS .81",
        compressed(grey, "1.2.840.10008.1.2.4.81", [stream], LossyImageCompression="01"),
        lossy,
    )
    stream = bytes(imagecodecs.ljpeg_encode(GREY.astype(np.uint16), bitspersample=8))
    yield "lossless JPEG .57", compressed(grey, "1.2.840.10008.1.2.4.57", [stream]), GREY
    for name, pixels, dataset in (("grey", GREY, grey), ("colour", COLOUR, colour)):
        stream = bytes(imagecodecs.jpegxl_encode(pixels, lossless=True))
        yield f"{name} JPEG XL .112", compressed(dataset, JPEG_XL, [stream]), pixels
    deflated = copy.deepcopy(colour)
    deflated.SOPInstanceUID, deflated.SeriesInstanceUID = generate_uid(), generate_uid()
    deflated.file_meta.TransferSyntaxUID = UID("1.2.840.10008.1.2.1.99")
    yield "deflated", deflated, COLOUR


def layouts() -> Iterator[tuple[str, Dataset, np.ndarray[Any, Any]]]:
    """(name, dataset, pixels): layouts of native pixels."""
    random = np.random.default_rng(3)
    bits = random.integers(0, 2, (5, 3, 7), dtype=np.uint8)
    packed = np.packbits(bits.reshape(-1), bitorder="little").tobytes()
    masks = image(bits, frames=5, BitsAllocated=1, BitsStored=1, HighBit=0)
    masks.PixelData = packed + b"\0" * (len(packed) % 2)
    yield "frames of bits that begin within a byte", masks, bits
    odd = random.integers(0, 256, (3, 5, 7), dtype=np.uint8)
    yield "frames of odd length", image(odd, frames=3), odd
    wide = random.integers(-(2**31), 2**31, (6, 4), dtype=np.int32)
    yield "signed pixels of 32 bits", image(wide), wide
    twelve = random.integers(0, 2**16, (8, 8), dtype=np.uint16)
    # The others are no part of a pixel (PS3.5 8.1.1); neither is an overlay that was once kept in them.
    yield "bits beside the stored ones", image(twelve, BitsStored=12, HighBit=11), twelve & 0xFFF
    two = random.integers(-(2**11), 2**11, (2, 8, 8), dtype=np.int16)
    yield "two signed frames of 12 bits", image(two, frames=2, BitsStored=12, HighBit=11), two
    planes = image(COLOUR, PlanarConfiguration=1)
    planes.PixelData = np.ascontiguousarray(np.moveaxis(COLOUR, -1, 0)).tobytes()
    yield "colour by plane", planes, COLOUR
    one = np.array([[7]], np.uint8)
    yield "a single pixel", image(one), one
    grey = image(GREY, PhotometricInterpretation="MONOCHROME1", SmallestImagePixelValue=0)
    grey["SmallestImagePixelValue"].VR = "US"
    yield "inverted grey", grey, GREY


def undeliverable() -> Iterator[tuple[str, Dataset, str]]:
    """(name, dataset, error): what is stored, and cannot be decoded."""
    grey = image(GREY)
    for suffix in ("100", "102", "107"):
        yield (
            f"video .{suffix}",
            compressed(grey, f"1.2.840.10008.1.2.4.{suffix}", [bytes(range(64))]),
            "UnsupportedTransferSyntaxError",
        )
        yield (
            f"video .{suffix} of frames",
            compressed(grey, f"1.2.840.10008.1.2.4.{suffix}", [bytes(range(64))], NumberOfFrames=30),
            "MetadataError",
        )
    unknown = copy.deepcopy(grey)
    unknown.SOPInstanceUID, unknown.SeriesInstanceUID = generate_uid(), generate_uid()
    unknown.file_meta.TransferSyntaxUID = UID("1.2.840.113619.5.999")
    yield "a private transfer syntax", unknown, "FrameUnavailableError"
    broken = bytes(imagecodecs.jpegls_encode(GREY))[:40]
    yield "a broken stream", compressed(grey, "1.2.840.10008.1.2.4.80", [broken]), "FrameUnavailableError"
    cut = bytes(imagecodecs.htj2k_encode(GREY))[:60]
    yield (
        "a broken stream that is kept",
        compressed(grey, "1.2.840.10008.1.2.4.203", [cut]),
        "FrameDecodeError",
    )
    wide = image(np.zeros((4, 4), np.uint64))
    yield "pixels of 64 bits", wide, "FrameUnavailableError"
    for name in ("test_files/meta_missing_tsyntax.dcm", "test_files/nested_priv_SQ.dcm"):
        # Pixel data without rows and columns.
        yield name, _completed(name), "MetadataError"


def completed() -> Iterator[tuple[str, Dataset]]:
    """Real files that import refuses because they lack identifiers or file meta information, with them."""
    for name in (
        "charset_files/chrSQEncoding.dcm",
        "charset_files/chrSQEncoding1.dcm",
        "more/OT-PAL-8-face.dcm",
        "test_files/ExplVR_BigEndNoMeta.dcm",
        "test_files/ExplVR_LitEndNoMeta.dcm",
        "test_files/JPEGLSNearLossless_08.dcm",
        "test_files/JPEGLSNearLossless_16.dcm",
        "test_files/SC_rgb_jls_lossy_line.dcm",
        "test_files/SC_rgb_jls_lossy_sample.dcm",
        "test_files/empty_charset_LEI.dcm",
        "test_files/no_meta.dcm",
        "test_files/no_meta_group_length.dcm",
        "test_files/priv_SQ.dcm",
        "test_files/rtstruct.dcm",
        *(name for name in FILES if name.startswith("palettes/") and name.endswith(".dcm")),
    ):
        yield name, _completed(name)


def _completed(name: str) -> Dataset:
    assert expected(name).refused
    dataset = pydicom.dcmread(FILES[name], force=True)
    identifiers = header()
    for keyword in ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID"):
        if not dataset.get(keyword):
            setattr(dataset, keyword, identifiers[keyword].value)
    if "TransferSyntaxUID" not in dataset.file_meta:
        implicit, little = dataset.original_encoding
        dataset.file_meta.TransferSyntaxUID = UID(
            "1.2.840.10008.1.2" if implicit else "1.2.840.10008.1.2.1" if little else "1.2.840.10008.1.2.2"
        )
    return dataset


_VALUES: dict[str, Any] = {
    "AE": "TITLE",
    "AS": "042Y",
    "AT": [0x00280010, 0x00181063],
    "CS": ["ONE", "TWO"],
    "DA": "20240102",
    "DS": ["1.500", "-0", "+1e2", "1E-3"],
    "DT": "20240102030405.000006+0100",
    "FD": [0.1, -1e300],
    "FL": [0.5, 1.17549435e-38],
    "IS": ["+1", "-007"],
    "LO": ["a b", "", "c"],
    "LT": "one\\two\r\nthree",
    "OB": b"\x00\x01\x02\x03",
    "OD": np.arange(3, dtype="<f8").tobytes(),
    "OF": np.arange(3, dtype="<f4").tobytes(),
    "OL": np.arange(3, dtype="<u4").tobytes(),
    "OV": np.arange(3, dtype="<u8").tobytes(),
    "OW": np.arange(3, dtype="<u2").tobytes(),
    "PN": ["Yamada^Tarou=\u5c71\u7530^\u592a\u90ce=\u3084\u307e\u3060^\u305f\u308d\u3046", "Doe^J"],
    "SH": "short",
    "SL": [-(2**31), 2**31 - 1],
    "SS": [-(2**15), 2**15 - 1],
    "ST": "text\\with backslash",
    "SV": [-(2**63), 2**63 - 1],
    "TM": "030405.000006",
    "UC": ["un", "limited " * 200 + "."],
    "UI": ["1.2.3", "1.2.840.10008.1.2"],
    "UL": [0, 2**32 - 1],
    "UN": b"\x00\xff",
    "UR": "https://example.org/a?b=c",
    "US": [0, 65535],
    "UT": "\u00e9t\u00e9 " * 500 + ".",
    "UV": [0, 2**64 - 1],
}
"""A value of every VR."""


def every_vr() -> Dataset:
    """Public and private elements of every VR: with values, empty, and in items of sequences."""
    dataset = header(SpecificCharacterSet="ISO_IR 192")
    item = Dataset()
    for vr, value in _VALUES.items():
        if pydicom.datadict.tag_for_keyword(f"Selector{vr}Value") is not None:
            setattr(dataset, f"Selector{vr}Value", value)
            setattr(item, f"Selector{vr}Value", value)
    block = dataset.private_block(0x0011, "MAKER OF EVERYTHING", create=True)
    inner = item.private_block(0x0011, "ANOTHER MAKER", create=True)
    for number, (vr, value) in enumerate(_VALUES.items()):
        block.add_new(number, vr, value)
        block.add_new(0x40 + number, vr, b"" if vr.startswith("O") or vr == "UN" else None)
        # The same tag, and another VR.
        inner.add_new(len(_VALUES) - 1 - number, vr, value)
    block.add_new(0x80, "SQ", Sequence([item, Dataset()]))
    block.add_new(0x81, "SQ", Sequence([]))
    dataset.SelectorCodeSequenceValue = Sequence([copy.deepcopy(item)])
    return dataset


def repeating_groups() -> Dataset:
    """Overlays and curves in several groups, whose keywords are the same."""
    dataset = image(GREY)
    for group, label in ((0x6000, "first"), (0x6002, "second"), (0x601E, "last")):
        dataset.add_new((group, 0x0010), "US", 8)
        dataset.add_new((group, 0x0011), "US", group & 0xFF)
        dataset.add_new((group, 0x0040), "CS", "G")
        dataset.add_new((group, 0x0050), "SS", [1, -2])
        dataset.add_new((group, 0x1500), "LO", label)
        dataset.add_new((group, 0x3000), "OW", bytes([group & 0xFF]) * 8)
    for group in (0x5000, 0x5004):
        dataset.add_new((group, 0x0005), "US", 2)
        dataset.add_new((group, 0x0030), "SH", ["DPPS", f"G{group:X}"])
        dataset.add_new((group, 0x3000), "OW", bytes([group & 0xFF]) * 6)
    return dataset


def lookup_tables(*, signed: bool) -> Iterator[tuple[str, Dataset]]:
    """Attributes whose VR depends on PixelRepresentation and on each other (PS3.3 C.7.6.3.1, C.11.1)."""
    pixels = SIGNED if signed else SIGNED.view(np.uint16)
    dataset = image(pixels)
    vr, least = ("SS", -1024) if signed else ("US", 65000)
    for keyword in ("SmallestImagePixelValue", "LargestImagePixelValue", "PixelPaddingValue"):
        dataset.add_new(keyword, vr, least)
    for data in ("US", "OW"):
        item = Dataset()
        item.add_new("LUTDescriptor", vr, [3, least, 16])
        item.LUTExplanation = "made"
        item.add_new(
            "LUTData", data, [1, 2, 65535] if data == "US" else np.array([1, 2, 65535], "<u2").tobytes()
        )
        made = copy.deepcopy(dataset)
        made.SOPInstanceUID, made.SeriesInstanceUID = generate_uid(), generate_uid()
        made.ModalityLUTSequence = Sequence([item])
        yield f"{'signed' if signed else 'unsigned'} {data}", made


def icon() -> Dataset:
    """An image with a small copy of itself, which has another PixelRepresentation."""
    dataset = image(SIGNED)
    dataset.add_new("SmallestImagePixelValue", "SS", -1024)
    small = image(GREY[:4, :4].copy())
    item = Dataset()
    for keyword in ("Rows", "Columns", "BitsAllocated", "PixelRepresentation", "PixelData"):
        item[keyword] = small[keyword]
    item.add_new("SmallestImagePixelValue", "US", 60000)
    dataset.IconImageSequence = Sequence([item])
    return dataset


def real_numbers() -> Iterator[tuple[str, Dataset]]:
    """Pixels as floating point numbers: they have no frames, their values are attributes."""
    for keyword, vr, dtype in (
        ("FloatPixelData", "OF", np.float32),
        ("DoubleFloatPixelData", "OD", np.float64),
    ):
        pixels = np.linspace(0, 1, 48).reshape(6, 8).astype(dtype)
        dataset = image(pixels.view(f"u{pixels.dtype.itemsize}"))
        del dataset.PixelData, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation
        dataset.add_new(keyword, vr, pixels.tobytes())
        yield keyword, dataset


def bulk() -> tuple[Dataset, bytes]:
    """A private value of more than 1 MB, at the top and in an item."""
    value = np.random.default_rng(4).bytes(1_200_000)
    dataset = header()
    item = Dataset()
    for target in (dataset, item):
        target.private_block(0x0099, "LARGE", create=True).add_new(0x01, "OB", value)
    dataset.private_block(0x0099, "LARGE").add_new(0x02, "SQ", Sequence([item]))
    dataset.private_block(0x0099, "LARGE").add_new(0x03, "UN", value)
    return dataset, value
