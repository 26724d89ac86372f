"""DICOMweb with an ordinary client, signed with SigV4."""

from __future__ import annotations

import json
import uuid
from io import BytesIO
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pydicom
import pytest
import requests
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from dicomweb_client.api import DICOMwebClient
from healthimaging_archive import Archive, as_files, ct_series, encoded, instances
from pydicom.data import get_testdata_file
from pydicom.uid import generate_uid

HTJ2K = "1.2.840.10008.1.2.4.202"
NATIVE = (("application/dicom", "1.2.840.10008.1.2.1"),)
STORED = (("application/dicom", "*"),)
KINDS = {
    "liver_1frame.dcm": "1.2.840.10008.1.2.1",
    "SC_rgb_rle_2frame.dcm": HTJ2K,
    "SC_rgb_jpeg_dcmtk.dcm": "1.2.840.10008.1.2.4.50",
    "693_J2KI.dcm": "1.2.840.10008.1.2.4.91",
    "rtdose.dcm": HTJ2K,
    "examples_jpeg2k.dcm": HTJ2K,
}
"""Files, and the transfer syntaxes in which they are stored."""


class SigV4(requests.auth.AuthBase):
    """Signs requests for medical-imaging, as AWS asks of DICOMweb clients."""

    def __init__(self, cloud: Any, key: str = "", secret: str = "") -> None:
        credentials = Credentials(key or cloud.access_key_id, secret or cloud.secret_access_key)
        self._signer = SigV4Auth(credentials, "medical-imaging", cloud.region)

    def __call__(self, request: Any) -> Any:
        signed = AWSRequest(
            method=request.method,
            url=request.url,
            data=request.body,
            headers={
                name: value
                for name, value in request.headers.items()
                if name.lower() in ("content-type", "accept", "host")
            },
        )
        self._signer.add_auth(signed)
        request.headers.update(dict(signed.headers.items()))
        return request


@pytest.fixture
def archive(cloud: Any) -> Archive:
    return Archive.create(cloud)


@pytest.fixture
def session(archive: Archive) -> requests.Session:
    made = requests.Session()
    made.auth = SigV4(archive.cloud)
    made.trust_env = False
    return made


@pytest.fixture
def base(archive: Archive) -> str:
    return f"{archive.cloud.endpoint_url}/datastore/{archive.datastore_id}"


@pytest.fixture
def web(base: str, session: requests.Session) -> DICOMwebClient:
    return DICOMwebClient(url=base, session=session)


def instance_url(base: str, dataset: pydicom.Dataset) -> str:
    return (
        f"{base}/studies/{dataset.StudyInstanceUID}/series/{dataset.SeriesInstanceUID}"
        f"/instances/{dataset.SOPInstanceUID}"
    )


def test_stored_instances_are_primary_and_come_back(archive: Archive, web: DICOMwebClient) -> None:
    series = ct_series(slices=3, size=32)
    answer = web.store_instances(datasets=series)
    assert [item.ReferencedSOPInstanceUID for item in answer.ReferencedSOPSequence] == [
        dataset.SOPInstanceUID for dataset in series
    ]
    assert "FailedSOPSequence" not in answer
    (found,) = archive.search()
    assert (found["isPrimary"], found["DICOMTags"]["DICOMNumberOfStudyRelatedInstances"]) == (True, 3)
    for dataset in series:
        uids = (dataset.StudyInstanceUID, dataset.SeriesInstanceUID, dataset.SOPInstanceUID)
        back = web.retrieve_instance(*uids, media_types=NATIVE)
        np.testing.assert_array_equal(back.pixel_array, dataset.pixel_array)
        assert back.PatientName == dataset.PatientName
        assert back.ImagePositionPatient == dataset.ImagePositionPatient
        (frame,) = web.retrieve_instance_frames(*uids, frame_numbers=[1])
        assert frame == dataset.PixelData


def test_a_result_joins_the_study_of_its_source(archive: Archive, web: DICOMwebClient) -> None:
    source = ct_series(slices=2)
    archive.import_files(as_files(source))
    result = ct_series(slices=1, study_uid=source[0].StudyInstanceUID, Modality="SEG", SeriesNumber=100)
    web.store_instances(datasets=result, study_instance_uid=source[0].StudyInstanceUID)
    assert {item["DICOMTags"]["DICOMSeriesModality"]: item["isPrimary"] for item in archive.search()} == {
        "CT": True,
        "SEG": True,
    }


