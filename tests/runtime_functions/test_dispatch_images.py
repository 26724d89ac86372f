"""The loop breaker, and what makes images the same: nothing that the platform stores is an input."""

from __future__ import annotations

import ast
import copy
from pathlib import Path
from typing import Any

import pytest
from dispatch_documents import DESCRIPTION, document, instance, segmentation

from healthimaging.metadata import ImageSetMetadata
from runtime.functions.dispatch.images import (
    MANUFACTURER,
    RESULT_MODALITIES,
    candidate_series,
    images_digest,
)


def read(value: dict[str, Any]) -> ImageSetMetadata:
    return ImageSetMetadata.from_document(value)


def digest(value: dict[str, Any]) -> str:
    return images_digest(read(value))


def test_an_original_series_is_a_candidate() -> None:
    (series,) = candidate_series(read(document(images=3)))
    assert (series.modality, series.body_part, series.images) == ("CT", "CHEST", 3)
    assert series.description == DESCRIPTION


def test_headers_may_be_filed_under_instances() -> None:
    moved = document(series={"Modality": None, "BodyPartExamined": None}, Modality="MR")
    (series,) = candidate_series(read(moved))
    assert (series.modality, series.body_part) == ("MR", None)


def test_frames_of_one_instance_count() -> None:
    enhanced = document(images=1)
    only = enhanced["Study"]["Series"]["1.2.3.4"]["Instances"]["1.2.3.4.1"]
    only["ImageFrames"] = [{"ID": f"f{number}"} for number in range(40)]
    (series,) = candidate_series(read(enhanced))
    assert series.images == 40


@pytest.mark.parametrize(
    ("series", "instances"),
    [
        *(({"Modality": modality}, {}) for modality in sorted(RESULT_MODALITIES)),
        ({"Modality": "seg"}, {}),
        # Whatever modality a result claims to have:
        ({"Manufacturer": "MONAI on AWS"}, {}),
        ({}, {"Manufacturer": "MONAI on AWS "}),
        ({}, {"SOPClassUID": "1.2.840.10008.5.1.4.1.1.66.4"}),
        ({}, {"SOPClassUID": "1.2.840.10008.5.1.4.1.1.66.7"}),
        ({}, {"SOPClassUID": "1.2.840.10008.5.1.4.1.1.88.33"}),
        ({}, {"SOPClassUID": "1.2.840.10008.5.1.4.1.1.11.1"}),
        ({}, {"SOPClassUID": "1.2.840.10008.5.1.4.1.1.7"}),
        ({}, {"SOPClassUID": "1.2.840.10008.5.1.4.1.1.104.1"}),
        ({}, {"SOPClassUID": "1.2.840.10008.5.1.4.1.1.481.3"}),
    ],
)
def test_a_result_is_no_candidate(series: dict[str, Any], instances: dict[str, Any]) -> None:
    assert not list(candidate_series(read(document(series=series, **instances))))


def test_the_stored_segmentation_is_no_candidate() -> None:
    assert not list(candidate_series(read(segmentation())))


@pytest.mark.parametrize(
    "sop_class",
    ["1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.5.1.4.1.1.1.1", "1.2.840.10008.5.1.4.1.1.77.1.6"],
)
def test_images_of_scanners_are_candidates(sop_class: str) -> None:
    assert list(candidate_series(read(document(SOPClassUID=sop_class))))


def test_a_manufacturer_that_only_begins_so_is_somebody_else() -> None:
    assert list(candidate_series(read(document(series={"Manufacturer": "MONAI on AWS demo"}))))


def test_the_manufacturer_is_the_one_that_the_inference_image_writes() -> None:
    source = (Path(__file__).parents[2] / "runtime/reports/equipment.py").read_text()
    written = [
        ast.literal_eval(node.value)
        for node in ast.parse(source).body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "MANUFACTURER"
    ]
    assert written == [MANUFACTURER]


def changed(**attributes: Any) -> dict[str, Any]:
    value = document()
    value["Study"]["Series"]["1.2.3.4"]["Instances"]["1.2.3.4.2"]["DICOM"].update(attributes)
    return value


def test_other_images_have_another_digest() -> None:
    digests = {
        digest(document()),
        digest(document(images=4)),
        digest(document(images=2)),
        digest(changed(ImagePositionPatient=["0", "0", "2.5"])),
        digest(changed(RescaleSlope="2")),
    }
    repainted = document()
    frames = repainted["Study"]["Series"]["1.2.3.4"]["Instances"]["1.2.3.4.2"]["ImageFrames"]
    frames[0]["PixelDataChecksumFromBaseToFullResolution"][0]["Checksum"] += 1
    digests.add(digest(repainted))
    assert len(digests) == 6


def test_images_that_were_filed_under_the_wrong_patient_need_a_result_of_their_own() -> None:
    """Whoever corrects that must get a result for the right patient, not hear that there was one before."""
    patient, study = copy.deepcopy(document()), copy.deepcopy(document())
    patient["Patient"]["DICOM"]["PatientID"] = "P2"
    study["Study"]["DICOM"]["StudyInstanceUID"] = "1.2.7"
    assert len({digest(one) for one in (document(), patient, study)}) == 3


def test_the_same_images_have_the_same_digest() -> None:
    renamed = copy.deepcopy(document())
    renamed["Patient"]["DICOM"]["PatientName"] = "Curie^Marie"
    renamed["Study"]["DICOM"]["StudyDescription"] = "corrected"
    stored_again = copy.deepcopy(document())
    instances = stored_again["Study"]["Series"]["1.2.3.4"]["Instances"]
    for number, one in enumerate(instances.values()):
        one["ImageFrames"][0]["ID"] = f"another{number}"
    reordered = copy.deepcopy(document())
    series = reordered["Study"]["Series"]["1.2.3.4"]
    series["Instances"] = dict(reversed(series["Instances"].items()))
    assert {digest(one) for one in (renamed, stored_again, reordered)} == {digest(document())}


def test_frames_without_checksum_are_told_apart_by_id() -> None:
    def without_checksum(frame_id: str) -> dict[str, Any]:
        value = document(images=1)
        only = value["Study"]["Series"]["1.2.3.4"]["Instances"]["1.2.3.4.1"]
        only["ImageFrames"] = [{"ID": frame_id}]
        return value

    assert digest(without_checksum("a")) != digest(without_checksum("b"))


def test_a_result_beside_the_images_changes_nothing() -> None:
    value = document()
    value["Study"]["Series"]["1.2.3.9"] = {
        "DICOM": {"SeriesInstanceUID": "1.2.3.9", "Modality": "SEG"},
        "Instances": {"1.2.3.4.99": instance(99)},
    }
    assert digest(value) == digest(document())
