"""The catalog's rows of real files: nothing of a header is lost between its file and the row.

The oracle is pydicom's reading of the same file. The metadata document between them is made as the local
cloud makes it.
"""

from __future__ import annotations

import base64
import json
import math
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from functools import cache
from io import BytesIO
from typing import Any

import numpy as np
import pydicom
import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_files import header, image
from pydicom import Dataset
from pydicom.datadict import DicomDictionary, dictionary_has_tag, keyword_for_tag, tag_for_keyword
from pydicom.sequence import Sequence
from real_files import FILES, expected
from small_studies import ct_datasets

from healthimaging.catalog.binary_keywords import BINARY_KEYWORDS
from healthimaging.catalog.columns import TABLES
from healthimaging.catalog.other_attributes import BINARY, MOST_CHARACTERS, MOST_IN_A_ROW, other_attributes
from healthimaging.catalog.rows import Row, Version, catalog_rows
from healthimaging.catalog.values import (
    age_in_years,
    decimal,
    dicom_date,
    dicom_time,
    moment,
    slice_position,
)
from healthimaging.metadata import Attributes, ImageSetMetadata
from local.healthimaging.documents import add_instance, empty_document
from local.healthimaging.instances import parse_instance
from local.healthimaging.metadata_json import metadata_json

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:pydicom")
"""pydicom's remarks on its own test files."""

EAST = timezone(timedelta(hours=2))
VERSION = Version(
    version_id=7,
    is_primary=True,
    created_at=datetime(2024, 3, 1, 12, 0, 0, 123456, tzinfo=EAST),
    updated_at=datetime(2024, 3, 2, 12, tzinfo=EAST),
)


def rows_of(*files: bytes) -> dict[str, list[Row]]:
    """The rows of an image set of these files."""
    document = empty_document()
    for data in files:
        one = parse_instance(data, storage_syntax="1.2.840.10008.1.2.4.202", put=lambda _: "digest")
        add_instance(
            document,
            series_uid=one.attributes["0020000E"]["value"][0],
            sop_instance_uid=one.sop_instance_uid,
            attributes=one.attributes,
            instance=one.entry,
        )
    written = metadata_json(document, datastore_id="d" * 32, image_set_id="1" * 32)
    return catalog_rows(
        ImageSetMetadata.from_document(json.loads(json.dumps(written))),
        version=VERSION,
        indexed_at=datetime(2026, 1, 1, tzinfo=UTC),
    )


def file_of(dataset: Dataset) -> bytes:
    buffer = BytesIO()
    dataset.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


IMPORTED = sorted(name for name in FILES if not expected(name).refused and not expected(name).header_error)


@cache
def real_rows(name: str) -> dict[str, list[Row]]:
    return rows_of(FILES[name].read_bytes())


# What the columns of a row say, by keyword: everything else of the header is to be in its map.
_IRREGULAR = {"study_id": "StudyID", "patient_id": "PatientID", "kvp": "KVP", "sop_class_uid": "SOPClassUID"}
_OF_COLUMNS = {
    _IRREGULAR.get(name)
    or "".join(word.capitalize() for word in name.split("_"))
    .replace("Sop", "SOP")
    .replace("Uid", "UID")
    .replace("OfPatientId", "OfPatientID"): name
    for columns in TABLES.values()
    for name in (column.name for column in columns)
    # Counted: of frames that the datastore holds, whatever the header says.
    if name != "number_of_frames"
}
_OF_COLUMNS = {keyword: name for keyword, name in _OF_COLUMNS.items() if tag_for_keyword(keyword)}


def left_out(dataset: Dataset) -> set[str]:
    """Keys of a header that have no text on purpose: empty, binary."""
    found = set()
    for element in dataset:
        binary = bool(set(str(element.VR).split(" or ")) & BINARY)
        words = element.VR == "US" and isinstance(element.value, bytes)
        empty = element.is_empty or not "".join(map(str, np.atleast_1d(element.value))).strip(" \0")
        if binary or words or empty:
            found.add(key_of(element.tag))
    return found


