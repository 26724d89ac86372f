"""The whole image as a process, over HTTP, against the local cloud."""

from __future__ import annotations

import io
import json
import shutil
import signal
import subprocess
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import highdicom
import httpx
import numpy as np
import pytest
from running_endpoint import START_SECONDS, Archive, Endpoint, start_endpoint
from synthetic_bundle import inference_config, write_bundle
from synthetic_patient import Patient, as_multi_frame, make_patient

from healthimaging import DicomWeb, read_segmentation
from healthimaging.monai import load_metatensor
from runtime.bundles.bundle import load_bundle
from runtime.bundles.files import read_bundle_files
from runtime.results.identity import ResultIdentity


@pytest.fixture(scope="module")
def archive(cloud: Any) -> Archive:
    return Archive.create(cloud, "runtime-tests")


@pytest.fixture(scope="module")
def patients(archive: Archive) -> dict[str, Patient]:
    """Two patients by the image set that holds their CT."""
    made = [make_patient("ALPHA-77", seed=1), make_patient("BRAVO-88", seed=2)]
    return {archive.store(patient): patient for patient in made}


@pytest.fixture(scope="module")
def endpoint(cloud: Any, archive: Archive, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Endpoint]:
    base = tmp_path_factory.mktemp("endpoint")
    write_bundle(base / "model")
    started = start_endpoint(
        base, {**cloud.environment, "RUNTIME_QUEUE_LENGTH": "2", "RUNTIME_ENDPOINT_NAME": "tested"}
    )
    yield started
    started.stop()


def _expected_masks(endpoint: Endpoint, archive: Archive, image_set_id: str) -> np.ndarray[Any, Any]:
    """The bundle's own prediction on the volume, (slices, rows, columns)."""
    bundle = load_bundle(endpoint.log_file.parent / "model")
    (volume,) = archive.read(image_set_id).volumes()
    labels: np.ndarray[Any, Any] = bundle.predict(load_metatensor(volume))[0].numpy().transpose(2, 1, 0)
    return labels.astype(bool)


def _one(response: httpx.Response) -> dict[str, Any]:
    assert response.status_code == 200, response.text
    (result,) = response.json()["results"]
    assert isinstance(result, dict)
    return result


def test_ping_is_503_until_the_model_is_warm(endpoint: Endpoint) -> None:
    answers = [status for status in endpoint.pings if status]
    assert answers[0] == 503
    assert answers.index(200) == len(answers) - 1


def test_segmentation_is_stored_beside_its_source(
    endpoint: Endpoint, archive: Archive, patients: dict[str, Patient]
) -> None:
    image_set_id, patient = next(iter(patients.items()))
    source = patient.datasets[0]
    result = _one(endpoint.invoke(archive.request(image_set_id)))
    stored = result["segmentation"]
    fingerprint = read_bundle_files(endpoint.log_file.parent / "model").fingerprint
    identity = ResultIdentity(
        image_set_id=image_set_id, version_id=result["versionId"], model_fingerprint=fingerprint
    )
    assert stored["seriesInstanceUid"] == identity.series_instance_uid
    assert stored["sopInstanceUid"] == identity.sop_instance_uid
    assert (stored["isPrimary"], stored["s3Uri"]) == (True, None)
    (summary,) = archive.image_sets(stored["seriesInstanceUid"])
    assert (summary["imageSetId"], summary["isPrimary"]) == (stored["imageSetId"], True)
    series = DicomWeb(archive.client, archive.datastore_id).search("series", study=source.StudyInstanceUID)
    assert {str(one.SeriesInstanceUID) for one in series} == {
        source.SeriesInstanceUID,
        stored["seriesInstanceUid"],
    }
    dataset = archive.segmentation(result)
    for keyword in ("PatientID", "StudyInstanceUID", "StudyID", "StudyDate", "AccessionNumber"):
        assert dataset[keyword].value == source[keyword].value
    (volume,) = archive.read(image_set_id).volumes()
    labels = read_segmentation(dataset, volume.geometry)
    wanted = _expected_masks(endpoint, archive, image_set_id)
    assert 0.02 < wanted.mean() < 0.98
    np.testing.assert_array_equal(labels.array[0], wanted)
    voxel_ml = 1.5 * 1.25 * 4.0 / 1000
    (segment,) = result["segments"]
    assert segment == {"label": "lung", "volumeMl": pytest.approx(wanted.sum() * voxel_ml, abs=1e-3)}
    assert {"open", "fetch", "preprocess", "network", "postprocess", "write", "store", "total"} <= set(
        result["seconds"]
    )


