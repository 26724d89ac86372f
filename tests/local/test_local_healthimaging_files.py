"""Every file of the table of real files: frames are its pixels, and the data set comes back as it was."""

from __future__ import annotations

import hashlib
import re
import warnings
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pydicom
import pytest
from dicom_equality import differences
from healthimaging_archive import ct_series, encoded
from pydicom.pixels.utils import pixel_array
from pydicom.uid import UID, ImplicitVRLittleEndian, generate_uid
from real_files import FILES, expected

from local.healthimaging import transfer_syntaxes as ts
from local.healthimaging.codecs import CodecError, decode_frame, describe, encode_frame
from local.healthimaging.documents import add_instance, effective_attributes, empty_document, pack, unpack
from local.healthimaging.elements import BULK_THRESHOLD_BYTES
from local.healthimaging.instances import ParsedInstance, RejectedFile, parse_instance
from local.healthimaging.part10 import restored_dataset, write_part10
from local.healthimaging.pixels import pack_bits, unpack_bits


@dataclass(kw_only=True)
class Content:
    """Stored bytes by digest."""

    stored: dict[str, bytes] = field(default_factory=dict)

    def put(self, data: bytes) -> str:
        digest = hashlib.sha256(data).hexdigest()
        self.stored[digest] = data
        return digest


NAME = "\u041b\u044e\u043a\u0441"
"""A name in Cyrillic letters."""


def parsed(data: bytes, storage_syntax: str = ts.HTJ2K_LOSSLESS_RPCL) -> tuple[ParsedInstance, Content]:
    content = Content()
    return parse_instance(data, storage_syntax=storage_syntax, put=content.put), content


def path_of(name: str) -> Path:
    return FILES.get(name) or FILES[f"test_files/{name}"]


def read(name: str) -> pydicom.FileDataset:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pydicom.dcmread(path_of(name))


def raw_pixels(dataset: pydicom.Dataset) -> np.ndarray[Any, Any]:
    """The second opinion: pydicom's own decoders, without conversion of colours."""
    array = pixel_array(dataset, raw=True)
    return array.astype(array.dtype.newbyteorder("="))


def images() -> Iterator[tuple[str, str]]:
    """(name, transfer syntax) of every file with pixels that is imported and that pydicom decodes."""
    for name in FILES:
        wanted = expected(name)
        if wanted.refused or wanted.error or wanted.header_error or wanted.crc is not None:
            continue
        dataset = read(name)
        if "PixelData" in dataset:
            bits = dataset.BitsAllocated == 1
            yield name, ts.EXPLICIT_LITTLE_ENDIAN if bits else str(dataset.file_meta.TransferSyntaxUID)


IMAGES = dict(images())
KEPT = {name: syntax for name, syntax in IMAGES.items() if syntax in ts.KEPT_AS_IMPORTED}
BINARY = [name for name in IMAGES if read(name).BitsAllocated == 1]
TRANSCODED = sorted(set(IMAGES) - set(KEPT) - set(BINARY))


@pytest.mark.parametrize("name", TRANSCODED)
def test_transcoded_frames_are_the_pixels(name: str) -> None:
    dataset = read(name)
    instance, content = parsed(path_of(name).read_bytes())
    assert instance.entry["stored_transfer_syntax"] == ts.HTJ2K_LOSSLESS_RPCL
    assert instance.entry["checksum_type"] == "DECOMPRESSED"
    expected = raw_pixels(dataset)
    frames = expected if int(dataset.get("NumberOfFrames") or 1) > 1 else expected[None]
    assert len(instance.frames) == len(frames)
    for stored, entry, pixels in zip(instance.frames, instance.entry["frames"], frames, strict=True):
        data = content.stored[stored.digest]
        decoded = imagecodecs.htj2k_decode(data)
        assert decoded.dtype == pixels.dtype
        np.testing.assert_array_equal(decoded, pixels)
        assert entry["checksum"] == zlib.crc32(np.ascontiguousarray(pixels).tobytes())
        assert (entry["minimum"], entry["maximum"]) == (pixels.min(), pixels.max())
        assert (entry["width"], entry["height"]) == (dataset.Columns, dataset.Rows)
        assert entry["size"] == len(data)


def test_lossless_jpeg_is_decoded() -> None:
    # No decoder of pydicom's is installed for it; the same picture exists uncompressed.
    instance, content = parsed(path_of("SC_rgb_jpeg_gdcm.dcm").read_bytes())
    decoded = imagecodecs.htj2k_decode(content.stored[instance.frames[0].digest])
    np.testing.assert_array_equal(decoded, read("SC_rgb_rle.dcm").pixel_array)


def test_twelve_bit_jpeg_is_decoded() -> None:
    instance, content = parsed(path_of("JPGExtended.dcm").read_bytes())
    decoded = imagecodecs.htj2k_decode(content.stored[instance.frames[0].digest])
    assert decoded.shape == (1024, 256)
    # The values that pydicom's own tests expect of this file.
    assert (decoded[420, 140], decoded[230, 120]) == (244, 95)


