"""What goes to quarantine: the table of docs/deidentification.md, one row each way."""

from __future__ import annotations

import copy
from typing import Any

import pydicom
import pytest
from deidentified_files import DEIDENTIFIER, outcomes
from pydicom import Dataset
from pydicom.data import get_testdata_file
from pydicom.sequence import Sequence

from arrival.deidentification.outcome import Deidentified, Quarantined

CT = outcomes()["test_files/CT_small.dcm"][0]
ULTRASOUND = {
    "SOPClassUID": "1.2.840.10008.5.1.4.1.1.6.1",
    "Modality": "US",
    "ImageType": ["ORIGINAL", "PRIMARY"],
}


def ct(**attributes: Any) -> Dataset:
    dataset = copy.deepcopy(CT)
    for keyword, value in attributes.items():
        setattr(dataset, keyword, value)
    return dataset


@pytest.mark.parametrize(
    ("attributes", "reason"),
    [
        ({"BurnedInAnnotation": "YES"}, "BurnedInAnnotation"),
        ({"BurnedInAnnotation": "MAYBE"}, "BurnedInAnnotation"),
        ({"RecognizableVisualFeatures": "YES"}, "RecognizableVisualFeatures"),
        ({"ImageType": ["DERIVED", "SECONDARY", "MPR"]}, "SECONDARY"),
        ({"ImageType": ["DERIVED", "PRIMARY", "SCREEN SAVE"], "BurnedInAnnotation": "NO"}, "a screen"),
        ({"ImageType": ["DERIVED", "PRIMARY", "DOSE_INFO"]}, "a screen"),
        ({"ConversionType": "SD"}, "ConversionType"),
        (ULTRASOUND, "Modality"),
        (ULTRASOUND | {"BurnedInAnnotation": "NO", "PhotometricInterpretation": "RGB"}, "in colour"),
        # Modality may be wrong or missing: the SOP class says it, too.
        (ULTRASOUND | {"Modality": "CT"}, "ultrasound"),
        (
            ULTRASOUND | {"Modality": "CT", "BurnedInAnnotation": "NO", "PhotometricInterpretation": "RGB"},
            "in colour",
        ),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.77.1.4", "Modality": "CT"}, "photograph"),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.77.1.7", "Modality": "DMS"}, "photograph"),
        ({"Modality": ""}, "Modality (0008,0060) is missing"),
        ({"Modality": "OT"}, "Modality"),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.7.4", "BurnedInAnnotation": "NO"}, "Secondary Capture"),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.88.33"}, "structured report"),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.11.1"}, "presentation state"),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.104.1"}, "encapsulated document"),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.77.1.1.1"}, "video"),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.66"}, "raw data"),
        ({"SOPClassUID": "1.3.12.2.1107.5.9.1"}, "private or unknown"),
        ({"WaveformSequence": Sequence([Dataset()])}, "WaveformSequence"),
        ({"SOPInstanceUID": ""}, "SOPInstanceUID (0008,0018) is missing"),
    ],
)
def test_what_may_show_a_person_waits_for_a_person(attributes: dict[str, Any], reason: str) -> None:
    answer = DEIDENTIFIER.deidentify(ct(**attributes))
    assert isinstance(answer, Quarantined)
    assert any(reason in one for one in answer.reasons), answer.reasons
    assert answer.study_instance_uid.startswith("2.25.")


@pytest.mark.parametrize(
    "attributes",
    [
        {},
        {"BurnedInAnnotation": "NO", "RecognizableVisualFeatures": "NO"},
        {"ImageType": ["DERIVED", "SECONDARY", "MPR"], "BurnedInAnnotation": "NO"},
        ULTRASOUND | {"BurnedInAnnotation": "NO", "PhotometricInterpretation": "MONOCHROME2"},
        {"SOPClassUID": "1.2.840.10008.5.1.4.1.1.66.1", "Modality": "REG"},
    ],
)
def test_what_shows_nobody_passes(attributes: dict[str, Any]) -> None:
    assert isinstance(DEIDENTIFIER.deidentify(ct(**attributes)), Deidentified)


def test_an_overlay_plane_is_removed_and_one_inside_the_pixels_is_refused() -> None:
    plane = ct()
    plane.add_new(0x60000010, "US", 128)
    plane.add_new(0x60000102, "US", 0)
    plane.add_new(0x60003000, "OW", b"\1\2")
    answer = DEIDENTIFIER.deidentify(plane)
    assert isinstance(answer, Deidentified)
    assert not [element for element in answer.dataset if element.tag.group == 0x6000]
    plane[0x60000102].value = 12
    assert isinstance(DEIDENTIFIER.deidentify(plane), Quarantined)


def test_without_a_transfer_syntax_nothing_can_be_written_again() -> None:
    dataset = ct()
    del dataset.file_meta
    answer = DEIDENTIFIER.deidentify(dataset)
    assert isinstance(answer, Quarantined)
    assert "TransferSyntaxUID (0002,0010) is missing" in answer.reasons


def test_an_image_that_is_cut_off_before_its_pixels_does_not_pass() -> None:
    """pydicom drops an element whose header is cut without a word."""
    whole = pydicom.dcmread(get_testdata_file("CT_small.dcm"))
    assert isinstance(DEIDENTIFIER.deidentify(whole), Deidentified)
    del whole.PixelData
    cut = DEIDENTIFIER.deidentify(whole)
    assert isinstance(cut, Quarantined)
    assert any("cut off" in reason for reason in cut.reasons)
    assert isinstance(DEIDENTIFIER.deidentify(whole, without_pixels=True), Deidentified)
