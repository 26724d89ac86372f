"""One DICOM file (PS3.10) to a parsed instance, or to the reason why it cannot be imported."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO

from pydicom import dcmread
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.dataset import FileDataset
from pydicom.errors import InvalidDicomError
from pydicom.filewriter import correct_ambiguous_vr

from local.healthimaging.documents import Identity, InstanceEntry, identity_of
from local.healthimaging.elements import Attributes, first_text, read_attributes
from local.healthimaging.errors import failure_place
from local.healthimaging.identifiers import new_id
from local.healthimaging.levels import SERIES_UID, SOP_CLASS_UID, SOP_INSTANCE_UID, STUDY_UID
from local.healthimaging.pixels import PIXEL_DATA, PIXEL_TAGS, store_pixels
from local.healthimaging.warning_codes import ImportWarning, WarningCode

_log = logging.getLogger(__name__)

INTERNAL_ERROR = "InternalServerException"
_REQUIRED = {
    "SOPClassUID": SOP_CLASS_UID,
    "SOPInstanceUID": SOP_INSTANCE_UID,
    "StudyInstanceUID": STUDY_UID,
    "SeriesInstanceUID": SERIES_UID,
}
_UID_CHARACTERS = re.compile(r"[0-9.]{1,64}")
_UID = re.compile(r"(0|[1-9][0-9]*)(\.(0|[1-9][0-9]*))*")
_UNDEFINED_LENGTH = 0xFFFFFFFF
_LENGTH_LIMITS = {
    "PatientName": ("00100010", 256),
    "PatientID": ("00100020", 256),
    "PatientBirthDate": ("00100030", 18),
    "PatientSex": ("00100040", 16),
    "StudyID": ("00200010", 16),
    "StudyDescription": ("00081030", 64),
    "AccessionNumber": ("00080050", 256),
    "StudyDate": ("00080020", 18),
    "StudyTime": ("00080030", 28),
}
"""Longest values that are imported (devguide: "DICOM element constraints")."""


class RejectedFile(Exception):
    """A file that is not imported: the reason for failure.ndjson, and the instance's UIDs as far as they
    are known."""

    def __init__(
        self,
        message: str,
        *,
        exception_type: str = "ValidationException",
        sop_class_uid: str = "",
        sop_instance_uid: str = "",
    ) -> None:
        super().__init__(message)
        self.exception_type = exception_type
        self.sop_class_uid = sop_class_uid
        self.sop_instance_uid = sop_instance_uid


@dataclass(frozen=True, kw_only=True)
class StoredFrame:
    """A frame's row: its identifier and where its bytes are."""

    id: str
    digest: str


@dataclass(frozen=True, kw_only=True)
class ParsedInstance:
    """An instance whose frames and bulk data are already stored as content, ready to be put into an image
    set."""

    sop_class_uid: str
    sop_instance_uid: str
    identity: Identity
    attributes: Attributes
    entry: InstanceEntry
    frames: tuple[StoredFrame, ...]
    bulk: tuple[StoredFrame, ...]
    warnings: tuple[ImportWarning, ...]


def parse_instance(data: bytes, *, storage_syntax: str, put: Callable[[bytes], str]) -> ParsedInstance:
    """Read a file, bring its pixels into `storage_syntax`, store frames and bulk data with `put`.

    Raises `RejectedFile` where the file is not DICOM, ends early, or lacks what identifies an instance; and,
    as InternalServerException, where reading it fails in a way that is not foreseen: a file fails alone.
    """
    try:
        return _parse(data, storage_syntax, put)
    except RejectedFile:
        raise
    except Exception as error:
        _log.error("A file could not be imported: %s", failure_place(error))
        msg = "An internal error occurred"
        raise RejectedFile(msg, exception_type=INTERNAL_ERROR) from error