@pytest.mark.parametrize("name", sorted(KEPT))
def test_kept_frames_are_the_bytes_of_the_file(name: str) -> None:
    dataset = read(name)
    instance, content = parsed(path_of(name).read_bytes())
    assert instance.entry["stored_transfer_syntax"] == KEPT[name]
    assert instance.entry["checksum_type"] == "ORIGINAL"
    number = int(dataset.get("NumberOfFrames") or 1)
    frames = list(pydicom.encaps.generate_frames(dataset.PixelData, number_of_frames=number))
    expected = dataset.pixel_array if number > 1 else dataset.pixel_array[None]
    for stored, entry, original, pixels in zip(
        instance.frames, instance.entry["frames"], frames, expected, strict=True
    ):
        data = content.stored[stored.digest]
        assert data == original
        assert entry["checksum"] == zlib.crc32(data)
        assert entry["minimum"] is None
        np.testing.assert_array_equal(decode_frame(data, KEPT[name], describe(dataset)), pixels)


@pytest.mark.parametrize("name", BINARY)
def test_binary_segmentations_keep_their_bits(name: str) -> None:
    dataset = read(name)
    instance, content = parsed(path_of(name).read_bytes())
    assert instance.entry["stored_transfer_syntax"] == ts.EXPLICIT_LITTLE_ENDIAN
    masks = dataset.pixel_array.reshape(-1, dataset.Rows, dataset.Columns)
    for stored, entry, mask in zip(instance.frames, instance.entry["frames"], masks, strict=True):
        data = content.stored[stored.digest]
        assert len(data) == (mask.size + 7) // 8
        assert entry["checksum"] == zlib.crc32(data)
        np.testing.assert_array_equal(unpack_bits(data, mask.size).reshape(mask.shape), mask)


def test_frames_of_bits_begin_at_a_byte() -> None:
    frame = np.array([[1, 0, 1], [0, 1, 1], [1, 1, 0]], np.uint8)
    packed = pack_bits(frame)
    assert len(packed) == 2
    np.testing.assert_array_equal(unpack_bits(packed, 9).reshape(3, 3), frame)


@pytest.mark.parametrize("name", ["MR_small.dcm", "examples_rgb_color.dcm", "SC_rgb_rle_16bit.dcm"])
def test_jpeg_2000_datastores_hold_jpeg_2000(name: str) -> None:
    instance, content = parsed(path_of(name).read_bytes(), ts.JPEG_2000_LOSSLESS)
    assert instance.entry["stored_transfer_syntax"] == ts.JPEG_2000_LOSSLESS
    decoded = imagecodecs.jpeg2k_decode(content.stored[instance.frames[0].digest])
    np.testing.assert_array_equal(decoded, raw_pixels(read(name)))


def test_an_encoding_that_loses_bits_is_refused() -> None:
    with pytest.raises(CodecError, match="do not survive"):
        encode_frame(np.array([[2**31, 1]], np.uint32), ts.JPEG_2000_LOSSLESS)
    with pytest.raises(CodecError, match="native byte order"):
        encode_frame(np.zeros((2, 2), ">i2"), ts.HTJ2K_LOSSLESS_RPCL)


ROUND_TRIP = [name for name in FILES if not expected(name).refused and not expected(name).header_error]


@pytest.mark.parametrize("name", ROUND_TRIP)
def test_the_data_set_comes_back(name: str) -> None:
    dataset = read(name)
    instance, content = parsed(path_of(name).read_bytes())
    document = empty_document()
    series_uid, sop_instance_uid = instance.identity["series_uid"], instance.sop_instance_uid
    add_instance(
        document,
        series_uid=series_uid,
        sop_instance_uid=sop_instance_uid,
        attributes=instance.attributes,
        instance=instance.entry,
    )
    assert unpack(pack(document)) == document
    bulk = {value.id: value.digest for value in instance.bulk}
    written = write_part10(
        restored_dataset(
            effective_attributes(document, series_uid, sop_instance_uid),
            get_bulk=lambda identifier: content.stored[bulk[identifier]],
        ),
        ts.EXPLICIT_LITTLE_ENDIAN,
    )
    # All text becomes UTF-8; of the rest only what transcoding changes, and the import warns of it.
    changed = {0x00080005, *(int(tag, 16) for tag in coerced(instance))}
    assert differences(dataset, pydicom.dcmread(BytesIO(written)), besides=changed) == []


def coerced(instance: ParsedInstance) -> list[str]:
    """Tags that the warnings name as changed."""
    return [
        tag
        for warning in instance.warnings
        if warning.code.name == "COERCION_OF_DATA_ELEMENTS"
        for tag in re.findall(r"\b[0-9A-F]{8}\b", warning.message)
    ]


def test_large_values_become_bulk_data() -> None:
    (dataset,) = ct_series(slices=1)
    block = dataset.private_block(0x0099, "TEST CREATOR", create=True)
    value = bytes(BULK_THRESHOLD_BYTES + 2)
    block.add_new(0x01, "OB", value)
    instance, content = parsed(encoded(dataset))
    (bulk,) = instance.bulk
    assert content.stored[bulk.digest] == value
    assert instance.attributes["00991001"] == {"vr": "OB", "value": [], "bulk": bulk.id}


