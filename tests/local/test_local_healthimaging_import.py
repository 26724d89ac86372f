"""Import jobs through the running cloud: what is imported, what fails, what is told, what survives."""

from __future__ import annotations

import json
import re
import time
import uuid
import zlib
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pydicom
import pytest
from botocore.exceptions import ClientError
from healthimaging_archive import Archive, as_files, ct_series, encoded, instances, statement
from pydicom.data import get_testdata_file
from pydicom.uid import generate_uid


@pytest.fixture
def archive(cloud: Any) -> Archive:
    return Archive.create(cloud)


def test_a_series_becomes_one_primary_image_set(archive: Archive) -> None:
    series = ct_series(slices=4)
    report = archive.import_files(as_files(series))

    assert report.summary["numberOfScannedFiles"] == report.summary["numberOfImportedFiles"] == 4
    assert report.summary["numberOfGeneratedImageSets"] == 1
    assert report.summary["imageSetsSummary"] == [
        {
            "imageSetId": report.image_set_id,
            "imageSetVersion": 1,
            "isPrimary": True,
            "numberOfMatchedSOPInstances": 4,
        }
    ]
    assert report.failure == report.warning == []
    assert {line["inputFile"].rpartition("/")[2] for line in report.success} == set(as_files(series))
    metadata = archive.metadata(report.image_set_id)
    assert metadata["SchemaVersion"] == "1.1"
    assert metadata["Patient"]["DICOM"]["PatientID"] == series[0].PatientID
    assert metadata["Study"]["DICOM"]["StudyInstanceUID"] == series[0].StudyInstanceUID
    (shown,) = metadata["Study"]["Series"].values()
    assert shown["DICOM"]["Modality"] == "CT"
    assert set(shown["Instances"]) == {dataset.SOPInstanceUID for dataset in series}


def test_frames_are_the_pixels_bit_by_bit(archive: Archive) -> None:
    series = ct_series(slices=3, size=64)
    image_set_id = archive.import_files(as_files(series)).image_set_id
    shown = {entry["DICOM"]["SOPInstanceUID"]: entry for entry in instances(archive.metadata(image_set_id))}
    for dataset in series:
        entry = shown[dataset.SOPInstanceUID]
        assert entry["StoredTransferSyntaxUID"] == "1.2.840.10008.1.2.4.202"
        assert entry["ChecksumType"] == "DECOMPRESSED"
        (frame,) = entry["ImageFrames"]
        data, content_type = archive.frame(image_set_id, frame["ID"])
        assert content_type == "image/jph"
        assert len(data) == frame["FrameSizeInBytes"]
        pixels = imagecodecs.htj2k_decode(data)
        np.testing.assert_array_equal(pixels, dataset.pixel_array)
        assert pixels.dtype == dataset.pixel_array.dtype
        (checksum,) = frame["PixelDataChecksumFromBaseToFullResolution"]
        assert checksum == {"Width": 64, "Height": 64, "Checksum": zlib.crc32(pixels.tobytes())}
        assert (frame["MinPixelValue"], frame["MaxPixelValue"]) == (pixels.min(), pixels.max())


def test_metadata_keeps_the_spelling_of_the_file(archive: Archive) -> None:
    (dataset,) = ct_series(slices=1)
    dataset.PixelSpacing = ["0.70", "0.7"]
    dataset.WindowCenter = "40"
    dataset.AcquisitionNumber = None
    block = dataset.private_block(0x0099, "TEST CREATOR", create=True)
    block.add_new(0x01, "LO", "private value")
    block.add_new(0x02, "OB", b"\x01\x02")
    dataset.ReferencedImageSequence = [pydicom.Dataset()]
    dataset.ReferencedImageSequence[0].ReferencedSOPInstanceUID = "1.2.3"
    report = archive.import_files({"one.dcm": encoded(dataset)})
    (entry,) = instances(archive.metadata(report.image_set_id))
    shown = entry["DICOM"]
    assert [value.strip() for value in shown["PixelSpacing"]] == ["0.70", "0.7"]
    assert [value.strip() for value in shown["WindowCenter"]] == ["40"]  # a list, as its multiplicity is 1-n
    assert shown["AcquisitionNumber"] is None
    assert shown["Rows"] == 16
    assert shown["ReferencedImageSequence"] == [{"ReferencedSOPInstanceUID": "1.2.3"}]
    assert shown["00991001"] == "private value"
    assert shown["00991002"] == "AQI="
    assert entry["DICOMVRs"]["00991001"] == "LO"
    assert entry["DICOMVRs"]["00991002"] == "OB"
    assert shown["PixelData"] is None  # the frames stand for it
    assert shown["TransferSyntaxUID"] == "1.2.840.10008.1.2.1"


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("noise.dcm", b"no dicom at all" * 50, "not a DICOM P10 file"),
        ("truncated.dcm", encoded(ct_series(slices=1)[0])[:-100], r"ends within element \(7FE0,\s?0010\)"),
        (
            "header.dcm",
            encoded(ct_series(slices=1)[0])[:700],
            "StudyInstanceUID does not exist|cannot be parsed",
        ),
    ],
)
def test_a_damaged_file_fails_alone(archive: Archive, name: str, data: bytes, message: str) -> None:
    good = ct_series(slices=2)
    report = archive.import_files({**as_files(good), name: data})
    assert report.summary["numberOfImportedFiles"] == 2
    assert report.summary["numberOfFilesWithCustomerError"] == 1
    (failure,) = report.failure
    assert failure["inputFile"].endswith(f"/{name}")
    assert failure["exception"]["exceptionType"] == "ValidationException"
    assert re.search(message, failure["exception"]["message"])


