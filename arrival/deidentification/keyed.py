"""Replacements that the key alone decides: UIDs, pseudonyms, days of shift.

The same original and the same key give the same replacement, on every machine and in every run. Without the
key they can neither be recomputed nor tried out.
"""

from __future__ import annotations

import hashlib
import hmac
import uuid

from pydicom.config import IGNORE
from pydicom.uid import UID

from arrival.deidentification.key import KeyMaterial

LONGEST_SHIFT = 1825
"""Days: five years. Long enough to hide when, short enough that machines and protocols still fit the date."""

PSEUDONYM_PREFIX = "ANON-"


class Keyed:
    """The replacements under one key."""

    def __init__(self, key: KeyMaterial) -> None:
        self._uids = key.subkey("uid")
        self._patients = key.subkey("patient")
        self._dates = key.subkey("dates")
        self._texts = key.subkey("text")

    def uid(self, uid: str) -> str:
        """The UID that replaces `uid`: 2.25 and a UUID of version 8 (PS3.5 B.2, RFC 9562) from its keyed
        hash.

        UIDs that the DICOM standard registers (SOP classes, transfer syntaxes, coding schemes, well-known
        frames of
        reference: PS3.6 Annex A) are the same for everybody and stay.
        """
        uid = uid.strip("\0 ")
        if not uid or is_registered(uid):
            return uid
        digest = bytearray(_mac(self._uids, uid)[:16])
        digest[6] = digest[6] & 0x0F | 0x80
        digest[8] = digest[8] & 0x3F | 0x80
        return f"2.25.{uuid.UUID(bytes=bytes(digest)).int}"

    def patient_id(self, person: str) -> str:
        """The patient ID, and the name, that replace a patient's: 16 hexadecimal digits behind a prefix."""
        return PSEUDONYM_PREFIX + _mac(self._patients, person)[:8].hex().upper()

    def days_of_shift(self, person: str) -> int:
        """Days to add to every date of this patient: -1 to -1825, never 0."""
        return -1 - int.from_bytes(_mac(self._dates, person)[:8], "big") % LONGEST_SHIFT

    def text(self, text: str) -> str:
        """Pseudonym of a text that joins instances and is no UID."""
        return PSEUDONYM_PREFIX + _mac(self._texts, text)[:8].hex().upper()


def is_registered(uid: str) -> bool:
    """Whether the DICOM standard itself registers this UID."""
    return UID(uid, IGNORE).type != ""


def _mac(key: bytes, text: str) -> bytes:
    return hmac.new(key, text.encode("utf-8"), hashlib.sha256).digest()
