"""WADO and QIDO: frames, bulk data, whole series, and answers that are not what was asked for."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from io import BytesIO
from typing import Any

import pydicom
import pytest
from fake_healthimaging import DATASTORE, IMAGE_SET, ct_series
from pydicom import Dataset
from pydicom.data import get_testdata_file
from scripted_web import Reply, Request, ScriptedWeb, session

from healthimaging import DicomWeb, ImageSet, connect
from healthimaging.dicomweb import qido, wado
from healthimaging.errors import DicomWebAnswerError, DicomWebError

HTJ2K = "1.2.840.10008.1.2.4.202"
NATIVE = "1.2.840.10008.1.2.1"
NAMED: dict[str, Any] = {"study": "1.2", "series": "1.2.3", "instance": "1.2.3.4"}


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[ScriptedWeb]:
    monkeypatch.setattr(time, "sleep", lambda _seconds: None)
    with ScriptedWeb() as running:
        yield running


@pytest.fixture
def web(server: ScriptedWeb) -> Iterator[DicomWeb]:
    with DicomWeb(connect(session(), endpoint_url=server.url), DATASTORE) as made:
        yield made


@pytest.fixture(scope="module")
def source() -> list[Dataset]:
    return ImageSet.open(ct_series()[0], DATASTORE, IMAGE_SET).datasets()


def encoded(dataset: Dataset) -> bytes:
    buffer = BytesIO()
    dataset.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def frames_reply(*parts: tuple[bytes, bytes]) -> Reply:
    body = b"".join(b"--B\r\nContent-Type: %b\r\n\r\n%b\r\n" % part for part in parts)
    return Reply(
        content_type='multipart/related; type="application/octet-stream"; boundary=B', body=body + b"--B--"
    )


def accepted_syntax(request: Request) -> str:
    return request.headers["Accept"].partition("transfer-syntax=")[2]


# Frames
# ----------------------------------------------------------------------------------------------------------


def test_frames_come_with_their_transfer_syntaxes(server: ScriptedWeb, web: DicomWeb) -> None:
    octets = b"application/octet-stream"
    server.answer = lambda _request: frames_reply(
        (octets + b"; transfer-syntax=" + HTJ2K.encode(), b"\r\n--Bx"), (octets, b"second")
    )
    first, second = web.retrieve_frames([7, 2], **NAMED, image_set_id="abc")
    assert (first.number, first.transfer_syntax_uid, first.data) == (7, HTJ2K, b"\r\n--Bx")
    assert (second.number, second.transfer_syntax_uid, second.data) == (2, None, b"second")
    (request,) = server.requests
    assert request.path.endswith("/studies/1.2/series/1.2.3/instances/1.2.3.4/frames/7,2")
    assert request.query == {"imageSetId": ["abc"]}
    assert accepted_syntax(request) == NATIVE


def test_one_frame_may_come_without_multipart(server: ScriptedWeb, web: DicomWeb) -> None:
    server.answer = lambda _request: Reply(
        content_type=f"application/octet-stream; transfer-syntax={NATIVE}", body=b"pixels"
    )
    (frame,) = web.retrieve_frames([1], **NAMED)
    assert (frame.number, frame.transfer_syntax_uid, frame.data) == (1, NATIVE, b"pixels")


def test_many_frames_take_several_requests(
    server: ScriptedWeb, web: DicomWeb, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wado, "FRAMES_A_REQUEST", 3)

    def answer(request: Request) -> Reply:
        numbers = request.path.rsplit("/", 1)[1].split(",")
        return frames_reply(*((b"application/octet-stream", number.encode()) for number in numbers))

    server.answer = answer
    frames = web.retrieve_frames(range(1, 9), **NAMED)
    assert [(frame.number, frame.data) for frame in frames] == [(k, str(k).encode()) for k in range(1, 9)]
    assert len(server.requests) == 3
    assert web.retrieve_frames([], **NAMED) == []


def test_another_number_of_frames_is_an_error(server: ScriptedWeb, web: DicomWeb) -> None:
    server.answer = lambda _request: frames_reply((b"application/octet-stream", b"one"))
    with pytest.raises(DicomWebAnswerError, match="1 parts for 2 frames") as caught:
        web.retrieve_frames([1, 2], **NAMED)
    assert caught.value.sop_instance_uid == NAMED["instance"]


def test_what_cannot_be_transcoded_comes_as_it_is_stored(
    server: ScriptedWeb, web: DicomWeb, source: list[Dataset]
) -> None:
    instance = str(source[0].SOPInstanceUID)

    def answer(request: Request) -> Reply:
        if accepted_syntax(request) != "*":
            return Reply(status=406, body=b"{}", headers={"x-amzn-ErrorType": "NotAcceptableException"})
        if "/frames/" in request.path:
            return Reply(content_type=f"application/octet-stream; transfer-syntax={HTJ2K}", body=b"htj2k")
        return Reply(content_type="application/dicom", body=encoded(source[0]))

    server.answer = answer
    (frame,) = web.retrieve_frames([1], **NAMED)
    assert (frame.transfer_syntax_uid, frame.data) == (HTJ2K, b"htj2k")
    named = {**NAMED, "instance": instance}
    assert web.retrieve(**named, transfer_syntax=NATIVE).SOPInstanceUID == instance
    assert [accepted_syntax(request) for request in server.requests] == [NATIVE, "*", NATIVE, "*"]
    server.answer = lambda _request: Reply(status=406, body=b"{}")
    with pytest.raises(DicomWebError) as caught:
        web.retrieve(**named)
    assert caught.value.status == 406
    assert len(server.requests) == 5


# Bulk data
# ----------------------------------------------------------------------------------------------------------

BULK_PATH = "/studies/1.2/series/1.2.3/instances/1.2.3.4/bulkdata/abc"


@pytest.mark.parametrize(
    "uri",
    [
        f"https://dicom-medical-imaging.us-west-2.amazonaws.com/datastore/{DATASTORE}{BULK_PATH}",
        f"http://elsewhere/prefix/datastore/{DATASTORE}{BULK_PATH}",
        f"/datastore/{DATASTORE}{BULK_PATH}",
        BULK_PATH,
        BULK_PATH[1:],
    ],
)
def test_bulk_data_is_read_from_this_service_whatever_host_its_address_names(
    server: ScriptedWeb, web: DicomWeb, uri: str
) -> None:
    server.answer = lambda _request: Reply(content_type="application/octet-stream", body=b"\0value\xff")
    assert web.retrieve_bulk_data(uri, image_set_id="one") == b"\0value\xff"
    (request,) = server.requests
    assert request.path == f"/datastore/{DATASTORE}{BULK_PATH}"
    assert request.query == {"imageSetId": ["one"]}


def test_bulk_data_may_be_multipart_and_its_address_may_name_the_image_set(
    server: ScriptedWeb, web: DicomWeb
) -> None:
    server.answer = lambda _request: frames_reply((b"application/octet-stream", b"value"))
    assert web.retrieve_bulk_data(f"{BULK_PATH}?imageSetId=two", image_set_id="one") == b"value"
    assert server.requests[0].query == {"imageSetId": ["two"]}
    server.answer = lambda _request: frames_reply()
    with pytest.raises(DicomWebAnswerError, match="0 parts for one value"):
        web.retrieve_bulk_data(BULK_PATH)


@pytest.mark.parametrize(
    "uri",
    [
        "bulkdata/abc",
        f"https://evil.example/datastore/{'f' * 32}{BULK_PATH}",
        "file:///etc/passwd",
        f"/datastore/{DATASTORE}/studies/1.2",
        "",
    ],
)
def test_an_address_that_is_not_of_this_datastore_is_refused(
    server: ScriptedWeb, web: DicomWeb, uri: str
) -> None:
    with pytest.raises(DicomWebError, match="BulkDataURI"):
        web.retrieve_bulk_data(uri)
    assert server.requests == []


def test_metadata_has_its_bulk_data_on_request(server: ScriptedWeb, web: DicomWeb) -> None:
    header = [{"00091010": {"vr": "OB", "BulkDataURI": f"{server.url}/datastore/{DATASTORE}{BULK_PATH}"}}]
    server.answer = lambda request: (
        Reply(body=json.dumps(header).encode())
        if request.path.endswith("/metadata")
        else Reply(content_type="application/octet-stream", body=b"big value ")
    )
    named = {"study": "1.2", "series": "1.2.3"}
    (without,) = web.retrieve_metadata(**named)
    assert not without[0x0009, 0x1010].value
    assert len(server.requests) == 1
    (whole,) = web.retrieve_metadata(**named, bulk_data=True)
    assert whole[0x0009, 0x1010].value == b"big value "


# Whole series
# ----------------------------------------------------------------------------------------------------------


class Archive:
    """Answers searches and retrievals of one series."""

    def __init__(self, datasets: list[Dataset]) -> None:
        self.files = {str(dataset.SOPInstanceUID): encoded(dataset) for dataset in datasets}
        self.under_way = self.most_under_way = 0
        self.lock = threading.Lock()

    def __call__(self, request: Request) -> Reply:
        if request.path.endswith("/instances"):
            offset, limit = int(request.query["offset"][0]), int(request.query["limit"][0])
            found = [
                {"00080018": {"vr": "UI", "Value": [uid]}, "0020000E": {"vr": "UI", "Value": ["1.2.3"]}}
                for uid in self.files
            ]
            return Reply(body=json.dumps(found[offset : offset + limit]).encode())
        with self.lock:
            self.under_way += 1
            self.most_under_way = max(self.most_under_way, self.under_way)
        threading.Event().wait(0.01)
        with self.lock:
            self.under_way -= 1
        return Reply(content_type="application/dicom", body=self.files[request.path.rsplit("/", 1)[1]])


def test_a_series_is_retrieved_instance_by_instance_in_order(
    server: ScriptedWeb, web: DicomWeb, source: list[Dataset], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(qido, "PAGE", 3)
    archive = server.answer = Archive(source)
    got = list(web.retrieve_instances(study="1.2", series="1.2.3", at_once=2))
    assert [dataset.SOPInstanceUID for dataset in got] == list(archive.files)
    assert got[0].PixelData == source[0].PixelData
    assert archive.most_under_way == 2
    of_study = list(web.retrieve_instances(study="1.2"))
    assert [dataset.SOPInstanceUID for dataset in of_study] == list(archive.files)
    assert server.requests[-1].path.startswith(f"/datastore/{DATASTORE}/studies/1.2/series/1.2.3/instances/")


def test_who_stops_early_retrieves_no_more(server: ScriptedWeb, web: DicomWeb, source: list[Dataset]) -> None:
    server.answer = Archive(source)
    instances = web.retrieve_instances(study="1.2", series="1.2.3", at_once=1)
    next(instances)
    instances.close()  # type: ignore[attr-defined]  # a generator
    assert len(server.requests) <= 1 + 3
    assert not any(thread.name.startswith("dicomweb") for thread in threading.enumerate())


def test_a_study_without_instances_is_an_error_not_an_empty_result(
    server: ScriptedWeb, web: DicomWeb
) -> None:
    server.answer = lambda _request: Reply(status=204)
    with pytest.raises(DicomWebError, match="No instance of the study"):
        list(web.retrieve_instances(study="1.2"))


# Searches
# ----------------------------------------------------------------------------------------------------------


def test_a_short_page_is_the_last_unless_the_service_says_that_there_are_more(
    server: ScriptedWeb, web: DicomWeb
) -> None:
    def answer(request: Request) -> Reply:
        offset = int(request.query["offset"][0])
        found = [{"0020000D": {"vr": "UI", "Value": [f"1.{k}"]}} for k in range(offset, min(offset + 4, 10))]
        more = {"Warning": "299 service: There are more results"} if offset + 4 < 10 else {}
        return Reply(body=json.dumps(found).encode(), headers=more)

    server.answer = answer
    assert [one.StudyInstanceUID for one in web.search()] == [f"1.{k}" for k in range(10)]
    assert len(server.requests) == 3
    assert [one.StudyInstanceUID for one in web.search(limit=5)] == [f"1.{k}" for k in range(5)]
    assert list(web.search(limit=0)) == []


def test_a_page_with_more_than_was_asked_for_is_cut(server: ScriptedWeb, web: DicomWeb) -> None:
    found = [{"0020000D": {"vr": "UI", "Value": [f"1.{k}"]}} for k in range(5)]
    server.answer = lambda _request: Reply(body=json.dumps(found).encode())
    assert len(list(web.search(limit=2))) == 2


@pytest.mark.parametrize(
    "arguments",
    [
        {"level": "patients"},
        {"level": "studies", "study": "1.2"},
        {"level": "series", "study": "1.2", "series": "1.2.3"},
        {"level": "instances", "series": "1.2.3"},
    ],
)
def test_searches_that_the_service_does_not_have(web: DicomWeb, arguments: dict[str, str]) -> None:
    with pytest.raises(ValueError, match=r"no search|within its study"):
        web.search(**arguments)  # type: ignore[arg-type]  # that is what is refused


@pytest.mark.parametrize(
    "body",
    [
        b"<html>sign in</html>",
        b'{"00100020": {}}',
        b"[1]",
        b'[{"00100020": 5}]',
        b'[{"xyz": {"vr": "LO"}}]',
        b"\xff\xfe",
        b"[" * 100_000,
    ],
    ids=["page", "object", "numbers", "no element", "no tag", "no text", "endless"],
)
def test_answers_that_are_not_dicom_json_are_errors(server: ScriptedWeb, web: DicomWeb, body: bytes) -> None:
    server.answer = lambda _request: Reply(body=body)
    with pytest.raises(DicomWebAnswerError) as caught:
        list(web.search())
    assert caught.value.status == 200
    with pytest.raises(DicomWebAnswerError):
        web.retrieve_metadata(study="1.2", series="1.2.3")


# Instances
# ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kept", [0, 100, 200, 900, -2, -30])
def test_a_file_that_is_cut_off_is_an_error(
    server: ScriptedWeb, web: DicomWeb, source: list[Dataset], kept: int
) -> None:
    server.answer = lambda _request: Reply(content_type="application/dicom", body=encoded(source[0])[:kept])
    with pytest.raises(DicomWebAnswerError, match=r"cut off|not a DICOM file") as caught:
        web.retrieve(study="1.2", series="1.2.3", instance=str(source[0].SOPInstanceUID))
    assert caught.value.sop_instance_uid == source[0].SOPInstanceUID


@pytest.mark.filterwarnings("ignore:End of file reached before delimiter")
@pytest.mark.parametrize("missing", [2, 8, 20])
def test_encapsulated_pixels_that_are_cut_off_are_an_error(
    server: ScriptedWeb, web: DicomWeb, missing: int
) -> None:
    source = pydicom.dcmread(str(get_testdata_file("693_J2KI.dcm")))
    instance = str(source.SOPInstanceUID)
    named = {"study": "1.2", "series": "1.2.3", "instance": instance}
    data = encoded(source)
    server.answer = lambda _request: Reply(content_type="application/dicom", body=data)
    assert web.retrieve(**named).PixelData == source.PixelData
    server.answer = lambda _request: Reply(content_type="application/dicom", body=data[:-missing])
    with pytest.raises(DicomWebAnswerError, match=r"cut off|not a DICOM file"):
        web.retrieve(**named)


def test_an_answer_that_does_not_say_how_long_it_is_cannot_be_told_from_one_that_is_cut(
    server: ScriptedWeb, web: DicomWeb
) -> None:
    server.answer = lambda _request: Reply(
        content_type="application/octet-stream", body=b"pixels", announced=-1, ending="close"
    )
    with pytest.raises(DicomWebAnswerError, match="does not say how long"):
        web.retrieve_frames([1], **NAMED)