def key_of(tag: Any) -> str:
    repeats = tag.group & 0xFF00 in (0x5000, 0x6000)
    return (keyword_for_tag(tag) if dictionary_has_tag(tag) and not repeats else "") or f"{int(tag):08X}"


def test_every_attribute_of_every_real_file_is_in_a_row() -> None:
    assert len(IMPORTED) > 200
    for name in IMPORTED:
        dataset = pydicom.dcmread(FILES[name], stop_before_pixels=True)
        rows = real_rows(name)
        (series,), (instance,) = rows["series"], rows["instances"]
        in_maps = set(series["attributes"]) | set(instance["attributes"])
        in_columns = {
            keyword
            for keyword, column in _OF_COLUMNS.items()
            if series.get(column) is not None or instance.get(column) is not None
        }
        keys = {key_of(element.tag) for element in dataset if element.tag.element != 0}
        assert keys - left_out(dataset) - in_maps - in_columns == set(), name


def test_the_columns_of_real_files_say_what_pydicom_reads() -> None:
    for name in IMPORTED:
        dataset = pydicom.dcmread(FILES[name], stop_before_pixels=True)
        rows = real_rows(name)
        for row in (*rows["series"], *rows["instances"]):
            for keyword, column in _OF_COLUMNS.items():
                if keyword in expected(name).changed:
                    continue
                if column in row and row[column] is not None and keyword in dataset:
                    assert says(row[column], dataset[keyword].value), (name, keyword)


def says(column: Any, value: Any) -> bool:
    """Whether a column has the value that pydicom has."""
    if isinstance(column, list):
        values = value if isinstance(value, (list, pydicom.multival.MultiValue)) else [value]
        return len(column) == len(values) and all(map(says, column, values))
    if isinstance(column, date):
        return column == dicom_date(str(value))
    if isinstance(column, (Decimal, float, int)):
        return math.isclose(float(column), float(value), abs_tol=5e-7)
    return bool(column == str(value).strip(" \0"))


def test_every_column_is_filled_by_some_file() -> None:
    more = header(IssuerOfPatientID="Ward 7")
    filled: dict[str, set[str]] = {table: set() for table in TABLES}
    for rows in (rows_of(file_of(more)), *(real_rows(name) for name in IMPORTED)):
        for table, made in rows.items():
            filled[table] |= {
                key for row in made for key, value in row.items() if value not in (None, [], {})
            }
    assert {table: {column.name for column in TABLES[table]} - filled[table] for table in TABLES} == {
        "series": set(),
        "instances": set(),
    }


def test_a_series_says_of_its_instances_what_they_agree_on() -> None:
    slices = ct_datasets(3, ContrastBolusAgent="Iomeprol", PatientAge="018M", PatientWeight="71.5")
    slices[2].SliceThickness = "9"
    slices[1].PatientWeight = "72"
    rows = rows_of(*(file_of(one) for one in slices))
    (series,) = rows["series"]
    assert series["contrast_bolus_agent"] == "Iomeprol"
    assert series["patient_age_years"] == 1.5
    assert series["patient_weight"] == Decimal("71.5")
    assert series["slice_thickness"] is None
    assert [row["slice_thickness"] for row in rows["instances"]] == [Decimal(5), Decimal(5), Decimal(9)]
    assert "PatientWeight" not in rows["instances"][0]["attributes"]
    assert rows["instances"][1]["attributes"]["PatientWeight"] == "72"
    assert [row["slice_position"] for row in rows["instances"]] == pytest.approx([0, 2.5, 5])
    assert (series["number_of_instances"], series["number_of_frames"]) == (3, 3)
    assert series["pixel_bytes"] == sum(len(one.PixelData) for one in slices)
    assert series["created_at"] == datetime(2024, 3, 1, 10, 0, 0, 123000)
    assert series["updated_at"] == datetime(2024, 3, 2, 10)


