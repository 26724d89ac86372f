"""Everything that can be wrong with a request: the right refusal, nothing repeated, and the server goes on.

One serving process meets the whole table. After each row it answers a good request.
"""

from __future__ import annotations

import copy
import gzip
import json
import re
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from running_endpoint import Archive, Endpoint, start_endpoint
from synthetic_bundle import inference_config, write_bundle
from synthetic_patient import Patient, make_patient

CANARY = "Canary"
"""Is in every value that is sent and in every header that is stored: it may not come back, nor be logged."""


@pytest.fixture(scope="module")
def archive(cloud: Any) -> Archive:
    return Archive.create(cloud, "bad-input")


@pytest.fixture(scope="module")
def endpoint(cloud: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Endpoint]:
    base = tmp_path_factory.mktemp("bad-input")
    config = inference_config()
    # The code of a bundle may print and warn as it likes.
    talk = f"$lambda x: (print('{CANARY}'), __import__('warnings').warn('{CANARY}'), x)[-1]"
    config["preprocessing"]["transforms"].append({"_target_": "Lambdad", "keys": "image", "func": talk})
    write_bundle(base / "model", config=config)
    started = start_endpoint(base, {**cloud.environment, "PYTHONDONTWRITEBYTECODE": "1"})
    yield started
    started.stop()


def _with_canaries(patient: Patient) -> Patient:
    """Write the canary into attributes of every kind, some of which pydicom warns of."""
    for dataset in patient.datasets:
        dataset.PatientName = f"{CANARY}^Name"
        dataset.SeriesDescription = f"{CANARY} series"
        dataset.StudyDescription = f"{CANARY} study"
        dataset.PatientComments = f"{CANARY} comments"
        dataset.InstitutionName = f"{CANARY} hospital"
    return patient


@pytest.fixture(scope="module")
def good(archive: Archive, endpoint: Endpoint) -> dict[str, str]:
    """A request that was answered, so that the archive has its result."""
    request = archive.request(archive.store(_with_canaries(make_patient("Canary-1", seed=21))))
    assert endpoint.invoke(request).status_code == 200
    return request


def _id(letter: str) -> str:
    return letter * 32


ONE = {"datastoreId": _id("d"), "imageSetId": _id("a")}

BODIES: dict[str, Any] = {
    "no body": b"",
    "spaces": b"  \n ",
    "half a document": b'{"datastoreId": "Canary',
    "two documents": b"{}{}",
    "not utf-8": b'{"datastoreId": "\xff\xfeCanary"}',
    "a number too long for Python": b'{"versionId": ' + b"9" * 5000 + b"}",
    "nested too deeply": b"[" * 200_000,
    "form data": b"datastoreId=Canary&imageSetId=Canary",
    "a member twice": json.dumps(ONE)[:-1].encode() + b', "imageSetId": "Canary"}',
    "a list": [ONE],
    "a text": CANARY,
    "a number": 7,
    "null": None,
    "not a number": b"NaN",
    "nothing in it": {},
    "no image set": {"datastoreId": _id("d")},
    "no datastore": {"imageSetId": _id("a")},
    "other spelling": {"datastore_ID": CANARY, "image_set_ID": CANARY},
    "an unknown member": ONE | {f"{CANARY}^Jane": CANARY},
    "id is a number": ONE | {"imageSetId": 7},
    "id is null": ONE | {"imageSetId": None},
    "id is a list": ONE | {"imageSetId": [CANARY]},
    "id is an object": ONE | {"datastoreId": {CANARY: 1}},
    "id in capitals": ONE | {"imageSetId": _id("A")},
    "id too short": ONE | {"imageSetId": _id("a")[1:]},
    "id too long": ONE | {"imageSetId": _id("a") + "a"},
    "id with a line break": ONE | {"imageSetId": _id("a") + "\n"},
    "id is a path": ONE | {"imageSetId": "../../../../../../../etc/Canary00"},
    "id is an ARN": ONE | {"datastoreId": "arn:aws:medical-imaging:us-east-1:1:datastore/Canary"},
    "id in other digits": ONE | {"imageSetId": "\u0661" * 32},
    "version is a word": ONE | {"versionId": CANARY},
    "version is negative": ONE | {"versionId": -1},
    "version is true": ONE | {"versionId": True},
    "version is a fraction": ONE | {"versionId": 1.5},
    "version is huge": ONE | {"versionId": 10**30},
    "no inputs": {"inputs": []},
    "inputs are null": {"inputs": None},
    "inputs are one": {"inputs": ONE},
    "inputs of texts": {"inputs": [CANARY]},
    "inputs and more": {"inputs": [ONE], **ONE},
    "one of the inputs is bad": {"inputs": [ONE, ONE | {"imageSetId": CANARY}]},
    "inputs in inputs": {"inputs": [{"inputs": [ONE]}]},
    "too many inputs": {"inputs": [ONE] * 101},
    "an image elsewhere": {"image": f"s3://{CANARY}/volume.nii.gz"},
    "an image and prompts": {"image": f"ahi://{_id('d')}/{_id('a')}", "prompts": {"classes": [CANARY]}},
}


