"""Where received instances lie in S3, and what their keys say: nothing about a patient, everything about
whose they are to import.

`received/<study>/<batch>/<instance>-<content>.dcm`: a batch belongs to one receiver process, which alone
writes into it; its name begins with that process. The same instance with the same content has the same name,
so a device that sends again after a broken association changes nothing; another content has another name.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

RECEIVED = "received/"
QUARANTINE = "quarantine/"
FAILED = "failed/"
"""Prefixes of the inbox bucket; `received/` is one of the import bucket, too."""

_LENGTH = 32


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Instances of one study that one receiver took, and that are imported together."""

    study: str
    name: str
    """`<receiver>.<number>`"""

    @property
    def receiver(self) -> str:
        """The process that writes into it."""
        return self.name.partition(".")[0]

    @property
    def prefix(self) -> str:
        """In the inbox and, for what is known about it, in the import bucket."""
        return f"{RECEIVED}{self.study}/{self.name}/"

    def client_token(self, attempt: int) -> str:
        """Of the import job: the same for whoever starts it, so that it is one job."""
        return hashlib.sha256(f"{self.prefix}{attempt}".encode()).hexdigest()

    @classmethod
    def of_key(cls, key: str) -> Batch | None:
        """The batch that an object of the inbox belongs to; None for other objects."""
        parts = key.split("/")
        if len(parts) != 4 or f"{parts[0]}/" != RECEIVED or "." not in parts[2]:
            return None
        return cls(study=parts[1], name=parts[2])


def digest(text: str) -> str:
    """A name for an identifier in keys. The identifier cannot be read from it."""
    return hashlib.sha256(text.encode()).hexdigest()[:_LENGTH]


def content_digest(body: bytes) -> str:
    """A name for a content."""
    return hashlib.sha256(body).hexdigest()[:_LENGTH]