@pytest.mark.parametrize(
    ("pixels", "attributes"),
    [
        (np.zeros((4, 5, 6), np.uint8), {"frames": 4}),
        (np.zeros((5, 7, 3), np.uint8), {}),
        (np.zeros((5, 7), np.uint16), {}),
    ],
)
def test_pixel_bytes_are_those_of_the_pixel_data(pixels: Any, attributes: dict[str, Any]) -> None:
    rows = rows_of(file_of(image(pixels, **attributes)))
    assert rows["series"][0]["pixel_bytes"] == rows["instances"][0]["pixel_bytes"] == pixels.nbytes


@pytest.mark.parametrize(
    "reference",
    [
        "ReferencedSeriesSequence",
        "CurrentRequestedProcedureEvidenceSequence",
        "ReferencedFrameOfReferenceSequence",
    ],
)
def test_the_series_that_an_object_is_about(reference: str) -> None:
    def item(**attributes: Any) -> Dataset:
        made = Dataset()
        for keyword, value in attributes.items():
            setattr(made, keyword, value)
        return made

    def items(*made: Dataset) -> Sequence:
        return Sequence(made)

    series = items(item(SeriesInstanceUID="1.2.9"), item(SeriesInstanceUID="1.2.5"))
    study = items(item(ReferencedSeriesSequence=series))
    frame = items(item(RTReferencedStudySequence=items(item(RTReferencedSeriesSequence=series))))
    about = {
        "ReferencedSeriesSequence": series,
        "CurrentRequestedProcedureEvidenceSequence": study,
        "ReferencedFrameOfReferenceSequence": frame,
    }
    made = header(Modality="SEG", **{reference: about[reference]})
    (row,) = rows_of(file_of(made))["series"]
    assert row["referenced_series_instance_uids"] == ["1.2.5", "1.2.9"]


def test_one_attribute_of_two_kinds_in_a_header_and_its_items() -> None:
    """Then the document lists representations by item, under the sequence's key."""
    made = header(ReferencedSeriesSequence=Sequence([Dataset()]))
    made.private_block(0x0011, "MAKER", create=True).add_new(1, "LO", "outside")
    made.ReferencedSeriesSequence[0].private_block(0x0011, "MAKER", create=True).add_new(1, "FD", 2.5)
    (row,) = rows_of(file_of(made))["instances"]
    assert row["attributes"]["00111001"] == "outside"
    assert json.loads(row["attributes"]["ReferencedSeriesSequence"])[0]["00111001"] == 2.5


# Damaged and absurd headers -------------------------------------------------------------------------


def attributes_of(values: dict[str, Any], **vrs: Any) -> Attributes:
    return Attributes(json.loads(json.dumps(values)), vrs)


def test_an_absurd_attribute_is_cut_and_says_so() -> None:
    long = "x" * (MOST_CHARACTERS * 3)
    found = other_attributes(attributes_of({"ImageComments": long}), without=())
    assert found == {"ImageComments": f"{'x' * MOST_CHARACTERS}... ({len(long)} characters)"}
    many = {f"0011{number:04X}": long for number in range(100)}
    found = other_attributes(attributes_of(many), without=())
    assert set(found) == set(many)
    assert sum(map(len, found.values())) < MOST_IN_A_ROW + 100 * 40


def test_binary_data_is_left_out_and_listed_as_the_standard_lists_it() -> None:
    assert {
        keyword
        for vr, _, _, _, keyword in DicomDictionary.values()
        if keyword and set(vr.split(" or ")) & BINARY
    } == BINARY_KEYWORDS
    data = base64.b64encode(b"profile").decode()
    values = {"ICCProfile": data, "00111001": data, "LUTData": [1, 2], "PatientName": "A^B"}
    found = other_attributes(attributes_of(values, **{"00111001": "UN", "LUTData": "US"}), without=())
    assert found == {"LUTData": "1\\2", "PatientName": "A^B"}


