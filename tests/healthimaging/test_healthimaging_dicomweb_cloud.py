"""DICOMweb against the local cloud, beside dicomweb-client: the same requests, the same answers."""

from __future__ import annotations

import json
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
import numpy as np
import pydicom
import pytest
import requests
from cloud_archive import Archive, file_of
from dicomweb_client.api import DICOMwebClient
from oracle_dicomweb import oracle_client
from pydicom import Dataset
from pydicom.data import get_testdata_file
from pydicom.uid import generate_uid
from small_studies import ct_datasets

from healthimaging import DicomWeb, connect
from healthimaging.dicomweb import qido, stow
from healthimaging.errors import DicomWebError, StoreInterruptedError

pytestmark = pytest.mark.filterwarnings("ignore:Invalid value for VR UI:UserWarning:pydicom")
"""One of pydicom's test files has such a value, which goes there and back."""

NATIVE = "1.2.840.10008.1.2.1"
HTJ2K = "1.2.840.10008.1.2.4.202"
KINDS = (
    "liver_1frame.dcm",
    "SC_rgb_rle_2frame.dcm",
    "SC_rgb_jpeg_dcmtk.dcm",
    "693_J2KI.dcm",
    "rtdose.dcm",
    "examples_jpeg2k.dcm",
    "reportsi.dcm",
)


@dataclass(frozen=True)
class Both:
    """Our client and the other one, of one datastore that holds `datasets`."""

    archive: Archive
    ours: DicomWeb
    theirs: DICOMwebClient
    datasets: Sequence[Dataset]


@pytest.fixture(scope="module")
def both(cloud: Any) -> Both:
    archive = Archive.create(cloud)
    one = ct_datasets(3, PatientID="ONE", PatientName="Doe^Jane", StudyDate="20240115")
    same = {"study_uid": one[0].StudyInstanceUID, "PatientID": "ONE", "PatientName": "Doe^Jane"}
    second = ct_datasets(1, **same, StudyDate="20240115", SeriesNumber=2, Modality="SEG")
    two = ct_datasets(
        2, PatientID="TWO", PatientName="Roe^Richárd", StudyDate="20240220", SpecificCharacterSet="ISO_IR 192"
    )
    kinds = [pydicom.dcmread(get_testdata_file(name)) for name in KINDS]
    files = {f"{k}.dcm": file_of(dataset) for k, dataset in enumerate([*one, *second, *two])}
    files |= {name: Path(str(get_testdata_file(name))).read_bytes() for name in KINDS}
    archive.import_files(files)
    return Both(
        archive, archive.web, oracle_client(cloud, archive.datastore_id), [*one, *second, *two, *kinds]
    )


def named(dataset: Dataset) -> dict[str, str]:
    return {
        "study": str(dataset.StudyInstanceUID),
        "series": str(dataset.SeriesInstanceUID),
        "instance": str(dataset.SOPInstanceUID),
    }


# Searching
# ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("page", [1000, 2])
@pytest.mark.parametrize(
    ("level", "filters", "fields"),
    [
        ("studies", {}, ()),
        ("studies", {"PatientID": "ONE"}, ("PatientAge", "StudyDescription")),
        ("studies", {"PatientName": "doe*"}, ()),
        ("studies", {"PatientName": "Roe^Richárd"}, ()),
        ("studies", {"PatientName": "jan", "fuzzymatching": "true"}, ()),
        ("studies", {"StudyDate": "20240101-20240131"}, ()),
        ("studies", {"ModalitiesInStudy": "SEG"}, ()),
        ("studies", {"00100020": "TWO"}, ("all",)),
        ("studies", {"PatientID": "NOBODY"}, ()),
        ("series", {"Modality": "CT"}, ()),
        ("series", {}, ("SeriesDescription",)),
        ("instances", {}, ()),
        ("instances", {"PatientID": "ONE"}, ()),
    ],
)
def test_searches_find_what_the_other_client_finds(
    both: Both,
    monkeypatch: pytest.MonkeyPatch,
    page: int,
    level: str,
    filters: dict[str, str],
    fields: tuple[str, ...],
) -> None:
    monkeypatch.setattr(qido, "PAGE", page)
    search = {
        "studies": both.theirs.search_for_studies,
        "series": both.theirs.search_for_series,
        "instances": both.theirs.search_for_instances,
    }[level]
    wanted = dict(filters)
    fuzzy = wanted.pop("fuzzymatching", None) == "true"
    theirs = [
        Dataset.from_json(one)
        for one in search(search_filters=wanted, fields=list(fields) or None, fuzzymatching=fuzzy or None)
    ]
    ours = list(both.ours.search(level, filters=filters, fields=fields))
    assert ours == theirs
    assert bool(ours) == (filters != {"PatientID": "NOBODY"})


