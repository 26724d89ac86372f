"""Datasets from metadata: every VR, null and absent values, private elements, sequences, and valid files."""

from __future__ import annotations

import base64
import copy
import pickle
import warnings
import zlib
from io import BytesIO
from typing import Any

import imagecodecs
import numpy as np
import pydicom
import pytest
from fake_healthimaging import (
    DATASTORE,
    HTJ2K,
    IMAGE_SET,
    SERIES_UID,
    FakeService,
    crc32,
    ct_series,
    document,
    image_set,
    instance,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from pydicom.tag import Tag

from healthimaging import ImageSet
from healthimaging.dicom.datasets import DatasetBuilder, build_dataset, refuse_bulk
from healthimaging.errors import MetadataError
from healthimaging.metadata import ImageSetMetadata


def opened(service: FakeService) -> ImageSet:
    return ImageSet.open(service, DATASTORE, IMAGE_SET)


def one_slice(vrs: dict[str, Any] | None = None, **attributes: Any) -> FakeService:
    built = instance(np.arange(12, dtype=np.int16).reshape(3, 4), number=1, position=(0, 0, 0), **attributes)
    built[0]["DICOMVRs"] = vrs or {}
    return image_set([built])


def dataset(vrs: dict[str, Any] | None = None, **attributes: Any) -> Dataset:
    (made,) = opened(one_slice(vrs, **attributes)).datasets()
    return through_a_file(made)


def through_a_file(made: Dataset) -> Dataset:
    buffer = BytesIO()
    made.save_as(buffer, enforce_file_format=True)
    buffer.seek(0)
    return pydicom.dcmread(buffer)


def test_file_meta_is_complete_and_the_pixels_are_the_stored_ones() -> None:
    service, hu = ct_series()
    datasets = opened(service).datasets()
    for k, made in enumerate(datasets):
        read = through_a_file(made)
        assert read.file_meta.MediaStorageSOPClassUID == made.SOPClassUID
        assert read.file_meta.MediaStorageSOPInstanceUID == made.SOPInstanceUID
        assert read.file_meta.TransferSyntaxUID == pydicom.uid.ExplicitVRLittleEndian
        assert read["PixelData"].VR == "OW"
        assert np.array_equal(read.pixel_array.astype(int) - 1024, hu[k])
        for element in made:
            # An empty value reads back as an empty text.
            assert read[element.tag].value == element.value or not (read[element.tag].value or element.value)


def test_slices_come_in_the_order_of_their_positions() -> None:
    heights = [float(d.ImagePositionPatient[2]) for d in opened(ct_series()[0]).datasets(pixels=False)]
    assert heights == sorted(heights)


def test_geometry_may_be_filed_under_the_series() -> None:
    service, _ = ct_series()
    series = service.document["Study"]["Series"][SERIES_UID]
    for record in series["Instances"].values():
        series["DICOM"]["PixelSpacing"] = record["DICOM"].pop("PixelSpacing")
    assert [made.InstanceNumber for made in opened(service).datasets(pixels=False)] == [7, 6, 5, 4, 3, 2, 1]


@pytest.mark.parametrize("keyword", ["ImagePositionPatient", "ImageOrientationPatient"])
def test_without_positions_the_instance_number_orders(keyword: str) -> None:
    service, _ = ct_series()
    instances = list(service.document["Study"]["Series"][SERIES_UID]["Instances"].values())
    for record in instances:
        record["DICOM"][keyword] = None
    instances[2]["DICOM"]["InstanceNumber"] = None
    numbers = [d.InstanceNumber for d in opened(service).datasets(pixels=False)]
    assert len(numbers) == 7
    assert numbers[:-1] == sorted(numbers[:-1])
    assert numbers[-1] is None


def test_header_only_fetches_no_frame() -> None:
    service, _ = ct_series()
    datasets = opened(service).datasets(pixels=False)
    assert service.requested == []
    assert all("PixelData" not in made for made in datasets)
    assert datasets[0].Rows == 9


def test_levels_are_merged_and_null_is_kept_as_empty() -> None:
    read = dataset(AcquisitionNumber=None, ImageType=["ORIGINAL", "PRIMARY", "AXIAL "], KVP="120 ")
    assert read.PatientID == "P1"
    assert read.Modality == "CT"
    assert read.StudyID == "S1"
    assert "AcquisitionNumber" in read
    assert read.AcquisitionNumber is None
    assert read.PatientSex == ""
    assert read.ImageType == ["ORIGINAL", "PRIMARY", "AXIAL"]
    assert read.KVP == 120


def encoded(data: bytes) -> str:
    return base64.b64encode(data).decode()


@pytest.mark.parametrize(
    ("key", "vr", "value", "expected"),
    [
        ("AcquisitionMatrix", None, [0, 512, 512, 0], [0, 512, 512, 0]),
        ("InstitutionName", None, "Somewhere  ", "Somewhere"),
        ("OtherPatientIDs", None, "A\\B", ["A", "B"]),
        ("OperatorsName", None, ["A^B", "C^D "], ["A^B", "C^D"]),
        ("OperatorsName", None, [{"Alphabetic": "A^B", "Ideographic": "X"}], "A^B=X"),
        ("ImageComments", None, "one\\two ", "one\\two"),
        ("FrameIncrementPointer", None, "00181063", Tag(0x0018, 0x1063)),
        ("FrameIncrementPointer", None, "(0018,1063)", Tag(0x0018, 0x1063)),
        ("FrameIncrementPointer", None, 0x00181063, Tag(0x0018, 0x1063)),
        ("FrameIncrementPointer", None, "FrameTime", Tag(0x0018, 0x1063)),
        ("DiffusionBValue", None, 1000, 1000.0),
        ("DiffusionGradientOrientation", None, ["0.5", 0.25, 1], [0.5, 0.25, 1.0]),
        ("ICCProfile", None, encoded(b"profile!"), b"profile!"),
        ("ICCProfile", None, None, None),
        ("EncapsulatedDocument", None, [encoded(b"ab")], b"ab"),
        ("00091010", "LO", "private ", "private"),
        ("00091010", "UN", encoded(b"\1\2"), b"\1\2"),
        ("00091010", "UN", None, None),
        ("00091010", "DS", ["1.5", "2.5"], [1.5, 2.5]),
        ("00091010", "SV", -5, -5),
        ("(0009,1010)", "US", 7, 7),
        ("00111010", None, encoded(b"xy"), b"xy"),
        ("SmallestImagePixelValue", "SS", -5, -5),
        ("SmallestImagePixelValue", None, -5, -5),
        ("OverlayRows", None, 12, 12),
        ("60023000", "OW", encoded(b"\1\2"), b"\1\2"),
        ("SliceLocation", None, "-2.625000 ", -2.625),
        ("StudyComments", None, ["a", "b"], "a\\b"),
    ],
)
def test_value_representations(key: str, vr: str | None, value: Any, expected: Any) -> None:
    creator = {"00090010": "MAKER"}
    read = dataset({key: vr} if vr else {}, **creator, **{key: value})
    tag = {"OverlayRows": 0x60000010}.get(key) or pydicom.datadict.tag_for_keyword(key)
    tag = tag or int(key.strip("()").replace(",", ""), 16)
    element = read[tag]
    assert element.value == expected or (expected is None and not element.value)
    if vr:
        assert vr == element.VR


def test_private_elements_stand_in_their_block() -> None:
    read = dataset({"00091001": "LO"}, **{"00091001": "x", "00090010": "MAKER"})
    assert read.private_block(0x0009, "MAKER")[0x01].value == "x"


def test_private_value_representation_from_the_private_dictionary() -> None:
    read = dataset(**{"00190010": "GEMS_ACQU_01", "00191002": "5"})
    assert pydicom.datadict.private_dictionary_VR(0x00191002, "GEMS_ACQU_01") == read[0x0019, 0x1002].VR


def test_sequences_nest_and_keep_empty_items() -> None:
    read = dataset(
        {"00091001": "LO"},
        ReferencedImageSequence=[
            {"ReferencedSOPInstanceUID": "1.2", "PurposeOfReferenceCodeSequence": [{"CodeValue": "1 "}]},
            {},
            None,
            {"00090010": "MAKER", "00091001": "inner"},
        ],
        SourceImageSequence=None,
        DerivationCodeSequence=[],
    )
    items = read.ReferencedImageSequence
    assert len(items) == 4
    assert items[0].PurposeOfReferenceCodeSequence[0].CodeValue == "1"
    assert len(items[1]) == len(items[2]) == 0
    assert items[3][0x0009, 0x1001].value == "inner"
    assert len(read.SourceImageSequence) == 0
    assert len(read.DerivationCodeSequence) == 0


def test_value_representations_per_sequence() -> None:
    read = dataset(
        {"00091020": {"00091001": "SH"}, "00091021": [{"00091001": "LO"}]},
        **{"00090010": "M", "00091020": [{"00091001": "a"}], "00091021": [{"00091001": "b"}]},
    )
    assert read[0x0009, 0x1020].value[0][0x0009, 0x1001].VR == "SH"
    assert read[0x0009, 0x1021].value[0][0x0009, 0x1001].VR == "LO"


def test_file_meta_of_the_imported_file_is_not_repeated() -> None:
    read = dataset(TransferSyntaxUID="1.2.840.10008.1.2.4.90", MediaStorageSOPClassUID="1.2")
    assert read.file_meta.TransferSyntaxUID == pydicom.uid.ExplicitVRLittleEndian
    assert "TransferSyntaxUID" not in read


@pytest.mark.parametrize(
    ("charset", "expected"),
    [
        ("ISO_IR 100", "ISO_IR 100"),
        (None, "ISO_IR 192"),
        ("ISO_IR 192", "ISO_IR 192"),
        ("ISO_IR 101", "ISO_IR 101"),
    ],
)
def test_text_survives_its_character_set(charset: str | None, expected: str) -> None:
    read = dataset(SpecificCharacterSet=charset, SeriesDescription="Schädel")
    assert read.SeriesDescription == "Schädel"
    assert read.SpecificCharacterSet == expected


@pytest.mark.parametrize("name", ["Doe^^Jane", "\u5c71\u7530^^\u592a\u90ce"])
@pytest.mark.parametrize("charset", ["ISO 2022 IR 87", ["ISO 2022 IR 159", "ISO 2022 IR 87"]])
def test_names_with_empty_parts_survive_a_character_set_of_escape_sequences(charset: Any, name: str) -> None:
    read = dataset(SpecificCharacterSet=charset, OperatorsName=name)
    assert read.OperatorsName == name


TEXTS = st.text(
    st.one_of(
        st.characters(min_codepoint=32, max_codepoint=126, exclude_characters="\\^= "),
        st.sampled_from(
            "\u00e9\u00fc\u0416\u03a9\u05d0\u0627\u0e01\uff71\u5c71\u592a\u3084\uae40\u00a5\u203e\U0001f600"
        ),
    ),
    min_size=1,
    max_size=8,
)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(
    charset=st.one_of(
        st.sampled_from([None, "", "ISO_IR 100", "ISO_IR 13", "ISO_IR 192", "GB18030", "GBK"]),
        st.lists(
            st.sampled_from(
                ["", *(f"ISO 2022 IR {n}" for n in (6, 13, 58, 87, 100, 126, 144, 149, 159, 166))]
            ),
            min_size=1,
            max_size=3,
            unique=True,
        ),
    ),
    text=TEXTS,
    name=st.lists(TEXTS | st.just(""), min_size=1, max_size=5).map("^".join),
    inner=st.sampled_from([None, "ISO_IR 100", "ISO_IR 144", ["", "ISO 2022 IR 87"]]),
)
def test_every_text_survives_every_character_set(charset: Any, text: str, name: str, inner: Any) -> None:
    item = {"SeriesDescription": text} | ({"SpecificCharacterSet": inner} if inner else {})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        made = header(
            SpecificCharacterSet=charset,
            SeriesDescription=text,
            OperatorsName=name,
            ReferencedSeriesSequence=[item],
        )
        read = through_a_file(made)
        assert read.SeriesDescription == text
        assert read.ReferencedSeriesSequence[0].SeriesDescription == text
        assert str(read.OperatorsName).rstrip("^") == name.rstrip("^")


def test_a_name_is_written_in_the_character_set_of_its_own_dataset() -> None:
    name = "Yamada^Tarou=\u5c71\u7530^\u592a\u90ce"
    records = {}
    for number, charset in enumerate([None, ["", "ISO 2022 IR 87"], "GB18030", "ISO_IR 192"]):
        record, _ = instance(
            np.zeros((3, 4), np.int16),
            number=number,
            position=(0, 0, number),
            SpecificCharacterSet=charset,
            OperatorsName=name,
        )
        records[f"{SERIES_UID}.{number}"] = record
    metadata = ImageSetMetadata.from_document(document(records))
    builder = DatasetBuilder(metadata)
    for made in [builder.build(one) for one in metadata.instances]:
        assert through_a_file(made).OperatorsName == name


def header(**attributes: Any) -> Dataset:
    record, _ = instance(np.zeros((3, 4), np.int16), number=1, position=(0, 0, 0), **attributes)
    metadata = ImageSetMetadata.from_document(document({record["DICOM"]["SOPInstanceUID"]: record}))
    return build_dataset(metadata, metadata.instances[0])


def _alike() -> list[Dataset]:
    """Three datasets that differ in their number only, with values of every kind that could be shared."""
    records = {}
    for number in range(3):
        record, _ = instance(
            np.zeros((3, 4), np.int16),
            number=number,
            position=(0, 0, number),
            ImageType=["ORIGINAL", "PRIMARY"],
            OperatorsName=["A^B", "C^D"],
            WindowCenter=["40", "50"],
            ReferencedImageSequence=[{"PurposeOfReferenceCodeSequence": [{"ContextUID": ["1.2", "1.3"]}]}],
            **{"00090010": "MAKER", "00091001": [1, 2]},
        )
        record["DICOMVRs"] = {"00091001": "US"}
        records[f"{SERIES_UID}.{number}"] = record
    metadata = ImageSetMetadata.from_document(document(records))
    builder = DatasetBuilder(metadata)
    return [builder.build(one) for one in metadata.instances]


def test_editing_one_dataset_changes_no_other() -> None:
    edited, *others = _alike()
    untouched = [one.to_json() for one in _alike()[1:]]
    edited.PatientName = "Somebody^Else"
    edited.ImageType[0] = "DERIVED"
    edited.ImageType.append("MPR")
    edited.OperatorsName[1] = "E^F"
    edited.WindowCenter[0] = 7
    item = edited.ReferencedImageSequence[0].PurposeOfReferenceCodeSequence[0]
    item.ContextUID[1] = "9.9"
    item.CodeMeaning = "added"
    edited.ReferencedImageSequence.append(Dataset())
    edited[0x00091001].value[0] = 9
    edited[0x00080060].VR = "LO"
    edited.private_block(0x0009, "MAKER").add_new(2, "LO", "added")
    edited.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2"
    edited.file_meta.SourceApplicationEntityTitle = "HERE"
    through_a_file(others[0])  # what writing remembers is the dataset's own, too
    assert [one.to_json() for one in others] == untouched
    for one in others:
        assert one.file_meta.TransferSyntaxUID == "1.2.840.10008.1.2.1"
        assert "SourceApplicationEntityTitle" not in one.file_meta


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda one: pickle.loads(pickle.dumps(one))])  # noqa: S301 - its own bytes
def test_a_copy_of_a_dataset_is_whole_and_its_own(copied: Any) -> None:
    (original, *_) = _alike()
    made = copied(original)
    assert made == original
    assert made.file_meta == original.file_meta
    made.ImageType[0] = "DERIVED"
    made.file_meta.SourceApplicationEntityTitle = "HERE"
    assert original.ImageType[0] == "ORIGINAL"
    assert "SourceApplicationEntityTitle" not in original.file_meta
    assert through_a_file(made).ImageType == ["DERIVED", "PRIMARY"]


