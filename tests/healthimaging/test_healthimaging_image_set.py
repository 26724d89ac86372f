"""Image sets over a fake service: volumes, order, rescale, laziness, and every way in which frames fail."""

from __future__ import annotations

import copy
import threading
import time
from collections.abc import Generator
from io import BytesIO
from typing import Any

import numpy as np
import pytest
from botocore.exceptions import IncompleteReadError, ReadTimeoutError, ResponseStreamingError
from fake_healthimaging import (
    DATASTORE,
    IMAGE_SET,
    SERIES_UID,
    FakeService,
    client_error,
    crc32,
    ct_series,
    image_set,
    instance,
)

from healthimaging import ImageSet
from healthimaging.errors import (
    DuplicatePositionError,
    FrameChecksumError,
    FrameDecodeError,
    FrameLayoutError,
    FrameUnavailableError,
    GeometryError,
    ImageSetNotFoundError,
    MetadataError,
    MissingGeometryError,
    MissingSliceError,
    SeriesNotFoundError,
    ServiceError,
    VolumeError,
)


def opened(service: FakeService, version: str | None = None) -> ImageSet:
    return ImageSet.open(service, DATASTORE, IMAGE_SET, version)


def record(service: FakeService, k: int) -> dict[str, Any]:
    """The k-th instance of the document."""
    instances = service.document["Study"]["Series"][SERIES_UID]["Instances"]
    made: dict[str, Any] = list(instances.values())[k]
    return made


def test_volume_is_the_source_in_geometric_order() -> None:
    service, hu = ct_series()
    (volume,) = opened(service).volumes()
    assert volume.array.dtype == np.int16
    assert np.array_equal(volume.array, hu)
    assert volume.geometry.shape == hu.shape
    assert volume.geometry.spacing == (1, 2, 2.5)
    assert volume.geometry.origin == (-10, -20, 0)
    assert volume.geometry.frame_of_reference_uid == "1.2.3.9"
    # InstanceNumber runs the other way in this series, and does not matter.
    assert volume.instance_uids == tuple(f"{SERIES_UID}.{7 - k}" for k in range(7))
    assert volume.modality == "CT"
    # The order of datasets is that of slices: masks of the volume lie on them one by one.
    assert [d.SOPInstanceUID for d in opened(service).datasets(pixels=False)] == list(volume.instance_uids)


def test_identity_of_what_was_opened() -> None:
    service, _ = ct_series()
    service.version = "5"
    service.is_primary = False
    found = opened(service)
    assert str(found.ref) == f"{DATASTORE}/{IMAGE_SET}@5"
    assert not found.is_primary
    assert opened(service, "2").ref.version_id == "2"


def test_instance_without_number_is_a_slice_like_any_other() -> None:
    service, hu = ct_series()
    for k in range(7):
        record(service, k)["DICOM"]["InstanceNumber"] = None
    assert np.array_equal(opened(service).volumes()[0].array, hu)
    assert len(opened(service).datasets()) == 7


def test_frames_come_in_the_order_of_the_metadata() -> None:
    service, _ = ct_series()
    frames = list(opened(service).frames())
    assert [frame.instance_uid for frame in frames] == [
        i.sop_instance_uid for i in opened(service).metadata.instances
    ]
    assert {frame.number for frame in frames} == {1}
    assert frames[0].pixels.dtype == np.uint16