def test_a_job_whose_files_all_fail_is_still_completed(archive: Archive) -> None:
    report = archive.import_files({"a.dcm": b"a" * 200, "b.dcm": b"b" * 200})
    assert report.summary["numberOfImportedFiles"] == 0
    assert report.summary["imageSetsSummary"] == []
    assert len(report.failure) == 2


def test_a_missing_uid_is_named(archive: Archive) -> None:
    (dataset,) = ct_series(slices=1)
    del dataset.StudyInstanceUID
    report = archive.import_files({"one.dcm": encoded(dataset)})
    (failure,) = report.failure
    assert failure["exception"]["message"] == "DICOM attribute StudyInstanceUID does not exist"


def test_pixels_that_cannot_be_transcoded_are_kept_with_a_warning(archive: Archive) -> None:
    (dataset,) = ct_series(slices=1)
    dataset.Rows = 99
    report = archive.import_files({"one.dcm": encoded(dataset)})
    (line,) = report.warning
    assert [warning["type"] for warning in line["warnings"]] == ["TRANSCODING_EXCEPTION"]
    assert line["warnings"][0]["warning_reason_code"] == 0xB100
    (entry,) = instances(archive.metadata(report.image_set_id))
    with pytest.raises(ClientError, match="NotAcceptableException") as raised:
        archive.frame(report.image_set_id, entry["ImageFrames"][0]["ID"])
    assert raised.value.response["ResponseMetadata"]["HTTPStatusCode"] == 406


def test_an_instance_without_pixels_has_no_frames(archive: Archive) -> None:
    report = archive.import_files({"sr.dcm": Path(str(get_testdata_file("test-SR.dcm"))).read_bytes()})
    (entry,) = instances(archive.metadata(report.image_set_id))
    assert entry["ImageFrames"] == []
    assert "StoredTransferSyntaxUID" not in entry


def test_a_conflicting_patient_makes_a_non_primary_image_set(archive: Archive) -> None:
    first = ct_series(slices=2)
    archive.import_files(as_files(first))
    other = ct_series(slices=2, study_uid=first[0].StudyInstanceUID, PatientID="SOMEBODY ELSE")
    report = archive.import_files(as_files(other))
    assert [item["isPrimary"] for item in report.summary["imageSetsSummary"]] == [False]
    assert all(line["importResponse"]["isPrimary"] is False for line in report.success)
    primary = archive.search({"values": [{"isPrimary": True}], "operator": "EQUAL"})
    assert [item["DICOMTags"]["DICOMPatientId"] for item in primary] == [first[0].PatientID]


def test_two_series_of_a_study_are_two_primary_image_sets(archive: Archive) -> None:
    first = ct_series(slices=2)
    second = ct_series(slices=1, study_uid=first[0].StudyInstanceUID, SeriesNumber=7)
    report = archive.import_files(as_files([*first, *second]))
    found = [
        (item["isPrimary"], item["numberOfMatchedSOPInstances"])
        for item in report.summary["imageSetsSummary"]
    ]
    assert found == [(True, 2), (True, 1)]


def test_a_later_slice_joins_the_image_set_and_raises_its_version(archive: Archive) -> None:
    series = ct_series(slices=3)
    first = archive.import_files(as_files(series[:2]))
    second = archive.import_files(as_files(series[2:]))
    assert second.image_set_id == first.image_set_id
    assert second.summary["imageSetsSummary"][0]["imageSetVersion"] == 2
    assert second.summary["numberOfGeneratedImageSets"] == 0
    assert len(list(instances(archive.metadata(first.image_set_id)))) == 3
    assert len(list(instances(archive.metadata(first.image_set_id, versionId="1")))) == 2


