"""DICOMweb on a HealthImaging datastore (DICOM PS3.18), signed with SigV4.

No AWS SDK has these operations. The signing, the HTTP connections and the certificates are botocore's own,
taken from the client or session that is passed in.
"""

from __future__ import annotations

import json
import random
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import Any
from urllib.parse import quote, urlencode

import boto3
import pydicom
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.exceptions import BotoCoreError
from botocore.httpsession import URLLib3Session
from pydicom import Dataset

from healthimaging.client import connect, is_service_host
from healthimaging.errors import DicomWebError

REQUEST_BYTES = 64 * 1024 * 1024
"""Size of a request that stores: the service takes 1 GB, but a request may have to be sent again."""

ATTEMPTS = 5
PAGE = 1000
"""Largest page that the service gives for a search."""

_RETRIED = frozenset({429, 500, 502, 503, 504})
_JSON = "application/dicom+json"


@dataclass(frozen=True, kw_only=True)
class StoreOutcome:
    """What became of one instance (DICOM PS3.18 section 10.5.3)."""

    sop_class_uid: str
    sop_instance_uid: str
    stored: bool
    failure_reason: int | None = None
    """Failure Reason (0008,1197) when it was not stored."""
    warning_reason: int | None = None
    """Warning Reason (0008,1196) when it was stored with changes."""
    retrieve_url: str | None = None