def multi_frame(frames: int) -> FakeService:
    rng = np.random.default_rng(3)
    pixels = [rng.integers(0, 100, size=(4, 5), dtype=np.int16) for _ in range(frames)]
    built = [instance(p, number=1, position=(0, 0, 0), RescaleIntercept="0") for p in pixels]
    first, _ = built[0]
    first["ImageFrames"] = [{**made["ImageFrames"][0], "ID": f"f{k}"} for k, (made, _) in enumerate(built)]
    dicom = first["DICOM"]
    for keyword in ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing"):
        del dicom[keyword]
    dicom["NumberOfFrames"] = str(frames)
    dicom["SharedFunctionalGroupsSequence"] = [
        {
            "PixelMeasuresSequence": [{"PixelSpacing": ["1", "1"], "SliceThickness": "3"}],
            "PlaneOrientationSequence": [{"ImageOrientationPatient": ["1", "0", "0", "0", "1", "0"]}],
        }
    ]
    dicom["PerFrameFunctionalGroupsSequence"] = [
        {
            "PlanePositionSequence": [{"ImagePositionPatient": ["0", "0", str(-3 * k)]}],
            "PixelValueTransformationSequence": [{"RescaleSlope": str(k + 1), "RescaleIntercept": str(k)}],
        }
        for k in range(frames)
    ]
    service = image_set([(first, b"")])
    service.frames = {f"f{k}": data for k, (_, data) in enumerate(built)}
    return service


@pytest.mark.parametrize("frames", [1, 2, 3, 40])
def test_multi_frame_instances_are_complete(frames: int) -> None:
    service = multi_frame(frames)
    (volume,) = opened(service).volumes()
    assert volume.geometry.shape == (frames, 4, 5)
    stored = [frame.pixels for frame in opened(service).frames()]
    assert len(stored) == frames
    # Positions descend with the frame number: the last frame is the lowest slice.
    for k, frame_number in enumerate(volume.frame_numbers):
        assert frame_number == frames - k
        assert np.array_equal(volume.array[k], stored[frame_number - 1] * frame_number + frame_number - 1)


def test_per_frame_groups_must_match_the_frames() -> None:
    service = multi_frame(3)
    record(service, 0)["DICOM"]["PerFrameFunctionalGroupsSequence"].pop()
    with pytest.raises(MissingGeometryError, match="2 per-frame groups for 3 frames"):
        opened(service).volumes()


def test_geometry_is_checked_before_any_frame_is_fetched() -> None:
    service, _ = ct_series()
    record(service, 2)["DICOM"]["ImagePositionPatient"] = None
    with pytest.raises(MissingGeometryError) as caught:
        opened(service).volumes()
    assert caught.value.image_set_id == IMAGE_SET
    assert caught.value.sop_instance_uid == record(service, 2)["DICOM"]["SOPInstanceUID"]
    assert service.requested == []


def test_two_instances_at_one_place_name_series_and_instance() -> None:
    service, _ = ct_series()
    record(service, 0)["DICOM"]["ImagePositionPatient"] = record(service, 1)["DICOM"]["ImagePositionPatient"]
    with pytest.raises(DuplicatePositionError) as caught:
        opened(service).volumes()
    assert caught.value.series_instance_uid == SERIES_UID


@pytest.mark.parametrize(
    ("changed", "error", "message"),
    [
        ({"RescaleSlope": "x"}, VolumeError, "RescaleSlope is not a number"),
        ({"RescaleSlope": "0"}, VolumeError, "RescaleSlope is 0"),
        ({"ModalityLUTSequence": [{"LUTData": "AA=="}]}, VolumeError, "Modality LUT"),
        ({"PhotometricInterpretation": "PALETTE COLOR"}, VolumeError, "PALETTE COLOR"),
        ({"PixelSpacing": ["0", "1"]}, GeometryError, "not positive"),
        ({"RescaleIntercept": None}, VolumeError, "RescaleIntercept is missing"),
        ({"RescaleSlope": ""}, VolumeError, "RescaleSlope is missing"),
        ({"PixelRepresentation": None}, FrameLayoutError, "PixelRepresentation is missing"),
    ],
)
def test_what_is_no_volume_is_refused(changed: dict[str, Any], error: type[Exception], message: str) -> None:
    service, _ = ct_series()
    record(service, 3)["DICOM"].update(changed)
    with pytest.raises(error, match=message) as caught:
        opened(service).volumes()
    assert record(service, 3)["DICOM"]["SOPInstanceUID"] in str(caught.value)


