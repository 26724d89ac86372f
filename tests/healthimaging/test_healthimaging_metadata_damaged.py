"""Damaged metadata documents: the right answer or an error of this library, never any other error."""

from __future__ import annotations

import copy
import json
import warnings
from collections.abc import Iterator
from io import BytesIO
from typing import Any

import numpy as np
import pydicom
import pytest
from dicom_equality import differences
from fake_healthimaging import DATASTORE, IMAGE_SET, SERIES_UID, document, instance
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from healthimaging import HealthImagingError
from healthimaging.dicom.datasets import DatasetBuilder, in_slice_order
from healthimaging.errors import MetadataError
from healthimaging.frames.codecs import FrameLayout
from healthimaging.frames.counts import require_all_frames
from healthimaging.metadata import ImageSetMetadata


def real_document() -> dict[str, Any]:
    """Three slices with every kind of value, sequences, private elements and a table of VRs."""
    built = {}
    for number in (2, 0, 1):
        record, _ = instance(
            np.full((4, 5), number, np.int16),
            number=number,
            position=(0, 0, 2.5 * number),
            SpecificCharacterSet=["", "ISO 2022 IR 87"],
            ImageType=["ORIGINAL", "PRIMARY", "AXIAL"],
            PatientName="Yamada^Tarou=\u5c71\u7530^\u592a\u90ce",
            OperatorsName=[{"Alphabetic": "A^B", "Ideographic": "\u5c71"}],
            SmallestImagePixelValue=-5,
            FrameIncrementPointer="00181063",
            DiffusionBValue=1000.5,
            ICCProfile="AAECAw==",
            NumberOfFrames="1",
            ReferencedImageSequence=[
                {"ReferencedSOPInstanceUID": "1.2", "00090010": "M", "00091001": "x"},
                {"PurposeOfReferenceCodeSequence": [{"CodeValue": "1 ", "CodeMeaning": None}]},
            ],
            **{
                "00090010": "MAKER",
                "00091001": "private",
                "00091002": [1, 2],
                "00091003": "AAE=",
                "00091004": [{"00091001": 7}],
                "60003000": "AAE=",
                "00091005": {"BulkDataURI": "/datastore/x"},
            },
        )
        record["DICOMVRs"] = {
            "00091001": "LO",
            "00091002": "US",
            "00091003": "OB",
            "00091004": [{"00091001": "SL"}],
            "00091005": "OB",
            "60003000": "OW",
            "SmallestImagePixelValue": "SS",
        }
        built[f"{SERIES_UID}.{number}"] = record
    return document(built)


REAL = real_document()


def places(value: Any, at: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """Every place of a document."""
    if at:
        yield at
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from places(inner, (*at, key))
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from places(inner, (*at, index))


PLACES = list(places(REAL))
WRONG = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(-3, 3),
    st.floats(),
    st.text(),
    st.sampled_from(
        ["", " ", "1e400", "-1", "nan", "1\\2", "\\", "SQ", "US or SS", "ZZ", "ISO_IR 999", "\u5c71", "1.5"]
    ),
    st.lists(
        st.one_of(st.none(), st.integers(), st.text(), st.dictionaries(st.text(), st.none())), max_size=4
    ),
    st.dictionaries(st.sampled_from(["PatientID", "BulkDataURI", "00091001", "x"]), st.text(), max_size=2),
    st.sampled_from([REAL, [REAL], [[]], [None], [{}], {"a": {"b": []}}]),
)
REMOVED = object()
DAMAGE = st.lists(
    st.tuples(st.sampled_from(PLACES), st.one_of(st.just(REMOVED), WRONG)), min_size=1, max_size=4
)


def damaged(damage: list[tuple[tuple[str | int, ...], Any]]) -> Any:
    made = copy.deepcopy(REAL)
    for place, value in damage:
        holder: Any = made
        try:
            for step in place[:-1]:
                holder = holder[step]
            if value is REMOVED:
                del holder[place[-1]]
            else:
                holder[place[-1]] = copy.deepcopy(value)
        except (KeyError, IndexError, TypeError):
            continue  # an earlier damage took this place away
    return json.loads(json.dumps(made))


def read(made: Any) -> list[pydicom.Dataset]:
    """Everything that is read of a document before frames are fetched."""
    metadata = ImageSetMetadata.from_document(made)
    datasets = []
    for bulk in (None, lambda uri: b"\0\1"):
        builder = DatasetBuilder(metadata, bulk=bulk)
        for one in in_slice_order(metadata):
            require_all_frames(one)
            datasets.append(builder.build(one))
    return datasets