def test_text_that_its_character_set_cannot_hold_becomes_unicode() -> None:
    read = dataset(SpecificCharacterSet="ISO_IR 100", SeriesDescription="頭部")
    assert read.SeriesDescription == "頭部"
    assert read.SpecificCharacterSet == "ISO_IR 192"


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("NoSuchKeyword", "secret"),
        ("Rows", "secret"),
        ("SliceThickness", "secret"),
        ("SliceLocation", {"a": "secret"}),
        ("ICCProfile", "secret!"),
        ("ICCProfile", ["AA==", "AA=="]),
        ("ReferencedImageSequence", ["secret"]),
        ("AcquisitionMatrix", [1.5]),
        ("FrameIncrementPointer", "secret"),
        ("00091010", {"BulkDataURI": "secret"}),
    ],
)
def test_what_dicom_cannot_hold_is_refused_without_its_value(key: str, value: Any) -> None:
    service = one_slice(**{key: value})
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # a warning would quote the value
        with pytest.raises(MetadataError) as caught:
            opened(service).datasets(bulk=refuse_bulk)
    assert "secret" not in str(caught.value).replace("NoSuchKeyword", "")
    assert caught.value.__cause__ is None
    assert caught.value.sop_instance_uid == f"{SERIES_UID}.1"
    assert key in str(caught.value)