def test_only_modalities_that_need_a_rescale_must_have_one() -> None:
    service, hu = ct_series()
    service.document["Study"]["Series"][SERIES_UID]["DICOM"]["Modality"] = "MR"
    for one in range(7):
        del record(service, one)["DICOM"]["RescaleSlope"], record(service, one)["DICOM"]["RescaleIntercept"]
    (volume,) = opened(service).volumes()
    assert np.array_equal(volume.array, hu + 1024)


@pytest.mark.parametrize(
    "changed",
    [
        {"SamplesPerPixel": 3, "PhotometricInterpretation": "RGB"},
        {"Rows": 8},
        {"FrameOfReferenceUID": "1.2.3.10"},
    ],
)
def test_a_slice_of_another_kind_leaves_a_gap_and_no_volume(changed: dict[str, Any]) -> None:
    service, _ = ct_series()
    record(service, 3)["DICOM"].update(changed)
    with pytest.raises(MissingSliceError, match="1 of 7 slices are missing") as caught:
        opened(service).volumes()
    assert caught.value.series_instance_uid == SERIES_UID
    assert service.requested == []


def test_one_series_is_read_without_the_others() -> None:
    service, hu = ct_series()
    series = service.document["Study"]["Series"]
    scout = copy.deepcopy(series[SERIES_UID])
    scout["DICOM"]["SeriesInstanceUID"] = "1.2.3.5"
    scout["Instances"] = {f"{uid}.1": one for uid, one in scout["Instances"].items()}
    for uid, one in scout["Instances"].items():
        one["DICOM"] |= {"SOPInstanceUID": uid, "ImagePositionPatient": None}
    series["1.2.3.5"] = scout
    found = opened(service)
    (volume,) = found.volumes(series_instance_uid=SERIES_UID)
    assert np.array_equal(volume.array, hu)
    with pytest.raises(SeriesNotFoundError, match="among the 2") as caught:
        found.volumes(series_instance_uid="1.2.3.6")
    assert caught.value.series_instance_uid == "1.2.3.6"
    with pytest.raises(MissingGeometryError):
        found.volumes()


def test_instance_without_frames_in_a_volume_is_an_error_not_a_gap() -> None:
    service, _ = ct_series()
    record(service, 3)["ImageFrames"] = []
    with pytest.raises(VolumeError, match="without frames"):
        opened(service).volumes()


# Failing frames --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "code", ["ResourceNotFoundException", "ThrottlingException", "AccessDeniedException"]
)
def test_frame_that_the_service_refuses_is_named(code: str) -> None:
    service, _ = ct_series()
    lost = record(service, 4)
    service.frames[lost["ImageFrames"][0]["ID"]] = client_error(code)
    with pytest.raises(FrameUnavailableError, match=code) as caught:
        opened(service).volumes()
    assert caught.value.code == code
    assert caught.value.sop_instance_uid == lost["DICOM"]["SOPInstanceUID"]
    assert caught.value.frame_number == 1
    assert caught.value.image_set_id == IMAGE_SET


def test_corrupted_frame_is_refused() -> None:
    service, _ = ct_series()
    one, two = record(service, 0), record(service, 1)
    service.frames[one["ImageFrames"][0]["ID"]] = service.frames[two["ImageFrames"][0]["ID"]]
    with pytest.raises(FrameChecksumError):
        opened(service).volumes()
    with pytest.raises(FrameChecksumError):
        opened(service).datasets()


class BreakingBody:
    def __init__(self, data: bytes, error: Exception) -> None:
        self._data, self._error = data, error

    def read(self) -> bytes:
        raise self._error