def test_a_replaced_instance_is_replaced_and_its_old_version_stays(archive: Archive) -> None:
    (dataset,) = ct_series(slices=1)
    first = archive.import_files({"one.dcm": encoded(dataset)})
    dataset.PixelData = np.zeros((16, 16), np.int16).tobytes()
    second = archive.import_files({"one.dcm": encoded(dataset)})
    assert second.image_set_id == first.image_set_id
    (new,) = instances(archive.metadata(first.image_set_id))
    (old,) = instances(archive.metadata(first.image_set_id, versionId="1"))
    assert new["ImageFrames"][0]["MaxPixelValue"] == 0
    data, _ = archive.frame(first.image_set_id, old["ImageFrames"][0]["ID"])
    assert imagecodecs.htj2k_decode(data).max() > 0


def test_the_same_token_is_the_same_job(archive: Archive) -> None:
    files = as_files(ct_series(slices=1))
    uri = archive.upload(files)
    token = uuid.uuid4().hex
    first = archive.start_import({}, clientToken=token, inputS3Uri=uri)
    assert archive.start_import({}, clientToken=token, inputS3Uri=uri) == first
    archive.finished(first)
    with pytest.raises(ClientError, match="ConflictException"):
        archive.start_import({}, clientToken=token, inputS3Uri=uri, jobName="another")
    jobs = archive.client.list_dicom_import_jobs(datastoreId=archive.datastore_id)["jobSummaries"]
    assert [job["jobId"] for job in jobs] == [first]


def test_an_empty_input_fails_the_job(archive: Archive) -> None:
    job = archive.finished(archive.start_import({}, inputS3Uri=f"s3://{archive.bucket}/input/nothing/"))
    assert job["jobStatus"] == "FAILED"
    assert "No files" in job["message"]


def test_a_role_without_get_object_fails_the_job(cloud: Any) -> None:
    archive = Archive.create(cloud, read_objects=False)
    job = archive.finished(archive.start_import(as_files(ct_series(slices=1))))
    assert job["jobStatus"] == "FAILED"
    assert "AccessDenied" in job["message"]
    assert "GetObject" in job["message"]
    assert archive.search() == []


def test_a_role_that_does_not_trust_the_service_fails_the_job(archive: Archive) -> None:
    trust = {
        "Version": "2012-10-17",
        "Statement": [
            {"Effect": "Allow", "Principal": {"Service": "lambda.amazonaws.com"}, "Action": "sts:AssumeRole"}
        ],
    }
    archive.cloud.client("iam").update_assume_role_policy(
        RoleName=archive.role_name, PolicyDocument=json.dumps(trust)
    )
    job = archive.finished(archive.start_import(as_files(ct_series(slices=1))))
    assert job["jobStatus"] == "FAILED"
    assert "cannot be assumed" in job["message"]


def test_starting_a_job_needs_pass_role(archive: Archive) -> None:
    iam = archive.cloud.client("iam")
    name = f"user-{uuid.uuid4().hex[:8]}"
    iam.create_user(UserName=name)
    key = iam.create_access_key(UserName=name)["AccessKey"]
    allowed = statement(["medical-imaging:StartDICOMImportJob"], ["*"])
    iam.put_user_policy(
        UserName=name,
        PolicyName="start",
        PolicyDocument=json.dumps({"Version": "2012-10-17", "Statement": [allowed]}),
    )
    client = archive.cloud.client(
        "medical-imaging",
        aws_access_key_id=key["AccessKeyId"],
        aws_secret_access_key=key["SecretAccessKey"],
    )
    request = {
        "datastoreId": archive.datastore_id,
        "dataAccessRoleArn": archive.role_arn,
        "inputS3Uri": archive.upload(as_files(ct_series(slices=1))),
        "outputS3Uri": f"s3://{archive.bucket}/output/",
    }
    with pytest.raises(ClientError, match=r"AccessDenied.*iam:PassRole"):
        client.start_dicom_import_job(**request)
    with pytest.raises(ClientError, match=r"AccessDenied.*medical-imaging:SearchImageSets"):
        client.search_image_sets(datastoreId=archive.datastore_id)


def test_dicom_json_metadata_imports_are_refused(archive: Archive) -> None:
    mapping = {"studyInstanceUID": "1.2", "metadataFilePath": "a.json"}
    configuration = {"dicomJsonMetadataImportConfiguration": {"dicomMetadataMappings": [mapping]}}
    with pytest.raises(ClientError, match="not supported by the local cloud"):
        archive.start_import({}, importConfiguration=configuration)