@settings(max_examples=400, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(damage=DAMAGE)
def test_damage_is_an_error_of_this_library_or_does_no_harm(
    damage: list[tuple[tuple[str | int, ...], Any]],
) -> None:
    made = damaged(damage)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # a warning would quote a value
        try:
            datasets = read(made)
        except HealthImagingError:
            return
    for dataset in datasets:
        # What is delivered can be written, and says the same afterwards.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            assert differences(dataset, through_a_file(dataset)) == []


def through_a_file(dataset: pydicom.Dataset) -> pydicom.Dataset:
    buffer = BytesIO()
    dataset.save_as(buffer, enforce_file_format=True)
    buffer.seek(0)
    return pydicom.dcmread(buffer)


@pytest.mark.parametrize("keyword", ["InstanceNumber", "Modality", "ImagePositionPatient", "SeriesNumber"])
@pytest.mark.parametrize("missing", ["null", "absent"])
def test_what_is_often_missing_does_no_harm(keyword: str, missing: str) -> None:
    made = copy.deepcopy(REAL)
    series = made["Study"]["Series"][SERIES_UID]
    for holder in (series, *series["Instances"].values()):
        if keyword not in holder["DICOM"]:
            continue
        if missing == "null":
            holder["DICOM"][keyword] = None
        else:
            del holder["DICOM"][keyword]
    datasets = read(made)[:3]
    assert len({dataset.SOPInstanceUID for dataset in datasets}) == 3
    assert all((keyword in dataset) == (missing == "null") for dataset in datasets)
    if keyword == "ImagePositionPatient":
        assert [dataset.InstanceNumber for dataset in datasets] == [0, 1, 2]
    else:
        assert [dataset.ImagePositionPatient[2] for dataset in datasets] == [0, 2.5, 5]


@pytest.mark.parametrize("syntax", [5, [], {}, True])
def test_a_transfer_syntax_that_is_no_text_is_refused(syntax: Any) -> None:
    made = copy.deepcopy(REAL)
    next(iter(made["Study"]["Series"][SERIES_UID]["Instances"].values()))["StoredTransferSyntaxUID"] = syntax
    with pytest.raises(MetadataError, match="StoredTransferSyntaxUID") as caught:
        ImageSetMetadata.from_document(made)
    assert caught.value.image_set_id == IMAGE_SET


@settings(max_examples=300, deadline=None, derandomize=True)
@given(
    keyword=st.sampled_from(["Rows", "Columns", "BitsAllocated", "BitsStored", "PixelRepresentation"]),
    value=WRONG,
)
def test_a_layout_is_read_or_refused(keyword: str, value: Any) -> None:
    made = copy.deepcopy(REAL)
    record = next(iter(made["Study"]["Series"][SERIES_UID]["Instances"].values()))
    record["DICOM"][keyword] = value
    (first, *_) = ImageSetMetadata.from_document(json.loads(json.dumps(made))).instances
    try:
        layout = FrameLayout.from_attributes(first.attributes)
    except ValueError:
        return
    assert min(layout.shape) > 0
    assert first.datastore_id == DATASTORE


def _instances(made: dict[str, Any]) -> dict[str, Any]:
    instances: dict[str, Any] = made["Study"]["Series"][SERIES_UID]["Instances"]
    return instances


@pytest.mark.parametrize(
    ("keyword", "level"),
    [
        ("SOPInstanceUID", "instance"),
        ("SeriesInstanceUID", "instance"),
        ("SeriesInstanceUID", "series"),
        ("StudyInstanceUID", "instance"),
        ("StudyInstanceUID", "series"),
        ("PatientID", "instance"),
        ("PatientID", "series"),
    ],
)
def test_identifiers_that_contradict_each_other_are_refused(keyword: str, level: str) -> None:
    made = copy.deepcopy(REAL)
    uid = f"{SERIES_UID}.1"
    holder = made["Study"]["Series"][SERIES_UID] if level == "series" else _instances(made)[uid]
    # That of another instance of the set, for one of them.
    holder["DICOM"][keyword] = f"{SERIES_UID}.2"
    with pytest.raises(MetadataError) as caught:
        ImageSetMetadata.from_document(made)
    assert keyword in str(caught.value)
    assert caught.value.series_instance_uid == SERIES_UID
    assert caught.value.sop_instance_uid == (uid if level == "instance" else None)
    assert caught.value.image_set_id == IMAGE_SET
    assert f"{SERIES_UID}.2" not in str(caught.value)


def test_identifiers_may_be_repeated_padded_or_left_empty() -> None:
    made = copy.deepcopy(REAL)
    for number, record in enumerate(_instances(made).values()):
        record["DICOM"] |= {
            "PatientID": "P1",
            "SeriesInstanceUID": f"{SERIES_UID}\0",
            "StudyInstanceUID": None,
        }
        record["DICOM"]["SOPInstanceUID"] += "\0" * (number % 2)
    assert len(ImageSetMetadata.from_document(made).instances) == 3


def test_one_instance_in_two_series_is_refused() -> None:
    made = copy.deepcopy(REAL)
    uid, record = next(iter(_instances(made).items()))
    made["Study"]["Series"]["1.2.3.5"] = {"DICOM": {}, "Instances": {uid: record}}
    with pytest.raises(MetadataError) as caught:
        ImageSetMetadata.from_document(made)
    assert caught.value.sop_instance_uid == uid
