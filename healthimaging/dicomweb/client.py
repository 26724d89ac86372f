"""DICOMweb on a HealthImaging datastore (DICOM PS3.18): STOW-RS, QIDO-RS and WADO-RS.

What the service offers is in its developer guide, "Using DICOMweb with AWS HealthImaging"; it has no
retrieval of whole studies and series, which are therefore retrieved instance by instance.
"""

from __future__ import annotations

from types import TracebackType
from typing import Any

import boto3

from healthimaging.client import connect, is_service_host
from healthimaging.dicomweb.signed_requests import SignedRequests
from healthimaging.dicomweb.stow import StoreOutcome, Stow
from healthimaging.dicomweb.wado import RetrievedFrame, Wado

__all__ = ["DicomWeb", "RetrievedFrame", "StoreOutcome", "dicomweb_endpoint"]


class DicomWeb(Stow, Wado):
    """STOW-RS, QIDO-RS and WADO-RS of one datastore. May be shared by threads.

    Throttling and transient faults are waited out, with jitter and as long as the service asks for; what
    remains is a `DicomWebError` with the HTTP status and the service's error code. The connections close with
    `close`, or at the end of a `with`.

    Args:
        client_or_session: A `medical-imaging` client, or a boto3 session to make one from.
        datastore_id: The datastore.
        read_timeout: Longest silence of the service in seconds; storing large series takes its time.
        total_timeout: Seconds after which one request is given up, with all its attempts and pauses.
    """

    def __init__(
        self,
        client_or_session: Any,
        datastore_id: str,
        *,
        read_timeout: float = 120,
        total_timeout: float = 600,
    ) -> None:
        client = (
            connect(client_or_session) if isinstance(client_or_session, boto3.Session) else client_or_session
        )
        self._datastore_id = datastore_id
        self._requests = SignedRequests(
            client,
            f"{dicomweb_endpoint(client.meta.endpoint_url)}/datastore/{datastore_id}",
            read_timeout=read_timeout,
            total_timeout=total_timeout,
        )

    def close(self) -> None:
        """Closes the connections."""
        self._requests.close()

    def __enter__(self) -> DicomWeb:
        return self

    def __exit__(
        self, _type: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self.close()


def dicomweb_endpoint(endpoint_url: str) -> str:
    """The DICOMweb base: a host of its own beside the regional one, the same URL for custom endpoints."""
    if is_service_host(endpoint_url):
        return endpoint_url.replace("//medical-imaging", "//dicom-medical-imaging", 1)
    return endpoint_url.rstrip("/")
