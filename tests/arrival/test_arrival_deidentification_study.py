"""A study stays a study: one patient, consistent references, intervals of time, the same bytes every time."""

from __future__ import annotations

import copy
import hashlib
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path

import highdicom as hd
import numpy as np
import pytest
from deidentified_files import DEIDENTIFIER, KEY, leaves, outcomes, written
from hypothesis import given
from hypothesis import strategies as st
from pydicom import Dataset
from pydicom.sr.codedict import codes
from pydicom.uid import UID, generate_uid

from arrival.deidentification.dates import capped_age, shifted
from arrival.deidentification.deidentifier import Deidentifier
from arrival.deidentification.key import KeyMaterial
from arrival.deidentification.keyed import LONGEST_SHIFT, Keyed
from arrival.deidentification.outcome import Deidentified
from arrival.deidentification.profile import Profile
from arrival.deidentification.vocabulary import cleaned

CT = outcomes()["test_files/CT_small.dcm"][0]


def deidentified(dataset: Dataset, deidentifier: Deidentifier = DEIDENTIFIER) -> Dataset:
    answer = deidentifier.deidentify(dataset)
    assert isinstance(answer, Deidentified), answer
    return answer.dataset


def slices(number: int) -> list[Dataset]:
    made = []
    for index in range(number):
        one = copy.deepcopy(CT)
        one.SOPInstanceUID = f"{CT.SeriesInstanceUID}.{index}"
        one.file_meta.MediaStorageSOPInstanceUID = one.SOPInstanceUID
        one.ImagePositionPatient = [0, 0, 5.0 * index]
        one.InstanceNumber = index + 1
        made.append(one)
    return made


def segmentation_of(images: list[Dataset]) -> Dataset:
    mask = np.zeros((len(images), CT.Rows, CT.Columns), np.uint8)
    mask[:, 20:40, 20:40] = 1
    return hd.seg.Segmentation(
        source_images=images,
        pixel_array=mask,
        segmentation_type=hd.seg.SegmentationTypeValues.BINARY,
        segment_descriptions=[
            hd.seg.SegmentDescription(
                segment_number=1,
                segment_label="Liver",
                segmented_property_category=codes.SCT.Organ,
                segmented_property_type=codes.SCT.Liver,
                algorithm_type=hd.seg.SegmentAlgorithmTypeValues.MANUAL,
                tracking_uid=generate_uid(),
                tracking_id="liver of bed 7",
            )
        ],
        series_instance_uid=generate_uid(),
        series_number=9,
        sop_instance_uid=generate_uid(),
        instance_number=1,
        manufacturer="ACME",
        manufacturer_model_name="Pencil",
        software_versions="1",
        device_serial_number="S-123456",
    )


def test_a_segmentation_still_finds_its_images() -> None:
    images = slices(3)
    segmentation = segmentation_of(images)
    new_images = [deidentified(one) for one in images]
    new = hd.seg.Segmentation.from_dataset(deidentified(segmentation))
    assert new.PixelData == segmentation.PixelData
    assert set(new.get_source_image_uids()) == {
        (one.StudyInstanceUID, one.SeriesInstanceUID, one.SOPInstanceUID) for one in new_images
    }
    assert new.FrameOfReferenceUID == new_images[0].FrameOfReferenceUID != CT.FrameOfReferenceUID
    assert (new.PatientID, new.StudyDate) == (new_images[0].PatientID, new_images[0].StudyDate)
    assert new.SegmentSequence[0].SegmentLabel == "Liver"
    assert new.SegmentSequence[0].SegmentedPropertyTypeCodeSequence[0].CodeMeaning == "Liver"
    assert new.SegmentSequence[0].TrackingID.startswith("ANON-")
    pixels = new.get_pixels_by_source_instance([one.SOPInstanceUID for one in new_images])
    assert pixels.shape[0] == 3
    kept = {
        uid for _, e in leaves(new) if e.VR == "UI" for uid in np.atleast_1d(e.value) if not UID(uid).type
    }
    before = {
        uid
        for _, e in leaves(segmentation)
        if e.VR == "UI"
        for uid in np.atleast_1d(e.value)
        if not UID(uid).type
    }
    assert kept & before == set()
    assert all(uid.startswith("2.25.") and len(uid) <= 64 for uid in kept)


def test_intervals_within_a_patient_stay_and_patients_are_moved_apart() -> None:
    first, second, other = copy.deepcopy(CT), copy.deepcopy(CT), copy.deepcopy(CT)
    first.StudyDate, second.StudyDate, other.PatientID = "20040119", "20050228", "another one"
    a, b, c = deidentified(first), deidentified(second), deidentified(other)
    assert (day(b.StudyDate) - day(a.StudyDate)).days == (day("20050228") - day("20040119")).days
    assert -LONGEST_SHIFT <= (day(a.StudyDate) - day("20040119")).days <= -1
    assert a.StudyTime == first.StudyTime
    assert a.PatientID == b.PatientID != c.PatientID
    assert (day(c.AcquisitionDate) - day(CT.AcquisitionDate)) != day(a.StudyDate) - day("20040119")
    assert a.PatientBirthDate == ""
    assert a.LongitudinalTemporalInformationModified == "MODIFIED"
    assert [item.CodeValue for item in a.DeidentificationMethodCodeSequence] == [
        "113100",
        "113105",
        "113107",
        "113108",
        "113111",
    ]


def day(text: str) -> datetime:
    return datetime.strptime(text, "%Y%m%d")


