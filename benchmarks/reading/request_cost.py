"""What one GetImageFrame costs the client in processor time, by the way in which it is sent.

The floor is a request that was signed before and goes through the standard library's HTTP client: what is
more than that is what a client adds. Each way sends the same requests one after the other on one connection,
in one thread, so waiting for the server does not count. `benchmarks/NOTES.md` says what came of each way.
"""

from __future__ import annotations

import http.client
import io
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from statistics import median
from typing import Any
from urllib.parse import urlsplit

import urllib3
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from benchmarks.local_cloud import ACCESS_KEY, REGION, SECRET_KEY
from benchmarks.reading.reader import Stored
from healthimaging.frames.connections import Cancellation
from healthimaging.frames.transport import frame_source

GetFrame = Callable[[str], bytes]
_HEADERS = {"Content-Type": "application/json"}


@dataclass(frozen=True, kw_only=True)
class RequestCost:
    """One way of asking."""

    way: str
    cpu_milliseconds: float
    """Client's processor time a request, median of the rounds."""
    milliseconds: float
    """Wall time a request, the server's part included."""


def request_costs(
    client: Any, stored: Stored, *, endpoint_url: str, frame_ids: Sequence[str], rounds: int
) -> list[RequestCost]:
    """Every way, measured in turns so that a busy moment of the machine does not fall on one of them."""
    ways: dict[str, GetFrame] = {
        "boto3": _boto3(client, stored),
        "botocore's HTTP session and signer": _trimmed(client, stored, endpoint_url),
        "urllib3, botocore's signer": _urllib3(stored, endpoint_url),
        "awscrt, its own signer": _awscrt(stored, endpoint_url),
        "healthimaging: http.client, botocore's signer": _library(client, stored),
        "floor: http.client, signed before": _floor(stored, endpoint_url, frame_ids),
    }
    expected = {frame_id: ways["boto3"](frame_id) for frame_id in frame_ids}
    cpu: dict[str, list[float]] = {way: [] for way in ways}
    wall: dict[str, list[float]] = {way: [] for way in ways}
    for _ in range(rounds):
        for way, get_frame in ways.items():
            begin, begin_cpu = time.perf_counter(), time.process_time()
            answers = [get_frame(frame_id) for frame_id in frame_ids]
            cpu[way].append((time.process_time() - begin_cpu) / len(frame_ids))
            wall[way].append((time.perf_counter() - begin) / len(frame_ids))
            if answers != list(expected.values()):
                raise RuntimeError(f"{way}: not the same frames as boto3's")
    return [
        RequestCost(way=way, cpu_milliseconds=1000 * median(cpu[way]), milliseconds=1000 * median(wall[way]))
        for way in ways
    ]


def _boto3(client: Any, stored: Stored) -> GetFrame:
    def get_frame(frame_id: str) -> bytes:
        answer = client.get_image_frame(
            datastoreId=stored.datastore_id,
            imageSetId=stored.image_set_id,
            imageFrameInformation={"imageFrameId": frame_id},
        )
        body: bytes = answer["imageFrameBlob"].read()
        return body

    return get_frame


def _trimmed(client: Any, stored: Stored, endpoint_url: str) -> GetFrame:
    """What boto3 does without its checks, events and parsing."""
    session = client._endpoint.http_session
    url = endpoint_url + _path(stored)

    def get_frame(frame_id: str) -> bytes:
        request: Any = AWSRequest("POST", url, data=_body(frame_id), headers=_HEADERS)
        SigV4Auth(Credentials(ACCESS_KEY, SECRET_KEY), "medical-imaging", REGION).add_auth(request)
        answer = session.send(request.prepare())
        if answer.status_code != 200:
            raise RuntimeError(f"GetImageFrame answered {answer.status_code}")
        content: bytes = answer.content
        return content

    return get_frame


