"""Identifiers planted at random places never come out: they are removed, or the instance is refused."""

from __future__ import annotations

import copy
from io import BytesIO

import pydicom
import pytest
from deidentified_files import DEIDENTIFIER, KEY, outcomes, written
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom import Dataset
from pydicom._dicom_dict import DicomDictionary
from pydicom.datadict import dictionary_keyword
from pydicom.dataelem import RawDataElement
from pydicom.sequence import Sequence
from pydicom.tag import BaseTag

from arrival.deidentification.outcome import Deidentified, Quarantined

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # pydicom, on malformed values

NAME, GIVEN, PATIENT, ACCESSION = "Quirinalli", "Zsofika", "MRN7788123", "ACC5566778"
BIRTH = "19470812"
SECRETS = (NAME, GIVEN, PATIENT, ACCESSION, BIRTH)
TEXT_TAGS = sorted(
    tag
    for tag, (vr, vm, _, _, keyword) in DicomDictionary.items()
    if vr in ("LO", "SH", "ST", "LT", "UT", "PN", "UC") and keyword and tag >> 16 >= 8
)
SEQUENCE_TAGS = sorted(
    tag
    for tag, (vr, _, _, _, keyword) in DicomDictionary.items()
    if vr == "SQ" and keyword and tag >> 16 >= 8
)
CT = outcomes()["test_files/CT_small.dcm"][0]

sentences = st.builds(
    lambda before, secret, after, form: f"{before}{form(secret)}{after}"[:64],
    st.sampled_from(["", "seen by ", "CHEST ", "x/", "pt:"]),
    st.sampled_from(SECRETS),
    st.sampled_from(["", " today", "/2", ", MD"]),
    st.sampled_from([str, str.upper, str.lower]),
)
places = st.lists(
    st.tuples(
        st.lists(st.sampled_from(SEQUENCE_TAGS), max_size=3),
        st.one_of(
            st.sampled_from(TEXT_TAGS), st.sampled_from(["private", "private bytes", "overlay", "icon"])
        ),
        sentences,
    ),
    min_size=1,
    max_size=6,
)


def plant(dataset: Dataset, within: list[int], where: int | str, text: str) -> None:
    """Put `text` into an attribute, below sequences, a private block, or bytes."""
    for tag in within:
        if tag not in dataset or not dataset[tag].value:
            dataset.add_new(tag, "SQ", Sequence([Dataset()]))
        dataset = dataset[tag].value[0]
    if where == "private":
        dataset.private_block(0x0019, f"ACME {text[:20]}", create=True).add_new(0x10, "LO", text)
    elif where == "private bytes":
        dataset.private_block(0x0029, "SIEMENS CSA HEADER", create=True).add_new(0x10, "UN", text.encode())
    elif where == "overlay":
        dataset.add_new(0x60004000, "LT", text)
    elif where == "icon":
        icon = Dataset()
        icon.PixelData = text.encode() + b" " * (len(text) % 2)
        icon["PixelData"].VR = "OB"
        dataset.IconImageSequence = Sequence([icon])
    else:
        assert isinstance(where, int)
        setattr(dataset, dictionary_keyword(where), text)


@given(places=places)
@settings(max_examples=300, deadline=None, derandomize=True)
def test_planted_identifiers_never_come_out(places: list[tuple[list[int], int | str, str]]) -> None:
    dataset = copy.deepcopy(CT)
    for within, where, text in places:
        plant(dataset, within, where, text)
    dataset.PatientName, dataset.PatientID = f"{NAME}^{GIVEN}", PATIENT
    dataset.AccessionNumber, dataset.PatientBirthDate = ACCESSION, BIRTH
    answer = DEIDENTIFIER.deidentify(dataset)
    if isinstance(answer, Quarantined):
        said = " ".join(answer.reasons).lower()
        assert not any(secret.lower() in said for secret in SECRETS)
        return
    content = written(answer.dataset).lower()
    assert not any(secret.lower().encode() in content for secret in SECRETS)
    assert str(CT.SOPInstanceUID).encode() not in content
    shown = f"{answer!r} {answer.changes} {KEY!r}".lower()
    assert not any(secret.lower() in shown for secret in SECRETS)


def test_a_planted_name_in_text_that_the_table_leaves_alone_is_refused_by_attribute() -> None:
    dataset = copy.deepcopy(CT)
    dataset.PatientName = "山田^太郎"
    dataset.SpecificCharacterSet = "ISO_IR 192"
    dataset.ManufacturerModelName = "山田の装置"
    answer = DEIDENTIFIER.deidentify(dataset)
    assert isinstance(answer, Quarantined)
    assert answer.reasons == ("an identifier of the original is left in (0008,1090) ManufacturerModelName",)
    assert "山田" not in repr(answer)


def test_a_patients_name_leaves_a_description_even_where_it_is_a_word_of_imaging() -> None:
    dataset = copy.deepcopy(CT)
    dataset.PatientName, dataset.SeriesDescription = "Stone^Ray", "KIDNEY STONE Ray 5 mm"
    answer = DEIDENTIFIER.deidentify(dataset)
    assert isinstance(answer, Deidentified)
    assert answer.dataset.SeriesDescription == "KIDNEY 5 mm"


def test_what_cannot_be_read_is_refused_and_not_passed_on_or_raised() -> None:
    dataset = copy.deepcopy(CT)
    dataset[0x00189073] = RawDataElement(BaseTag(0x00189073), "FD", 3, b"abc", 0, False, True)
    answer = DEIDENTIFIER.deidentify(dataset)
    assert isinstance(answer, Quarantined)
    assert answer.reasons == ("an element cannot be read or written again (BytesLengthException)",)
    assert answer.sop_instance_uid == CT.SOPInstanceUID


def test_text_in_the_place_of_a_number_or_a_date_does_not_escape_their_rules() -> None:
    dataset = copy.deepcopy(CT)
    words = b"some other person "
    dataset[0x00201041] = RawDataElement(BaseTag(0x00201041), "DS", len(words), words, 0, False, True)
    dataset[0x00080030] = RawDataElement(BaseTag(0x00080030), "TM", len(words), words, 0, False, True)
    dataset[0x00189074] = RawDataElement(BaseTag(0x00189074), "LO", 8, b"20040119", 0, False, True)
    answer = DEIDENTIFIER.deidentify(dataset)
    assert isinstance(answer, Deidentified)
    assert answer.dataset.SliceLocation is None
    assert answer.dataset.StudyTime == ""
    assert "FrameAcquisitionDateTime" not in answer.dataset


def test_a_file_that_is_cut_off_is_refused_and_not_made_whole() -> None:
    content = written(CT)
    answer = DEIDENTIFIER.deidentify(pydicom.dcmread(BytesIO(content[:-1000])))
    assert isinstance(answer, Quarantined)
    assert any(reason.startswith("the file is cut off in") for reason in answer.reasons)
