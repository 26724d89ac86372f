"""One instance as it came over the network: a DICOM file whose dataset is what was sent, byte for byte."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from io import BytesIO
from typing import Any

import pydicom
from pynetdicom.dsutils import encode_file_meta

from arrival.importing.import_job import BYTES_PER_FILE

_NEEDED = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "SOPClassUID")
_LONGEST_UID = 64


class Status(IntEnum):
    """Answers to a C-STORE request (PS3.4 section B.2.3, table B.2-1)."""

    SUCCESS = 0x0000
    OUT_OF_RESOURCES = 0xA700
    """Not kept, for a reason of ours: the device shall send it again."""
    DOES_NOT_MATCH = 0xA900
    """The dataset is not what the request says, or lacks what every instance has."""
    CANNOT_UNDERSTAND = 0xC000
    """The dataset cannot be read, or the archive never takes one like it: sending again does not help."""


@dataclass(frozen=True, kw_only=True, repr=False)
class Instance:
    """An instance that may be kept."""

    study_instance_uid: str
    sop_instance_uid: str
    body: bytes
    """The DICOM file (PS3.10 section 7): preamble, file meta information, the dataset as it was sent."""


@dataclass(frozen=True, kw_only=True)
class Refusal:
    """Why an instance is not kept. Names attributes and no values."""

    status: Status
    reason: str
    """At most 64 characters: ErrorComment (0000,0902) is LO."""


def instance_of(event: Any) -> Instance | Refusal:
    """What a C-STORE request (pynetdicom's event) brought.

    The dataset is taken as it is, never transcoded or repaired; only the attributes that say what it belongs
    to are read.
    """
    request = event.request
    sent = request.DataSet
    if sent is None:
        return Refusal(status=Status.CANNOT_UNDERSTAND, reason="there is no dataset")
    if sent.getbuffer().nbytes > BYTES_PER_FILE:
        return Refusal(status=Status.CANNOT_UNDERSTAND, reason="larger than the archive takes")
    try:
        body = b"".join(
            (b"\x00" * 128, b"DICM", encode_file_meta(event.file_meta), sent.getvalue()),
        )
        header = pydicom.dcmread(BytesIO(body), stop_before_pixels=True, specific_tags=list(_NEEDED))
        found = {keyword: str(header.get(keyword) or "") for keyword in _NEEDED}
    except Exception as error:  # noqa: BLE001 - of pydicom, on damage; its text may quote values
        return Refusal(
            status=Status.CANNOT_UNDERSTAND, reason=f"the dataset cannot be read ({type(error).__name__})"
        )
    for keyword, value in found.items():
        if not value or len(value) > _LONGEST_UID:
            return Refusal(status=Status.DOES_NOT_MATCH, reason=f"{keyword} is missing")
    if (
        found["SOPInstanceUID"] != request.AffectedSOPInstanceUID
        or found["SOPClassUID"] != request.AffectedSOPClassUID
    ):
        return Refusal(status=Status.DOES_NOT_MATCH, reason="the request names another instance or SOP class")
    return Instance(
        study_instance_uid=found["StudyInstanceUID"], sop_instance_uid=found["SOPInstanceUID"], body=body
    )