def test_the_same_key_gives_the_same_bytes_in_every_process_and_thread() -> None:
    here = Path(__file__).parent
    program = (
        f"import sys; sys.path[:0] = [{str(here)!r}, {str(here.parent)!r}, {str(here.parent.parent)!r}]\n"
    )
    program += (
        "import hashlib, pydicom\nfrom deidentified_files import DEIDENTIFIER, written\n"
        f"dataset = pydicom.dcmread({str(CT.filename)!r})\n"
        "print(hashlib.sha256(written(DEIDENTIFIER.deidentify(dataset).dataset)).hexdigest())"
    )
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True, text=True)
    mine = hashlib.sha256(written(deidentified(CT))).hexdigest()
    assert said.stdout.strip() == mine
    with ThreadPoolExecutor(4) as pool:
        copies = [copy.deepcopy(CT) for _ in range(8)]
        many = pool.map(lambda one: hashlib.sha256(written(deidentified(one))).hexdigest(), copies)
    assert set(many) == {mine}


def test_the_diffusion_weight_stays_and_its_neighbours_in_the_private_block_go() -> None:
    dataset = copy.deepcopy(CT)
    block = dataset.private_block(0x0019, "SIEMENS MR HEADER", create=True)
    block.add_new(0x0C, "IS", "1000")
    block.add_new(0x0D, "CS", "DIRECTIONAL")
    block.add_new(0x27, "LO", "by a person")
    new = deidentified(dataset).private_block(0x0019, "SIEMENS MR HEADER")
    assert new[0x0C].value == 1000
    assert 0x0D not in new
    assert 0x27 not in new


def test_another_key_gives_another_patient_other_uids_and_other_dates() -> None:
    other = Deidentifier(key=KeyMaterial.from_secret("another key, which is as long as it must be"))
    a, b = deidentified(CT), deidentified(CT, other)
    for keyword in ("PatientID", "StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "StudyDate"):
        assert a[keyword].value != b[keyword].value


def test_options_keep_what_they_say() -> None:
    dataset = copy.deepcopy(CT)
    dataset.StationName, dataset.InstitutionName, dataset.PatientAge = "SCANNER7", "Clinic", "093Y"
    strict = Profile(
        shift_dates=False,
        clean_descriptors=False,
        retain_patient_characteristics=False,
        retain_safe_private=False,
    )
    none = deidentified(dataset, Deidentifier(key=KEY, profile=strict))
    assert (none.StudyDate, none.StudyTime, none.LongitudinalTemporalInformationModified) == (
        "",
        "",
        "REMOVED",
    )
    assert "PatientAge" not in none
    assert "StudyDescription" not in none
    assert not [element for _, element in leaves(none) if element.tag.is_private]
    loose = Profile(
        retain_device_identity=True,
        retain_institution_identity=True,
        retain_uids=True,
        extra_words=frozenset({"e"}),
    )
    more = deidentified(dataset, Deidentifier(key=KEY, profile=loose))
    assert (more.StationName, more.InstitutionName, more.PatientAge) == ("SCANNER7", "Clinic", "090Y")
    assert more.StudyInstanceUID == CT.StudyInstanceUID
    assert more.file_meta.MediaStorageSOPInstanceUID == CT.SOPInstanceUID


@given(st.dates(min_value=datetime(1910, 1, 1).date()), st.integers(-LONGEST_SHIFT, -1))
def test_a_date_is_moved_by_whole_days_and_its_time_stays(date: object, days: int) -> None:
    text = f"{date:%Y%m%d}"
    moved = shifted(text, vr="DA", days=days)
    assert moved is not None
    assert (day(moved) - day(text)).days == days
    assert shifted(f"{text}2359.5+0100", vr="DT", days=days) is None
    assert shifted(f"{text}235959.5+0100", vr="DT", days=days) == f"{moved}235959.5+0100"


@pytest.mark.parametrize("value", ["2004", "200401", "19991301", "00010101", "20040119-20040120", "JOHN"])
def test_what_is_no_full_date_is_not_moved(value: str) -> None:
    assert shifted(value, vr="DA", days=-400) is None


def test_ages_are_told_below_ninety_only() -> None:
    assert [capped_age(age) for age in ("089Y", "090Y", "110Y", "006M", "999W", "40")] == [
        "089Y",
        "090Y",
        "090Y",
        "006M",
        "999W",
        None,
    ]


def test_uids_that_dicom_registers_stay_and_all_others_become_uuids() -> None:
    keyed = Keyed(KEY)
    assert keyed.uid("1.2.840.10008.1.4.1.1") == "1.2.840.10008.1.4.1.1"
    new = UID(keyed.uid("1.2.3.4"))
    assert new.is_valid
    assert new == keyed.uid("1.2.3.4 ")
    assert new != keyed.uid("1.2.3.5")


@pytest.mark.parametrize(
    ("text", "stays"),
    [
        ("CHEST ROUTINE 5.0 B30f", "CHEST ROUTINE B30f"),
        ("Thorax 5.0mm / 1.5 mm, i.v. Miller", "Thorax 5.0 mm 1.5 mm"),
        ("T1 MPRAGE sag p2 iso 12345678", "T1 MPRAGE sag iso"),
        ("DR HOUSE 555-1234 on 12.03.1999", ""),
        ("f/u nodule RUL, pt. Smith, 67 y", "nodule"),
        ("John_Doe_LIVER_3D", "LIVER 3D"),
    ],
)
def test_descriptions_keep_the_words_of_imaging(text: str, stays: str) -> None:
    assert cleaned(text, extra=(), forbidden=()) == stays
