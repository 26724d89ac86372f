"""The operations of the service model through boto3, beside imports."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import uuid
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError
from healthimaging_archive import Archive, as_files, ct_series, instances, statement

from local.healthimaging.throttling import AWS_RATES, Rate, Throttle, parse_limits
from local.service import ServiceError


@pytest.fixture
def archive(cloud: Any) -> Archive:
    return Archive.create(cloud)


# Datastores


def test_a_datastore_from_creation_to_deletion(cloud: Any) -> None:
    client = cloud.client("medical-imaging")
    token, name = uuid.uuid4().hex, f"store-{uuid.uuid4().hex[:8]}"
    created = client.create_datastore(datastoreName=name, clientToken=token, tags={"team": "imaging"})
    assert created["datastoreStatus"] == "CREATING"
    datastore_id = created["datastoreId"]
    assert client.create_datastore(datastoreName=name, clientToken=token, tags={"team": "imaging"})[
        "datastoreId"
    ] == (datastore_id)
    with pytest.raises(ClientError, match="ConflictException"):
        client.create_datastore(datastoreName="other", clientToken=token)
    properties = client.get_datastore(datastoreId=datastore_id)["datastoreProperties"]
    assert properties["datastoreStatus"] == "ACTIVE"
    assert properties["losslessStorageFormat"] == "HTJ2K"
    arn = properties["datastoreArn"]
    assert client.list_tags_for_resource(resourceArn=arn)["tags"] == {"team": "imaging"}
    listed = client.get_paginator("list_datastores").paginate(datastoreStatus="ACTIVE")
    assert datastore_id in [item["datastoreId"] for page in listed for item in page["datastoreSummaries"]]
    assert client.delete_datastore(datastoreId=datastore_id)["datastoreStatus"] == "DELETING"
    gone = client.get_datastore(datastoreId=datastore_id)["datastoreProperties"]
    assert gone["datastoreStatus"] == "DELETED"
    with pytest.raises(ClientError, match="ResourceNotFoundException"):
        client.search_image_sets(datastoreId=datastore_id)


def test_only_an_empty_datastore_can_be_deleted(archive: Archive) -> None:
    image_set_id = archive.import_files(as_files(ct_series(slices=1))).image_set_id
    with pytest.raises(ClientError, match=r"ConflictException.*not empty"):
        archive.client.delete_datastore(datastoreId=archive.datastore_id)
    archive.client.delete_image_set(datastoreId=archive.datastore_id, imageSetId=image_set_id)
    archive.client.delete_datastore(datastoreId=archive.datastore_id)


def test_an_oidc_authorizer_is_refused(cloud: Any) -> None:
    arn = "arn:aws:lambda:us-east-1:000000000000:function:authorizer"
    with pytest.raises(ClientError, match="not supported by the local cloud"):
        cloud.client("medical-imaging").create_datastore(lambdaAuthorizerArn=arn)


def test_a_jpeg_2000_datastore_serves_jpeg_2000(cloud: Any) -> None:
    archive = Archive.create(cloud, losslessStorageFormat="JPEG_2000_LOSSLESS")
    (dataset,) = ct_series(slices=1)
    image_set_id = archive.import_files(as_files([dataset])).image_set_id
    (entry,) = instances(archive.metadata(image_set_id))
    assert entry["StoredTransferSyntaxUID"] == "1.2.840.10008.1.2.4.90"
    data, content_type = archive.frame(image_set_id, entry["ImageFrames"][0]["ID"])
    assert content_type == "image/j2c"
    np.testing.assert_array_equal(imagecodecs.jpeg2k_decode(data), dataset.pixel_array)


@pytest.mark.parametrize(
    "call",
    [
        lambda client: client.get_datastore(datastoreId="0" * 32),
        lambda client: client.search_image_sets(datastoreId="0" * 32),
        lambda client: client.get_dicom_import_job(datastoreId="0" * 32, jobId="1" * 32),
        lambda client: client.get_image_set(datastoreId="0" * 32, imageSetId="1" * 32),
    ],
)
def test_what_is_not_there_is_not_found(cloud: Any, call: Any) -> None:
    with pytest.raises(ClientError, match="ResourceNotFoundException") as raised:
        call(cloud.client("medical-imaging"))
    assert raised.value.response["ResponseMetadata"]["HTTPStatusCode"] == 404


def test_a_frame_belongs_to_its_image_set(archive: Archive) -> None:
    first = archive.import_files(as_files(ct_series(slices=1))).image_set_id
    second = archive.import_files(as_files(ct_series(slices=1))).image_set_id
    (entry,) = instances(archive.metadata(first))
    with pytest.raises(ClientError, match="ResourceNotFoundException"):
        archive.frame(second, entry["ImageFrames"][0]["ID"])


# Search


def test_search_filters_sorts_and_pages(archive: Archive) -> None:
    begin = datetime.now(tz=UTC) - timedelta(seconds=5)
    files = {}
    for number in range(60):
        (dataset,) = ct_series(
            slices=1,
            PatientID=f"P{number % 3}",
            AccessionNumber=f"A{number}",
            StudyID=f"S{number}",
            StudyDate=f"202401{number % 28 + 1:02}",
            StudyTime="093000",
        )
        files.update({f"{number:02}.dcm": as_files([dataset])["0000.dcm"]})
    archive.import_files(files)

    page = archive.client.search_image_sets(datastoreId=archive.datastore_id)
    assert len(page["imageSetsMetadataSummaries"]) == 50
    assert page["sort"] == {"sortField": "updatedAt", "sortOrder": "DESC"}
    assert len(archive.search()) == 60

    def found(*filters: dict[str, Any]) -> int:
        return len(archive.search(*filters))

    equal = {"operator": "EQUAL"}
    assert found({"values": [{"DICOMPatientId": "P1"}], **equal}) == 20
    assert found({"values": [{"DICOMAccessionNumber": "A7"}], **equal}) == 1
    assert (
        found({"values": [{"DICOMPatientId": "P1"}], **equal}, {"values": [{"DICOMStudyId": "S1"}], **equal})
        == 1
    )
    assert (
        found({"values": [{"DICOMPatientId": "P1"}], **equal}, {"values": [{"DICOMStudyId": "S2"}], **equal})
        == 0
    )
    assert found({"values": [{"isPrimary": True}], **equal}) == 60
    assert found({"values": [{"isPrimary": False}], **equal}) == 0
    days = [{"DICOMStudyDateAndTime": {"DICOMStudyDate": day}} for day in ("20240102", "20240103")]
    assert found({"values": days, "operator": "BETWEEN"}) == 6
    assert found({"values": days[:1], **equal}) == 3
    times = [{"createdAt": begin}, {"createdAt": datetime.now(tz=UTC) + timedelta(seconds=5)}]
    assert found({"values": times, "operator": "BETWEEN"}) == 60
    assert found({"values": [{"createdAt": begin}, {"createdAt": begin}], "operator": "BETWEEN"}) == 0
    dates = [
        item["DICOMTags"]["DICOMStudyDate"]
        for item in archive.search(sortField="DICOMStudyDateAndTime", sortOrder="ASC")
    ]
    assert dates == sorted(dates)
    with pytest.raises(ClientError, match="ValidationException"):
        found({"values": [{"DICOMPatientId": "P1"}, {"DICOMPatientId": "P2"}], **equal})
    with pytest.raises(ClientError, match=r"ValidationException.*nextToken"):
        archive.client.search_image_sets(datastoreId=archive.datastore_id, nextToken="nonsense")


# Authorisation and throttling


def test_frames_need_the_image_set_as_well_as_the_datastore(archive: Archive) -> None:
    image_set_id = archive.import_files(as_files(ct_series(slices=1))).image_set_id
    arn = archive.client.get_datastore(datastoreId=archive.datastore_id)["datastoreProperties"][
        "datastoreArn"
    ]
    iam = archive.cloud.client("iam")
    name = f"reader-{uuid.uuid4().hex[:8]}"
    iam.create_user(UserName=name)
    key = iam.create_access_key(UserName=name)["AccessKey"]
    reader = archive.cloud.client(
        "medical-imaging", aws_access_key_id=key["AccessKeyId"], aws_secret_access_key=key["SecretAccessKey"]
    )

    def allow(resources: list[str]) -> None:
        policy = {"Version": "2012-10-17", "Statement": [statement(["medical-imaging:Get*"], resources)]}
        iam.put_user_policy(UserName=name, PolicyName="read", PolicyDocument=json.dumps(policy))

    allow([arn])
    with pytest.raises(ClientError, match="AccessDenied"):
        reader.get_image_set_metadata(datastoreId=archive.datastore_id, imageSetId=image_set_id)
    allow([arn, f"{arn}/imageset/*"])
    reader.get_image_set_metadata(datastoreId=archive.datastore_id, imageSetId=image_set_id)


def test_a_bucket_of_tokens_fills_again() -> None:
    now = [0.0]
    throttle = Throttle({"GetImageFrame": Rate(per_second=2, burst=3)}, lambda: now[0])
    for _ in range(3):
        throttle.take("GetImageFrame")
    with pytest.raises(ServiceError, match="ThrottlingException"):
        throttle.take("GetImageFrame")
    throttle.take("SearchImageSets")
    now[0] = 0.5
    throttle.take("GetImageFrame")
    with pytest.raises(ServiceError, match="ThrottlingException"):
        throttle.take("GetImageFrame")


def test_limits_are_read_from_their_variable() -> None:
    assert parse_limits("") == parse_limits("off") == {}
    assert parse_limits("aws") == AWS_RATES
    assert parse_limits("GetImageFrame=5/10, SearchImageSets=0.5") == {
        "GetImageFrame": Rate(per_second=5, burst=10),
        "SearchImageSets": Rate(per_second=0.5, burst=1),
    }
    with pytest.raises(ValueError, match="GetImageFrame=fast"):
        parse_limits("GetImageFrame=fast")


def test_a_throttled_client_sees_429(own_cloud: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCAL_HEALTHIMAGING_LIMITS", "ListDatastores=0.01/2")
    own_cloud.restart()
    client = own_cloud.client("medical-imaging", config=Config(retries={"total_max_attempts": 1}))
    client.list_datastores()
    client.list_datastores()
    with pytest.raises(ClientError, match="ThrottlingException") as raised:
        client.list_datastores()
    assert raised.value.response["ResponseMetadata"]["HTTPStatusCode"] == 429


def test_the_aws_command_line_works_unchanged(archive: Archive) -> None:
    image_set_id = archive.import_files(as_files(ct_series(slices=1))).image_set_id
    command = Path(sys.executable).with_name("aws")
    if not command.exists():
        pytest.skip("the AWS CLI is not in this environment")
    done = subprocess.run(
        [command, "medical-imaging", "search-image-sets", "--datastore-id", archive.datastore_id],
        env={**os.environ, **archive.cloud.environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)["imageSetsMetadataSummaries"]
    assert [item["imageSetId"] for item in found] == [image_set_id]
