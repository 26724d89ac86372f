"""WADO-RS (DICOM PS3.18 section 10.4)."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from io import BytesIO
from typing import Any
from urllib.parse import quote, urlsplit

import pydicom
from pydicom import Dataset
from pydicom.dataelem import RawDataElement
from pydicom.uid import ExplicitVRLittleEndian

from healthimaging.dicomweb.multipart import Part, media_type, parse_multipart
from healthimaging.dicomweb.qido import (
    DICOM_JSON,
    Qido,
    chosen_image_set,
    json_dataset,
    json_objects,
    query_string,
    resource_path,
)
from healthimaging.dicomweb.signed_requests import Answer
from healthimaging.errors import DicomWebAnswerError, DicomWebError
from healthimaging.threads import leave

FRAMES_A_REQUEST = 64
"""Frame numbers in one URL."""

RETRIEVED_AT_ONCE = 4
"""Instances under way at once: about what 50 requests a second, the service's limit, ask for."""

_UNDEFINED_LENGTH = 0xFFFFFFFF
_SEQUENCE_END = b"\xfe\xff\xdd\xe0\x00\x00\x00\x00"
_BULK_PATH = re.compile(r"(?:.*/datastore/(?P<datastore>[^/]+)|)(?P<path>/studies/.+/bulkdata/.+)")


@dataclass(frozen=True, kw_only=True)
class RetrievedFrame:
    """One frame as DICOMweb gives it: not decoded, and not verified, since the answer has no checksum."""

    number: int
    """Counted from 1 within the instance."""
    transfer_syntax_uid: str | None
    """Of `data`; None where the answer does not say."""
    data: bytes = field(repr=False)