def _check(answer: httpx.Response, status: int, kind: str) -> None:
    assert answer.status_code == status, answer.text
    assert answer.headers["Content-Type"] == "application/json"
    assert set(answer.json()) == {"error"}
    assert set(answer.json()["error"]) == {"type", "message"}
    assert answer.json()["error"]["type"] == kind
    assert answer.json()["error"]["message"]
    assert CANARY.lower() not in answer.text.lower(), "values are not repeated"


@pytest.fixture(autouse=True)
def _next_request_is_good(endpoint: Endpoint, good: dict[str, str]) -> Iterator[None]:
    yield
    assert endpoint.ping() == 200
    answer = endpoint.invoke(good)
    assert answer.status_code == 200, answer.text


def _post(endpoint: Endpoint, content: Any, **headers: str) -> httpx.Response:
    return httpx.post(
        f"{endpoint.url}/invocations",
        content=content,
        headers={"Content-Type": "application/json"} | {k.replace("_", "-"): v for k, v in headers.items()},
        timeout=60,
        trust_env=False,
    )


@pytest.mark.parametrize("name", BODIES)
def test_bodies_that_are_no_request(endpoint: Endpoint, name: str) -> None:
    body = BODIES[name]
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    _check(_post(endpoint, content), 400, "InvalidRequestError")


@pytest.mark.parametrize(
    ("headers", "content", "status", "kind"),
    [
        ({"Content_Type": "text/csv"}, b"Canary,1", 415, "UnsupportedMediaTypeError"),
        ({"Content_Type": "application/dicom"}, b"\0" * 128 + b"DICM", 415, "UnsupportedMediaTypeError"),
        ({"Content_Type": "multipart/form-data; boundary=x"}, b"--x--", 415, "UnsupportedMediaTypeError"),
        ({"Content_Type": "application/jsonCanary"}, b"{}", 415, "UnsupportedMediaTypeError"),
        ({"Content_Encoding": "gzip"}, gzip.compress(b"{}", mtime=0), 415, "UnsupportedMediaTypeError"),
        ({"Accept": "text/csv, image/Canary"}, json.dumps(ONE).encode(), 406, "NotAcceptableError"),
        ({}, b" " * (1024 * 1024 + 1), 413, "RequestTooLargeError"),
        ({}, [b"Canary  " * 64 * 1024] * 3, 413, "RequestTooLargeError"),
    ],
)
def test_media_types_and_sizes(
    endpoint: Endpoint, headers: dict[str, str], content: Any, status: int, kind: str
) -> None:
    _check(_post(endpoint, iter(content) if isinstance(content, list) else content, **headers), status, kind)


@pytest.mark.parametrize(
    ("method", "path", "status", "kind"),
    [
        ("GET", "/invocations", 405, "MethodNotAllowedError"),
        ("DELETE", "/invocations", 405, "MethodNotAllowedError"),
        ("POST", "/ping", 405, "MethodNotAllowedError"),
        ("GET", "/Canary", 404, "UnknownPathError"),
        ("POST", "/invocations/../Canary", 404, "UnknownPathError"),
        ("GET", "/models", 404, "UnknownPathError"),
        ("POST", "/models/Canary/invoke", 404, "UnknownPathError"),
        ("GET", "/docs", 404, "UnknownPathError"),
    ],
)
def test_paths_and_methods(endpoint: Endpoint, method: str, path: str, status: int, kind: str) -> None:
    _check(httpx.request(method, endpoint.url + path, trust_env=False), status, kind)


def _conflicting(archive: Archive, good: dict[str, str]) -> str:
    patient = make_patient("Canary-2", seed=22)
    study = archive.read(good["imageSetId"]).metadata.study_instance_uid
    for dataset in patient.datasets:
        dataset.StudyInstanceUID = study
    return archive.store(patient)


def _irregular(archive: Archive, good: dict[str, str]) -> str:
    patient = make_patient("Canary-3", seed=23)
    patient.datasets[3].ImagePositionPatient = [-30.0, -42.0, 1.0]
    return archive.store(patient)


def _other_modality(archive: Archive, good: dict[str, str]) -> str:
    return archive.store(_with_canaries(make_patient("Canary-4", seed=24, modality="PT")))


def _two_volumes(archive: Archive, good: dict[str, str]) -> str:
    patient = make_patient("Canary-5", seed=25)
    again = copy.deepcopy(list(patient.datasets))
    for dataset in again:
        dataset.SOPInstanceUID = f"{dataset.SOPInstanceUID}.1"[-64:]
        dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
        dataset.AcquisitionNumber = 2
    return archive.store(
        Patient(patient_id=patient.patient_id, datasets=[*patient.datasets, *again], array=patient.array)
    )


