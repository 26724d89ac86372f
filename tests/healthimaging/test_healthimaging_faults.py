"""Faults of the service and of the network: the exact right answer or a typed error, within a stated time,
and nothing left behind.
"""

from __future__ import annotations

import contextlib
import copy
import gzip
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
from fake_healthimaging import DATASTORE, IMAGE_SET, SERIES_UID
from faulted_reads import (
    CT_SERIES,
    MR_SERIES,
    MR_UID,
    READS,
    client_of,
    each_read,
    failure,
    frame_id,
    image_set,
    instance_record,
    only_what_is_new_is_collected,
    within,
)
from faulty_service import (
    Answer,
    Distortion,
    Fault,
    FaultyService,
    StoredImageSet,
    after,
    announced,
    body,
    chunks_cut,
    cut,
    hang_up,
    header,
    in_chunks,
    page,
    really_compressed,
    refused,
    silence,
    trickling,
)

from healthimaging import ImageSet
from healthimaging.errors import (
    FrameChecksumError,
    FrameDecodeError,
    FrameError,
    FrameLayoutError,
    FrameUnavailableError,
    HealthImagingError,
    ImageSetNotFoundError,
    MetadataError,
    MissingGeometryError,
    ServiceError,
)
from healthimaging.frames.decoding import decode_frame
from healthimaging.metadata import ImageSetMetadata

RETRIED_SECONDS = 8.0
"""In which every read is over that meets faults which end."""
REFUSED_SECONDS = 8.0
"""In which every read is over that meets a fault which does not end: attempts x timeouts, and the pauses."""


@pytest.fixture(autouse=True, scope="module")
def _quick_collection() -> Iterator[None]:
    with only_what_is_new_is_collected():
        yield


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """boto3 waits for seconds before it tries a header again; how long pauses are is tested elsewhere."""
    monkeypatch.setattr(
        "botocore.retries.standard.ExponentialBackoff.delay_amount", lambda _self, _context: 0.02
    )
    monkeypatch.setattr("healthimaging.frames.retries._FIRST_WAIT", 0.005)


ATTEMPTS: dict[str, Any] = {"retries": {"mode": "standard", "total_max_attempts": 3}}
WAITING: dict[str, Any] = {"retries": {"mode": "standard", "total_max_attempts": 2}, "read_timeout": 0.3}


def settings(fault: str) -> dict[str, Any]:
    """A short timeout where one is waited for; elsewhere a busy machine must not meet it."""
    return WAITING if fault in ("stalled body", "no answer") else ATTEMPTS


def opened(client: Any) -> ImageSet:
    return ImageSet.open(client, DATASTORE, IMAGE_SET)


def lost_frame(caught: FrameError) -> tuple[str | None, str | None, int | None]:
    return caught.image_set_id, caught.sop_instance_uid, caught.frame_number


DELIVERY: dict[str, Distortion] = {
    "429": refused(429, "ThrottlingException"),
    "503": refused(503, "ServiceUnavailableException"),
    "500": refused(500, "InternalServerException"),
    "502 page of a proxy": page(502),
    "503 page of a proxy": page(503),
    "504 page of a proxy": page(504),
    "reset instead of an answer": hang_up,
    "reset in the body": cut("reset"),
    "closed in the body": cut("close"),
    "stalled body": cut("stall"),
    "no answer": silence,
    "length larger than the body": announced(100),
    "chunks without an end": chunks_cut,
}
"""Faults of delivery: another attempt may do."""


@pytest.mark.parametrize("fault", DELIVERY)
def test_a_fault_of_delivery_that_ends_is_not_seen(fault: str) -> None:
    """Every frame fails at the first attempt."""
    stored, truth = image_set()
    service = FaultyService(
        image_sets={IMAGE_SET: stored}, faults=[Fault(distort=DELIVERY[fault], attempts=1)]
    )
    with service, client_of(service, **settings(fault)) as client:
        source = opened(client)
        for read in each_read(service, RETRIED_SECONDS):
            read(source, truth)
            assert service.frame_requests >= 2 * len(truth.stored)


