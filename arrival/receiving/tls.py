"""TLS as BCP 195 asks for it (PS3.15 annex B): version 1.2 at least, devices' certificates if wanted."""

from __future__ import annotations

import json
import os
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from tempfile import TemporaryDirectory
from typing import Any

from arrival.errors import ArrivalError


class TlsError(ArrivalError):
    """The certificate or its key cannot be used."""


@dataclass(frozen=True, kw_only=True, repr=False)
class Certificate:
    """What the receiver shows, and whom it believes. Texts in PEM."""

    certificate: str
    """Of the receiver, with intermediates after it."""
    key: str
    ca: str | None
    """Authorities that sign devices' certificates; a device must show one then."""

    @classmethod
    def of_secret(cls, secrets_manager: Any, secret_id: str) -> Certificate:
        """The certificate in a secret with JSON: `certificate`, `key` and, optionally, `ca`.

        Raises:
            TlsError: It is not there.
            ClientError: The secret cannot be read.
        """
        try:
            document = json.loads(secrets_manager.get_secret_value(SecretId=secret_id)["SecretString"])
        except (ValueError, KeyError):
            document = None
        if not isinstance(document, Mapping) or not {"certificate", "key"} <= set(document):
            raise TlsError(
                f"The secret {secret_id} has no certificate and key.",
                advice='Store JSON: {"certificate": PEM, "key": PEM}, and "ca": PEM of who signs devices.',
            )
        return cls(certificate=document["certificate"], key=document["key"], ca=document.get("ca") or None)

    def context(self) -> ssl.SSLContext:
        """A server's context.

        Raises:
            TlsError: Certificate and key do not fit together, or are none.
        """
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        try:
            _load(context, self.certificate, self.key)
            if self.ca is not None:
                context.load_verify_locations(cadata=self.ca)
                context.verify_mode = ssl.CERT_REQUIRED
        except (ssl.SSLError, OSError, ValueError) as error:
            raise TlsError(
                f"The certificate or its key cannot be used ({type(error).__name__}).",
                advice="Both must be PEM, without a password, and belong together.",
            ) from None
        return context


def _load(context: ssl.SSLContext, certificate: str, key: str) -> None:
    """Python reads certificate and key from a file only. Linux has files in memory: the container's disk is
    read-only, and a key has no business on any disk.
    """
    if hasattr(os, "memfd_create"):
        descriptor = os.memfd_create("certificate")
        with open(descriptor, "w", encoding="ascii") as file:
            file.write(f"{certificate}\n{key}\n")
            file.flush()
            context.load_cert_chain(f"/proc/self/fd/{descriptor}")
        return
    with TemporaryDirectory() as folder:
        path = os.path.join(folder, "certificate.pem")
        with open(os.open(path, os.O_CREAT | os.O_WRONLY, 0o600), "w", encoding="ascii") as file:
            file.write(f"{certificate}\n{key}\n")
        context.load_cert_chain(path)