def _one_slice(archive: Archive, good: dict[str, str]) -> str:
    patient = make_patient("Canary-6", seed=26)
    return archive.store(
        Patient(patient_id=patient.patient_id, datasets=patient.datasets[:1], array=patient.array)
    )


def _no_position(archive: Archive, good: dict[str, str]) -> str:
    patient = _with_canaries(make_patient("Canary-7", seed=27))
    for dataset in patient.datasets:
        del dataset.ImagePositionPatient
        # Neither a decimal string nor a time: pydicom warns of both, with the text.
        dataset.add_new("PatientWeight", "DS", "1.5")
        dataset["PatientWeight"]._value = CANARY
        dataset.PatientBirthTime = f"{CANARY} o'clock"
    return archive.store(patient)


def _own_result(archive: Archive, good: dict[str, str]) -> str:
    series = archive.read(good["imageSetId"]).metadata.study_instance_uid
    found = archive.client.search_image_sets(
        datastoreId=archive.datastore_id,
        searchCriteria={"filters": [{"values": [{"DICOMStudyInstanceUID": series}], "operator": "EQUAL"}]},
    )["imageSetsMetadataSummaries"]
    (other,) = [
        one["imageSetId"] for one in found if one["imageSetId"] != good["imageSetId"] and one["isPrimary"]
    ]
    return str(other)


@pytest.mark.parametrize(
    ("image_set", "status", "kind"),
    [
        (lambda archive, good: _id("0"), 404, "ImageSetNotFoundError"),
        (_own_result, 422, "NoMatchingSeriesError"),
        (_other_modality, 422, "NoMatchingSeriesError"),
        (_conflicting, 409, "SourceNotPrimaryError"),
        (_irregular, 422, None),
        (_two_volumes, 422, None),
        (_one_slice, 422, None),
        (_no_position, 422, None),
    ],
)
def test_image_sets_that_no_model_can_be_given(
    endpoint: Endpoint,
    archive: Archive,
    good: dict[str, str],
    image_set: Callable[[Archive, dict[str, str]], str],
    status: int,
    kind: str | None,
) -> None:
    answer = endpoint.invoke(archive.request(image_set(archive, good)))
    error = answer.json()["error"]
    assert re.fullmatch(r"[A-Z][A-Za-z]+Error", error["type"])
    _check(answer, status, kind or error["type"])
    assert error["type"] != "InternalError"


@pytest.mark.parametrize("change", [{"versionId": "99"}, {"datastoreId": "0" * 32}])
def test_image_sets_that_are_not_there(endpoint: Endpoint, good: dict[str, str], change: Any) -> None:
    _check(endpoint.invoke(good | change), 404, "ImageSetNotFoundError")


@pytest.mark.parametrize(
    "sent",
    [
        b"Canary\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"POST /invocations HTTP/1.1\r\nHost: x\r\nContent-Length: Canary\r\n\r\n{}",
        b"POST /invocations HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nCanary\r\n",
    ],
)
def test_what_is_no_http(endpoint: Endpoint, sent: bytes) -> None:
    answer = _exchange(endpoint, sent)
    assert answer.startswith(b"HTTP/1.1 4") or answer == b""
    assert CANARY.encode() not in answer


def test_a_caller_that_leaves_in_the_middle_of_its_body(endpoint: Endpoint) -> None:
    head = b"POST /invocations HTTP/1.1\r\nHost: x\r\nContent-Length: 500\r\n\r\n"
    assert _exchange(endpoint, head + b'{"datastoreId": "Canary', leave=True) == b""


def _exchange(endpoint: Endpoint, sent: bytes, *, leave: bool = False) -> bytes:
    url = httpx.URL(endpoint.url)
    with socket.create_connection((url.host, url.port or 80), timeout=10) as connection:
        connection.sendall(sent)
        if leave:
            return b""
        connection.shutdown(socket.SHUT_WR)
        received = b""
        while part := connection.recv(65536):
            received += part
    return received


def test_after_all_that_the_log_is_json_without_patients(endpoint: Endpoint) -> None:
    lines = [json.loads(line) for line in endpoint.log.splitlines()]
    assert sum(line.get("type") == "InvalidRequestError" for line in lines) >= len(BODIES)
    assert any(line["message"].startswith("withheld") and "stdout" in line["message"] for line in lines)
    assert any(line["message"].startswith("UserWarning at") for line in lines)
    assert CANARY.lower() not in endpoint.log.lower()
    for word in ("19700101", "20240102"):
        assert word not in endpoint.log


def test_nothing_is_written_beside_the_model(endpoint: Endpoint) -> None:
    """The model's folder may be mounted read-only, and so may everything but /tmp."""
    base = endpoint.log_file.parent
    assert {str(path.relative_to(base)) for path in base.rglob("*") if path.is_file()} == {
        "endpoint.log",
        "model/configs/inference.json",
        "model/configs/metadata.json",
        "model/models/model.ts",
    }
    assert Path(base / "model").is_dir()