@pytest.mark.parametrize("fault", DELIVERY)
def test_a_fault_of_delivery_that_remains_names_the_frame(fault: str) -> None:
    stored, truth = image_set()
    lost = Fault(distort=DELIVERY[fault], frame_id=frame_id(stored))
    service = FaultyService(image_sets={IMAGE_SET: stored}, faults=[lost])
    with service, client_of(service, **settings(fault)) as client:
        source = opened(client)
        for read in each_read(service, REFUSED_SECONDS):
            caught = failure(FrameUnavailableError, read, source, truth)
            assert lost_frame(caught) == (IMAGE_SET, MR_UID, 3)
            assert caught.code
            # As often as the client's settings say.
            attempts = settings(fault)["retries"]["total_max_attempts"]
            assert service.requests["GetImageFrame", frame_id(stored)] == attempts


REFUSALS: dict[str, tuple[Distortion, str]] = {
    "404": (refused(404, "ResourceNotFoundException"), "ResourceNotFoundException"),
    "406": (refused(406, "NotAcceptableException"), "NotAcceptableException"),
    "400": (refused(400, "ValidationException"), "ValidationException"),
    "403": (refused(403, "AccessDeniedException"), "AccessDeniedException"),
    "403 expired token": (refused(403, "ExpiredTokenException"), "ExpiredTokenException"),
    "403 clock skew": (refused(403, "RequestTimeTooSkewed"), "RequestTimeTooSkewed"),
    "404 page of a proxy": (page(404), "404"),
    "301": (page(301, Location="/elsewhere"), "301"),
    "302": (page(302, Location="/elsewhere"), "302"),
    "307": (page(307, Location="/elsewhere"), "307"),
    "304": (lambda _right: Answer(status=304), "304"),
}
"""Faults that another attempt does not cure, and what the error's code is."""


@pytest.mark.parametrize("fault", REFUSALS)
def test_a_refused_frame_is_named_at_once(fault: str) -> None:
    distort, code = REFUSALS[fault]
    stored, truth = image_set()
    lost = Fault(distort=distort, frame_id=frame_id(stored))
    service = FaultyService(image_sets={IMAGE_SET: stored}, faults=[lost])
    with service, client_of(service, **ATTEMPTS) as client:
        source = opened(client)
        for read in each_read(service, REFUSED_SECONDS):
            caught = failure(FrameUnavailableError, read, source, truth)
            assert lost_frame(caught) == (IMAGE_SET, MR_UID, 3)
            assert code in caught.code
            assert service.requests["GetImageFrame", frame_id(stored)] == 1
        # A redirect would carry the signed request, and the patient's image set, to another host.
        assert service.strays == []


def _flip(data: bytes) -> bytes:
    middle = len(data) // 2
    return data[:middle] + bytes([data[middle] ^ 0x10]) + data[middle + 1 :]


def _another_frame(_data: bytes) -> bytes:
    return _OTHER.frames[frame_id(_OTHER, MR_UID, 4)]


def _another_image_set(_data: bytes) -> bytes:
    return _OTHER.frames[frame_id(_OTHER, f"{SERIES_UID}.1", 1)]


_OTHER, _ = image_set()

