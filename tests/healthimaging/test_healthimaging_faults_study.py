"""Faults while a study is found, opened and read from several image sets."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import pytest
from fake_healthimaging import DATASTORE, STUDY_UID
from faulted_reads import (
    CT_SERIES,
    MR_SERIES,
    MR_UID,
    READS,
    Truth,
    client_of,
    each_read,
    failure,
    frame_id,
    image_set,
    only_what_is_new_is_collected,
    within,
)
from faulty_service import (
    Distortion,
    Fault,
    FaultyService,
    StoredImageSet,
    body,
    cut,
    hang_up,
    page,
    refused,
    silence,
)

from healthimaging import Series, Study
from healthimaging.errors import (
    FrameChecksumError,
    FrameUnavailableError,
    ImageSetNotFoundError,
    MetadataError,
    ServiceError,
)

CT_SET, MR_SET = "a" * 32, "b" * 32
SECONDS = 8.0
"""In which a study is opened, or read in one way, or has failed."""
ATTEMPTS: dict[str, Any] = {"retries": {"mode": "standard", "total_max_attempts": 3}}
WAITING: dict[str, Any] = {"retries": {"mode": "standard", "total_max_attempts": 2}, "read_timeout": 0.3}

DELIVERY: dict[str, Distortion] = {
    "429": refused(429, "ThrottlingException"),
    "503": refused(503, "ServiceUnavailableException"),
    "502 page of a proxy": page(502),
    "reset instead of an answer": hang_up,
    "reset in the body": cut("reset"),
    "closed in the body": cut("close"),
    "stalled body": cut("stall"),
    "no answer": silence,
}


@pytest.fixture(autouse=True, scope="module")
def _quick_collection() -> Iterator[None]:
    with only_what_is_new_is_collected():
        yield


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """boto3 waits for seconds before it tries again; how long pauses are is tested elsewhere."""
    monkeypatch.setattr(
        "botocore.retries.standard.ExponentialBackoff.delay_amount", lambda _self, _context: 0.02
    )
    monkeypatch.setattr("healthimaging.frames.retries._FIRST_WAIT", 0.005)


def settings(fault: str) -> dict[str, Any]:
    return WAITING if fault in ("stalled body", "no answer") else ATTEMPTS


def study() -> tuple[dict[str, StoredImageSet], Truth]:
    """The image set of the other tests as two: a series each."""
    whole, truth = image_set()
    parts = {}
    for image_set_id, series in ((CT_SET, CT_SERIES), (MR_SET, MR_SERIES)):
        document = copy.deepcopy(whole.documents["1"])
        document["ImageSetID"] = image_set_id
        document["Study"]["Series"] = {series: document["Study"]["Series"][series]}
        parts[image_set_id] = StoredImageSet(documents={"1": document}, frames=dict(whole.frames))
    return parts, truth


@pytest.mark.parametrize("fault", DELIVERY)
def test_a_search_survives_a_fault_that_ends(fault: str) -> None:
    parts, truth = study()
    once = Fault(distort=DELIVERY[fault], operation="SearchImageSets", attempts=1)
    service = FaultyService(image_sets=parts, faults=[once])
    with service, client_of(service, **settings(fault)) as client, within(SECONDS):
        READS["volumes"](Study.open(client, DATASTORE, STUDY_UID), truth)  # type: ignore[arg-type]  # read as an image set is


@pytest.mark.parametrize("fault", DELIVERY)
def test_a_search_that_fails_is_a_typed_error(fault: str) -> None:
    """Never a study that seems to have fewer image sets."""
    parts, _ = study()
    service = FaultyService(
        image_sets=parts, faults=[Fault(distort=DELIVERY[fault], operation="SearchImageSets")]
    )
    with service, client_of(service, **settings(fault)) as client, within(SECONDS):
        caught = failure(ServiceError, Study.open, client, DATASTORE, STUDY_UID)
        assert caught.operation == "SearchImageSets"


@pytest.mark.parametrize("fault", DELIVERY)
def test_one_image_set_of_a_study_that_cannot_be_opened_is_named(fault: str) -> None:
    parts, _ = study()
    lost = Fault(distort=DELIVERY[fault], operation="GetImageSetMetadata", image_set_id=MR_SET)
    service = FaultyService(image_sets=parts, faults=[lost])
    with service, client_of(service, **settings(fault)) as client, within(SECONDS):
        caught = failure(ServiceError, Study.open, client, DATASTORE, STUDY_UID)
        assert (caught.operation, caught.image_set_id) == ("GetImageSetMetadata", MR_SET)


def test_a_frame_that_is_lost_names_its_own_image_set() -> None:
    parts, truth = study()
    lost = frame_id(parts[MR_SET])
    service = FaultyService(
        image_sets=parts, faults=[Fault(distort=refused(404, "ResourceNotFoundException"), frame_id=lost)]
    )
    with service, client_of(service, **ATTEMPTS) as client:
        found = Study.open(client, DATASTORE, STUDY_UID)
        for read in each_read(service, SECONDS):
            caught = failure(FrameUnavailableError, read, found, truth)
            assert (caught.image_set_id, caught.sop_instance_uid) == (MR_SET, MR_UID)
            assert caught.frame_number == 3


def test_a_frame_of_another_image_set_is_not_taken() -> None:
    parts, truth = study()
    other = parts[MR_SET].frames[frame_id(parts[MR_SET], MR_UID, 5)]
    wrong = Fault(distort=body(lambda _data: other), frame_id=frame_id(parts[MR_SET]))
    service = FaultyService(image_sets=parts, faults=[wrong])
    with service, client_of(service, **ATTEMPTS) as client:
        found = Study.open(client, DATASTORE, STUDY_UID)
        for read in each_read(service, SECONDS):
            caught = failure(FrameChecksumError, read, found, truth)
            assert (caught.image_set_id, caught.frame_number) == (MR_SET, 3)


def test_an_image_set_that_is_deleted_after_the_search_is_named() -> None:
    parts, _ = study()

    def delete(operation: str, _count: int) -> None:
        if operation != "SearchImageSets":
            parts[MR_SET].state = "DELETED"

    service = FaultyService(image_sets=parts, on_request=delete)
    with service, client_of(service, **ATTEMPTS) as client, within(SECONDS):
        caught = failure(ImageSetNotFoundError, Study.open, client, DATASTORE, STUDY_UID)
        assert caught.image_set_id == MR_SET


def test_an_image_set_that_is_deleted_half_way_is_a_typed_error() -> None:
    parts, truth = study()

    def delete(operation: str, count: int) -> None:
        if operation == "GetImageFrame" and count == 4:
            parts[CT_SET].state = parts[MR_SET].state = "DELETED"

    service = FaultyService(image_sets=parts, on_request=delete)
    with service, client_of(service, **ATTEMPTS) as client, within(SECONDS):
        found = Study.open(client, DATASTORE, STUDY_UID)
        caught = failure(FrameUnavailableError, READS["datasets"], found, truth)
        assert caught.code == "ResourceNotFoundException"


def test_versions_that_change_half_way_are_not_seen() -> None:
    parts, truth = study()

    def update(operation: str, count: int) -> None:
        if operation == "GetImageFrame" and count == 4:
            newer = copy.deepcopy(parts[MR_SET].documents["1"])
            newer["Patient"]["DICOM"]["PatientID"] = "P2"
            parts[MR_SET].documents["2"], parts[MR_SET].latest = newer, "2"

    service = FaultyService(image_sets=parts, on_request=update)
    with service, client_of(service, **ATTEMPTS) as client:
        found = Study.open(client, DATASTORE, STUDY_UID)
        for read in each_read(service, SECONDS):
            read(found, truth)  # type: ignore[arg-type]  # read as an image set is


def test_the_header_of_another_image_set_is_refused() -> None:
    parts, _ = study()
    parts[MR_SET].documents["1"]["ImageSetID"] = CT_SET
    service = FaultyService(image_sets=parts)
    with service, client_of(service, **ATTEMPTS) as client, within(SECONDS):
        caught = failure(MetadataError, Study.open, client, DATASTORE, STUDY_UID)
        assert caught.image_set_id == MR_SET


def test_a_series_is_read_through_transient_faults() -> None:
    parts, truth = study()
    del parts[CT_SET]
    service = FaultyService(
        image_sets=parts, faults=[Fault(distort=refused(429, "ThrottlingException"), attempts=1)]
    )
    own = Truth(
        stored={key: value for key, value in truth.stored.items() if key[0] == MR_UID},
        volumes={MR_SERIES: truth.volumes[MR_SERIES]},
    )
    with service, client_of(service, **ATTEMPTS) as client:
        found = Series.open(client, DATASTORE, MR_SERIES)
        for read in each_read(service, SECONDS):
            read(found, own)  # type: ignore[arg-type]  # read as an image set is