def test_segmentation_is_valid_and_says_what_made_it(
    endpoint: Endpoint, archive: Archive, patients: dict[str, Patient]
) -> None:
    image_set_id, patient = next(iter(patients.items()))
    result = _one(endpoint.invoke(archive.request(image_set_id)))
    segmentation = highdicom.seg.Segmentation.from_dataset(archive.segmentation(result))
    assert {uids[2] for uids in segmentation.get_source_image_uids()} <= {
        dataset.SOPInstanceUID for dataset in patient.datasets
    }
    assert segmentation.FrameOfReferenceUID == patient.datasets[0].FrameOfReferenceUID
    description = segmentation.get_segment_description(1)
    assert (description.segment_label, description.segmented_property_type.value) == ("lung", "39607008")
    algorithm = description.algorithm_identification
    assert algorithm.name == result["model"]["name"] == "test segmentation"
    assert algorithm.version == f"0.1.0 sha256:{result['model']['sha256'][:32]}"
    assert segmentation.DeviceSerialNumber == result["model"]["sha256"]


@pytest.mark.skipif(shutil.which("dciodvfy") is None, reason="dicom3tools is not installed")
def test_segmentation_satisfies_dciodvfy(
    endpoint: Endpoint, archive: Archive, patients: dict[str, Patient], tmp_path: Path
) -> None:
    result = _one(endpoint.invoke(archive.request(next(iter(patients)))))
    archive.segmentation(result).save_as(tmp_path / "seg.dcm", enforce_file_format=True)
    report = subprocess.run(
        ["dciodvfy", "-new", tmp_path / "seg.dcm"], check=False, capture_output=True, text=True
    )
    assert "Error" not in report.stderr + report.stdout


def test_the_same_request_twice_stores_one_segmentation(
    endpoint: Endpoint, archive: Archive, patients: dict[str, Patient]
) -> None:
    image_set_id = next(iter(patients))
    first = _one(endpoint.invoke(archive.request(image_set_id)))
    again = _one(endpoint.invoke(archive.request(image_set_id) | {"versionId": first["versionId"]}))
    assert {**again, "seconds": None} == {**first, "seconds": None}
    assert "network" not in again["seconds"]
    (summary,) = archive.image_sets(first["segmentation"]["seriesInstanceUid"])
    assert summary["version"] == 1


def test_a_request_is_measured_in_the_log(endpoint: Endpoint, archive: Archive) -> None:
    """Lines of the container's log, from which CloudWatch takes the metrics (runtime/metrics.py)."""
    image_set_id = archive.store(make_patient("GOLF-12", seed=12))

    def measured(skip: int) -> dict[str, Any]:
        lines = endpoint.log_file.read_text().splitlines()[skip:]
        documents = [json.loads(line) for line in lines if '"CloudWatchMetrics"' in line]
        assert {document["Endpoint"] for document in documents} == {"tested"}
        return {
            metric["Name"]: document[metric["Name"]]
            for document in documents
            for metric in document["_aws"]["CloudWatchMetrics"][0]["Metrics"]
        }

    def lines_so_far() -> int:
        return len(endpoint.log_file.read_text().splitlines())

    before = lines_so_far()
    result = _one(endpoint.invoke(archive.request(image_set_id)))
    first = measured(before)
    assert (first["Requests"], first["Errors"], first["StoredResults"]) == (1, 0, 0)
    assert (first["Volumes"], first["Slices"]) == (1, 20)
    spacing = [first[f"{axis}SpacingMillimetres"] for axis in ("Column", "Row", "Slice")]
    assert spacing == pytest.approx([1.25, 1.5, 4.0])
    assert first["SegmentVolumeMillilitres"] == result["segments"][0]["volumeMl"]
    assert first["NetworkSeconds"] == result["seconds"]["network"]
    assert first["TotalSeconds"] == result["seconds"]["total"] <= first["RequestSeconds"] + 0.001

    before = lines_so_far()
    _one(endpoint.invoke(archive.request(image_set_id)))
    again = measured(before)
    assert (again["Requests"], again["StoredResults"]) == (1, 1)
    assert "Slices" not in again
    assert "NetworkSeconds" not in again, "a volume is counted once"

    before = lines_so_far()
    assert endpoint.invoke(archive.request("f" * 32)).status_code == 404
    assert (measured(before)["Requests"], measured(before)["Errors"]) == (1, 1)