@pytest.mark.parametrize(
    "error",
    [
        IncompleteReadError(actual_bytes=3, expected_bytes=9),
        ReadTimeoutError(endpoint_url="x"),
        ResponseStreamingError(error="x"),
        ConnectionResetError(),
    ],
)
@pytest.mark.parametrize("failures", [1, 99])
def test_connection_that_breaks_in_the_body(
    error: Exception, failures: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(time, "sleep", lambda _seconds: None)
    service, hu = ct_series()
    answer = service.get_image_frame
    broken: dict[str, int] = {}
    lock = threading.Lock()

    def breaking(**params: Any) -> dict[str, Any]:
        frame_id = params["imageFrameInformation"]["imageFrameId"]
        with lock:
            broken[frame_id] = broken.get(frame_id, 0) + 1
            fails = broken[frame_id] <= failures
        return {"imageFrameBlob": BreakingBody(b"", error)} if fails else answer(**params)

    monkeypatch.setattr(service, "get_image_frame", breaking)
    if failures == 1:
        assert np.array_equal(opened(service).volumes()[0].array, hu)
    else:
        with pytest.raises(FrameUnavailableError, match=type(error).__name__):
            opened(service).volumes()


def threads() -> set[str]:
    return {thread.name for thread in threading.enumerate() if thread.name.startswith("frame")}


def test_closing_early_stops_the_work_and_the_threads() -> None:
    service = multi_frame(400)
    frames = opened(service).frames()
    next(frames)
    assert isinstance(frames, Generator)
    frames.close()
    assert len(service.requested) < 100
    assert threads() == set()


def test_an_error_leaves_no_threads() -> None:
    service = multi_frame(100)
    service.frames["f3"] = b""
    with pytest.raises(FrameDecodeError):
        list(opened(service).frames())
    assert threads() == set()


def test_memory_is_bounded_by_the_window_not_by_the_image_set() -> None:
    service = multi_frame(400)
    frames = opened(service).frames()
    for taken, _ in enumerate(frames, start=1):
        assert len(service.requested) <= taken + 2 * 16
        if taken == 100:
            break


# Opening ---------------------------------------------------------------------------------------------


def test_unknown_image_set() -> None:
    service, _ = ct_series()
    with pytest.raises(ImageSetNotFoundError, match="does not exist"):
        ImageSet.open(service, DATASTORE, "2" * 32)


def test_deleted_image_set(monkeypatch: pytest.MonkeyPatch) -> None:
    service, _ = ct_series()
    monkeypatch.setattr(service, "get_image_set", lambda **_: {"imageSetState": "DELETED", "versionId": "2"})
    with pytest.raises(ImageSetNotFoundError, match="deleted"):
        opened(service)


def test_service_errors_have_operation_and_code(monkeypatch: pytest.MonkeyPatch) -> None:
    service, _ = ct_series()

    def refuse(**_: Any) -> Any:
        raise client_error("AccessDeniedException", "GetImageSetMetadata")

    monkeypatch.setattr(service, "get_image_set_metadata", refuse)
    with pytest.raises(ServiceError) as caught:
        opened(service)
    assert (caught.value.operation, caught.value.code) == ("GetImageSetMetadata", "AccessDeniedException")


def test_version_that_changes_while_reading_is_not_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    service, _ = ct_series()
    answer = service.get_image_set_metadata

    def of_its_version(**params: str) -> dict[str, Any]:
        service.document["Study"]["DICOM"]["StudyID"] = f"version {params['versionId']}"
        return answer(**params)

    monkeypatch.setattr(service, "get_image_set_metadata", of_its_version)
    service.version = "3"
    found = opened(service)
    service.version = "4"
    assert found.ref.version_id == "3"
    assert found.metadata.study.text("StudyID") == "version 3"


def test_empty_metadata_body_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    service, _ = ct_series()
    monkeypatch.setattr(service, "get_image_set_metadata", lambda **_: {"imageSetMetadataBlob": BytesIO(b"")})
    with pytest.raises(Exception, match="cannot be read"):
        opened(service)


def test_checksum_helper_is_little_endian() -> None:
    assert crc32(np.array([1], ">u2")) == crc32(np.array([1], "<u2"))


@pytest.mark.parametrize("key", ["ImageSetID", "DatastoreID"])
def test_the_header_of_another_image_set_is_refused(key: str) -> None:
    service, _ = ct_series()
    service.document[key] = "9" * 32
    with pytest.raises(MetadataError, match="9" * 32) as caught:
        opened(service)
    assert caught.value.image_set_id == IMAGE_SET


def test_the_answer_must_be_of_the_version_that_was_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    service, _ = ct_series()
    assert ImageSet.open(service, DATASTORE, IMAGE_SET, "3").ref.version_id == "3"
    latest = {"imageSetState": "ACTIVE", "versionId": "4", "isPrimary": True}
    monkeypatch.setattr(service, "get_image_set", lambda **_params: latest)
    with pytest.raises(MetadataError, match="Version 3 was asked for, the answer is of version 4"):
        ImageSet.open(service, DATASTORE, IMAGE_SET, "3")


@pytest.mark.parametrize("sop_class", ["2", "2.1", "2.2", "128", "128.1", "130"])
def test_ct_and_pet_without_modality_and_rescale_are_refused_by_their_class(sop_class: str) -> None:
    service, _ = ct_series()
    service.document["Study"]["Series"][SERIES_UID]["DICOM"]["Modality"] = None
    for k in range(7):
        record(service, k)["DICOM"]["SOPClassUID"] = f"1.2.840.10008.5.1.4.1.1.{sop_class}"
        record(service, k)["DICOM"]["RescaleIntercept"] = None
    with pytest.raises(VolumeError, match="RescaleIntercept is missing"):
        opened(service).volumes()


@pytest.mark.parametrize("workers", [0, -1])
def test_a_read_without_workers_is_refused_not_endless(workers: int) -> None:
    service, _ = ct_series()
    image_set = ImageSet.open(service, DATASTORE, IMAGE_SET, workers=workers)
    for read in (image_set.volumes, image_set.datasets, lambda: list(image_set.frames())):
        with pytest.raises(ValueError, match="workers"):
            read()


def test_a_frame_whose_size_was_damaged_on_the_way_is_fetched_again() -> None:
    service, hu = ct_series()
    key = next(iter(service.frames))
    whole = service.frames[key]
    assert isinstance(whole, bytes)
    at = whole.index(b"\xff\x51") + 9  # the last byte of the width
    damaged = bytearray(whole)
    damaged[at] ^= 1
    answers = [bytes(damaged), whole]
    original = service.get_image_frame

    def once_damaged(**params: Any) -> dict[str, Any]:
        answer = original(**params)
        if params["imageFrameInformation"]["imageFrameId"] == key:
            answer["imageFrameBlob"] = BytesIO(answers.pop(0))
        return answer

    service.get_image_frame = once_damaged  # type: ignore[method-assign]  # the service answers differently
    (volume,) = opened(service).volumes()
    assert np.array_equal(volume.array, hu)
    assert answers == []


def test_an_error_does_not_wait_for_another_copy_of_a_damaged_frame() -> None:
    service, _ = ct_series()
    lost, damaged = list(service.frames)[:2]
    stalled, released = threading.Event(), threading.Event()
    service.frames[damaged] = b"\xff\x4f"
    original = service.get_image_frame

    def answer(**params: Any) -> dict[str, Any]:
        key = params["imageFrameInformation"]["imageFrameId"]
        if key == damaged and key in service.requested:
            stalled.set()
            released.wait(20)
        if key == lost:
            stalled.wait(20)
            raise client_error("ResourceNotFoundException")
        return original(**params)

    service.get_image_frame = answer  # type: ignore[method-assign]  # the service answers differently
    begin = time.monotonic()
    try:
        with pytest.raises(FrameUnavailableError):
            list(opened(service).frames())
        assert time.monotonic() - begin < 10
    finally:
        released.set()
