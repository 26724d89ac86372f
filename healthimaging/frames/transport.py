"""GetImageFrame, the call that an image set needs hundreds of.

boto3 takes a millisecond of the interpreter for each, more than half of what decoding takes, and only one
thread at a time can have it. So a client that `healthimaging.connect` made sends this one call itself:
connections of the standard library, botocore's signer, and nothing between. Any other client (one of boto3's
own, a stub in a test) is asked through its `get_image_frame`.
"""

from __future__ import annotations

import http.client
import json
import logging
import os
import ssl
import threading
from collections.abc import Mapping
from functools import lru_cache, partial
from typing import Any, Protocol
from urllib.parse import quote, urlsplit
from weakref import WeakKeyDictionary, WeakSet, finalize, ref

from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    HTTPClientError,
    IncompleteReadError,
    NoCredentialsError,
)
from botocore.httpsession import get_cert_path
from urllib3.exceptions import HTTPError

from healthimaging.frames.connections import CONNECTIONS, Answer, Cancellation, Connections, Endpoint
from healthimaging.frames.retries import ATTEMPTS, Pace, RequestFailedError
from healthimaging.refusals import (
    THROTTLING_CODES,
    TRANSIENT_STATUS,
    error_code,
    exception_code,
    retry_after,
)

_LOGGER = logging.getLogger("healthimaging")
_HEADERS = {"Content-Type": "application/json"}


class FrameSource(Protocol):
    """What sends GetImageFrame."""

    pace: Pace
    attempts: int
    """The most attempts at one frame."""

    def get(self, *, datastore_id: str, image_set_id: str, frame_id: str, until: Cancellation) -> bytes:
        """The stored bytes of a frame: one attempt.

        Raises:
            RequestFailedError: They did not come.
        """


_DIRECT: WeakKeyDictionary[Any, DirectFrames] = WeakKeyDictionary()
_MADE: WeakSet[DirectFrames] = WeakSet()
"""Those that are in use, too: a read may outlive its client."""
_LOCK = threading.Lock()


def frame_source(client: Any) -> FrameSource:
    """The source of frames of a client; one for all reads of a client that `connect` made."""
    with _LOCK:
        try:
            direct = _DIRECT.get(client)
        except TypeError:  # a client that cannot be referred to weakly
            direct = None
    return direct or ClientFrames(client)


def send_directly(client: Any) -> None:
    """Lets frames of this client be fetched by `DirectFrames`, where its settings allow."""
    try:
        endpoint = _direct_endpoint(client)
        if endpoint is None:
            return
        connections = Connections(endpoint)
        direct = DirectFrames(client, connections)
    except AttributeError:  # botocore has no public names for what is needed: a release may lack them
        _LOGGER.warning("This release of botocore is not known: frames go through boto3, which is slower")
        return
    with _LOCK:
        _DIRECT[client] = direct
        _MADE.add(direct)
    # Who closes the client, or forgets it, closes these connections, too.
    client.close = partial(_close, ref(client), connections)
    finalize(client, connections.close)


def _close(client: ref[Any], connections: Connections) -> None:
    found = client()
    if found is not None:
        type(found).close(found)
    connections.close()


def _after_fork() -> None:
    global _LOCK
    _LOCK = threading.Lock()
    for source in _MADE:
        source.after_fork()


os.register_at_fork(after_in_child=_after_fork)


class ClientFrames:
    """Frames through the `get_image_frame` of any boto3 client, with its own retries."""

    attempts = 4
    """boto3 retries before the body only; these are for connections that break in it."""

    def __init__(self, client: Any) -> None:
        self._client = client
        self.pace = Pace(CONNECTIONS)

    def get(self, *, datastore_id: str, image_set_id: str, frame_id: str, until: Cancellation) -> bytes:
        """As `FrameSource.get`; a request that is under way ends by itself only."""
        try:
            answer = self._client.get_image_frame(
                datastoreId=datastore_id,
                imageSetId=image_set_id,
                imageFrameInformation={"imageFrameId": frame_id},
            )
            body: bytes = answer["imageFrameBlob"].read()
        except (IncompleteReadError, HTTPClientError, HTTPError, OSError) as error:
            raise RequestFailedError(exception_code(error), transient=True) from error
        except (ClientError, BotoCoreError, RuntimeError) as error:
            raise RequestFailedError(exception_code(error), transient=False) from error
        return body