def test_concurrent_patients_never_mix(
    endpoint: Endpoint, archive: Archive, patients: dict[str, Patient]
) -> None:
    # New series of the same patients, so that every request is computed and none answered from the archive.
    fresh = {archive.store(p): p for p in (make_patient("CHARLIE", seed=3), make_patient("DELTA", seed=4))}
    everyone = patients | fresh
    results: dict[str, Any] = {}
    with ThreadPoolExecutor(4) as pool:
        pending = {one: pool.submit(endpoint.invoke, archive.request(one)) for one in fresh}
        results |= {one: _one(answer.result()) for one, answer in pending.items()}
    for one in patients:
        results[one] = _one(endpoint.invoke(archive.request(one)))
    assert len({result["segmentation"]["sopInstanceUid"] for result in results.values()}) == len(everyone)
    assert len({result["segments"][0]["volumeMl"] for result in results.values()}) == len(everyone)
    for image_set_id, patient in everyone.items():
        dataset = archive.segmentation(results[image_set_id])
        assert dataset.PatientID == patient.patient_id
        (volume,) = archive.read(image_set_id).volumes()
        np.testing.assert_array_equal(
            read_segmentation(dataset, volume.geometry).array[0],
            _expected_masks(endpoint, archive, image_set_id),
        )


def test_frames_from_head_to_feet_keep_each_mask_in_its_place(endpoint: Endpoint, archive: Archive) -> None:
    image_set_id = archive.store(as_multi_frame(make_patient("HOTEL-22", seed=8)))
    (volume,) = archive.read(image_set_id).volumes()
    assert volume.frame_numbers == tuple(range(20, 0, -1))
    wanted = _expected_masks(endpoint, archive, image_set_id)
    assert not np.array_equal(wanted, wanted[::-1])
    result = _one(endpoint.invoke(archive.request(image_set_id)))
    labels = read_segmentation(archive.segmentation(result), volume.geometry)
    np.testing.assert_array_equal(labels.array[0], wanted)
    assert result["segments"][0]["volumeMl"] == pytest.approx(
        wanted.sum() * 1.5 * 1.25 * 4.0 / 1000, abs=1e-3
    )


def test_errors_are_answered_and_the_next_request_is_good(
    endpoint: Endpoint, archive: Archive, patients: dict[str, Patient]
) -> None:
    image_set_id = next(iter(patients))
    result = _one(endpoint.invoke(archive.request(image_set_id)))
    conflicting = make_patient("ECHO-99", seed=5)
    for dataset in conflicting.datasets:
        dataset.StudyInstanceUID = patients[image_set_id].datasets[0].StudyInstanceUID
    broken = make_patient("FOXTROT", seed=6)
    broken.datasets[3].ImagePositionPatient = [-30.0, -42.0, 1.0]
    cases = [
        (archive.request("0" * 32), 404, "ImageSetNotFoundError"),
        (archive.request(image_set_id) | {"versionId": "99"}, 404, "ImageSetNotFoundError"),
        ({"datastoreId": "short"}, 400, "InvalidRequestError"),
        (archive.request(result["segmentation"]["imageSetId"]), 422, "NoMatchingSeriesError"),
        (archive.request(archive.store(conflicting)), 409, "SourceNotPrimaryError"),
        (archive.request(archive.store(broken)), 422, None),
    ]
    for document, status, kind in cases:
        answer = endpoint.invoke(document)
        assert answer.status_code == status, answer.text
        assert set(answer.json()["error"]) == {"type", "message"}
        assert kind is None or answer.json()["error"]["type"] == kind
        assert _one(endpoint.invoke(archive.request(image_set_id)))["segmentation"] == result["segmentation"]


