"""Structured reports and label maps, read back by other programs than those that wrote them."""

from __future__ import annotations

import copy
import gzip
import io
from pathlib import Path
from typing import Any

import highdicom
import nibabel
import numpy as np
import pytest
from pydicom import Dataset, dcmread
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code
from reported import MODEL, RESULT, Segmented, needs_dciodvfy, require_conformity, segmented

from healthimaging import read_segmentation
from healthimaging.errors import GeometryMismatchError
from healthimaging.grouping import GROUPING_ATTRIBUTES
from runtime.bundles.class_scores import ClassScore
from runtime.errors import ReportError, SettingsError
from runtime.reports.classification_report import class_probabilities, write_classification_report
from runtime.reports.label_map import write_label_maps
from runtime.reports.measurement_report import write_measurement_report
from runtime.results.outputs import Output
from runtime.results.segment_volumes import segment_volumes
from runtime.settings import Settings

VOXEL_ML = 1.5 * 1.25 * 4.0 / 1000
CANCER = Code("363346000", "SCT", "Malignant neoplastic disease")
SCORES = (
    ClassScore(label="malignant", probability=0.8230001, term=CANCER),
    ClassScore(label="nothing seen", probability=1.25e-7, term=None),
)


@pytest.fixture(scope="module")
def case() -> Segmented:
    return segmented()


def _through_a_file(dataset: Dataset) -> Dataset:
    buffer = io.BytesIO()
    dataset.save_as(buffer, enforce_file_format=True)
    buffer.seek(0)
    return dcmread(buffer)


def _measured(case: Segmented) -> Dataset:
    return write_measurement_report(
        segmentation=case.segmentation, source=case.headers, model=MODEL, result=RESULT
    )


def _classified(case: Segmented) -> Dataset:
    return write_classification_report(scores=SCORES, source=case.headers, model=MODEL, result=RESULT)


def _content(report: Dataset) -> Any:
    return highdicom.sr.EnhancedSR.from_dataset(report).content


def test_each_segment_has_the_volume_of_the_answer(case: Segmented) -> None:
    groups = _content(_through_a_file(_measured(case))).get_volumetric_roi_measurement_groups()
    answered = segment_volumes(case.segmentation)
    assert [volume.volume_ml for volume in answered] == pytest.approx(
        [7 * 20 * 12 * VOXEL_ML, 2 * 6 * 8 * VOXEL_ML], abs=1e-3
    )
    assert len(groups) == len(answered) == 2
    for number, (group, volume) in enumerate(zip(groups, answered, strict=True), start=1):
        (measurement,) = group.get_measurements(name=codes.SCT.Volume)
        assert (measurement.value, measurement.unit.value) == (volume.volume_ml, "ml")
        assert measurement.method == codes.DCM.SumOfSegmentedVoxelMethodForVolume
        assert (group.tracking_identifier, group.tracking_uid) == (volume.label, RESULT.tracking_uid(number))
        segment = group.referenced_segment
        assert list(segment.referenced_segment_numbers) == [number]
        assert segment.referenced_sop_instance_uid == case.segmentation.SOPInstanceUID
        assert segment.source_series_for_segmentation.value == case.volume.series_instance_uid
    lung, tumor = groups
    assert (lung.finding_type, tumor.finding_type) == (codes.SCT.Lung, codes.SCT.Neoplasm)
    assert lung.finding_category == codes.SCT.AnatomicalStructure
    assert [site.value for site in lung.finding_sites] == [codes.SCT.Lung]
    assert tumor.finding_sites == [], "where a lesion is, the model does not say"


@pytest.mark.parametrize("write", [_measured, _classified])
def test_reports_say_what_made_them_and_of_what(case: Segmented, write: Any) -> None:
    report = _through_a_file(write(case))
    text = " ".join(str(element.value) for element in report.iterall() if element.VR != "SQ")
    for wanted in (MODEL.name, MODEL.sha256, RESULT.device_uid, f"0.3.1 sha256:{MODEL.sha256[:32]}"):
        assert wanted in text
    assert (report.Manufacturer, report.Modality) == ("MONAI on AWS", "SR")
    assert (report.CompletionFlag, report.VerificationFlag) == ("COMPLETE", "UNVERIFIED")
    assert report.DeviceSerialNumber == MODEL.sha256
    evidence = {uids[2] for uids in highdicom.sr.EnhancedSR.from_dataset(report).get_evidence()}
    assert {header.SOPInstanceUID for header in case.headers} <= evidence
    for keyword in GROUPING_ATTRIBUTES:
        assert report[keyword].value == case.headers[0][keyword].value


def test_the_same_result_has_the_same_uids(case: Segmented) -> None:
    def uids(report: Dataset) -> list[str]:
        return [str(element.value) for element in report.iterall() if element.VR == "UI"]

    assert uids(_measured(case)) == uids(_measured(case))
    assert {_measured(case).SeriesInstanceUID, _classified(case).SeriesInstanceUID}.isdisjoint(
        {case.segmentation.SeriesInstanceUID}
    )
    assert _measured(case).SeriesInstanceUID != _classified(case).SeriesInstanceUID


