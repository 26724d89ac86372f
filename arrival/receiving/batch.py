"""Where received instances lie in S3, and what their keys say: nothing about a patient, everything about
whose they are to import.

`received/<study>/<batch>/<instance>-<content>.dcm`: a batch belongs to one receiver process, which alone
writes into it; its name begins with that process. The same instance with the same content has the same name,
so a device that sends again after a broken association changes nothing; another content has another name.

`received/records/<study>/<batch>/<instance>-<content>.dcm.json`: what de-identification did to an instance,
or that it is in quarantine. They go when the batch's report is written. No import job looks there.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

RECEIVED = "received/"
RECORDS = f"{RECEIVED}records/"
QUARANTINE = "quarantine/"
FAILED = "failed/"
"""Prefixes of the inbox bucket; `received/` is one of the import bucket, too."""

_LENGTH = 32
_AGAIN = "-again"


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

    @property
    def records(self) -> str:
        """In the inbox: what is known about its instances besides themselves."""
        return f"{RECORDS}{self.study}/{self.name}/"

    @property
    def again(self) -> Batch:
        """For what its import job said nothing about. Always the same name: whoever is interrupted while
        instances are moved there, or comes second, goes on in the same place.
        """
        return Batch(study=self.study, name=f"{self.name}{_AGAIN}")

    @property
    def is_second_try(self) -> bool:
        """Whether a job has been silent about its instances before."""
        return self.name.endswith(_AGAIN)

    @property
    def first_try(self) -> Batch | None:
        """Where the instances of a second try come from; None for other batches."""
        if not self.is_second_try:
            return None
        return Batch(study=self.study, name=self.name.removesuffix(_AGAIN))

    def client_token(self, attempt: int) -> str:
        """Of the import job: the same for whoever starts it, so that it is one job."""
        return hashlib.sha256(f"{self.prefix}{attempt}".encode()).hexdigest()

    @classmethod
    def of_key(cls, key: str) -> Batch | None:
        """The batch that an object of the inbox, or a record, belongs to; None for other objects."""
        if not key.startswith(RECEIVED):
            return None
        parts = key.removeprefix(RECORDS).removeprefix(RECEIVED).split("/")
        if len(parts) != 3 or "." not in parts[1]:
            return None
        return cls(study=parts[0], name=parts[1])


def digest(text: str) -> str:
    """A name for an identifier in keys. The identifier cannot be read from it."""
    return hashlib.sha256(text.encode()).hexdigest()[:_LENGTH]


def content_digest(body: bytes) -> str:
    """A name for a content."""
    return hashlib.sha256(body).hexdigest()[:_LENGTH]