def test_bulk_data_is_left_empty_in_a_header() -> None:
    (header,) = opened(one_slice({"00091010": "OB"}, **{"00091010": {"BulkDataURI": "x"}})).datasets(
        pixels=False
    )
    assert header[0x0009, 0x1010].value in (None, b"")


def test_no_warnings_that_quote_values() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        read = dataset(
            SeriesDescription="x" * 80,
            StudyDate="not a date",
            SliceLocation="12345.123456789012",
            PatientAge="9",
        )
    assert read.StudyDate == "not a date"


def test_instances_without_pixels_are_delivered() -> None:
    made = document(
        {
            "1.9": {
                "DICOM": {"SOPClassUID": "1.2.840.10008.5.1.4.1.1.88.11", "SOPInstanceUID": "1.9"},
                "ImageFrames": [],
            }
        }
    )
    (report,) = opened(FakeService(made)).datasets()
    assert "PixelData" not in report
    assert through_a_file(report).SOPInstanceUID == "1.9"


def test_identifiers_come_from_the_document_where_the_attributes_lack_them() -> None:
    service = one_slice()
    series = service.document["Study"]["Series"][SERIES_UID]
    del series["DICOM"]["SeriesInstanceUID"]
    record = next(iter(series["Instances"].values()))
    del record["DICOM"]["SOPInstanceUID"]
    (made,) = opened(service).datasets()
    assert (made.SeriesInstanceUID, made.SOPInstanceUID) == (SERIES_UID, f"{SERIES_UID}.1")