def test_a_partly_failed_store_tells_of_each(archive: Archive, base: str, session: requests.Session) -> None:
    good, foreign = ct_series(slices=1)[0], ct_series(slices=1)[0]
    boundary = uuid.uuid4().hex
    parts = [encoded(good), encoded(foreign), b"this is not DICOM"]
    body = b"".join(
        f"--{boundary}\r\nContent-Type: application/dicom\r\n\r\n".encode() + part + b"\r\n" for part in parts
    )
    response = session.post(
        f"{base}/studies/{good.StudyInstanceUID}",
        data=body + f"--{boundary}--\r\n".encode(),
        headers={
            "Content-Type": f'multipart/related; type="application/dicom"; boundary={boundary}',
            "Accept": "application/dicom+json",
        },
        timeout=60,
    )
    assert response.status_code == 409
    told = pydicom.Dataset.from_json(response.text)
    assert [item.ReferencedSOPInstanceUID for item in told.ReferencedSOPSequence] == [good.SOPInstanceUID]
    assert [item.FailureReason for item in told.FailedSOPSequence] == [0xA900, 0xC000]
    assert told.FailedSOPSequence[0].ReferencedSOPInstanceUID == foreign.SOPInstanceUID
    assert len(archive.search()) == 1


def test_a_single_instance_needs_no_multipart(archive: Archive, base: str, session: requests.Session) -> None:
    (dataset,) = ct_series(slices=1)
    response = session.post(
        f"{base}/studies", data=encoded(dataset), headers={"Content-Type": "application/dicom"}, timeout=60
    )
    assert response.status_code == 200
    assert response.headers["Content-Type"] == "application/dicom+json"
    assert len(archive.search()) == 1
    wrong = session.post(
        f"{base}/studies", data=b"{}", headers={"Content-Type": "application/json"}, timeout=60
    )
    assert wrong.status_code == 415


def test_studies_series_and_instances_are_found(archive: Archive, web: DICOMwebClient) -> None:
    first = ct_series(slices=3, PatientID="ONE", PatientName="Doe^Jane", StudyDate="20240115")
    second = ct_series(slices=1, study_uid=first[0].StudyInstanceUID, PatientID="ONE", PatientName="Doe^Jane",
                       StudyDate="20240115", SeriesNumber=2, Modality="SEG")  # fmt: skip
    third = ct_series(slices=1, PatientID="TWO", PatientName="Roe^Richard", StudyDate="20240220")
    archive.import_files(as_files([*first, *second, *third]))
    study_uid = first[0].StudyInstanceUID

    def studies(**filters: str) -> set[str]:
        return {item["0020000D"]["Value"][0] for item in web.search_for_studies(search_filters=filters)}

    assert studies() == {study_uid, third[0].StudyInstanceUID}
    assert studies(PatientID="ONE") == {study_uid}
    assert studies(PatientName="doe*") == {study_uid}
    assert studies(PatientName="Roe^Richard") == {third[0].StudyInstanceUID}
    assert studies(StudyDate="20240101-20240131") == {study_uid}
    assert studies(StudyDate="20240201-") == {third[0].StudyInstanceUID}
    assert studies(ModalitiesInStudy="SEG") == {study_uid}
    assert studies(StudyInstanceUID=study_uid) == {study_uid}
    assert studies(PatientID="NOBODY") == set()
    (study,) = web.search_for_studies(
        search_filters={"PatientID": "ONE"}, fields=["StudyDescription", "PatientAge"]
    )
    shown = pydicom.Dataset.from_json(study)
    assert (shown.NumberOfStudyRelatedSeries, shown.NumberOfStudyRelatedInstances) == (2, 4)
    assert list(shown.ModalitiesInStudy) == ["CT", "SEG"]
    assert shown.PatientAge == first[0].PatientAge
    found = [pydicom.Dataset.from_json(item) for item in web.search_for_series(study_uid)]
    assert [(item.SeriesNumber, item.Modality, item.NumberOfSeriesRelatedInstances) for item in found] == [
        (1, "CT", 3),
        (2, "SEG", 1),
    ]
    assert len(web.search_for_series(search_filters={"Modality": "CT"})) == 2
    listed = web.search_for_instances(study_uid, first[0].SeriesInstanceUID)
    assert [item["00200013"]["Value"][0] for item in listed] == [1, 2, 3]
    assert len(web.search_for_instances(study_uid)) == 4
    assert len(web.search_for_instances(study_uid, limit=2, offset=1)) == 2