def test_events_reach_the_bus(archive: Archive) -> None:
    sqs, events = archive.cloud.client("sqs"), archive.cloud.client("events")
    name = archive.bucket
    url = sqs.create_queue(QueueName=name)["QueueUrl"]
    arn = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    policy = {
        "Version": "2012-10-17",
        "Statement": [
            {
                "Effect": "Allow",
                "Principal": {"Service": "events.amazonaws.com"},
                "Action": "sqs:SendMessage",
                "Resource": arn,
            }
        ],
    }
    sqs.set_queue_attributes(QueueUrl=url, Attributes={"Policy": json.dumps(policy)})
    pattern = {"source": ["aws.medical-imaging"], "detail": {"datastoreId": [archive.datastore_id]}}
    events.put_rule(Name=name, EventPattern=json.dumps(pattern))
    events.put_targets(Rule=name, Targets=[{"Id": "queue", "Arn": arn}])

    report = archive.import_files(as_files(ct_series(slices=2)))
    archive.client.delete_image_set(datastoreId=archive.datastore_id, imageSetId=report.image_set_id)
    wanted = [
        "Import Job Submitted",
        "Import Job In Progress",
        "Image Set Created",
        "Import Job Completed",
        "Image Set Deleting",
        "Image Set Deleted",
    ]
    received: dict[str, dict[str, Any]] = {}
    deadline = time.monotonic() + 30
    while set(received) < set(wanted) and time.monotonic() < deadline:
        for message in sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10, WaitTimeSeconds=1).get(
            "Messages", []
        ):
            body = json.loads(message["Body"])
            received[body["detail-type"]] = body
            sqs.delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])
    assert set(received) == set(wanted)
    created = received["Image Set Created"]
    assert created["source"] == "aws.medical-imaging"
    assert created["resources"][0].endswith(
        f"datastore/{archive.datastore_id}/imageset/{report.image_set_id}"
    )
    assert created["detail"] == {
        "imagingVersion": "1.0",
        "isPrimary": True,
        "imageSetVersion": "1",
        "datastoreId": archive.datastore_id,
        "imagesetId": report.image_set_id,
        "imageSetState": "ACTIVE",
        "imageSetWorkflowStatus": "CREATED",
    }
    completed = received["Import Job Completed"]["detail"]
    assert completed["jobStatus"] == "COMPLETED"
    assert completed["outputS3Uri"] == report.summary["outputS3Uri"]


@pytest.mark.slow
def test_everything_survives_kill_and_restart(own_cloud: Any) -> None:
    archive = Archive.create(own_cloud)
    before = archive.import_files(as_files(ct_series(slices=3)))
    metadata = archive.metadata(before.image_set_id)
    series = ct_series(slices=60, size=256)
    uri = archive.upload(as_files(series))
    own_cloud.restart()
    assert archive.metadata(before.image_set_id) == metadata
    job_id = archive.start_import({}, inputS3Uri=uri)
    content = own_cloud.root / "healthimaging" / "content"
    while len(list(content.glob("??/*"))) < 10:
        time.sleep(0.01)
    own_cloud.kill()
    own_cloud.restart()
    assert archive.metadata(before.image_set_id) == metadata
    job = archive.finished(job_id)
    assert job["jobStatus"] == "COMPLETED", job["message"]
    by_series = {item["DICOMTags"]["DICOMSeriesInstanceUID"]: item for item in archive.search()}
    assert len(by_series) == 2
    found = by_series[series[0].SeriesInstanceUID]
    assert found["version"] == 1
    assert found["DICOMTags"]["DICOMNumberOfStudyRelatedInstances"] == 60
    for entry in instances(archive.metadata(found["imageSetId"])):
        data, _ = archive.frame(found["imageSetId"], entry["ImageFrames"][0]["ID"])
        checksum = entry["ImageFrames"][0]["PixelDataChecksumFromBaseToFullResolution"][-1]["Checksum"]
        assert zlib.crc32(imagecodecs.htj2k_decode(data).tobytes()) == checksum


def test_a_series_uid_in_two_studies_is_a_conflict(archive: Archive) -> None:
    series_uid = generate_uid()
    first = archive.import_files(as_files(ct_series(slices=1, series_uid=series_uid)))
    second = archive.import_files(as_files(ct_series(slices=1, series_uid=series_uid)))
    assert first.summary["imageSetsSummary"][0]["isPrimary"] is True
    assert second.summary["imageSetsSummary"][0]["isPrimary"] is False