def test_overload_is_refused_and_every_accepted_request_answered(
    endpoint: Endpoint, archive: Archive, patients: dict[str, Patient]
) -> None:
    document = {"inputs": [archive.request(one) for one in patients] * 4}
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(endpoint.invoke, [document] * 8))
    assert {answer.status_code for answer in answers} == {200, 503}
    for answer in answers:
        if answer.status_code == 200:
            assert [one["imageSetId"] for one in answer.json()["results"]] == [*patients] * 4
        else:
            assert answer.json()["error"]["type"] == "QueueFullError"
            assert int(answer.headers["Retry-After"]) > 0


def test_logs_are_json_without_patient_data(endpoint: Endpoint, patients: dict[str, Patient]) -> None:
    lines = [json.loads(line) for line in endpoint.log.splitlines()]
    assert any(line["message"] == "answered" for line in lines)
    for word in ("ALPHA", "BRAVO", "CHARLIE", "ECHO", "FOXTROT", "Synthetic", "19700101", "20240102"):
        assert word not in endpoint.log


def test_sigterm_drains_and_copies_reach_s3(
    cloud: Any, archive: Archive, patients: dict[str, Patient], tmp_path: Path
) -> None:
    s3 = cloud.client("s3")
    s3.create_bucket(Bucket="runtime-segmentations")
    write_bundle(tmp_path / "model", seed=9)
    endpoint = start_endpoint(
        tmp_path, {**cloud.environment, "RUNTIME_SEGMENTATION_S3_URI": "s3://runtime-segmentations/seg"}
    )
    with ThreadPoolExecutor(2) as pool:
        pending = [pool.submit(endpoint.invoke, archive.request(one)) for one in patients]
        time.sleep(0.5)
        for _ in range(3):
            endpoint.process.send_signal(signal.SIGTERM)
            time.sleep(0.1)
        results = [_one(answer.result()) for answer in pending]
    assert endpoint.process.wait(timeout=30) == 0
    assert endpoint.ping() == 0
    messages = [json.loads(line)["message"] for line in endpoint.log.splitlines()]
    assert messages.index("stopping") < len(messages) - messages[::-1].index("answered") - 1
    for result in results:
        uri = result["segmentation"]["s3Uri"]
        key = uri.removeprefix("s3://runtime-segmentations/")
        assert key == f"seg/{result['imageSetId']}/1/{result['segmentation']['seriesInstanceUid']}.dcm"
        assert s3.get_object(Bucket="runtime-segmentations", Key=key)["Body"].read()[128:132] == b"DICM"


def test_what_cannot_be_answered_before_the_container_is_killed_is_told_so(
    cloud: Any, archive: Archive, patients: dict[str, Patient], tmp_path: Path
) -> None:
    config = inference_config()
    # Quick on the made-up volume of the warm-up, which has 32 slices.
    slow = "$lambda x: (__import__('time').sleep(20 if x.shape[-1] < 30 else 0), x)[1]"
    config["preprocessing"]["transforms"].append({"_target_": "Lambdad", "keys": "image", "func": slow})
    write_bundle(tmp_path / "model", config=config, seed=10)
    endpoint = start_endpoint(tmp_path, {**cloud.environment, "RUNTIME_DRAIN_SECONDS": "1"})
    with ThreadPoolExecutor(3) as pool:
        pending = [pool.submit(endpoint.invoke, archive.request(one)) for one in patients]
        time.sleep(0.5)
        endpoint.process.send_signal(signal.SIGTERM)
        begin = time.monotonic()
        while endpoint.ping() == 200:
            time.sleep(0.02)
        refused = endpoint.invoke(archive.request(next(iter(patients))))
        answers = [refused, *(answer.result() for answer in pending)]
    for answer in answers:
        assert (answer.status_code, answer.json()["error"]["type"]) == (503, "StoppingError")
        assert int(answer.headers["Retry-After"]) > 0
    assert endpoint.process.wait(timeout=30) == 0
    assert time.monotonic() - begin < 10, "nobody waits for the work that goes on"