def test_only_primary_image_sets_are_served_unless_one_is_named(
    archive: Archive, web: DICOMwebClient, base: str, session: requests.Session
) -> None:
    first = ct_series(slices=1)
    archive.import_files(as_files(first))
    other = ct_series(slices=1, study_uid=first[0].StudyInstanceUID, PatientID="OTHER")
    other_id = archive.import_files(as_files(other)).image_set_id
    assert len(web.search_for_series(first[0].StudyInstanceUID)) == 1
    url = instance_url(base, other[0])
    assert session.get(url, timeout=60).status_code == 404
    named = session.get(url, params={"imageSetId": other_id}, timeout=60)
    assert named.status_code == 200
    assert pydicom.dcmread(BytesIO(named.content)).PatientID == "OTHER"
    response = session.get(f"{base}/series", params={"imageSetId": other_id}, timeout=60)
    assert [item["0020000E"]["Value"][0] for item in response.json()] == [other[0].SeriesInstanceUID]


def test_metadata_is_dicom_json(archive: Archive, web: DICOMwebClient) -> None:
    series = ct_series(slices=2)
    archive.import_files(as_files(series))
    listed = web.retrieve_series_metadata(series[0].StudyInstanceUID, series[0].SeriesInstanceUID)
    assert len(listed) == 2
    shown = pydicom.Dataset.from_json(listed[1])
    assert shown.SOPInstanceUID == series[1].SOPInstanceUID
    assert shown.ImagePositionPatient == series[1].ImagePositionPatient
    assert shown.PatientName == series[1].PatientName
    one = web.retrieve_instance_metadata(
        series[0].StudyInstanceUID, series[0].SeriesInstanceUID, series[0].SOPInstanceUID
    )
    assert one["00280010"]["Value"] == [16]


def test_transfer_syntaxes_of_frames_and_instances(
    archive: Archive, base: str, session: requests.Session
) -> None:
    (dataset,) = ct_series(slices=1, size=32)
    archive.import_files(as_files([dataset]))
    url = instance_url(base, dataset)

    def get(path: str, accept: str) -> requests.Response:
        return session.get(f"{url}{path}", headers={"Accept": accept}, timeout=60)

    native = get("", "application/dicom")
    assert pydicom.dcmread(BytesIO(native.content)).file_meta.TransferSyntaxUID == "1.2.840.10008.1.2.1"
    stored = pydicom.dcmread(BytesIO(get("", "application/dicom; transfer-syntax=*").content))
    assert stored.file_meta.TransferSyntaxUID == HTJ2K
    (frame,) = pydicom.encaps.generate_frames(stored.PixelData, number_of_frames=1)
    np.testing.assert_array_equal(imagecodecs.htj2k_decode(frame), dataset.pixel_array)
    alone = get("/frames/1", "application/octet-stream")
    assert alone.content == dataset.PixelData
    as_stored = get("/frames/1", "application/octet-stream; transfer-syntax=*")
    np.testing.assert_array_equal(imagecodecs.htj2k_decode(as_stored.content), dataset.pixel_array)
    assert as_stored.headers["Content-Type"] == f"application/octet-stream; transfer-syntax={HTJ2K}"
    other = get("/frames/1", "application/octet-stream; transfer-syntax=1.2.840.10008.1.2.4.50")
    assert other.status_code == 406
    assert get("", "text/html").status_code == 406
    assert get("/frames/2", "application/octet-stream").status_code == 404
    assert get("/frames/1,1", "application/octet-stream").status_code == 400


