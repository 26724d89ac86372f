"""What is known about the instances of a batch until its report is written: one object each, in S3.

A receiver that is killed has counted nothing that only it knew. Counts, rules and attributes, reasons and
keys; no values, no original UIDs.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from pydicom.dataset import Dataset

from arrival.deidentification.outcome import Change, Deidentified, Identity, Quarantined
from arrival.deidentification.report import StudyReports
from arrival.receiving.batch import Batch
from arrival.receiving.objects import Objects

_READERS = 8
"""At once: a study can have 5,000."""


@dataclass(frozen=True, kw_only=True)
class Record:
    """What de-identification said about one instance."""

    file: str
    """Its name in the batch, which it has in quarantine, too."""
    document: Mapping[str, Any]
    written: datetime | None = None
    """When S3 took it; None of one that is not read from there."""

    @property
    def quarantine_key(self) -> str | None:
        """Where it is in the inbox, if it is in quarantine."""
        key = self.document.get("quarantineKey")
        return None if key is None else str(key)

    @property
    def reasons(self) -> list[str]:
        """Why it is in quarantine; empty for others."""
        return [str(one) for one in self.document.get("reasons", ())]

    def outcome(self) -> Deidentified | Quarantined:
        """As much of the outcome as a report counts."""
        study = str(self.document["studyInstanceUid"])
        if self.quarantine_key is not None:
            return Quarantined(reasons=tuple(self.reasons), sop_instance_uid="", study_instance_uid=study)
        changes = tuple(
            Change(tag=tag, keyword=keyword, rule=rule, path="")
            for rule, tag, keyword, count in self.document["changes"]
            for _ in range(count)
        )
        identity = Identity(
            original_patient_id="",
            patient_id="",
            original_study_instance_uid="",
            study_instance_uid=study,
            original_series_instance_uid="",
            series_instance_uid="",
            original_sop_instance_uid="",
            sop_instance_uid="",
            # By how many days is known to the sealed record alone.
            days_of_shift=int(bool(self.document["datesShifted"])),
        )
        return Deidentified(dataset=Dataset(), changes=changes, identity=identity)


def deidentified(file: str, outcome: Deidentified) -> Record:
    """The record of an instance that is to be imported."""
    counts = Counter((one.rule, one.tag, one.keyword) for one in outcome.changes)
    return Record(
        file=file,
        document={
            "studyInstanceUid": outcome.identity.study_instance_uid,
            "datesShifted": outcome.identity.days_of_shift != 0,
            "changes": [[*change, count] for change, count in sorted(counts.items())],
        },
    )


def quarantined(file: str, outcome: Quarantined, *, key: str) -> Record:
    """The record of an instance that lies at `key` of the inbox until a person has looked at it."""
    return Record(
        file=file,
        document={
            "studyInstanceUid": outcome.study_instance_uid,
            "quarantineKey": key,
            "reasons": list(outcome.reasons),
        },
    )


def write(inbox: Objects, batch: Batch, record: Record) -> None:
    """Keep a record.

    Raises:
        ClientError, BotoCoreError: S3 did not take it.
    """
    inbox.put_json(f"{batch.records}{record.file}.json", dict(record.document))


def are_there(inbox: Objects, batch: Batch) -> bool:
    """Whether anything is known about instances of a batch besides themselves."""
    return next(inbox.list(batch.records), None) is not None


def read(inbox: Objects, batch: Batch) -> list[Record]:
    """All records of a batch, in the order of their names."""
    stored = list(inbox.list(batch.records))
    with ThreadPoolExecutor(_READERS) as readers:
        bodies = readers.map(inbox.read, [one.key for one in stored])
        return [
            Record(
                file=one.key.removeprefix(batch.records).removesuffix(".json"),
                document=json.loads(body),
                written=one.modified,
            )
            for one, body in zip(stored, bodies, strict=True)
            # Gone: another one has just settled this batch.
            if body is not None
        ]


def delete(inbox: Objects, batch: Batch, records: Iterable[Record]) -> None:
    """Clear records away."""
    for record in records:
        inbox.delete(f"{batch.records}{record.file}.json")


def study_documents(records: Iterable[Record]) -> Mapping[str, dict[str, object]]:
    """The reports of de-identification, by new Study Instance UID."""
    reports = StudyReports()
    for record in records:
        reports.add(record.outcome())
    return reports.documents()