class DicomWeb:
    """STOW-RS, QIDO-RS and WADO-RS of one datastore.

    Args:
        client_or_session: A `medical-imaging` client, or a boto3 session to make one from.
        datastore_id: The datastore.
        read_timeout: Seconds to wait for an answer; storing large series takes its time.
    """

    def __init__(self, client_or_session: Any, datastore_id: str, *, read_timeout: float = 120) -> None:
        client = (
            connect(client_or_session) if isinstance(client_or_session, boto3.Session) else client_or_session
        )
        # The client's credentials object refreshes itself; botocore has no public name for it.
        self._credentials = client._request_signer._credentials
        self._region = client.meta.region_name
        self._base = f"{dicomweb_endpoint(client.meta.endpoint_url)}/datastore/{datastore_id}"
        # A pair of connect and read timeouts works as in requests; the published types know one number only.
        timeouts: Any = (5, read_timeout)
        self._http = URLLib3Session(timeout=timeouts, max_pool_connections=8)

    def store(self, datasets: Iterable[Dataset]) -> list[StoreOutcome]:
        """Stores instances (STOW-RS), in as many requests as their size needs.

        Args:
            datasets: Instances with file meta information.

        Returns:
            One outcome an instance, in order. An instance that was refused is an outcome, not an error:
            look at `stored`.

        Raises:
            DicomWebError: A request failed as a whole, or the answer says nothing of an instance.
        """
        outcomes: list[StoreOutcome] = []
        for batch in _batches(datasets):
            outcomes.extend(self._store(batch))
        return outcomes

    def search(
        self,
        level: str = "studies",
        *,
        study: str | None = None,
        series: str | None = None,
        filters: Mapping[str, str] | None = None,
        fields: Sequence[str] = (),
        limit: int | None = None,
    ) -> Iterator[Dataset]:
        """Searches (QIDO-RS), page after page to the end.

        Args:
            level: `studies`, `series` or `instances`.
            study: Study Instance UID to search within.
            series: Series Instance UID to search within; needs `study`.
            filters: Attribute keyword or tag -> value to match.
            fields: Further attributes to return; ("all",) for every one.
            limit: Stop after so many.
        """
        path = self._path(study=study, series=series) + f"/{level}"
        offset = 0
        while limit is None or offset < limit:
            page = PAGE if limit is None else min(PAGE, limit - offset)
            query = [*(filters or {}).items(), *(("includefield", field) for field in fields)]
            query += [("limit", str(page)), ("offset", str(offset))]
            status, body, _ = self._request("GET", path, query=query, headers={"Accept": _JSON})
            found = json.loads(body) if status == 200 and body else []
            yield from (Dataset.from_json(item) for item in found)
            offset += len(found)
            if len(found) < page:
                return

    def retrieve(self, *, study: str, series: str, instance: str, image_set_id: str | None = None) -> Dataset:
        """Retrieves one instance (WADO-RS) in the transfer syntax in which it is stored.

        Args:
            study: Study Instance UID.
            series: Series Instance UID.
            instance: SOP Instance UID.
            image_set_id: Names the image set where it is not the primary one.
        """
        body, content_type = self._get(
            self._path(study=study, series=series) + f"/instances/{quote(instance)}",
            accept="application/dicom; transfer-syntax=*",
            image_set_id=image_set_id,
        )
        parts = _multipart(body, content_type) if content_type.startswith("multipart/") else [body]
        if len(parts) != 1:
            msg = f"The answer has {len(parts)} parts for one instance"
            raise DicomWebError(msg, status=200, sop_instance_uid=instance)
        try:
            dataset = pydicom.dcmread(BytesIO(parts[0]))
        except (pydicom.errors.InvalidDicomError, EOFError) as error:
            msg = f"The answer is not a DICOM file: {type(error).__name__}"
            raise DicomWebError(msg, status=200, sop_instance_uid=instance) from error
        if dataset.get("SOPInstanceUID") != instance:
            msg = f"The answer is another instance, {dataset.get('SOPInstanceUID')}"
            raise DicomWebError(msg, status=200, sop_instance_uid=instance)
        return dataset

    def retrieve_metadata(
        self, *, study: str, series: str, instance: str | None = None, image_set_id: str | None = None
    ) -> list[Dataset]:
        """Retrieves the headers of a series, or of one of its instances (WADO-RS metadata)."""
        path = self._path(study=study, series=series)
        if instance is not None:
            path += f"/instances/{quote(instance)}"
        body, _ = self._get(f"{path}/metadata", accept=_JSON, image_set_id=image_set_id)
        return [Dataset.from_json(item, bulk_data_uri_handler=lambda _uri: b"") for item in json.loads(body)]

    def _get(self, path: str, *, accept: str, image_set_id: str | None) -> tuple[bytes, str]:
        query = [("imageSetId", image_set_id)] if image_set_id else []
        _, body, content_type = self._request("GET", path, query=query, headers={"Accept": accept})
        return body, content_type

    @staticmethod
    def _path(*, study: str | None, series: str | None = None) -> str:
        path = f"/studies/{quote(study)}" if study else ""
        return path + (f"/series/{quote(series)}" if series else "")

    def _store(self, batch: list[tuple[Dataset, bytes]]) -> list[StoreOutcome]:
        boundary = uuid.uuid4().hex
        body = b"".join(
            b"--%b\r\nContent-Type: application/dicom\r\n\r\n%b\r\n" % (boundary.encode(), data)
            for _, data in batch
        ) + (b"--%b--\r\n" % boundary.encode())
        headers = {
            "Content-Type": f'multipart/related; type="application/dicom"; boundary={boundary}',
            "Accept": _JSON,
        }
        # 202 and 409 carry an outcome for each instance (PS3.18 section 10.5.3.1).
        _, answer, _ = self._request("POST", "/studies", headers=headers, body=body, accepted=(200, 202, 409))
        outcomes = _outcomes(answer)
        missing = [d.SOPInstanceUID for d, _ in batch if d.SOPInstanceUID not in outcomes]
        if missing:
            msg = f"The answer says nothing of {len(missing)} instances"
            raise DicomWebError(msg, sop_instance_uid=str(missing[0]))
        return [outcomes[dataset.SOPInstanceUID] for dataset, _ in batch]

    def _request(
        self,
        method: str,
        path: str,
        *,
        headers: Mapping[str, str],
        query: Sequence[tuple[str, str]] = (),
        body: bytes = b"",
        accepted: tuple[int, ...] = (200, 204),
    ) -> tuple[int, bytes, str]:
        """Status, body and content type of the answer; tried again on throttling and transient faults."""
        # Query values are encoded as SigV4 wants them: %20, never a plus sign.
        url = f"{self._base}{path}" + (f"?{urlencode(query, quote_via=quote)}" if query else "")
        for attempt in range(1, ATTEMPTS + 1):
            request = AWSRequest(method=method, url=url, headers=dict(headers), data=body)
            # Signed anew each time: a signature is valid for minutes only, and credentials may have been
            # refreshed.
            SigV4Auth(self._credentials, "medical-imaging", self._region).add_auth(request)
            try:
                response = self._http.send(request.prepare())
            except BotoCoreError as error:
                if attempt == ATTEMPTS:
                    msg = f"No answer to {method} {path.rsplit('/', 1)[-1]}: {type(error).__name__}"
                    raise DicomWebError(msg) from error
            else:
                if response.status_code in accepted:
                    return response.status_code, response.content, response.headers.get("Content-Type", "")
                if response.status_code not in _RETRIED or attempt == ATTEMPTS:
                    msg = f"HTTP {response.status_code} for {method} {path.rsplit('/', 1)[-1]}"
                    raise DicomWebError(msg, status=response.status_code)
            time.sleep(random.uniform(0, 0.2 * 2**attempt))  # noqa: S311 - jitter, not a secret
        raise AssertionError("the last attempt returns or raises")


