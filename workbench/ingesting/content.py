"""What one file holds: the identity of a DICOM instance and a hash, or the reason why it has none.

HealthImaging takes DICOM Part 10 files: 128 bytes of preamble, then "DICM" (PS3.10 section 7.1). A file
without that prefix is either something that exports carry along (a README, a viewer) or a damaged image. The
first kind is skipped and listed; the second kind is a failure, since a study that silently lacks a slice is
worse than an import that stops.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from io import BytesIO
from pathlib import PurePosixPath
from typing import IO, Any

import pydicom
from pydicom.uid import MediaStorageDirectoryStorage

from arrival.importing.import_job import BYTES_PER_FILE

PREAMBLE = 128
BEGIN = PREAMBLE + 4
"""Bytes that tell whether a file is DICOM."""
IMAGE_SUFFIXES = frozenset({"", ".dcm", ".dicom", ".dic", ".ima"})
"""Suffixes under which PACS and viewers write images; a UID as the name ends in a number, see NUMBER."""
NUMBER = re.compile(r"\.\d+$")
COMPANIONS = frozenset({"DICOMDIR", "LICENSE", "README", "LOCKFILE", "VERSION"})
"""Names without a suffix that are not images."""

_AT_ONCE = 1 << 20
"""Files up to this size are read once, into memory; larger ones are read for the hash and for the header."""
_TAGS = ["SOPInstanceUID", "StudyInstanceUID"]
_UID_LENGTH = 64


@dataclass(frozen=True, kw_only=True)
class Instance:
    """A DICOM instance: what identifies it, and the hash of the whole file."""

    sop_instance_uid: str
    study_instance_uid: str
    """Empty where the file has none: the import will refuse it and say so."""
    sha256: str
    """Hexadecimal, of every byte of the file."""


@dataclass(frozen=True, kw_only=True)
class Refused:
    """A file that claims to be DICOM, or might, and cannot be imported."""

    kind: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class NotDicom:
    """A file that does not claim to be an image."""

    reason: str


@dataclass(frozen=True, kw_only=True)
class Index:
    """A DICOMDIR (PS3.10 section 8.6): DICOM, yet a list of instances and not one of them."""


Content = Instance | Refused | NotDicom | Index


def read_content(stream: IO[bytes], *, name: str, size: int) -> Content:
    """Read identity and hash of a file.

    Args:
        stream: The file at its begin, seekable; of one beyond the quota the first `BEGIN` bytes are enough.
        name: Its name, by which a file without the DICM prefix is judged.
        size: In bytes.

    Raises:
        OSError: It cannot be read.
    """
    start = stream.read(_AT_ONCE + 1)
    if start[PREAMBLE:BEGIN] != b"DICM":
        return _without_prefix(name, empty=not start)
    if size > BYTES_PER_FILE:
        # Only what is DICOM has a quota: the disk image or film that lies beside a study is no failure.
        return Refused(kind="TooLarge", reason=f"{size} bytes; HealthImaging takes files up to 4 GB")
    whole = len(start) <= _AT_ONCE
    try:
        header = pydicom.dcmread(
            BytesIO(start) if whole else _from_begin(stream), stop_before_pixels=True, specific_tags=_TAGS
        )
        directory = header.file_meta.get("MediaStorageSOPClassUID") == MediaStorageDirectoryStorage
        uid = _uid(header.get("SOPInstanceUID"))
        study = _uid(header.get("StudyInstanceUID"))
    except OSError:
        raise
    except Exception as error:  # noqa: BLE001 - pydicom raises whatever damaged bytes lead its parser to
        return Refused(kind="Unreadable", reason=f"its header cannot be read ({type(error).__name__})")
    if directory:
        return Index()
    if not uid:
        return Refused(kind="NoSopInstanceUid", reason="it has no SOP Instance UID (0008,0018)")
    if len(uid) > _UID_LENGTH:
        return Refused(kind="NoSopInstanceUid", reason="its SOP Instance UID is longer than 64 characters")
    digest = hashlib.sha256(start) if whole else hashlib.file_digest(_from_begin(stream), "sha256")
    return Instance(sop_instance_uid=uid, study_instance_uid=study, sha256=digest.hexdigest())


def _without_prefix(name: str, *, empty: bool) -> Content:
    base = PurePosixPath(name.replace("\\", "/")).name
    if base.upper() in COMPANIONS or base.startswith("."):
        return NotDicom(reason="not DICOM")
    if PurePosixPath(base).suffix.lower() in IMAGE_SUFFIXES or NUMBER.search(base):
        what = "empty" if empty else "without the prefix DICM (PS3.10)"
        return Refused(kind="NotDicom", reason=f"named like an image, but {what}")
    return NotDicom(reason="not DICOM")


def _uid(value: object) -> str:
    # Several values under VM 1 are no identity.
    return value.strip(" \0") if isinstance(value, str) else ""


def _from_begin(stream: IO[bytes]) -> Any:
    stream.seek(0)
    return stream


def identify(instance: Instance) -> tuple[str, str]:
    """How an instance and its content are named in the journal and in ledgers: by UID and hash."""
    return instance.sop_instance_uid, instance.sha256