class Wado(Qido):
    """The retrieve transaction."""

    _datastore_id: str

    def retrieve(
        self,
        *,
        study: str,
        series: str,
        instance: str,
        image_set_id: str | None = None,
        transfer_syntax: str = "*",
    ) -> Dataset:
        """Retrieves one instance (WADO-RS).

        Args:
            study: Study Instance UID.
            series: Series Instance UID.
            instance: SOP Instance UID.
            image_set_id: Names the image set where it is not the primary one.
            transfer_syntax: The transfer syntax to have it in; "*" as it is stored. Where it cannot be had,
                the instance comes as stored: its file meta information says so.
        """
        answer = self._get(
            "GetDICOMInstance",
            f"{resource_path(study=study, series=series)}/instances/{quote(instance)}",
            accept=f"application/dicom; transfer-syntax={transfer_syntax}",
            image_set_id=image_set_id,
        )
        parts = _parts(answer)
        if len(parts) != 1:
            msg = f"The answer has {len(parts)} parts for one instance"
            raise DicomWebAnswerError(msg, status=answer.status, sop_instance_uid=instance)
        dataset = _read_file(parts[0].data, instance)
        if dataset.get("SOPInstanceUID") != instance:
            msg = f"The answer is another instance, {dataset.get('SOPInstanceUID')}"
            raise DicomWebAnswerError(msg, status=answer.status, sop_instance_uid=instance)
        return dataset

    def retrieve_instances(
        self,
        *,
        study: str,
        series: str | None = None,
        image_set_id: str | None = None,
        transfer_syntax: str = "*",
        at_once: int = RETRIEVED_AT_ONCE,
    ) -> Iterator[Dataset]:
        """Retrieves every instance of a study or series, as they arrive, in the order of the search.

        The instances are found by a search (QIDO-RS); few are held at a time. For many images
        `healthimaging.Study` and `healthimaging.Series` are faster by far.

        Args:
            study: Study Instance UID.
            series: Series Instance UID; every series of the study when None.
            image_set_id: Names the image set where it is not a primary one.
            transfer_syntax: As for `retrieve`.
            at_once: Instances under way at once; twice as many may wait to be taken.

        Raises:
            DicomWebError: Nothing is found, or an instance cannot be retrieved.
        """
        found = list(self.search("instances", study=study, series=series, image_set_id=image_set_id))
        if not found:
            msg = f"No instance of the {'series' if series else 'study'} is found"
            raise DicomWebError(msg)
        places: dict[str, str] = {}
        for item in found:
            uid, parent = item.get("SOPInstanceUID"), series or item.get("SeriesInstanceUID")
            if not uid or not parent:
                msg = "A search result has no SOPInstanceUID or SeriesInstanceUID"
                raise DicomWebAnswerError(msg)
            # An instance that is stored during the search may come on two pages.
            places[str(uid)] = str(parent)

        def retrieve(uid: str) -> Dataset:
            return self.retrieve(
                study=study,
                series=places[uid],
                instance=uid,
                image_set_id=image_set_id,
                transfer_syntax=transfer_syntax,
            )

        yield from _concurrently(retrieve, places, at_once)

    def retrieve_metadata(
        self,
        *,
        study: str,
        series: str,
        instance: str | None = None,
        image_set_id: str | None = None,
        bulk_data: bool = False,
    ) -> list[Dataset]:
        """Retrieves the headers of a series, or of one of its instances (WADO-RS metadata).

        Args:
            study: Study Instance UID.
            series: Series Instance UID.
            instance: SOP Instance UID; every instance of the series when None.
            image_set_id: Names the image set where it is not the primary one.
            bulk_data: Whether values that the metadata only points to (binary, over 1 MB) are retrieved, too;
                False leaves them empty.
        """
        path = resource_path(study=study, series=series)
        operation = "GetDICOMSeriesMetadata" if instance is None else "GetDICOMInstanceMetadata"
        if instance is not None:
            path += f"/instances/{quote(instance)}"
        answer = self._get(operation, f"{path}/metadata", accept=DICOM_JSON, image_set_id=image_set_id)

        def read(uri: str) -> bytes:
            return self.retrieve_bulk_data(uri, image_set_id=image_set_id) if bulk_data else b""

        return [json_dataset(item, operation, read) for item in json_objects(answer, operation)]

    def retrieve_frames(
        self,
        numbers: Sequence[int],
        *,
        study: str,
        series: str,
        instance: str,
        image_set_id: str | None = None,
        transfer_syntax: str = ExplicitVRLittleEndian,
    ) -> list[RetrievedFrame]:
        """Retrieves frames of one instance (WADO-RS).

        Args:
            numbers: Frame numbers from 1, each once.
            study: Study Instance UID.
            series: Series Instance UID.
            instance: SOP Instance UID.
            image_set_id: Names the image set where it is not the primary one.
            transfer_syntax: As for `retrieve`, but native little endian by default.

        Returns:
            The frames in the order of `numbers`.

        Raises:
            DicomWebError: A frame does not exist or cannot be had.
        """
        path = f"{resource_path(study=study, series=series)}/instances/{quote(instance)}/frames/"
        frames: list[RetrievedFrame] = []
        for first in range(0, len(numbers), FRAMES_A_REQUEST):
            wanted = numbers[first : first + FRAMES_A_REQUEST]
            answer = self._get(
                "GetDICOMInstanceFrames",
                path + ",".join(str(int(number)) for number in wanted),
                accept=f"multipart/related; type=application/octet-stream; transfer-syntax={transfer_syntax}",
                image_set_id=image_set_id,
            )
            parts = _parts(answer)
            if len(parts) != len(wanted):
                msg = f"The answer has {len(parts)} parts for {len(wanted)} frames"
                raise DicomWebAnswerError(msg, status=answer.status, sop_instance_uid=instance)
            whole = media_type(answer.content_type)[1].get("transfer-syntax")
            frames += [
                RetrievedFrame(
                    number=int(number),
                    transfer_syntax_uid=media_type(part.content_type)[1].get("transfer-syntax", whole),
                    data=part.data,
                )
                for number, part in zip(wanted, parts, strict=True)
            ]
        return frames

    def retrieve_bulk_data(self, uri: str, *, image_set_id: str | None = None) -> bytes:
        """Retrieves a value that metadata points to (WADO-RS bulk data).

        Args:
            uri: BulkDataURI: absolute, or from `/datastore` or `/studies` on. Its host is never contacted:
                it may be another name of the same service, and a signed request to a stranger would hand
                over the session token.
            image_set_id: Names the image set where it is not the primary one.

        Raises:
            DicomWebError: The URI is not of this datastore, or the value cannot be had.
        """
        parts = urlsplit(uri)
        found = _BULK_PATH.fullmatch("/" + parts.path.lstrip("/"))
        if found is None or found["datastore"] not in (None, self._datastore_id):
            msg = "The BulkDataURI does not name bulk data of this datastore"
            raise DicomWebError(msg)
        answer = self._get(
            "GetDICOMBulkdata",
            found["path"] + (f"?{parts.query}" if parts.query else ""),
            accept="application/octet-stream",
            image_set_id=None if "imageSetId=" in parts.query else image_set_id,
        )
        values = _parts(answer)
        if len(values) != 1:
            msg = f"The answer has {len(values)} parts for one value"
            raise DicomWebAnswerError(msg, status=answer.status)
        return values[0].data

    def _get(self, operation: str, path: str, *, accept: str, image_set_id: str | None) -> Answer:
        path += query_string(chosen_image_set(image_set_id), begun="?" in path)
        try:
            return self._requests.send(operation, "GET", path, headers={"Accept": accept}, accepted=(200,))
        except DicomWebError as error:
            stored = re.sub(r"transfer-syntax=.*", "transfer-syntax=*", accept)
            if error.status != 406 or stored == accept:
                raise
        # What cannot be transcoded can still be had as it is stored.
        return self._requests.send(operation, "GET", path, headers={"Accept": stored}, accepted=(200,))