def test_searches_within_a_study_and_series(both: Both, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(qido, "PAGE", 2)
    uids = named(both.datasets[0])
    study, series = uids["study"], uids["series"]
    for ours, theirs in (
        (both.ours.search("series", study=study), both.theirs.search_for_series(study)),
        (both.ours.search("instances", study=study), both.theirs.search_for_instances(study)),
        (
            both.ours.search("instances", study=study, series=series),
            both.theirs.search_for_instances(study, series),
        ),
    ):
        assert list(ours) == [Dataset.from_json(one) for one in theirs]
    assert len(list(both.ours.search("instances", study=study, limit=3))) == 3


# Retrieving
# ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("transfer_syntax", ["*", NATIVE])
def test_instances_are_those_that_the_other_client_retrieves(both: Both, transfer_syntax: str) -> None:
    for dataset in both.datasets:
        uids = named(dataset)
        ours = both.ours.retrieve(**uids, transfer_syntax=transfer_syntax)
        theirs = both.theirs.retrieve_instance(
            *uids.values(), media_types=(("application/dicom", transfer_syntax),)
        )
        assert ours == theirs
        assert ours.file_meta == theirs.file_meta
        if "PixelData" in dataset and transfer_syntax == NATIVE:
            np.testing.assert_array_equal(ours.pixel_array, dataset.pixel_array)


def test_frames_are_those_that_the_other_client_retrieves(both: Both) -> None:
    for dataset in both.datasets:
        if "PixelData" not in dataset:
            continue
        uids = named(dataset)
        numbers = list(range(1, int(dataset.get("NumberOfFrames") or 1) + 1))[::-1]
        ours = both.ours.retrieve_frames(numbers, **uids)
        theirs = both.theirs.retrieve_instance_frames(*uids.values(), frame_numbers=numbers)
        assert [frame.data for frame in ours] == theirs
        assert [frame.number for frame in ours] == numbers
        assert {frame.transfer_syntax_uid for frame in ours} == {NATIVE}
        stored = both.ours.retrieve_frames(numbers, **uids, transfer_syntax="*")
        encapsulated = both.ours.retrieve(**uids)
        assert {frame.transfer_syntax_uid for frame in stored} == {encapsulated.file_meta.TransferSyntaxUID}


def test_a_transfer_syntax_that_cannot_be_had_gives_the_stored_one(both: Both) -> None:
    uids = named(both.datasets[0])
    jpeg = "1.2.840.10008.1.2.4.50"
    assert both.ours.retrieve(**uids, transfer_syntax=jpeg).file_meta.TransferSyntaxUID == HTJ2K
    (frame,) = both.ours.retrieve_frames([1], **uids, transfer_syntax=jpeg)
    assert frame.transfer_syntax_uid == HTJ2K


def test_metadata_is_that_which_the_other_client_retrieves(both: Both) -> None:
    for dataset in both.datasets:
        uids = named(dataset)
        theirs = both.theirs.retrieve_series_metadata(uids["study"], uids["series"])
        ours = both.ours.retrieve_metadata(study=uids["study"], series=uids["series"])
        assert ours == [Dataset.from_json(one, bulk_data_uri_handler=lambda _uri: b"") for one in theirs]
        (one,) = both.ours.retrieve_metadata(**uids)
        assert one.SOPInstanceUID == uids["instance"]


def test_a_whole_study_is_retrieved(both: Both, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(qido, "PAGE", 2)
    study = str(both.datasets[0].StudyInstanceUID)
    got = list(both.ours.retrieve_instances(study=study, transfer_syntax=NATIVE))
    source = {one.SOPInstanceUID: one for one in both.datasets if one.StudyInstanceUID == study}
    assert {one.SOPInstanceUID for one in got} == set(source)
    assert len(got) == 4
    for one in got:
        assert one.PixelData == source[one.SOPInstanceUID].PixelData


def test_bulk_data_comes_back_whole(both: Both) -> None:
    (dataset,) = ct_datasets(1)
    value = np.random.default_rng(0).bytes(1_200_000)
    dataset.private_block(0x0099, "TEST CREATOR", create=True).add_new(0x01, "OB", value)
    both.ours.store([dataset])
    uids = named(dataset)
    element = both.theirs.retrieve_instance_metadata(*uids.values())["00991001"]
    assert both.ours.retrieve_bulk_data(element["BulkDataURI"]) == value
    (whole,) = both.ours.retrieve_metadata(**uids, bulk_data=True)
    assert whole[0x0099, 0x1001].value == value
    (without,) = both.ours.retrieve_metadata(**uids)
    assert not without[0x0099, 0x1001].value
    with pytest.raises(DicomWebError) as caught:
        both.ours.retrieve_bulk_data(element["BulkDataURI"][:-32] + "0" * 32)
    assert (caught.value.status, caught.value.code) == (404, "ResourceNotFoundException")


def test_non_primary_image_sets_are_read_by_name(both: Both) -> None:
    first = both.datasets[0]
    (other,) = ct_datasets(1, study_uid=first.StudyInstanceUID, PatientID="OTHER")
    image_set_id = both.archive.import_files({"other.dcm": file_of(other)})["other.dcm"].image_set_id
    uids = named(other)
    with pytest.raises(DicomWebError) as caught:
        both.ours.retrieve(**uids)
    assert caught.value.status == 404
    assert both.ours.retrieve(**uids, image_set_id=image_set_id).PatientID == "OTHER"
    (found,) = both.ours.retrieve_instances(study=uids["study"], image_set_id=image_set_id)
    assert found.SOPInstanceUID == other.SOPInstanceUID
    (frame,) = both.ours.retrieve_frames([1], **uids, image_set_id=image_set_id)
    assert frame.data == other.PixelData
    (listed,) = both.ours.search("series", image_set_id=image_set_id)
    assert listed.SeriesInstanceUID == other.SeriesInstanceUID


# Storing
# ----------------------------------------------------------------------------------------------------------


def test_what_one_client_stores_the_other_retrieves(both: Both) -> None:
    ours, theirs = ct_datasets(3), ct_datasets(3)
    outcomes = both.ours.store(one for one in ours)
    assert [(one.sop_instance_uid, one.stored, one.failure_reason) for one in outcomes] == [
        (one.SOPInstanceUID, True, None) for one in ours
    ]
    both.theirs.store_instances(datasets=theirs)
    for dataset in ours:
        back = both.theirs.retrieve_instance(
            *named(dataset).values(), media_types=(("application/dicom", NATIVE),)
        )
        assert back.PixelData == dataset.PixelData
    for dataset in theirs:
        assert both.ours.retrieve(**named(dataset), transfer_syntax=NATIVE).PixelData == dataset.PixelData


def test_outcomes_are_those_that_the_other_client_is_told(both: Both) -> None:
    good, foreign = ct_datasets(1)[0], ct_datasets(1)[0]
    study = str(good.StudyInstanceUID)
    stored, refused = both.ours.store([good, foreign], study=study)
    assert (stored.stored, refused.stored, refused.failure_reason) == (True, False, 0xA900)
    with pytest.raises(requests.HTTPError) as caught:
        both.theirs.store_instances(datasets=[good, foreign], study_instance_uid=study)
    told = Dataset.from_json(caught.value.response.text)
    (failed,) = told.FailedSOPSequence
    assert failed.ReferencedSOPInstanceUID == refused.sop_instance_uid
    assert failed.FailureReason == refused.failure_reason
    (kept,) = told.ReferencedSOPSequence
    assert kept.RetrieveURL == stored.retrieve_url
    assert kept.ReferencedSOPClassUID == stored.sop_class_uid


def test_outcomes_of_earlier_requests_outlive_a_later_failure(
    both: Both, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stow, "REQUEST_BYTES", 1)
    series = ct_datasets(3)
    broken = ct_datasets(1)[0]
    del broken.file_meta.TransferSyntaxUID
    with pytest.raises(StoreInterruptedError) as caught:
        both.ours.store([*series, broken])
    assert [one.sop_instance_uid for one in caught.value.outcomes] == [one.SOPInstanceUID for one in series]
    assert all(one.stored for one in caught.value.outcomes)
    uids = named(series[0])
    assert len(list(both.ours.search("instances", study=uids["study"], series=uids["series"]))) == 3


# Refusals
# ----------------------------------------------------------------------------------------------------------


def test_what_does_not_exist_is_said_so(both: Both) -> None:
    uids = named(both.datasets[0])
    with pytest.raises(DicomWebError) as caught:
        both.ours.retrieve(**{**uids, "instance": generate_uid()})
    assert (caught.value.status, caught.value.code) == (404, "ResourceNotFoundException")
    with pytest.raises(DicomWebError, match="GetDICOMInstanceFrames") as caught:
        both.ours.retrieve_frames([2], **uids)
    assert caught.value.status == 404
    with pytest.raises(DicomWebError, match="No instance"):
        list(both.ours.retrieve_instances(study=generate_uid()))
    with pytest.raises(DicomWebError) as caught:
        list(both.ours.search(filters={"NoSuchAttribute": "1"}))
    assert (caught.value.status, caught.value.code) == (400, "ValidationException")


def test_who_may_not_is_told_which_code(both: Both, cloud: Any) -> None:
    iam = cloud.client("iam")
    name = f"web-{uuid.uuid4().hex[:8]}"
    iam.create_user(UserName=name)
    key = iam.create_access_key(UserName=name)["AccessKey"]
    allowed = {"Effect": "Allow", "Action": "medical-imaging:SearchDICOMStudies", "Resource": "*"}
    policy = json.dumps({"Version": "2012-10-17", "Statement": [allowed]})
    iam.put_user_policy(UserName=name, PolicyName="search", PolicyDocument=policy)

    def web(secret: str) -> DicomWeb:
        session = boto3.Session(
            aws_access_key_id=key["AccessKeyId"], aws_secret_access_key=secret, region_name=cloud.region
        )
        return DicomWeb(connect(session, endpoint_url=cloud.endpoint_url), both.archive.datastore_id)

    limited = web(key["SecretAccessKey"])
    assert list(limited.search())
    with pytest.raises(DicomWebError) as caught:
        limited.retrieve(**named(both.datasets[0]))
    assert (caught.value.status, caught.value.code) == (403, "AccessDeniedException")
    with pytest.raises(DicomWebError) as caught:
        list(web("wrong").search())
    assert caught.value.status == 403
    assert caught.value.code is not None