def test_instance_without_a_class_is_refused() -> None:
    with pytest.raises(MetadataError, match="SOPClassUID"):
        opened(one_slice(SOPClassUID=None)).datasets()


def multi_frame(frames: list[np.ndarray[Any, Any]], **attributes: Any) -> FakeService:
    record, _ = instance(
        frames[0], number=1, position=(0, 0, 0), NumberOfFrames=str(len(frames)), **attributes
    )
    template = record["ImageFrames"][0]
    record["ImageFrames"] = [
        {
            **template,
            "ID": f"f{k}",
            "PixelDataChecksumFromBaseToFullResolution": [{"Checksum": crc32(pixels)}],
        }
        for k, pixels in enumerate(frames)
    ]
    record["StoredTransferSyntaxUID"] = HTJ2K
    service = image_set([(record, b"")])
    service.frames = {f"f{k}": imagecodecs.htj2k_encode(pixels) for k, pixels in enumerate(frames)}
    return service


def test_every_frame_of_a_multi_frame_instance_is_there_in_order() -> None:
    frames = [np.full((3, 5), k, np.uint16) for k in range(40)]
    (made,) = opened(multi_frame(frames)).datasets()
    assert np.array_equal(through_a_file(made).pixel_array, np.stack(frames))


@pytest.mark.parametrize("kept", [0, 2])
def test_frames_that_the_header_announces_must_be_there(kept: int) -> None:
    service = multi_frame([np.full((3, 5), k, np.uint16) for k in range(3)])
    (record,) = service.document["Study"]["Series"][SERIES_UID]["Instances"].values()
    del record["ImageFrames"][kept:]
    with pytest.raises(MetadataError, match=f"announces 3 frames, the datastore holds {kept}"):
        opened(service).datasets()
    (header,) = opened(service).datasets(pixels=False)
    assert header.NumberOfFrames == 3