class DirectFrames:
    """Frames over connections of their own, signed with the client's credentials.

    Args:
        client: boto3 `medical-imaging` client: credentials, region and retries are its.
        connections: To the host of its data calls.
    """

    def __init__(self, client: Any, connections: Connections) -> None:
        signer = client._request_signer  # botocore has no public name for what signs
        self._credentials = signer._credentials
        self._service, self._region = signer.signing_name, signer.region_name
        self._connections = connections
        self._path = urlsplit(client.meta.endpoint_url).path.rstrip("/")
        self.pace = Pace(CONNECTIONS)
        retries: Mapping[str, Any] = client.meta.config.retries or {}
        self.attempts = int(retries.get("total_max_attempts") or ATTEMPTS)

    def get(self, *, datastore_id: str, image_set_id: str, frame_id: str, until: Cancellation) -> bytes:
        """As `FrameSource.get`; a request that is under way breaks when the read is cancelled."""
        path = self._path + _path(datastore_id, image_set_id)
        body = json.dumps({"imageFrameId": frame_id}).encode()
        headers = self._signed(path, body)
        try:
            answer = self._connections.post(path, body=body, headers=headers, until=until)
        except (OSError, http.client.HTTPException) as error:
            raise RequestFailedError(type(error).__name__, transient=not _misconfigured(error)) from error
        if answer.status != 200:
            raise _refused(answer)
        return answer.body

    def after_fork(self) -> None:
        """To be called in a forked process: reads of the parent, and the places they hold, are not here."""
        self.pace = Pace(CONNECTIONS)
        self._connections.after_fork()

    def _signed(self, path: str, body: bytes) -> dict[str, str]:
        if self._credentials is None:
            raise RequestFailedError(NoCredentialsError.__name__, transient=False)
        # Frozen, so that key, secret and token are of one moment while another thread refreshes them.
        try:
            credentials = self._credentials.get_frozen_credentials()
        # Of the service that gives credentials; botocore has no type of its own for those that are expired.
        except (ClientError, BotoCoreError, RuntimeError) as error:
            raise RequestFailedError(exception_code(error), transient=False) from error
        request: Any = AWSRequest("POST", self._connections.endpoint.url + path, data=body, headers=_HEADERS)
        SigV4Auth(credentials, self._service, self._region).add_auth(request)
        return dict(request.headers.raw_items())


@lru_cache(maxsize=16)
def _path(datastore_id: str, image_set_id: str) -> str:
    datastore_id, image_set_id = quote(datastore_id, safe=""), quote(image_set_id, safe="")
    return f"/datastore/{datastore_id}/imageSet/{image_set_id}/getImageFrame"


def _misconfigured(error: Exception) -> bool:
    """Whether another attempt would fail in the same way."""
    return isinstance(error, ssl.SSLCertVerificationError)


def _refused(answer: Answer) -> RequestFailedError:
    """An answer that is not a frame."""
    code = error_code(answer.headers, answer.body) or f"HTTP {answer.status}"
    throttled = answer.status in (429, 503) or code in THROTTLING_CODES
    return RequestFailedError(
        code,
        transient=throttled or answer.status in TRANSIENT_STATUS,
        throttled=throttled,
        retry_after=retry_after(answer.headers),
    )


def _direct_endpoint(client: Any) -> Endpoint | None:
    """The host of a client's data calls; None where its settings need what boto3 does.

    A proxy, client certificates and signatures other than SigV4 are left to boto3.
    """
    session, config = client._endpoint.http_session, client.meta.config
    url = urlsplit(client.meta.endpoint_url)
    # The host prefix of the data calls in the service model; see `healthimaging.client.connect`.
    host = f"runtime-{url.hostname}" if config.inject_host_prefix else str(url.hostname)
    proxy = session._proxy_config.proxy_url_for(f"{url.scheme}://{host}")
    if proxy or session._cert_file or config.signature_version != "v4" or url.scheme not in ("http", "https"):
        return None
    return Endpoint(
        host=host,
        port=url.port,
        tls=_tls(session._verify) if url.scheme == "https" else None,
        connect_timeout=config.connect_timeout,
        read_timeout=config.read_timeout,
    )


def _tls(verify: bool | str) -> ssl.SSLContext:
    """As botocore's: the authorities of `verify`, which is a file, or True for botocore's own, or False."""
    authorities = verify if isinstance(verify, str) else get_cert_path(True) if verify else None
    context = ssl.create_default_context(cafile=authorities)
    if not verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context