def _parts(answer: Answer) -> list[Part]:
    """The parts of a multipart answer, or the one part that another answer is."""
    if media_type(answer.content_type)[0].startswith("multipart/"):
        return parse_multipart(answer.body, answer.content_type)
    return [Part(headers={"content-type": answer.content_type}, data=answer.body)]


def _read_file(data: bytes, sop_instance_uid: str) -> Dataset:
    try:
        dataset = pydicom.dcmread(BytesIO(data))
        whole = _is_whole(dataset, data)
    except Exception as error:  # noqa: BLE001 - pydicom raises what its readers raise
        msg = f"The answer is not a DICOM file: {type(error).__name__}"
        # Without what caused it, which may quote values.
        raise DicomWebAnswerError(msg, status=200, sop_instance_uid=sop_instance_uid) from None
    if not whole:
        msg = "The answer is a DICOM file that is cut off"
        raise DicomWebAnswerError(msg, status=200, sop_instance_uid=sop_instance_uid)
    return dataset


def _is_whole(dataset: Dataset, data: bytes) -> bool:
    """Whether the file ends where its last element does; pydicom takes a shorter one without an error."""
    last: Any = dataset.get_item(max(dataset.keys()))
    if isinstance(last, RawDataElement) and last.length != _UNDEFINED_LENGTH:
        return last.value_tell + last.length == len(data)
    undefined = isinstance(last, RawDataElement) or last.is_undefined_length
    return not undefined or data.endswith(_SEQUENCE_END)


def _concurrently(work: Callable[[str], Dataset], items: Iterable[str], at_once: int) -> Iterator[Dataset]:
    """Results in the order of the items; few are under way or waiting at any time."""
    pool = ThreadPoolExecutor(max_workers=at_once, thread_name_prefix="dicomweb")
    under_way: deque[Future[Dataset]] = deque()
    try:
        for item in items:
            under_way.append(pool.submit(work, item))
            if len(under_way) >= 2 * at_once:
                yield under_way.popleft().result()
        while under_way:
            yield under_way.popleft().result()
    finally:
        leave(pool, under_way)