def test_an_image_without_its_frame_is_refused() -> None:
    service = one_slice()
    next(iter(service.document["Study"]["Series"][SERIES_UID]["Instances"].values()))["ImageFrames"] = None
    with pytest.raises(MetadataError, match="announces 1 frames, the datastore holds 0"):
        opened(service).datasets()


def test_odd_eight_bit_pixels_are_padded() -> None:
    (made,) = opened(multi_frame([np.arange(15, dtype=np.uint8).reshape(3, 5)])).datasets()
    assert len(made.PixelData) == 16
    assert made["PixelData"].VR == "OB"
    assert np.array_equal(through_a_file(made).pixel_array, np.arange(15).reshape(3, 5))


def test_colour_is_rgb_by_pixel_after_decoding() -> None:
    rgb = np.random.default_rng(5).integers(0, 255, (6, 4, 3), dtype=np.uint8)
    service = multi_frame(
        [rgb], SamplesPerPixel=3, PhotometricInterpretation="YBR_RCT", PlanarConfiguration=1
    )
    (made,) = opened(service).datasets()
    assert (made.PhotometricInterpretation, made.PlanarConfiguration) == ("RGB", 0)
    assert np.array_equal(through_a_file(made).pixel_array, rgb)


def test_bit_packed_frames_follow_each_other_without_padding() -> None:
    masks = np.random.default_rng(6).integers(0, 2, (4, 3, 5), dtype=np.uint8)
    record, _ = instance(
        masks[0], number=1, position=(0, 0, 0), NumberOfFrames="4", BitsAllocated=1, BitsStored=1
    )
    record["StoredTransferSyntaxUID"] = "1.2.840.10008.1.2.1"
    record["ChecksumType"] = "ORIGINAL"
    packed = [np.packbits(mask.reshape(-1), bitorder="little").tobytes() for mask in masks]
    record["ImageFrames"] = [
        {"ID": f"f{k}", "PixelDataChecksumFromBaseToFullResolution": [{"Checksum": _crc(data)}]}
        for k, data in enumerate(packed)
    ]
    service = image_set([(record, b"")])
    service.frames = {f"f{k}": data for k, data in enumerate(packed)}
    (made,) = opened(service).datasets()
    assert np.array_equal(through_a_file(made).pixel_array, masks)


def _crc(data: bytes) -> int:
    return zlib.crc32(data)
