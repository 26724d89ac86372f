"""De-identification of what is ingested, and what is kept about it."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO
from typing import Any, BinaryIO, cast

import pydicom

from arrival.deidentification.deidentifier import Deidentifier
from arrival.deidentification.key import KeyMaterial, key_of_secret
from arrival.deidentification.outcome import Deidentified, Identity, Quarantined
from arrival.deidentification.reidentification import seal
from arrival.deidentification.report import StudyReports
from workbench.ingesting.content import Instance
from workbench.ingesting.fate import CHANGED, Fate


class ChunkRecords:
    """What a chunk's reports and sealed records are made of; filled by several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.reports = StudyReports()
        self.identities: dict[str, list[Identity]] = {}

    def add(self, outcome: Deidentified | Quarantined) -> None:
        with self._lock:
            self.reports.add(outcome)
            if isinstance(outcome, Deidentified):
                identity = outcome.identity
                self.identities.setdefault(identity.study_instance_uid, []).append(identity)


@dataclass(frozen=True)
class Deidentifying:
    """De-identifies with one key."""

    key: KeyMaterial
    deidentifier: Deidentifier

    def records(self) -> ChunkRecords:
        """Of a new chunk."""
        return ChunkRecords()

    def identify(self, instance: Instance) -> tuple[str, str]:
        """How an original instance and its content are named in the journal and in ledgers."""
        return (
            f"hmac:{self.key.pseudonym(f'instance:{instance.sop_instance_uid}')}",
            self._content(instance.sha256),
        )

    def make(self, stream: BinaryIO, *, planned: str, records: ChunkRecords) -> tuple[bytes, str] | Fate:
        """The de-identified file and its SHA-256, or why there is none.

        Args:
            stream: The original, at its begin.
            planned: Name of its content, as `identify` gave it.
            records: Learns what was changed.
        """
        if self._content(hashlib.file_digest(cast(Any, stream), "sha256").hexdigest()) != planned:
            return CHANGED
        stream.seek(0)
        try:
            outcome = self.deidentifier.deidentify(pydicom.dcmread(stream))
            if isinstance(outcome, Quarantined):
                records.add(outcome)
                return _quarantined(outcome)
            target = BytesIO()
            outcome.dataset.save_as(target, enforce_file_format=True)
        except Exception as error:  # noqa: BLE001 - of pydicom, on damage
            return Fate(
                state="failed",
                kind="NotDeidentified",
                reason=f"it cannot be de-identified ({type(error).__name__})",
            )
        records.add(outcome)
        body = target.getvalue()
        return body, hashlib.sha256(body).hexdigest()

    def judge(self, stream: BinaryIO) -> Fate | None:
        """Whether a file would go to quarantine, by its header alone; None if not."""
        try:
            outcome = self.deidentifier.deidentify(
                pydicom.dcmread(stream, stop_before_pixels=True), without_pixels=True
            )
        except Exception as error:  # noqa: BLE001 - as above
            return Fate(
                state="failed",
                kind="NotDeidentified",
                reason=f"it cannot be de-identified ({type(error).__name__})",
            )
        return _quarantined(outcome) if isinstance(outcome, Quarantined) else None

    def documents(self, records: ChunkRecords, *, name: str) -> Iterator[tuple[str, bytes]]:
        """(key in the import bucket, body): a report and a sealed record for each study.

        `name` is the chunk's: a study that comes in several chunks has a document of each.
        """
        for study, report in records.reports.documents().items():
            document: Any = report
            yield f"reports/deidentification/{study}/{name}.json", json.dumps(document, indent=2).encode()
        for study, identities in records.identities.items():
            yield f"reidentification/{study}/{name}.sealed", seal(identities, key=self.key)

    def _content(self, sha256: str) -> str:
        return f"hmac:{self.key.pseudonym(f'content:{sha256}')}"


def _quarantined(outcome: Quarantined) -> Fate:
    return Fate(state="quarantined", kind="Quarantined", reason="; ".join(outcome.reasons))


def deidentifying_with(secrets_manager: Any, secret_id: str) -> Deidentifying:
    """De-identification with the key that a secret holds.

    Raises:
        KeyMaterialError: The secret cannot be read, or is no key.
    """
    key = key_of_secret(secrets_manager, secret_id)
    return Deidentifying(key, Deidentifier(key=key))
