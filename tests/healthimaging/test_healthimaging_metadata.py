"""The metadata document in both shapes, with everything absent or null that may be, and damaged."""

from __future__ import annotations

import gzip
import json
from typing import Any

import numpy as np
import pytest
from fake_healthimaging import IMAGE_SET, SERIES_UID, STUDY_UID, ct_series, document, instance

from healthimaging.errors import HealthImagingError, MetadataError
from healthimaging.metadata import HTJ2K_LOSSLESS_RPCL, Attributes, ImageSetMetadata

OLD_SHAPE = {
    "SchemaVersion": "1.1",
    "DatastoreID": "d" * 32,
    "ImageSetID": IMAGE_SET,
    "Patient": {"DICOM": {"PatientID": "P"}},
    "Study": {
        "DICOM": {"StudyInstanceUID": "1.2"},
        "Series": {
            "1.2.3": {
                "DICOM": {"Modality": "CT"},
                "Instances": {
                    "1.2.3.4": {
                        "DICOM": {"Rows": 512},
                        "ImageFrames": [
                            {
                                "ID": "f",
                                "PixelDataChecksumFromBaseToFullResolution": [
                                    {"Width": 128, "Height": 128, "Checksum": 1},
                                    {"Width": 256, "Height": 256, "Checksum": 2},
                                    {"Width": 512, "Height": 512, "Checksum": 4294967295},
                                ],
                                "MinPixelValue": -1024,
                                "MaxPixelValue": 3071,
                                "FrameSizeInBytes": 524288,
                            }
                        ],
                    }
                },
            }
        },
    },
}


def test_old_shape_checksum_is_that_of_the_full_resolution() -> None:
    metadata = ImageSetMetadata.from_document(OLD_SHAPE)
    (one,) = metadata.instances
    assert one.frames[0].checksum == 4294967295
    assert one.checksum_type is None
    assert one.transfer_syntax_uid == HTJ2K_LOSSLESS_RPCL
    assert one.series_instance_uid == "1.2.3"
    assert (one.frames[0].minimum, one.frames[0].maximum) == (-1024, 3071)


def test_new_shape() -> None:
    service, _ = ct_series()
    metadata = ImageSetMetadata.from_document(service.document)
    assert metadata.study_instance_uid == STUDY_UID
    assert list(metadata.series) == [SERIES_UID]
    assert len(metadata.instances) == 7
    assert metadata.instances[0].checksum_type == "DECOMPRESSED"


def test_null_transfer_syntax_and_absent_levels() -> None:
    record, _ = instance(np.zeros((4, 4), np.int16), number=1, position=(0, 0, 0))
    record["StoredTransferSyntaxUID"] = None
    record["ImageFrames"] = None
    made = document({record["DICOM"]["SOPInstanceUID"]: record})
    made["Patient"] = None
    metadata = ImageSetMetadata.from_document(made)
    assert metadata.instances[0].transfer_syntax_uid == HTJ2K_LOSSLESS_RPCL
    assert metadata.instances[0].frames == ()
    assert metadata.patient.text("PatientID") is None


@pytest.mark.parametrize("compress", [True, False])
def test_bytes_with_and_without_gzip(compress: bool) -> None:
    text = json.dumps(OLD_SHAPE).encode()
    assert ImageSetMetadata.from_bytes(gzip.compress(text) if compress else text).image_set_id == IMAGE_SET


@pytest.mark.parametrize(
    "blob",
    [
        b"",
        b"{",
        b"[]",
        b"{}",
        b"\x1f\x8bnot gzip",
        gzip.compress(json.dumps(OLD_SHAPE).encode(), mtime=0)[:-20],
        gzip.compress(json.dumps(OLD_SHAPE).encode(), mtime=0)[:-8] + b"\0" * 8,
        b'"text"',
        b"\xff\xfe\x00",
    ],
)
def test_damaged_documents_are_refused(blob: bytes) -> None:
    with pytest.raises(MetadataError):
        ImageSetMetadata.from_bytes(blob)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("Patient",), []),
        (("Study", "Series"), "x"),
        (("Study", "Series", "1.2.3", "Instances"), []),
        (("Study", "Series", "1.2.3", "Instances", "1.2.3.4", "DICOM"), 3),
        (("Study", "Series", "1.2.3", "Instances", "1.2.3.4", "ImageFrames"), {}),
        (("Study", "Series", "1.2.3", "Instances", "1.2.3.4", "ImageFrames"), [{"ID": None}]),
        (
            ("Study", "Series", "1.2.3", "Instances", "1.2.3.4", "ImageFrames"),
            [{"ID": "f", "PixelDataChecksumFromBaseToFullResolution": [{"Checksum": "12"}]}],
        ),
        (
            ("Study", "Series", "1.2.3", "Instances", "1.2.3.4", "ImageFrames"),
            [{"ID": "f", "PixelDataChecksumFromBaseToFullResolution": [{"Checksum": -1}]}],
        ),
    ],
)
def test_wrong_types_are_refused_and_name_the_image_set(path: tuple[str, ...], value: Any) -> None:
    made = json.loads(json.dumps(OLD_SHAPE))
    level = made
    for key in path[:-1]:
        level = level[key]
    level[path[-1]] = value
    with pytest.raises(MetadataError) as caught:
        ImageSetMetadata.from_document(made)
    assert caught.value.image_set_id == IMAGE_SET


@pytest.mark.parametrize(
    ("value", "text", "number", "numbers"),
    [
        ("1 ", "1", 1, [1.0]),
        (["1 "], "1", 1, [1.0]),
        (7, "7", 7, [7.0]),
        ("2.5", "2.5", None, [2.5]),
        ("1e3", "1e3", 1000, [1000.0]),
        ("0.5\\0.7", "0.5", None, [0.5, 0.7]),
        (None, None, None, None),
        ("", None, None, None),
        ("  ", None, None, None),
        ([], None, None, None),
        ([None], None, None, None),
        ("nan", "nan", None, None),
        ("inf", "inf", None, None),
        ("x", "x", None, None),
    ],
)
def test_readers_tolerate_what_is_seen(value: Any, text: Any, number: Any, numbers: Any) -> None:
    attributes = Attributes({"A": value}, {})
    assert attributes.text("A") == text
    assert attributes.integer("A") == number
    assert attributes.decimals("A") == numbers


def test_attributes_over_a_base() -> None:
    merged = Attributes({"A": 1}, {"A": "US"}).over(Attributes({"A": 2, "B": 3}, {}))
    assert (merged.integer("A"), merged.integer("B")) == (1, 3)


def test_errors_say_where() -> None:
    error = HealthImagingError("Broken", image_set_id="i", sop_instance_uid="1.2", frame_number=3)
    assert str(error) == "Broken [image set i, instance 1.2, frame 3]"
    assert str(HealthImagingError("Broken")) == "Broken"
