"""TLS of DICOM, as PS3.15 section B.12 asks for (BCP 195, RFC 9325): 1.2 or 1.3, forward secrecy, AEAD."""

from __future__ import annotations

import json
import os
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from arrival.errors import SettingsError

CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20:DHE+AESGCM:!aNULL"
"""Of TLS 1.2. Those of TLS 1.3 are all such."""


def context_of_files(*, certificate: Path, key: Path, ca: Path | None) -> ssl.SSLContext:
    """TLS with a certificate (PEM, its chain after it) and its key; with `ca` devices have to show a
    certificate of theirs.

    Raises:
        SettingsError: One of the files is missing or unusable.
    """
    try:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.set_ciphers(CIPHERS)
        context.load_cert_chain(certificate, key, password=_no_password)
        if ca is not None:
            context.load_verify_locations(cafile=ca)
            context.verify_mode = ssl.CERT_REQUIRED
    except (OSError, ValueError) as error:
        raise SettingsError(
            f"The certificate of the receiver cannot be used: {type(error).__name__}"
            f" {getattr(error, 'reason', '')}".rstrip() + ".",
            advice="Give a PEM certificate with its chain, its key without a password, and PEM certificates"
            " of the devices' authority.",
        ) from error
    return context


def context_of_secret(secrets_manager: Any, secret_id: str) -> ssl.SSLContext:
    """TLS with what a secret of Secrets Manager holds: JSON with `certificate`, `key` and, where devices have
    to show theirs, `ca`; each PEM.

    Raises:
        SettingsError: It is not that.
        ClientError: It cannot be read.
    """
    text = secrets_manager.get_secret_value(SecretId=secret_id).get("SecretString", "")
    try:
        document = json.loads(text)
        certificate, key, ca = document["certificate"], document["key"], document.get("ca")
    except (ValueError, KeyError, TypeError, AttributeError):
        # Without `from`: the text that cannot be read is a secret.
        raise SettingsError(
            f"The secret {secret_id} is no JSON document with certificate and key.",
            advice="docs/receive.md shows how it is made.",
        ) from None
    with _in_memory(certificate) as certificate_path, _in_memory(key) as key_path:
        if not ca:
            return context_of_files(certificate=certificate_path, key=key_path, ca=None)
        with _in_memory(ca) as ca_path:
            return context_of_files(certificate=certificate_path, key=key_path, ca=ca_path)


@contextmanager
def _in_memory(text: str) -> Iterator[Path]:
    """A path that `ssl`, which takes keys from files only, can read, without any disk (Linux)."""
    descriptor = os.memfd_create("tls")
    try:
        os.write(descriptor, text.encode("utf-8"))
        yield Path(f"/proc/self/fd/{descriptor}")
    finally:
        os.close(descriptor)


def _no_password() -> bytes:
    """OpenSSL would ask at the terminal."""
    return b""