def _parse(data: bytes, storage_syntax: str, put: Callable[[bytes], str]) -> ParsedInstance:
    dataset = _read(data)
    implicit, little_endian = dataset.original_encoding
    if implicit:
        correct_ambiguous_vr(dataset, bool(little_endian))
    bulk: list[StoredFrame] = []

    def keep_bulk(value: bytes) -> str:
        stored = StoredFrame(id=new_id(), digest=put(value))
        bulk.append(stored)
        return stored.id

    try:
        attributes = read_attributes(
            dataset, little_endian=bool(little_endian), keep_bulk=keep_bulk, without=PIXEL_TAGS
        )
        file_meta = read_attributes(dataset.file_meta, little_endian=True, keep_bulk=keep_bulk)
    except (
        Exception
    ) as error:  # a broken file fails alone, however it is broken; the message names no value of it
        msg = f"The DICOM data set cannot be parsed: {type(error).__name__}"
        raise RejectedFile(msg) from error
    found = _check(attributes)
    pixels = store_pixels(dataset, storage_syntax=storage_syntax, put=put) if PIXEL_DATA in dataset else None
    frames = tuple(
        StoredFrame(id=new_id(), digest=frame.digest) for frame in (pixels.frames if pixels else ())
    )
    found += pixels.warnings if pixels else ()
    entry: InstanceEntry = {
        "attributes": {},
        "file_meta": file_meta,
        "stored_transfer_syntax": pixels.transfer_syntax if pixels else "",
        "checksum_type": pixels.checksum_type if pixels else "",
        "decodable": pixels.decodable if pixels else True,
        "frames": [
            {
                "id": stored.id,
                "checksum": frame.checksum,
                "width": frame.width,
                "height": frame.height,
                "minimum": frame.minimum,
                "maximum": frame.maximum,
                "size": frame.size,
            }
            for stored, frame in zip(frames, pixels.frames if pixels else (), strict=True)
        ],
        "warnings": [int(warning.code) for warning in found],
    }
    return ParsedInstance(
        sop_class_uid=first_text(attributes, SOP_CLASS_UID),
        sop_instance_uid=first_text(attributes, SOP_INSTANCE_UID),
        identity=identity_of(attributes, first_text(attributes, SERIES_UID)),
        attributes={**attributes, **(pixels.coerced if pixels else {})},
        entry=entry,
        frames=frames,
        bulk=tuple(bulk),
        warnings=found,
    )


def _read(data: bytes) -> FileDataset:
    try:
        dataset = dcmread(BytesIO(data))
    except InvalidDicomError as error:
        msg = "The file is not a DICOM P10 file: the preamble or the DICM prefix is missing"
        raise RejectedFile(msg) from error
    except Exception as error:  # pydicom's parser raises whatever a damaged file leads it into
        msg = f"The DICOM P10 file cannot be parsed: {type(error).__name__}"
        raise RejectedFile(msg) from error
    if not dataset.file_meta.get("TransferSyntaxUID"):
        msg = "DICOM attribute TransferSyntaxUID does not exist"
        raise RejectedFile(msg)
    if not dataset.keys():
        msg = "The file has no data set, or ends within it"
        raise RejectedFile(msg)
    for tag in sorted(dataset.keys()):
        item: DataElement | RawDataElement = dataset.get_item(tag)
        if not isinstance(item, RawDataElement) or item.length == _UNDEFINED_LENGTH or item.value is None:
            continue
        if len(item.value) < item.length:
            msg = f"The file ends within element {tag}: {len(item.value)} of {item.length} bytes"
            raise RejectedFile(msg)
    return dataset


def _check(attributes: Attributes) -> tuple[ImportWarning, ...]:
    sop_class_uid, sop_instance_uid = (
        first_text(attributes, SOP_CLASS_UID),
        first_text(attributes, SOP_INSTANCE_UID),
    )

    def rejected(message: str) -> RejectedFile:
        return RejectedFile(message, sop_class_uid=sop_class_uid, sop_instance_uid=sop_instance_uid)

    found: list[ImportWarning] = []
    for keyword, tag in _REQUIRED.items():
        uid = first_text(attributes, tag)
        if not uid:
            raise rejected(f"DICOM attribute {keyword} does not exist")
        if not _UID_CHARACTERS.fullmatch(uid):
            raise rejected(f"DICOM attribute {keyword} is not a UID")
        if not _UID.fullmatch(uid):
            message = f"{keyword} {uid} violates its VR"
            found.append(ImportWarning(code=WarningCode.INVALID_UID_FORMAT, message=message))
    for keyword, (tag, limit) in _LENGTH_LIMITS.items():
        if len(first_text(attributes, tag)) > limit:
            raise rejected(f"DICOM attribute {keyword} is longer than {limit} characters")
    return tuple(found)