_TEXTS = st.text(max_size=12) | st.sampled_from(
    ["1.5", "1e400", "NaN", "sNaN", "1\\2", "99999999999", "20240229", "20240230", "2024.02.29", "Infinity"]
)
_VALUES = (
    st.none()
    | _TEXTS
    | st.integers(-(10**30), 10**30)
    | st.floats()
    | st.booleans()
    | st.lists(st.none() | _TEXTS | st.floats(), max_size=4)
    | st.lists(st.dictionaries(_TEXTS, st.none() | _TEXTS, max_size=2), min_size=1, max_size=2)
)
_IDENTITIES = {"PatientID", "StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID"}
_KEYWORDS = sorted(
    {*_OF_COLUMNS, "StudyTime", "PatientAge", "SamplesPerPixel", "BitsAllocated", "00111001", "ImageComments"}
    - _IDENTITIES
)
_LEVEL = st.dictionaries(st.sampled_from(_KEYWORDS), _VALUES, max_size=12)


@given(levels=st.tuples(_LEVEL, _LEVEL, _LEVEL), frames=st.integers(0, 3))
def test_whatever_a_header_says_makes_rows_and_is_in_them(
    levels: tuple[dict[str, Any], ...], frames: int
) -> None:
    """A header field that is wrong keeps no study out of the catalog, and is found there as it is."""
    study, series, instance = levels
    document = {
        "DatastoreID": "d" * 32,
        "ImageSetID": "1" * 32,
        "Study": {
            "DICOM": study,
            "Series": {
                "1.2": {
                    "DICOM": series,
                    "Instances": {"1.2.3": {"DICOM": instance, "ImageFrames": [{"ID": "f"}] * frames}},
                }
            },
        },
    }
    rows = catalog_rows(
        ImageSetMetadata.from_document(document), version=VERSION, indexed_at=datetime(2026, 1, 1)
    )
    for own, (row,) in ((series, rows["series"]), (instance, rows["instances"])):
        for keyword, value in own.items():
            if keyword in row["attributes"] or not str(value).strip(" \0"):
                continue
            column = row.get(_OF_COLUMNS.get(keyword, ""))
            # Text with backslashes is several values, as in the connector (Attributes.texts).
            listed = (
                value.split("\\") if isinstance(value, str) else value if isinstance(value, list) else [value]
            )
            texts = [str(one).strip(" \0") for one in listed if one is not None]
            if not any(texts):
                continue
            assert column is not None, keyword
            if isinstance(column, (Decimal, int, float)):
                assert Decimal(texts[0]) == Decimal(column)
            elif isinstance(column, date):
                assert texts[0].replace(".", "") == f"{column:%Y%m%d}"
            elif isinstance(column, list):
                assert [str(one) for one in column] == texts or column == [float(one) for one in texts]
            else:
                assert [column] == texts


@pytest.mark.parametrize(
    ("read", "text", "value"),
    [
        (dicom_date, "2024.02.29", date(2024, 2, 29)),
        (dicom_date, "20240230", None),
        (dicom_date, "২০২৪০২২৯", None),
        (lambda text: moment(date(2024, 1, 1), dicom_time(text)), "0830", datetime(2024, 1, 1, 8, 30)),
        (dicom_time, "235960", datetime(2024, 1, 1, 23, 59, 59, 999000).time()),
        (dicom_time, "10:30", None),
        (age_in_years, "006M", 0.5),
        (age_in_years, "6M", None),
        (decimal, "1e-7", Decimal(0)),
        (decimal, "9999999999.9999999", None),
        (decimal, "nan", None),
    ],
)
def test_values_of_the_columns(read: Any, text: str, value: Any) -> None:
    assert read(text) == value


def test_slices_are_in_the_order_of_their_normal() -> None:
    sagittal = [0.0, 1.0, 0.0, 0.0, 0.0, -1.0]
    assert slice_position([3.0, 10.0, 20.0], sagittal) == pytest.approx(-3.0)
    assert slice_position([3.0, 10.0, 20.0], [1.0, 0.0, 0.0, 1.0, 0.0, 0.0]) is None
    assert slice_position(None, sagittal) is None