def test_sigterm_while_loading_ends_the_process(cloud: Any, tmp_path: Path) -> None:
    write_bundle(tmp_path / "model")
    endpoint = start_endpoint(tmp_path, cloud.environment, wait=False)
    deadline = time.monotonic() + START_SECONDS
    while endpoint.ping() != 503:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    endpoint.process.terminate()
    assert endpoint.process.wait(timeout=10) == 0


def test_a_model_that_cannot_be_served_ends_the_process(cloud: Any, tmp_path: Path) -> None:
    (write_bundle(tmp_path / "model") / "models" / "model.ts").unlink()
    endpoint = start_endpoint(tmp_path, cloud.environment, wait=False)
    assert endpoint.process.wait(timeout=START_SECONDS) == 1
    (line,) = [json.loads(line) for line in endpoint.log.splitlines() if "cannot be served" in line]
    assert line["type"] == "BundleError"
    assert str(tmp_path / "model") in line["detail"]


def _import(cloud: Any, archive: Archive, patient: Patient) -> str:
    """Import a series through S3 and StartDICOMImportJob, and return its image set."""
    s3, bucket = cloud.client("s3"), "runtime-imports"
    s3.create_bucket(Bucket=bucket)
    for dataset in patient.datasets:
        buffer = io.BytesIO()
        dataset.save_as(buffer, enforce_file_format=True)
        s3.put_object(Bucket=bucket, Key=f"in/{dataset.SOPInstanceUID}.dcm", Body=buffer.getvalue())
    allow = {"Effect": "Allow", "Action": ["s3:GetObject", "s3:PutObject", "s3:ListBucket"], "Resource": "*"}
    trust = {
        "Effect": "Allow",
        "Principal": {"Service": "medical-imaging.amazonaws.com"},
        "Action": "sts:AssumeRole",
    }
    iam, name = cloud.client("iam"), "runtime-imports"
    role = iam.create_role(RoleName=name, AssumeRolePolicyDocument=json.dumps({"Statement": [trust]}))["Role"]
    iam.put_role_policy(RoleName=name, PolicyName="s3", PolicyDocument=json.dumps({"Statement": [allow]}))
    job = archive.client.start_dicom_import_job(
        datastoreId=archive.datastore_id,
        dataAccessRoleArn=role["Arn"],
        clientToken=uuid.uuid4().hex,
        inputS3Uri=f"s3://{bucket}/in/",
        outputS3Uri=f"s3://{bucket}/out/",
    )
    deadline = time.monotonic() + 60
    while True:
        properties = archive.client.get_dicom_import_job(
            datastoreId=archive.datastore_id, jobId=job["jobId"]
        )["jobProperties"]
        if properties["jobStatus"] == "COMPLETED":
            break
        assert properties["jobStatus"] != "FAILED", properties.get("message")
        assert time.monotonic() < deadline
        time.sleep(0.2)
    (summary,) = archive.image_sets(str(patient.datasets[0].SeriesInstanceUID))
    return str(summary["imageSetId"])


def test_an_imported_series_gets_its_segmentation(cloud: Any, archive: Archive, endpoint: Endpoint) -> None:
    patient = make_patient("GOLF-11", seed=7)
    result = _one(endpoint.invoke(archive.request(_import(cloud, archive, patient))))
    (summary,) = archive.image_sets(result["segmentation"]["seriesInstanceUid"])
    assert summary["isPrimary"]
    assert summary["DICOMTags"]["DICOMStudyInstanceUID"] == patient.datasets[0].StudyInstanceUID
    assert summary["DICOMTags"]["DICOMPatientId"] == patient.patient_id
