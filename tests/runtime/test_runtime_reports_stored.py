"""What the application stores beside an image set, against the local cloud: once, in its place, complete."""

from __future__ import annotations

import copy
import gzip
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import highdicom
import nibabel
import numpy as np
import pytest
from inferring import BUCKET, Classifier, start_container
from pydicom import Dataset
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code
from pydicom.uid import SecondaryCaptureImageStorage, generate_uid
from reported import needs_dciodvfy, require_conformity
from running_endpoint import Archive
from synthetic_patient import Patient, make_patient

from healthimaging import ImageSet, read_segmentation
from healthimaging.grouping import GROUPING_ATTRIBUTES
from runtime.bundles.bundle import Bundle, load_bundle
from runtime.bundles.class_scores import ClassScore
from runtime.errors import NoMatchingSeriesError, SeveralMatchingSeriesError, StoreRefusedError
from runtime.functions.dispatch.images import candidate_series
from runtime.reports.classification_report import class_probabilities
from runtime.reports.drawing import HEIGHT, WIDTH
from runtime.results.answer import Result, to_document
from runtime.results.archive import ResultArchive
from runtime.results.outputs import Output

REPORT, SNAPSHOT, NIFTI = Output.MEASUREMENT_REPORT, Output.SNAPSHOT, Output.NIFTI


@pytest.fixture(scope="module")
def archive(cloud: Any) -> Archive:
    client = cloud.client("medical-imaging")
    datastore_id = client.create_datastore(datastoreName="runtime-reports")["datastoreId"]
    deadline = time.monotonic() + 30
    while (
        client.get_datastore(datastoreId=datastore_id)["datastoreProperties"]["datastoreStatus"] != "ACTIVE"
    ):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    cloud.client("s3").create_bucket(Bucket=BUCKET)
    return Archive(client=client, datastore_id=datastore_id)


@pytest.fixture(scope="module")
def bundle(bundle_directory: Path) -> Bundle:
    return load_bundle(bundle_directory)


@pytest.fixture
def patient(archive: Archive) -> tuple[str, Patient]:
    """A new study for each test, by the image set that holds its CT."""
    made = make_patient("JULIETT-55", seed=time.time_ns() % 2**32)
    return archive.store(made), made


def _stored(archive: Archive, series_instance_uid: str | None) -> tuple[ImageSet, Dataset]:
    """The one image set of a series, which is primary and was stored once, and its instance."""
    assert series_instance_uid is not None
    (summary,) = archive.image_sets(series_instance_uid)
    assert (summary["isPrimary"], summary["version"]) == (True, 1)
    image_set = archive.read(summary["imageSetId"])
    (dataset,) = image_set.datasets()
    return image_set, dataset


def _series_of_results(result: Result) -> list[str]:
    named = [report.series_instance_uid for report in result.reports if report.series_instance_uid]
    return named if result.segmentation is None else [result.segmentation.series_instance_uid, *named]


def _volumes(report: Dataset) -> dict[str, float]:
    """What highdicom reads in a measurement report: ml by segment."""
    found = {}
    content: Any = highdicom.sr.EnhancedSR.from_dataset(report).content
    for group in content.get_volumetric_roi_measurement_groups():
        (measurement,) = group.get_measurements(name=codes.SCT.Volume)
        assert measurement.unit.value == "ml"
        found[str(group.tracking_identifier)] = float(measurement.value)
    return found


def _without_seconds(result: Result) -> Any:
    return {**to_document(result), "seconds": None}


def test_everything_is_stored_beside_the_source_once(
    cloud: Any, archive: Archive, bundle: Bundle, patient: tuple[str, Patient], tmp_path: Path
) -> None:
    image_set_id, made = patient
    container = start_container(cloud, bundle, outputs=list(Output), files=True)
    result = container.infer(archive, image_set_id)
    assert [report.kind for report in result.reports] == [REPORT, SNAPSHOT, NIFTI]
    assert [*to_document(result)["reports"][0]] == [
        *("kind", "seriesInstanceUid", "sopInstanceUid", "imageSetId", "isPrimary", "s3Uri"),
    ]
    datasets = {}
    for series in _series_of_results(result):
        image_set, dataset = _stored(archive, series)
        datasets[str(dataset.Modality)] = dataset
        for keyword in GROUPING_ATTRIBUTES:
            assert dataset[keyword].value == made.datasets[0][keyword].value
        assert not list(candidate_series(image_set.metadata)), "a result must never start an inference"
        uri = f"s3://{BUCKET}/copies/{image_set_id}/1/{series}.dcm"
        assert uri in str(to_document(result))
        key = uri.removeprefix(f"s3://{BUCKET}/")
        assert container.s3.get_object(Bucket=BUCKET, Key=key)["Body"].read()[128:132] == b"DICM"
    assert set(datasets) == {"SEG", "SR", "OT"}
    (volume,) = archive.read(image_set_id).volumes()
    mask = read_segmentation(datasets["SEG"], volume.geometry).array[0]
    assert 0.02 < mask.mean() < 0.98
    assert _volumes(datasets["SR"]) == {one.label: one.volume_ml for one in result.segments}
    assert datasets["OT"].pixel_array.shape == (HEIGHT, WIDTH, 3)
    nifti = result.reports[2]
    assert (nifti.series_instance_uid, nifti.image_set_id, nifti.is_primary) == (None, None, None)
    assert nifti.s3_uri is not None
    body = container.s3.get_object(Bucket=BUCKET, Key=nifti.s3_uri.removeprefix(f"s3://{BUCKET}/"))["Body"]
    image = nibabel.Nifti1Image.from_bytes(gzip.decompress(body.read()))  # type: ignore[no-untyped-call]  # nibabel
    np.testing.assert_array_equal(np.asarray(image.dataobj).transpose(2, 1, 0), mask)
    np.testing.assert_allclose(image.affine, volume.geometry.ras_affine, atol=1e-4)
    again = container.infer(archive, image_set_id)
    assert _without_seconds(again) == _without_seconds(result)
    assert not {"network", "fetch"} & set(again.seconds), "headers are enough to write the file anew"
    for series in _series_of_results(again):
        _stored(archive, series)