@pytest.mark.parametrize("name", sorted(KINDS))
def test_instances_of_all_kinds_come_back(archive: Archive, web: DICOMwebClient, name: str) -> None:
    path = Path(str(get_testdata_file(name)))
    dataset = pydicom.dcmread(path)
    archive.import_files({name: path.read_bytes()})
    uids = (dataset.StudyInstanceUID, dataset.SeriesInstanceUID, dataset.SOPInstanceUID)
    native = web.retrieve_instance(*uids, media_types=NATIVE)
    np.testing.assert_array_equal(native.pixel_array, dataset.pixel_array)
    stored = web.retrieve_instance(*uids, media_types=STORED)
    assert stored.file_meta.TransferSyntaxUID == KINDS[name]


def test_bits_of_frames_that_end_within_a_byte_come_back(archive: Archive, web: DICOMwebClient) -> None:
    dataset = pydicom.dcmread(str(get_testdata_file("liver_1frame.dcm")))
    dataset.Rows, dataset.Columns, dataset.NumberOfFrames = 5, 7, 3
    bits = np.random.default_rng(0).integers(0, 2, (3, 5, 7), np.uint8)
    packed = np.packbits(bits, bitorder="little").tobytes()
    dataset.PixelData = packed + b"\0" * (len(packed) % 2)
    archive.import_files(as_files([dataset]))
    uids = (dataset.StudyInstanceUID, dataset.SeriesInstanceUID, dataset.SOPInstanceUID)
    back = web.retrieve_instance(*uids, media_types=NATIVE)
    np.testing.assert_array_equal(back.pixel_array, bits)
    second, third = web.retrieve_instance_frames(*uids, frame_numbers=[2, 3])
    np.testing.assert_array_equal(
        np.unpackbits(np.frombuffer(third, np.uint8), count=35, bitorder="little").reshape(5, 7), bits[2]
    )
    assert len(second) == 5  # 35 bits, in bytes of their own


def test_bulk_data_is_given_by_its_address(archive: Archive, base: str, session: requests.Session) -> None:
    (dataset,) = ct_series(slices=1)
    value = np.random.default_rng(0).bytes(1_200_000)
    dataset.private_block(0x0099, "TEST CREATOR", create=True).add_new(0x01, "OB", value)
    report = archive.import_files(as_files([dataset]))
    (metadata,) = session.get(f"{instance_url(base, dataset)}/metadata", timeout=60).json()
    address = metadata["00991001"]["BulkDataURI"]
    assert session.get(address, timeout=60).content == value
    (entry,) = instances(archive.metadata(report.image_set_id))
    assert "BulkDataURI" in entry["DICOM"]["00991001"]
    back = pydicom.dcmread(BytesIO(session.get(instance_url(base, dataset), timeout=60).content))
    assert back[0x0099, 0x1001].value == value


def test_requests_are_authorised(archive: Archive, base: str) -> None:
    iam = archive.cloud.client("iam")
    name = f"web-{uuid.uuid4().hex[:8]}"
    iam.create_user(UserName=name)
    key = iam.create_access_key(UserName=name)["AccessKey"]
    arn = archive.client.get_datastore(datastoreId=archive.datastore_id)["datastoreProperties"][
        "datastoreArn"
    ]
    policy = {
        "Version": "2012-10-17",
        "Statement": [{"Effect": "Allow", "Action": "medical-imaging:SearchDICOMStudies", "Resource": arn}],
    }
    iam.put_user_policy(UserName=name, PolicyName="search", PolicyDocument=json.dumps(policy))
    auth = SigV4(archive.cloud, key["AccessKeyId"], key["SecretAccessKey"])
    with requests.Session() as session:
        session.trust_env = False
        assert session.get(f"{base}/studies", auth=auth, timeout=60).status_code == 200
        denied = session.get(f"{base}/series", auth=auth, timeout=60)
        assert denied.status_code == 403
        assert "SearchDICOMSeries" in denied.text
        wrong = SigV4(archive.cloud, key["AccessKeyId"], "not the secret")
        assert session.get(f"{base}/studies", auth=wrong, timeout=60).status_code == 403


def test_unknown_paths_and_methods(base: str, session: requests.Session) -> None:
    assert session.get(f"{base}/studies/{generate_uid()}/nothing", timeout=60).status_code == 404
    assert session.delete(f"{base}/studies/{generate_uid()}", timeout=60).status_code == 405
    assert session.get(f"{base}/studies", params={"NoSuchAttribute": "1"}, timeout=60).status_code == 400