CONTENT: dict[str, Distortion] = {
    "truncated": body(lambda data: data[: len(data) * 2 // 3]),
    "truncated to its head": body(lambda data: data[:20]),
    "flipped byte": body(_flip),
    "empty": body(lambda _data: b""),
    "another frame of the instance": body(_another_frame),
    "frame of another instance": body(_another_image_set),
    "length smaller than the body": announced(-1000),
    "200 with a page of HTML": page(200),
    "200 with an error document": refused(200, "InternalServerException"),
    "zeros": body(lambda data: bytes(len(data))),
}
"""Faults of content: what arrives is not the frame."""


@pytest.mark.parametrize("fault", CONTENT)
def test_wrong_content_is_never_taken_for_the_frame(fault: str) -> None:
    stored, truth = image_set()
    wrong = Fault(distort=CONTENT[fault], frame_id=frame_id(stored))
    service = FaultyService(image_sets={IMAGE_SET: stored}, faults=[wrong])
    with service, client_of(service, **ATTEMPTS) as client:
        source = opened(client)
        for read in each_read(service, REFUSED_SECONDS):
            caught = failure(FrameError, read, source, truth)
            assert isinstance(caught, FrameChecksumError | FrameDecodeError | FrameLayoutError)
            assert lost_frame(caught) == (IMAGE_SET, MR_UID, 3)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # the decoder drops its own
def test_no_byte_of_a_frame_can_change_unnoticed() -> None:
    stored, truth = image_set()
    metadata = ImageSetMetadata.from_document(stored.documents["1"])
    instance = metadata.series[MR_SERIES].instances[MR_UID]
    data, pixels = stored.frames[frame_id(stored)], truth.stored[MR_UID, 3]
    header = data.index(b"\xff\x90")  # until the first tile part: here every bit, as decoders believe it
    flips = [(k, bit) for k in range(header) for bit in range(8)]
    flips += [(k, k % 8) for k in range(header, len(data))]
    flipped = (data[:k] + bytes([data[k] ^ (1 << bit)]) + data[k + 1 :] for k, bit in flips)
    truncated = (data[:k] for k in range(0, len(data), 5))
    for damaged in (*flipped, *truncated):
        with contextlib.suppress(FrameError):
            found = decode_frame(damaged, instance=instance, number=3, record=instance.frames[2])
            # Some bytes are a comment, or padding.
            assert found.dtype == pixels.dtype
            assert np.array_equal(found, pixels)


HARMLESS: dict[str, Distortion] = {
    "chunked": in_chunks,
    "no content type": lambda right: replace(right, headers={}),
    "a content type that is not true": header("Content-Type", "text/plain"),
    "connections that close": lambda right: replace(
        right, headers={**right.headers, "Connection": "close"}, ending="close"
    ),
    "connections that close unannounced": lambda right: replace(right, ending="close"),
    "bytes after the body": lambda right: replace(right, announced=len(right.body), body=right.body + b"xx"),
    "compressed on the way": really_compressed,
    "an encoding that is not true": header("Content-Encoding", "gzip"),
    "slow": lambda right: replace(right, delay=0.2),
}
"""What is odd but does not change the frame."""


@pytest.mark.parametrize("oddity", HARMLESS)
def test_odd_delivery_gives_the_right_answer_or_a_typed_error(oddity: str) -> None:
    stored, truth = image_set()
    service = FaultyService(image_sets={IMAGE_SET: stored}, faults=[Fault(distort=HARMLESS[oddity])])
    # An encoding that nobody asked for may be taken as it stands, and then the frame cannot be decoded.
    may_fail = "encoding" in oddity or "compressed" in oddity
    with service, client_of(service, **ATTEMPTS) as client:
        source = opened(client)
        for read in each_read(service, RETRIED_SECONDS):
            try:
                read(source, truth)
            except FrameError:
                assert may_fail


@pytest.mark.parametrize("read", READS)
def test_identical_frames_may_be_exchanged(read: str) -> None:
    stored, truth = image_set()
    one, two = frame_id(stored, MR_UID, 1), frame_id(stored, MR_UID, 2)
    records = instance_record(stored, MR_UID)["ImageFrames"]
    stored.frames[one], stored.frames[two] = stored.frames[two], stored.frames[one]
    service = FaultyService(image_sets={IMAGE_SET: stored})
    with service, client_of(service, **ATTEMPTS) as client, within(REFUSED_SECONDS):
        caught = failure(FrameChecksumError, READS[read], opened(client), truth)
        assert lost_frame(caught) == (IMAGE_SET, MR_UID, 1)
    # When both frames are the same pixels, either is right.
    stored.frames[two] = stored.frames[one]
    records[0] = {**records[1], "ID": one}
    pixels = truth.stored[MR_UID, 2]
    same = replace(
        truth,
        stored={**truth.stored, (MR_UID, 1): pixels},
        volumes={**truth.volumes, "1.2.3.5": truth.volumes["1.2.3.5"][[1, 1, 2, 3, 4]]},
    )
    service = FaultyService(image_sets={IMAGE_SET: stored})
    with service, client_of(service, **ATTEMPTS) as client:
        READS[read](opened(client), same)


# The image set changes while it is read
# ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("read", READS)
def test_an_image_set_that_is_deleted_half_way(read: str) -> None:
    stored, truth = image_set()

    def delete(operation: str, count: int) -> None:
        if operation == "GetImageFrame" and count == 5:
            stored.state = "DELETED"

    service = FaultyService(image_sets={IMAGE_SET: stored}, on_request=delete)
    with service, client_of(service, **ATTEMPTS) as client, within(REFUSED_SECONDS):
        source = opened(client)
        caught = failure(FrameUnavailableError, READS[read], source, truth)
        assert caught.code == "ResourceNotFoundException"
        assert None not in lost_frame(caught)
        gone = failure(ImageSetNotFoundError, opened, client)
        assert gone.image_set_id == IMAGE_SET


def test_an_image_set_that_is_deleted_between_its_properties_and_its_header() -> None:
    stored, _ = image_set()

    def delete(operation: str, _count: int) -> None:
        if operation == "GetImageSetMetadata":
            stored.state = "DELETED"

    service = FaultyService(image_sets={IMAGE_SET: stored}, on_request=delete)
    with service, client_of(service, **ATTEMPTS) as client:
        failure(ImageSetNotFoundError, opened, client)


def _update(stored: StoredImageSet, version: str) -> None:
    """A new version, with other values and one instance less."""
    newer = copy.deepcopy(stored.documents["1"])
    newer["Patient"]["DICOM"]["PatientID"] = f"P{version}"
    newer["Study"]["Series"][CT_SERIES]["Instances"].popitem()
    stored.documents[version], stored.latest = newer, version


@pytest.mark.parametrize("read", READS)
def test_a_version_that_changes_half_way_is_not_seen(read: str) -> None:
    stored, truth = image_set()

    def update(operation: str, count: int) -> None:
        if operation == "GetImageFrame" and count == 4:
            _update(stored, "2")

    service = FaultyService(image_sets={IMAGE_SET: stored}, on_request=update)
    with service, client_of(service, **ATTEMPTS) as client, within(REFUSED_SECONDS):
        source = opened(client)
        READS[read](source, truth)
        assert source.ref.version_id == "1"
        assert opened(client).ref.version_id == "2"


@pytest.mark.parametrize("moment", ["GetImageSet", "GetImageSetMetadata"])
@pytest.mark.parametrize("latest", ["1", "2"])
def test_a_version_that_changes_while_it_is_opened_is_one_or_the_other(latest: str, moment: str) -> None:
    stored, _ = image_set()
    if latest == "2":
        _update(stored, "2")

    def update(operation: str, count: int) -> None:
        if operation == moment and count == 1:
            _update(stored, "3")

    service = FaultyService(image_sets={IMAGE_SET: stored}, on_request=update)
    with service, client_of(service, **ATTEMPTS) as client:
        source = opened(client)
        assert source.metadata.document == stored.documents[source.ref.version_id]
        assert source.ref.version_id in (latest, "3")


# The header
# ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("operation", ["GetImageSet", "GetImageSetMetadata"])
@pytest.mark.parametrize("fault", DELIVERY)
def test_opening_survives_a_fault_of_delivery_that_ends(fault: str, operation: Any) -> None:
    stored, _ = image_set()
    once = Fault(distort=DELIVERY[fault], operation=operation, attempts=1)
    service = FaultyService(image_sets={IMAGE_SET: stored}, faults=[once])
    with service, client_of(service, **settings(fault)) as client, within(RETRIED_SECONDS):
        assert opened(client).metadata.document == stored.documents["1"]


@pytest.mark.parametrize("operation", ["GetImageSet", "GetImageSetMetadata"])
@pytest.mark.parametrize("fault", DELIVERY)
def test_opening_fails_typed_when_a_fault_of_delivery_remains(fault: str, operation: Any) -> None:
    stored, _ = image_set()
    service = FaultyService(
        image_sets={IMAGE_SET: stored}, faults=[Fault(distort=DELIVERY[fault], operation=operation)]
    )
    with service, client_of(service, **settings(fault)) as client, within(REFUSED_SECONDS):
        caught = failure(ServiceError, opened, client)
        assert (caught.operation, caught.image_set_id) == (operation, IMAGE_SET)
        assert caught.code


def _document(change: Callable[[dict[str, Any]], Any]) -> Distortion:
    def changed(right: Answer) -> Answer:
        document = json.loads(gzip.decompress(right.body))
        return replace(right, body=gzip.compress(json.dumps(change(document)).encode()))

    return changed


HEADERS: dict[str, Distortion] = {
    "truncated gzip": body(lambda data: data[: len(data) // 2]),
    "gzip without its checksum": body(lambda data: data[:-8]),
    "gzip with a wrong checksum": body(lambda data: data[:-8] + bytes(8)),
    "flipped byte": body(_flip),
    "truncated JSON": body(lambda data: gzip.compress(gzip.decompress(data)[:-10])),
    "not UTF-8": body(lambda data: gzip.compress(gzip.decompress(data).replace(b"Test", b"\xff\xfe"))),
    "empty": body(lambda _data: b""),
    "page of HTML": page(200),
    "an error document": refused(200, "InternalServerException"),
    "null": _document(lambda _document: None),
    "list": _document(lambda document: [document]),
    "deep nesting": body(lambda _data: gzip.compress(b"[" * 100_000)),
    "of another image set": _document(lambda document: {**document, "ImageSetID": "9" * 32}),
    "of another datastore": _document(lambda document: {**document, "DatastoreID": "9" * 32}),
    "length smaller than the body": announced(-100),
}


@pytest.mark.parametrize("fault", HEADERS)
def test_a_header_that_is_not_the_image_sets_is_refused(fault: str) -> None:
    stored, _ = image_set()
    wrong = Fault(distort=HEADERS[fault], operation="GetImageSetMetadata")
    service = FaultyService(image_sets={IMAGE_SET: stored}, faults=[wrong])
    with service, client_of(service, **ATTEMPTS) as client, within(REFUSED_SECONDS):
        caught = failure(MetadataError, opened, client)
        assert caught.image_set_id == IMAGE_SET


@pytest.mark.parametrize(
    "oddity", [after(in_chunks), lambda right: replace(right, body=gzip.decompress(right.body), headers={})]
)
def test_a_header_may_come_in_chunks_or_not_compressed(oddity: Distortion) -> None:
    stored, _ = image_set()
    odd = Fault(distort=oddity, operation="GetImageSetMetadata")
    service = FaultyService(image_sets={IMAGE_SET: stored}, faults=[odd])
    with service, client_of(service, **ATTEMPTS) as client:
        assert opened(client).metadata.document == stored.documents["1"]


PROPERTIES: dict[str, Distortion] = {
    "empty": body(lambda _data: b""),
    "null": body(lambda _data: b"null"),
    "list": body(lambda _data: b"[]"),
    "nothing in them": body(lambda _data: b"{}"),
    "truncated JSON": body(lambda data: data[:-5]),
    "page of HTML": page(200),
    "deep nesting": body(lambda _data: b"[" * 100_000),
    "301": page(301, Location="/elsewhere"),
    "a version that is null": body(lambda data: data.replace(b'"versionId": "1"', b'"versionId": null')),
}


@pytest.mark.parametrize("fault", PROPERTIES)
def test_properties_that_are_none_are_a_typed_error(fault: str) -> None:
    stored, _ = image_set()
    wrong = Fault(distort=PROPERTIES[fault], operation="GetImageSet")
    service = FaultyService(image_sets={IMAGE_SET: stored}, faults=[wrong])
    with service, client_of(service, **ATTEMPTS) as client, within(REFUSED_SECONDS):
        caught = failure(HealthImagingError, opened, client)
        assert caught.image_set_id == IMAGE_SET
        assert service.strays == []


def test_a_header_that_trickles_has_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("healthimaging.frames.connections.BODY_SECONDS", 0.5)
    monkeypatch.setattr("healthimaging.header.BODY_ATTEMPTS", 2)
    stored, _ = image_set()
    slow = Fault(distort=trickling(0.1), operation="GetImageSetMetadata")
    service = FaultyService(image_sets={IMAGE_SET: stored}, faults=[slow])
    with service, client_of(service, **ATTEMPTS) as client, within(REFUSED_SECONDS):
        caught = failure(ServiceError, opened, client)
        assert (caught.operation, caught.image_set_id) == ("GetImageSetMetadata", IMAGE_SET)


def test_a_refused_image_set_does_not_wait_for_metadata_that_stall() -> None:
    stored, _ = image_set()
    faults = [
        Fault(distort=refused(403, "AccessDeniedException"), operation="GetImageSet"),
        Fault(distort=cut("stall"), operation="GetImageSetMetadata"),
    ]
    service = FaultyService(image_sets={IMAGE_SET: stored}, faults=faults)
    # The thread that is left behind ends when its request times out.
    with service, client_of(service, **ATTEMPTS, read_timeout=2) as client:
        with within(1.8):
            caught = failure(ServiceError, opened, client)
        assert (caught.operation, caught.code) == ("GetImageSet", "AccessDeniedException")


Expected = type[HealthImagingError] | None


@dataclass(frozen=True, kw_only=True)
class HeaderCase:
    """A change of the CT instance 2, or of its series, and what becomes of each read."""

    change: Callable[[dict[str, Any], dict[str, Any]], None]
    frames: Expected = None
    volumes: Expected = None
    datasets: Expected = None


def _set(keyword: str, value: Any) -> Callable[[dict[str, Any], dict[str, Any]], None]:
    return lambda record, _series: record["DICOM"].__setitem__(keyword, value)


def _drop(keyword: str) -> Callable[[dict[str, Any], dict[str, Any]], None]:
    return lambda record, _series: record["DICOM"].__delitem__(keyword)


def _series(keyword: str, value: Any) -> Callable[[dict[str, Any], dict[str, Any]], None]:
    return lambda _record, series: series["DICOM"].__setitem__(keyword, value)


def _checksum(value: Any) -> Callable[[dict[str, Any], dict[str, Any]], None]:
    key = "PixelDataChecksumFromBaseToFullResolution"
    return lambda record, _series: record["ImageFrames"][0].__setitem__(key, value)


ATTRIBUTES: dict[str, HeaderCase] = {
    "InstanceNumber null": HeaderCase(change=_set("InstanceNumber", None)),
    "InstanceNumber missing": HeaderCase(change=_drop("InstanceNumber")),
    "InstanceNumber not a number": HeaderCase(change=_set("InstanceNumber", "x"), datasets=MetadataError),
    "Modality null": HeaderCase(change=_series("Modality", None)),
    "Modality missing": HeaderCase(change=lambda _record, series: series["DICOM"].__delitem__("Modality")),
    "SeriesNumber null": HeaderCase(change=_series("SeriesNumber", None)),
    "position null": HeaderCase(change=_set("ImagePositionPatient", None), volumes=MissingGeometryError),
    "position missing": HeaderCase(change=_drop("ImagePositionPatient"), volumes=MissingGeometryError),
    "position of two numbers": HeaderCase(
        change=_set("ImagePositionPatient", ["0", "0"]), volumes=MissingGeometryError
    ),
    "position with a null": HeaderCase(
        change=_set("ImagePositionPatient", ["0", None, "0"]), volumes=MissingGeometryError
    ),
    "orientation null": HeaderCase(
        change=_set("ImageOrientationPatient", None), volumes=MissingGeometryError
    ),
    "spacing null": HeaderCase(change=_set("PixelSpacing", None), volumes=MissingGeometryError),
    "Rows null": HeaderCase(
        change=_set("Rows", None), frames=MetadataError, volumes=FrameLayoutError, datasets=MetadataError
    ),
    "no checksum": HeaderCase(
        change=_checksum(None),
        frames=FrameChecksumError,
        volumes=FrameChecksumError,
        datasets=FrameChecksumError,
    ),
    "empty list of checksums": HeaderCase(
        change=_checksum([]),
        frames=FrameChecksumError,
        volumes=FrameChecksumError,
        datasets=FrameChecksumError,
    ),
    "no frames": HeaderCase(
        change=lambda record, _series: record.__setitem__("ImageFrames", None),
        frames=MetadataError,
        volumes=HealthImagingError,
        datasets=MetadataError,
    ),
    "fewer frames than announced": HeaderCase(
        change=_set("NumberOfFrames", "2"),
        frames=MetadataError,
        volumes=HealthImagingError,
        datasets=MetadataError,
    ),
}


@pytest.mark.parametrize("case", ATTRIBUTES)
def test_attributes_that_are_null_or_missing(case: str) -> None:
    stored, truth = image_set()
    uid = f"{SERIES_UID}.2"
    header_case = ATTRIBUTES[case]
    series = stored.documents["1"]["Study"]["Series"][CT_SERIES]
    header_case.change(instance_record(stored, uid), series)
    expectations: list[Expected] = [header_case.frames, header_case.volumes, header_case.datasets]
    service = FaultyService(image_sets={IMAGE_SET: stored})
    with service, client_of(service, **ATTEMPTS) as client:
        source = opened(client)
        for read, expected in zip(each_read(service, REFUSED_SECONDS), expectations, strict=True):
            if expected is None:
                read(source, truth)
            else:
                caught = failure(expected, read, source, truth)
                assert (caught.image_set_id, caught.sop_instance_uid) == (IMAGE_SET, uid)


def test_a_body_that_trickles_has_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each byte comes before the read times out, so that only a limit of the whole ends it."""
    monkeypatch.setattr("healthimaging.frames.connections.BODY_SECONDS", 0.5)
    stored, truth = image_set()
    slow = Fault(distort=trickling(0.1), frame_id=frame_id(stored))
    service = FaultyService(image_sets={IMAGE_SET: stored}, faults=[slow])
    with service, client_of(service, **ATTEMPTS) as client, within(REFUSED_SECONDS):
        source = opened(client)
        caught = failure(FrameUnavailableError, READS["frames"], source, truth)
        assert lost_frame(caught) == (IMAGE_SET, MR_UID, 3)


def test_several_image_sets_are_told_apart() -> None:
    """The frames of one are never those of the other, though their identifiers are the same."""
    stored, truth = image_set()
    other, _ = image_set()
    other = StoredImageSet(
        documents={"1": {**other.documents["1"], "ImageSetID": "2" * 32}},
        frames={key: stored.frames[frame_id(stored, MR_UID, 1)] for key in other.frames},
    )
    service = FaultyService(image_sets={IMAGE_SET: stored, "2" * 32: other})
    with service, client_of(service, **ATTEMPTS) as client:
        READS["frames"](opened(client), truth)
        caught = failure(
            FrameError, lambda: READS["frames"](ImageSet.open(client, DATASTORE, "2" * 32), truth)
        )
        assert caught.image_set_id == "2" * 32