@needs_dciodvfy
def test_what_the_archive_gives_back_satisfies_dciodvfy(
    cloud: Any, archive: Archive, bundle: Bundle, patient: tuple[str, Patient], tmp_path: Path
) -> None:
    result = start_container(cloud, bundle, outputs=[REPORT, SNAPSHOT]).infer(archive, patient[0])
    series = _series_of_results(result)
    assert len(series) == 3
    for one in series:
        require_conformity(_stored(archive, one)[1], tmp_path)


def test_an_output_that_is_switched_on_later_is_added(
    cloud: Any, archive: Archive, bundle: Bundle, patient: tuple[str, Patient]
) -> None:
    image_set_id, _ = patient
    first = start_container(cloud, bundle).infer(archive, image_set_id)
    assert first.reports == ()
    measured = start_container(cloud, bundle, outputs=[REPORT]).infer(archive, image_set_id)
    assert (measured.segmentation, measured.segments) == (first.segmentation, first.segments)
    assert [report.kind for report in measured.reports] == [REPORT]
    assert not {"network", "fetch"} & set(measured.seconds), "a report needs no pixels"
    drawn = start_container(cloud, bundle, outputs=[REPORT, SNAPSHOT]).infer(archive, image_set_id)
    assert drawn.reports[0] == measured.reports[0]
    assert [report.kind for report in drawn.reports] == [REPORT, SNAPSHOT]
    assert "fetch" in drawn.seconds
    assert "network" not in drawn.seconds
    for series in _series_of_results(drawn):
        _stored(archive, series)


def test_what_is_added_later_refers_to_what_was_segmented(
    cloud: Any, archive: Archive, bundle: Bundle
) -> None:
    """The series holds more than its volume: a capture without a place."""
    made = make_patient("KILO-9", seed=9, shape=(12, 36, 32))
    capture = copy.deepcopy(made.datasets[0])
    capture.SOPClassUID = capture.file_meta.MediaStorageSOPClassUID = SecondaryCaptureImageStorage
    capture.SOPInstanceUID = capture.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    capture.InstanceNumber = 99
    for keyword in ("ImagePositionPatient", "ImageOrientationPatient", "FrameOfReferenceUID"):
        delattr(capture, keyword)
    image_set_id = archive.store(replace(made, datasets=[capture, *made.datasets]))
    assert len(archive.read(image_set_id).metadata.instances) == 13
    first = start_container(cloud, bundle).infer(archive, image_set_id)
    result = start_container(cloud, bundle, outputs=[REPORT]).infer(archive, image_set_id)
    assert "network" not in result.seconds
    assert first.segmentation is not None
    _, report = _stored(archive, result.reports[0].series_instance_uid)
    referenced = {
        item.ReferencedSOPInstanceUID
        for study in report.CurrentRequestedProcedureEvidenceSequence
        for series in study.ReferencedSeriesSequence
        for item in series.ReferencedSOPSequence
    }
    segmented = {one.SOPInstanceUID for one in made.datasets}
    assert referenced == segmented | {first.segmentation.sop_instance_uid}