def test_slices_that_say_something_else_keep_it() -> None:
    document = empty_document()
    first, second = ct_series(slices=2, SeriesDescription="one")
    second.SeriesDescription = "two"
    for dataset in (first, second):
        instance, _ = parsed(encoded(dataset))
        add_instance(
            document,
            series_uid=dataset.SeriesInstanceUID,
            sop_instance_uid=dataset.SOPInstanceUID,
            attributes=instance.attributes,
            instance=instance.entry,
        )
    series_uid = first.SeriesInstanceUID
    assert document["series"][series_uid]["attributes"]["0008103E"]["value"] == ["one"]
    for dataset in (first, second):
        attributes = effective_attributes(document, series_uid, dataset.SOPInstanceUID)
        assert attributes["0008103E"]["value"] == [dataset.SeriesDescription]


pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:pydicom")
"""pydicom's remarks on its own test files."""


def test_names_in_other_alphabets_are_text() -> None:
    (dataset,) = ct_series(slices=1)
    dataset.SpecificCharacterSet = "ISO_IR 144"
    dataset.PatientName = NAME
    dataset.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
    dataset = pydicom.dcmread(BytesIO(encoded(dataset)))
    instance, _ = parsed(encoded(dataset))
    assert instance.attributes["00100010"]["value"] == [NAME]


@pytest.mark.parametrize("uid", ["1.2.abc", "1" * 65])
def test_what_is_not_a_uid_is_refused(uid: str) -> None:
    (dataset,) = ct_series(slices=1)
    data = encoded(dataset).replace(
        dataset.SeriesInstanceUID.encode(), uid.encode().ljust(len(dataset.SeriesInstanceUID))
    )
    with pytest.raises(RejectedFile):
        parsed(data)


def test_a_uid_with_a_leading_zero_is_imported_with_a_warning() -> None:
    (dataset,) = ct_series(slices=1, series_uid="1.2.03.4")
    instance, _ = parsed(encoded(dataset))
    assert [warning.code.name for warning in instance.warnings] == ["INVALID_UID_FORMAT"]


def test_fragments_that_are_not_the_frames_are_told() -> None:
    (dataset,) = ct_series(slices=1)
    frame = imagecodecs.htj2k_encode(dataset.pixel_array)
    dataset.PixelData = pydicom.encaps.encapsulate([bytes(frame), bytes(frame)])
    dataset["PixelData"].VR = "OB"
    dataset.file_meta.TransferSyntaxUID = UID(ts.HTJ2K)
    dataset.NumberOfFrames = 3
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    instance, _ = parsed(encoded(dataset))
    assert instance.entry["decodable"] is False
    assert instance.warnings[0].code.name in ("FRAME_NUMBER_MISMATCH", "FRAMES_EXTRACTION_FAILURE")


def test_high_throughput_frames_are_kept_or_transcoded_by_their_syntax() -> None:
    (dataset,) = ct_series(slices=1, size=64)
    pixels = dataset.pixel_array
    frame = bytes(imagecodecs.htj2k_encode(pixels))
    for syntax, stored_as in ((ts.HTJ2K, ts.HTJ2K), ("1.2.840.10008.1.2.4.201", ts.HTJ2K_LOSSLESS_RPCL)):
        dataset.PixelData = pydicom.encaps.encapsulate([frame])
        dataset["PixelData"].VR = "OB"
        dataset.file_meta.TransferSyntaxUID = UID(syntax)
        instance, content = parsed(encoded(dataset))
        assert instance.entry["stored_transfer_syntax"] == stored_as
        decoded = imagecodecs.htj2k_decode(content.stored[instance.frames[0].digest])
        np.testing.assert_array_equal(decoded, pixels)


def test_an_unknown_transfer_syntax_is_kept_as_a_blob() -> None:
    (dataset,) = ct_series(slices=1)
    dataset.file_meta.TransferSyntaxUID = UID("1.2.840.113619.5.999")
    buffer = BytesIO()
    dataset.save_as(buffer, implicit_vr=False, little_endian=True, enforce_file_format=True)
    instance, content = parsed(buffer.getvalue())
    assert [warning.code.name for warning in instance.warnings] == ["UNSUPPORTED_TRANSFER_SYNTAX"]
    assert content.stored[instance.frames[0].digest] == dataset.PixelData


def test_an_unforeseen_failure_is_told_without_values(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise RuntimeError("^".join(("Doe", "Jane")))

    monkeypatch.setattr("local.healthimaging.instances.store_pixels", fail)
    with pytest.raises(RejectedFile, match="internal error") as raised:
        parsed(encoded(ct_series(slices=1)[0]))
    assert raised.value.exception_type == "InternalServerException"
    assert "RuntimeError" in caplog.text
    assert "Doe^Jane" not in caplog.text
