"""STOW-RS (DICOM PS3.18 section 10.5): requests of bearable size, and what their answers say."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from io import BytesIO

from pydicom import Dataset

from healthimaging.dicomweb.multipart import build_multipart
from healthimaging.dicomweb.qido import DICOM_JSON, resource_path
from healthimaging.dicomweb.signed_requests import SignedRequests, refusal
from healthimaging.errors import DicomWebAnswerError, DicomWebError, StoreInterruptedError

REQUEST_BYTES = 64 * 1024 * 1024
"""Size of a request that stores several instances: it may have to be sent again."""

SERVICE_BYTES = 1024**3
"""Largest request that the service takes (developer guide, "Storing instances with STOW-RS")."""

_ENVELOPE_BYTES = 1024
"""More than the delimiters and headers around one instance take."""


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


@dataclass(frozen=True, kw_only=True)
class EncodedInstance:
    """An instance as it is sent."""

    sop_class_uid: str
    sop_instance_uid: str
    data: bytes = field(repr=False)


class Stow:
    """The store transaction."""

    _requests: SignedRequests

    def store(self, datasets: Iterable[Dataset], *, study: str | None = None) -> list[StoreOutcome]:
        """Stores instances (STOW-RS), in as many requests as their size needs.

        Args:
            datasets: Instances with file meta information; may be a generator, of which one request's worth
                is held at a time.
            study: Study Instance UID that all of them must be of; the service refuses the others.

        Returns:
            One outcome an instance, in order. An instance that was refused is an outcome, not an error:
            look at `stored`.

        Raises:
            StoreInterruptedError: A request failed as a whole, the answer says nothing of an instance, or one
                cannot be sent. It has the outcomes until then.
        """
        outcomes: list[StoreOutcome] = []
        try:
            outcomes.extend(self.store_each(datasets, study=study))
        except StoreInterruptedError as error:
            error.outcomes = tuple(outcomes)
            raise
        return outcomes

    def store_each(self, datasets: Iterable[Dataset], *, study: str | None = None) -> Iterator[StoreOutcome]:
        """As `store`, but yields outcomes as requests are answered; errors have the `unanswered` only."""
        operation, path = (
            ("StoreDICOMStudy" if study else "StoreDICOM"),
            resource_path(study=study) or "/studies",
        )
        batch: list[EncodedInstance] = []
        try:
            for batch in batches(datasets):
                found = self._store(operation, path, batch)
                told = [found[one.sop_instance_uid] for one in batch if one.sop_instance_uid in found]
                batch = [one for one in batch if one.sop_instance_uid not in found]
                yield from told
                if batch:
                    msg = f"The answer to {operation} says nothing of {len(batch)} instances"
                    raise DicomWebAnswerError(msg, sop_instance_uid=batch[0].sop_instance_uid)
        except DicomWebError as error:
            raise StoreInterruptedError(
                error.message,
                outcomes=(),
                unanswered=[instance.sop_instance_uid for instance in batch],
                status=error.status,
                code=error.code,
                sop_instance_uid=error.sop_instance_uid,
            ) from error

    def _store(self, operation: str, path: str, batch: Sequence[EncodedInstance]) -> dict[str, StoreOutcome]:
        """Outcomes by SOP Instance UID."""
        body, content_type = build_multipart(
            [instance.data for instance in batch], content_type="application/dicom"
        )
        answer = self._requests.send(
            operation,
            "POST",
            path,
            headers={"Content-Type": content_type, "Accept": DICOM_JSON},
            body=body,
            # 202 and 409 carry an outcome for each instance (PS3.18 section 10.5.3.1).
            accepted=(200, 202, 409),
        )
        if answer.status == 409 and answer.error_code is not None:
            raise refusal(operation, answer)
        return read_outcomes(answer.body, batch)


def batches(datasets: Iterable[Dataset]) -> Iterator[list[EncodedInstance]]:
    """Instances as files, as many together as REQUEST_BYTES allow, or one that is larger.

    The instances before one that cannot be sent are yielded before its error is raised.

    Raises:
        DicomWebError: An instance cannot be written as a file, or is larger than the service takes.
    """
    batch: list[EncodedInstance] = []
    size = 0
    for dataset in datasets:
        try:
            instance = _encode(dataset)
        except DicomWebError:
            if batch:
                yield batch
            raise
        if batch and size + len(instance.data) > REQUEST_BYTES:
            yield batch
            batch, size = [], 0
        batch.append(instance)
        size += len(instance.data)
    if batch:
        yield batch


def _encode(dataset: Dataset) -> EncodedInstance:
    uid = dataset.get("SOPInstanceUID")
    if not uid:
        msg = "An instance to store has no SOPInstanceUID"
        raise DicomWebError(msg)
    buffer = BytesIO()
    try:
        dataset.save_as(buffer, enforce_file_format=True)
    except Exception as error:  # noqa: BLE001 - pydicom raises what its writers raise
        msg = f"The instance cannot be written as a DICOM file: {type(error).__name__}"
        # Without what caused it, which may quote values.
        raise DicomWebError(msg, sop_instance_uid=str(uid)) from None
    data = buffer.getvalue()
    if len(data) > SERVICE_BYTES - _ENVELOPE_BYTES:
        msg = f"The instance has {len(data)} bytes; a request that stores has at most {SERVICE_BYTES}"
        raise DicomWebError(msg, sop_instance_uid=str(uid))
    return EncodedInstance(
        sop_class_uid=str(dataset.get("SOPClassUID") or ""), sop_instance_uid=str(uid), data=data
    )


def read_outcomes(body: bytes, batch: Sequence[EncodedInstance]) -> dict[str, StoreOutcome]:
    """Outcomes by SOP Instance UID from the Store Instances Response Module (PS3.18 annex I).

    Instances of which the answer says nothing are missing in what is returned.

    Raises:
        DicomWebAnswerError: The body is not that module as DICOM JSON.
    """
    outcomes: dict[str, StoreOutcome] = {}
    nameless: list[int | None] = []
    try:
        document = json.loads(body)
        response = Dataset.from_json(document[0] if isinstance(document, list) else document)
        for stored, keyword in ((True, "ReferencedSOPSequence"), (False, "FailedSOPSequence")):
            for item in response.get(keyword) or []:
                failure, warning = item.get("FailureReason"), item.get("WarningReason")
                reason = None if failure is None else int(failure)
                uid = str(item.get("ReferencedSOPInstanceUID") or "")
                if not uid and not stored:
                    nameless.append(reason)
                elif uid:
                    outcomes[uid] = StoreOutcome(
                        sop_class_uid=str(item.get("ReferencedSOPClassUID") or ""),
                        sop_instance_uid=uid,
                        stored=stored,
                        failure_reason=reason,
                        warning_reason=None if warning is None else int(warning),
                        retrieve_url=item.get("RetrieveURL"),
                    )
    except Exception as error:  # noqa: BLE001 - whatever reading another shape raises
        msg = f"The answer to storing is not DICOM JSON: {type(error).__name__}"
        raise DicomWebAnswerError(msg) from None
    missing = [instance for instance in batch if instance.sop_instance_uid not in outcomes]
    # What could not be parsed has no name in the answer (PS3.18 table I.2-2, C000); as many nameless failures
    # as missing instances are those.
    if missing and len(missing) == len(nameless):
        common = nameless[0] if len(set(nameless)) == 1 else None
        for instance in missing:
            outcomes[instance.sop_instance_uid] = StoreOutcome(
                sop_class_uid=instance.sop_class_uid,
                sop_instance_uid=instance.sop_instance_uid,
                stored=False,
                failure_reason=common,
            )
    return outcomes