def dicomweb_endpoint(endpoint_url: str) -> str:
    """The DICOMweb base: a host of its own beside the regional one, the same URL for custom endpoints."""
    if is_service_host(endpoint_url):
        return endpoint_url.replace("//medical-imaging", "//dicom-medical-imaging", 1)
    return endpoint_url.rstrip("/")


def _batches(datasets: Iterable[Dataset]) -> Iterator[list[tuple[Dataset, bytes]]]:
    batch: list[tuple[Dataset, bytes]] = []
    size = 0
    for dataset in datasets:
        buffer = BytesIO()
        dataset.save_as(buffer, enforce_file_format=True)
        data = buffer.getvalue()
        if batch and size + len(data) > REQUEST_BYTES:
            yield batch
            batch, size = [], 0
        batch.append((dataset, data))
        size += len(data)
    if batch:
        yield batch


def _outcomes(answer: bytes) -> dict[str, StoreOutcome]:
    """Outcomes by SOP Instance UID from the Store Instances Response Module (PS3.18 annex I)."""
    try:
        document = json.loads(answer)
        response = Dataset.from_json(document[0] if isinstance(document, list) else document)
    except (ValueError, TypeError, KeyError, IndexError, AttributeError) as error:
        msg = f"The answer to storing is not DICOM JSON: {type(error).__name__}"
        raise DicomWebError(msg) from error
    outcomes: dict[str, StoreOutcome] = {}
    for stored, keyword in ((True, "ReferencedSOPSequence"), (False, "FailedSOPSequence")):
        for item in response.get(keyword) or []:
            uid = str(item.ReferencedSOPInstanceUID)
            failure, warning = item.get("FailureReason"), item.get("WarningReason")
            outcomes[uid] = StoreOutcome(
                sop_class_uid=str(item.get("ReferencedSOPClassUID") or ""),
                sop_instance_uid=uid,
                stored=stored,
                failure_reason=None if failure is None else int(failure),
                warning_reason=None if warning is None else int(warning),
                retrieve_url=item.get("RetrieveURL"),
            )
    return outcomes


def _multipart(body: bytes, content_type: str) -> list[bytes]:
    """The parts' contents of a multipart/related answer (RFC 2046 section 5.1)."""
    pieces = (piece.partition("=") for piece in content_type.split(";")[1:])
    parameters = {name.strip().lower(): value.strip().strip('"') for name, _, value in pieces}
    boundary = parameters.get("boundary")
    if not boundary:
        msg = "A multipart answer names no boundary"
        raise DicomWebError(msg)
    # A delimiter begins a line; what follows the last part is the epilogue.
    parts = []
    for part in (b"\r\n" + body).split(b"\r\n--" + boundary.encode())[1:]:
        if part.startswith(b"--"):
            break
        parts.append(part.partition(b"\r\n\r\n")[2])
    return parts