def test_a_crash_between_two_stores_is_made_up_for(
    cloud: Any,
    archive: Archive,
    bundle: Bundle,
    patient: tuple[str, Patient],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    image_set_id, _ = patient
    container = start_container(cloud, bundle, outputs=[REPORT, SNAPSHOT])
    store = ResultArchive._send

    def only_segmentations(self: ResultArchive, datastore_id: str, datasets: list[Dataset]) -> None:
        if any(dataset.Modality != "SEG" for dataset in datasets):
            raise StoreRefusedError("interrupted")
        store(self, datastore_id, datasets)

    with monkeypatch.context() as patched:
        patched.setattr(ResultArchive, "_send", only_segmentations)
        with pytest.raises(StoreRefusedError):
            container.infer(archive, image_set_id)
    result = container.infer(archive, image_set_id)
    assert "network" not in result.seconds, "the segmentation was stored before"
    assert [report.kind for report in result.reports] == [REPORT, SNAPSHOT]
    for series in _series_of_results(result):
        _stored(archive, series)


def test_two_containers_at_once_leave_one_result(
    cloud: Any,
    archive: Archive,
    bundle: Bundle,
    patient: tuple[str, Patient],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Both compute, and both find nothing before they store: the datastore gets each object twice."""
    image_set_id, made = patient
    together = threading.Barrier(2, timeout=60)
    send = ResultArchive._send

    def at_the_same_time(self: ResultArchive, datastore_id: str, datasets: list[Dataset]) -> None:
        together.wait()
        send(self, datastore_id, datasets)

    monkeypatch.setattr(ResultArchive, "_send", at_the_same_time)
    containers = [start_container(cloud, bundle, outputs=[REPORT]) for _ in range(2)]
    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(lambda one: one.infer(archive, image_set_id), containers)
    assert all("network" in result.seconds for result in (first, second))
    assert _without_seconds(first) == _without_seconds(second)
    for series in _series_of_results(first):
        (summary,) = archive.image_sets(series)
        assert summary["isPrimary"]
        assert summary["version"] == 2, "the second replaced the first in its image set"
        assert summary["DICOMTags"]["DICOMPatientId"] == made.patient_id


def test_a_result_that_meanwhile_appeared_is_taken(
    cloud: Any,
    archive: Archive,
    bundle: Bundle,
    patient: tuple[str, Patient],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The other container was done while this one computed: its result is answered and stays alone."""
    image_set_id, _ = patient
    find = ResultArchive.find
    looked: list[str] = []

    def nothing_at_first(self: ResultArchive, **options: str) -> Any:
        looked.append(options["series_instance_uid"])
        return None if len(looked) == 1 else find(self, **options)

    other = start_container(cloud, bundle).infer(archive, image_set_id)
    monkeypatch.setattr(ResultArchive, "find", nothing_at_first)
    result = start_container(cloud, bundle).infer(archive, image_set_id)
    assert "network" in result.seconds
    assert result.segmentation == other.segmentation
    for series in _series_of_results(result):
        _stored(archive, series)


CLASSIFIER = Classifier(
    scores=(
        ClassScore(
            label="malignant",
            probability=0.75,
            term=Code("363346000", "SCT", "Malignant neoplastic disease"),
        ),
        ClassScore(label="nothing seen", probability=0.25, term=None),
    )
)


def test_a_classification_is_a_report_and_no_segmentation(
    cloud: Any, archive: Archive, patient: tuple[str, Patient], tmp_path: Path
) -> None:
    image_set_id, made = patient
    container = start_container(cloud, CLASSIFIER, outputs=list(Output), files=True)
    result = container.infer(archive, image_set_id)
    document = to_document(result)
    assert (document["segmentation"], document["segments"]) == (None, [])
    assert document["classes"] == [
        {"label": "malignant", "probability": 0.75},
        {"label": "nothing seen", "probability": 0.25},
    ]
    (report,) = result.reports
    assert (report.kind, report.is_primary) == ("classification-report", True)
    assert report.s3_uri is not None
    image_set, dataset = _stored(archive, report.series_instance_uid)
    assert image_set.ref.image_set_id == report.image_set_id
    assert class_probabilities(dataset) == result.classes
    assert not list(candidate_series(image_set.metadata))
    for keyword in GROUPING_ATTRIBUTES:
        assert dataset[keyword].value == made.datasets[0][keyword].value
    again = container.infer(archive, image_set_id)
    assert _without_seconds(again) == _without_seconds(result)
    assert "network" not in again.seconds
    _stored(archive, report.series_instance_uid)


@needs_dciodvfy
def test_a_stored_classification_satisfies_dciodvfy(
    cloud: Any, archive: Archive, patient: tuple[str, Patient], tmp_path: Path
) -> None:
    (report,) = start_container(cloud, CLASSIFIER).infer(archive, patient[0]).reports
    require_conformity(_stored(archive, report.series_instance_uid)[1], tmp_path)


def test_classification_selects_its_series_by_the_same_rules(
    cloud: Any, archive: Archive, patient: tuple[str, Patient], monkeypatch: pytest.MonkeyPatch
) -> None:
    container = start_container(cloud, CLASSIFIER)
    with pytest.raises(NoMatchingSeriesError, match="modality is not CT"):
        container.infer(archive, archive.store(make_patient("KILO-6", seed=6, modality="MR")))
    datasets = ImageSet.datasets

    def of_two_series(self: ImageSet, **options: Any) -> list[Dataset]:
        headers = datasets(self, **options)
        for header in headers[: len(headers) // 2]:
            header.SeriesInstanceUID = "2.25.77"
        return headers

    with monkeypatch.context() as patched:
        patched.setattr(ImageSet, "datasets", of_two_series)
        with pytest.raises(SeveralMatchingSeriesError, match="2 series match"):
            container.infer(archive, patient[0])
    assert container.infer(archive, patient[0]).classes