def _awscrt(stored: Stored, endpoint_url: str) -> GetFrame:
    """The HTTP client and the signer of the AWS Common Runtime, which are written in C."""
    # By name: it is installed for the benchmark only (`awscrt_package`), where botocore does not see it.
    io_, http_, auth = (import_module(f"awscrt.{name}") for name in ("io", "http", "auth"))
    address = urlsplit(endpoint_url)
    group = io_.EventLoopGroup(1)
    bootstrap = io_.ClientBootstrap(group, io_.DefaultHostResolver(group))
    connection = http_.HttpClientConnection.new(
        host_name=address.hostname, port=address.port, bootstrap=bootstrap
    ).result()
    credentials = auth.AwsCredentialsProvider.new_static(ACCESS_KEY, SECRET_KEY)

    def get_frame(frame_id: str) -> bytes:
        body = _body(frame_id)
        headers = {"host": address.netloc, "content-length": str(len(body)), **_HEADERS}
        request = http_.HttpRequest(
            "POST", _path(stored), http_.HttpHeaders(list(headers.items())), io.BytesIO(body)
        )
        signing = auth.AwsSigningConfig(
            algorithm=auth.AwsSigningAlgorithm.V4,
            signature_type=auth.AwsSignatureType.HTTP_REQUEST_HEADERS,
            credentials_provider=credentials,
            region=REGION,
            service="medical-imaging",
        )
        auth.aws_sign_request(request, signing).result()
        pieces: list[bytes] = []
        stream = connection.request(request, on_body=lambda chunk, **_: pieces.append(chunk))
        stream.activate()
        status = stream.completion_future.result()
        if status != 200:
            raise RuntimeError(f"GetImageFrame answered {status}")
        return b"".join(pieces)

    return get_frame


def _library(client: Any, stored: Stored) -> GetFrame:
    source, until = frame_source(client), Cancellation()
    where = {"datastore_id": stored.datastore_id, "image_set_id": stored.image_set_id}
    return lambda frame_id: source.get(**where, frame_id=frame_id, until=until)


def _urllib3(stored: Stored, endpoint_url: str) -> GetFrame:
    pool = urllib3.connection_from_url(endpoint_url, maxsize=1)
    path = _path(stored)

    def get_frame(frame_id: str) -> bytes:
        body = _body(frame_id)
        answer = pool.urlopen("POST", path, body=body, headers=_signed(endpoint_url + path, body))
        if answer.status != 200:
            raise RuntimeError(f"GetImageFrame answered {answer.status}")
        return answer.data

    return get_frame


def _floor(stored: Stored, endpoint_url: str, frame_ids: Sequence[str]) -> GetFrame:
    address = urlsplit(endpoint_url)
    connection = http.client.HTTPConnection(address.hostname or "", address.port)
    requests = signed_requests(stored, endpoint_url, frame_ids)
    return lambda frame_id: requests[frame_id].send(connection)


@dataclass(frozen=True, kw_only=True)
class SignedRequest:
    """A GetImageFrame that is ready to be sent."""

    path: str
    body: bytes
    headers: dict[str, str]

    def send(self, connection: http.client.HTTPConnection) -> bytes:
        """The stored bytes of the frame."""
        connection.request("POST", self.path, body=self.body, headers=self.headers)
        answer = connection.getresponse()
        if answer.status != 200:
            raise RuntimeError(f"GetImageFrame answered {answer.status}")
        return answer.read()


def signed_requests(stored: Stored, endpoint_url: str, frame_ids: Sequence[str]) -> dict[str, SignedRequest]:
    """The requests for frames, signed now, by frame."""
    path = _path(stored)
    requests = {}
    for frame_id in frame_ids:
        body = _body(frame_id)
        headers = _signed(endpoint_url + path, body)
        requests[frame_id] = SignedRequest(path=path, body=body, headers=headers)
    return requests


def _path(stored: Stored) -> str:
    return f"/datastore/{stored.datastore_id}/imageSet/{stored.image_set_id}/getImageFrame"


def _body(frame_id: str) -> bytes:
    return json.dumps({"imageFrameId": frame_id}).encode()


def _signed(url: str, body: bytes) -> dict[str, str]:
    request: Any = AWSRequest("POST", url, data=body, headers=_HEADERS)
    SigV4Auth(Credentials(ACCESS_KEY, SECRET_KEY), "medical-imaging", REGION).add_auth(request)
    signed: Mapping[str, str] = request.headers
    return dict(signed.items())