def test_classes_are_coded_where_a_term_is_known(case: Segmented) -> None:
    report = _through_a_file(_classified(case))
    groups = _content(report).get_image_measurement_groups()
    assert [group.finding_type.value for group in groups] == ["363346000", "404684003"]
    assert [group.tracking_identifier for group in groups] == ["malignant", "nothing seen"]
    for group in groups:
        assert [image.referenced_sop_instance_uid for image in group.source_images] == [
            header.SOPInstanceUID for header in case.headers
        ]
    read_back = class_probabilities(report)
    assert [(one.label, one.probability) for one in read_back] == [
        ("malignant", 0.823),
        ("nothing seen", 0.0),
    ]


def test_only_measurement_reports_are_read_as_classifications(case: Segmented) -> None:
    other = _classified(case)
    other.ContentTemplateSequence[0].TemplateIdentifier = "2000"
    with pytest.raises(TypeError, match="no measurement report"):
        class_probabilities(other)


def test_a_source_that_cannot_be_reported_is_named_without_its_patient(case: Segmented) -> None:
    broken = copy.deepcopy(case.headers[0])
    broken.PatientSex = "INDIA-44"
    with pytest.raises(ReportError) as failure:
        write_classification_report(
            scores=SCORES, source=[broken, *case.headers[1:]], model=MODEL, result=RESULT
        )
    assert str(case.volume.series_instance_uid) in str(failure.value)
    assert "INDIA" not in str(failure.value)


@needs_dciodvfy
@pytest.mark.parametrize("multi_frame", [False, True])
def test_reports_satisfy_dciodvfy(multi_frame: bool, tmp_path: Path) -> None:
    case = segmented(multi_frame=multi_frame)
    for dataset in (case.segmentation, _measured(case), _classified(case)):
        require_conformity(dataset, tmp_path)


def _labels(content: bytes) -> Any:
    return nibabel.Nifti1Image.from_bytes(gzip.decompress(content))  # type: ignore[no-untyped-call]  # nibabel


@pytest.mark.parametrize("multi_frame", [False, True])
def test_the_label_map_lies_where_the_segmentation_lies(multi_frame: bool) -> None:
    case = segmented(multi_frame=multi_frame)
    grid = case.volume.geometry
    (file,) = write_label_maps(segmentation=case.segmentation, grid=grid, description="chest test")
    image = _labels(file.content)
    labels = np.asarray(image.dataobj)
    assert (labels.shape, labels.dtype) == ((48, 56, 20), np.uint8)
    masks = read_segmentation(case.segmentation, grid).array
    for number in (1, 2):
        np.testing.assert_array_equal((labels == number).transpose(2, 1, 0), masks[number - 1])
        np.testing.assert_array_equal(masks[number - 1], case.masks[number - 1])
    # A voxel's place in both worlds: LPS of DICOM, RAS of NIfTI.
    left, back, head = grid.to_patient([8, 20, 6])
    np.testing.assert_allclose(image.affine @ [8, 20, 6, 1], [-left, -back, head, 1], atol=1e-4)
    assert image.header.get_xyzt_units()[0] == "mm"
    assert (image.header["sform_code"], image.header["qform_code"]) == (1, 1)
    assert int(image.header["intent_code"]) == 1002
    assert bytes(image.header["descrip"]).rstrip(b"\0") == b"chest test"
    again = write_label_maps(segmentation=case.segmentation, grid=grid, description="chest test")
    assert again == (file,)


def test_segments_that_overlap_are_a_file_each() -> None:
    case = segmented(overlap=True)
    assert (case.masks[0] & case.masks[1]).any()
    files = write_label_maps(segmentation=case.segmentation, grid=case.volume.geometry, description="d")
    assert [file.suffix for file in files] == ["-segment-1", "-segment-2"]
    for number, file in enumerate(files, start=1):
        labels = np.asarray(_labels(file.content).dataobj).transpose(2, 1, 0)
        np.testing.assert_array_equal(labels, case.masks[number - 1] * number)


def test_an_empty_segmentation_is_an_empty_label_map() -> None:
    case = segmented(empty=True)
    (file,) = write_label_maps(segmentation=case.segmentation, grid=case.volume.geometry, description="d")
    assert not np.asarray(_labels(file.content).dataobj).any()


def test_a_segmentation_of_another_volume_is_refused(case: Segmented) -> None:
    half = type(case.volume.geometry)(case.volume.geometry.affine, (4, 56, 48))
    with pytest.raises(ValueError, match="outside the grid"):
        write_label_maps(segmentation=case.segmentation, grid=half, description="d")
    with pytest.raises(GeometryMismatchError):
        read_segmentation(case.segmentation, half)


def test_outputs_are_a_setting_and_every_wrong_one_is_named() -> None:
    place = {"RUNTIME_SEGMENTATION_S3_URI": "s3://bucket/seg"}
    settings = Settings.from_environment({"RUNTIME_OUTPUTS": "nifti, snapshot", **place})
    assert settings.outputs == {Output.NIFTI, Output.SNAPSHOT}
    assert Settings.from_environment({}).outputs == frozenset()
    with pytest.raises(SettingsError, match="unknown output 'pdf'; known are measurement-report"):
        Settings.from_environment({"RUNTIME_OUTPUTS": "snapshot,pdf"})
    with pytest.raises(SettingsError, match="nifti files need RUNTIME_SEGMENTATION_S3_URI"):
        Settings.from_environment({"RUNTIME_OUTPUTS": "nifti"})
