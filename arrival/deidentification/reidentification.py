"""Sealed records of who is behind the pseudonyms: written at arrival, opened only with the key.

A record is JSON, sealed with AES-256-GCM (NIST SP 800-38D) under a subkey of its own: what was changed in
storage, or sealed under another key, does not open.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from dataclasses import fields

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from arrival.deidentification.key import KeyMaterial
from arrival.deidentification.outcome import Identity
from arrival.errors import SealedRecordError

PREFIX = "reidentification/"
"""Of the records' keys in the import bucket: `reidentification/<new study uid>/<run>.sealed`."""

_MAGIC = b"MONAI-REID-1\n"
"""In front of the nonce, and authenticated: a later form will have another number."""
_NONCE = 12
_PURPOSE = "reidentification"
_FIELDS = tuple(field.name for field in fields(Identity))


def seal(identities: Iterable[Identity], *, key: KeyMaterial) -> bytes:
    """The sealed record of identities, each once."""
    rows = sorted({tuple(getattr(identity, name) for name in _FIELDS) for identity in identities}, key=str)
    content = json.dumps({"fields": _FIELDS, "identities": rows}, separators=(",", ":")).encode("utf-8")
    nonce = os.urandom(_NONCE)
    return _MAGIC + nonce + AESGCM(key.subkey(_PURPOSE)).encrypt(nonce, content, _MAGIC)


def unseal(data: bytes, *, key: KeyMaterial) -> tuple[Identity, ...]:
    """The identities in a sealed record.

    Raises:
        SealedRecordError: It is no such record, is damaged, or was sealed under another key.
    """
    if not data.startswith(_MAGIC) or len(data) <= len(_MAGIC) + _NONCE:
        raise SealedRecordError(
            "This is not a re-identification record.",
            advice=f"Take an object below {PREFIX} that ends in .sealed.",
        )
    nonce, content = data[len(_MAGIC) : len(_MAGIC) + _NONCE], data[len(_MAGIC) + _NONCE :]
    try:
        document = json.loads(AESGCM(key.subkey(_PURPOSE)).decrypt(nonce, content, _MAGIC))
    except InvalidTag:
        # Without `from`: there is nothing more to know, and nothing of the record belongs into a trace.
        raise SealedRecordError(
            "The re-identification record does not open: it was sealed under another key, or is damaged.",
            advice="Use the version of the secret that was current when the study arrived.",
        ) from None
    return tuple(
        Identity(**dict(zip(document["fields"], row, strict=True))) for row in document["identities"]
    )
