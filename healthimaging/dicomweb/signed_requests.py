"""HTTP requests to HealthImaging that no AWS SDK has: signed with SigV4, tried again, bounded in time.

The signing, the connections, proxies and certificates are botocore's own, set up as those of the client that
is passed in.
"""

from __future__ import annotations

import random
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from io import BytesIO
from typing import Any

from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.exceptions import BotoCoreError, ClientError, SSLError
from botocore.httpsession import URLLib3Session
from botocore.utils import get_environ_proxies
from urllib3.exceptions import HTTPError as TransportError
from urllib3.exceptions import IncompleteRead

from healthimaging.errors import DicomWebAnswerError, DicomWebError
from healthimaging.frames.retries import ATTEMPTS
from healthimaging.refusals import THROTTLING_CODES, TRANSIENT_STATUS, error_code, retry_after

LONGEST_PAUSE = 20.0
"""Seconds between two attempts, unless the service names more in Retry-After."""

CONNECT_TIMEOUT = 10.0
"""Seconds for a connection; also for the service to take the next piece of a request's body."""

_CHUNK = 256 * 1024


@dataclass(frozen=True, kw_only=True)
class Answer:
    """An HTTP answer, read to its end."""

    status: int
    headers: Mapping[str, str]
    """Names are compared without regard to case."""
    body: bytes = field(repr=False)

    @property
    def content_type(self) -> str:
        """Content-Type as it stands in the header; empty when absent."""
        return self.headers.get("Content-Type") or ""

    @property
    def error_code(self) -> str | None:
        """The service's error code, such as `AccessDeniedException`; None when the answer has none."""
        return error_code(self.headers, self.body)


class SignedRequests:
    """Sends requests to one host with a client's credentials.

    Args:
        client: boto3 `medical-imaging` client.
        base_url: What every URL begins with.
        read_timeout: Longest silence of the service, in seconds, before an attempt is given up.
        total_timeout: Seconds after which a request is given up, its attempts and pauses included; a last
            silence may come on top.
    """

    def __init__(self, client: Any, base_url: str, *, read_timeout: float, total_timeout: float) -> None:
        # The client's credentials object refreshes itself; botocore has no public name for it.
        self._credentials = client._request_signer._credentials
        self._region = client.meta.region_name
        self._base_url = base_url
        self._total_timeout = total_timeout
        config = client.meta.config
        # A pair of connect and read timeouts works as in requests; the published types know one number only.
        timeouts: Any = (CONNECT_TIMEOUT, read_timeout)
        self._http = URLLib3Session(
            verify=getattr(client._endpoint.http_session, "_verify", True),
            proxies=config.proxies if config.proxies is not None else get_environ_proxies(base_url),
            proxies_config=config.proxies_config,
            client_cert=config.client_cert,
            timeout=timeouts,
            max_pool_connections=config.max_pool_connections,
        )

    def close(self) -> None:
        """Closes the connections."""
        self._http.close()

    def send(
        self,
        operation: str,
        method: str,
        path: str,
        *,
        headers: Mapping[str, str],
        body: bytes = b"",
        accepted: tuple[int, ...] = (200, 204),
    ) -> Answer:
        """Sends a request until it is answered; throttling and transient faults are waited out.

        Args:
            operation: The service's name of the operation, for errors.
            method: HTTP method; whatever it does may be done more than once.
            path: Path and query below the base URL, encoded.
            headers: Headers to sign and send.
            body: The body.
            accepted: Statuses that are answers; every other one is an error.

        Raises:
            DicomWebError: The service refused the request, or did not answer it in time.
            DicomWebAnswerError: The answer does not say how long it is.
        """
        deadline = time.monotonic() + self._total_timeout
        for attempt in range(1, ATTEMPTS + 1):
            wanted_pause = 0.0
            try:
                answer = self._send_once(operation, method, path, headers, body, deadline)
            except (BotoCoreError, TransportError, OSError) as error:
                code = type(error).__name__
                failure = DicomWebError(f"{operation} got no answer: {code}", code=code)
                transient = not isinstance(error, SSLError)
            else:
                if answer.status in accepted:
                    return answer
                failure = refusal(operation, answer)
                transient = answer.status in TRANSIENT_STATUS or answer.error_code in THROTTLING_CODES
                wanted_pause = retry_after(answer.headers) or 0.0
            # Full jitter: clients that were refused together must not come back together.
            longest = min(LONGEST_PAUSE, 0.1 * 2**attempt)
            pause = wanted_pause + random.uniform(0, longest)  # noqa: S311 - jitter, not a secret
            if not transient or attempt == ATTEMPTS or time.monotonic() + pause >= deadline:
                # Without what caused it, whose text has the URL, and with it what was searched for.
                raise failure
            time.sleep(pause)
        raise AssertionError("the last attempt returns or raises")

    def _send_once(
        self,
        operation: str,
        method: str,
        path: str,
        headers: Mapping[str, str],
        body: bytes,
        deadline: float,
    ) -> Answer:
        request = AWSRequest(
            method=method,
            url=self._base_url + path,
            headers=dict(headers),
            # As a file it is sent piece by piece, each with a timeout of its own; the timeout of bytes is one
            # for all, which a large body on a slow line exceeds.
            data=BytesIO(body) if body else b"",
            stream_output=True,
        )
        # Signed anew each time: a signature is valid for minutes only, and credentials may have been
        # refreshed.
        try:
            credentials = self._credentials and self._credentials.get_frozen_credentials()
            SigV4Auth(credentials, "medical-imaging", self._region).add_auth(request)
        except (BotoCoreError, ClientError, RuntimeError) as error:
            code = type(error).__name__
            msg = f"{operation} cannot be signed: {code}"
            raise DicomWebError(msg, code=code) from None
        response = self._http.send(request.prepare())
        raw = response.raw
        try:
            pieces: list[bytes] = []
            while piece := raw.read1(_CHUNK):
                pieces.append(piece)
                # A server that sends a byte now and then is never silent, and never done.
                if time.monotonic() > deadline:
                    msg = f"{operation} took longer than {self._total_timeout:g} seconds"
                    raise DicomWebError(msg, status=response.status_code, code="TotalTimeout")
            if raw.length_remaining:  # newer releases of botocore tell urllib3 not to look
                raise IncompleteRead(sum(map(len, pieces)), raw.length_remaining)
        except BaseException:
            raw.close()
            raise
        finally:
            raw.release_conn()
        answer = Answer(status=response.status_code, headers=response.headers, body=b"".join(pieces))
        if pieces and "Content-Length" not in answer.headers and "Transfer-Encoding" not in answer.headers:
            # It ends when the connection does, so a connection that breaks looks like the end.
            msg = f"The answer to {operation} does not say how long it is"
            raise DicomWebAnswerError(msg, status=answer.status)
        return answer


def refusal(operation: str, answer: Answer) -> DicomWebError:
    """The error that a refusing answer is, with its status and code and without its message."""
    code = answer.error_code
    msg = f"{operation} failed: HTTP {answer.status}" + (f" {code}" if code else "")
    return DicomWebError(msg, status=answer.status, code=code)
