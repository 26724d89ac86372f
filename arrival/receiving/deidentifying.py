"""De-identification of what arrives, before anything is written.

Who an instance was is known only while it is in memory. So what a re-identification record and the study's
report are made of is kept, sealed, before the instance itself is: a receiver that dies loses neither.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from io import BytesIO
from threading import Lock
from typing import Any

import pydicom

from arrival.deidentification.deidentifier import Deidentifier
from arrival.deidentification.key import KeyMaterial
from arrival.deidentification.outcome import Change, Deidentified, Identity, Quarantined
from arrival.deidentification.reidentification import PREFIX as REIDENTIFICATION
from arrival.deidentification.reidentification import seal, unseal
from arrival.deidentification.report import NO_STUDY, StudyReports
from arrival.receiving.instance import Instance
from arrival.receiving.object_names import hashed, instance_name

REPORTS = "reports/deidentification/"

_LARGE_BYTES = 64 << 20
"""Larger instances are de-identified one at a time: each is in memory several times while that lasts."""


@dataclass(frozen=True, kw_only=True, repr=False)
class Prepared:
    """An instance as it is kept."""

    study: str
    """Hash of the study's UID: of the new one where it was de-identified."""
    name: str
    """Of its objects, without ending."""
    body: bytes
    record: Mapping[str, object] | None = None
    """What de-identification did; None where it did nothing."""
    reasons: tuple[str, ...] = ()
    """Why it is in quarantine; empty for what is imported."""


def as_it_came(instance: Instance) -> Prepared:
    """An instance that is not de-identified."""
    return Prepared(
        study=hashed(instance.study_instance_uid),
        name=instance_name(hashed(instance.sop_instance_uid), instance.body),
        body=instance.body,
    )


class Deidentifying:
    """De-identifies under one key; used by the threads of all associations."""

    def __init__(self, key: KeyMaterial) -> None:
        self._key = key
        self._deidentifier = Deidentifier(key=key)
        self._large = Lock()

    def prepare(self, instance: Instance) -> Prepared:
        """The instance without its patient, or as it came with the reasons why it must not go further."""
        if len(instance.body) <= _LARGE_BYTES:
            return self._prepare(instance)
        with self._large:
            return self._prepare(instance)

    def documents(self, records: Iterable[bytes], *, name: str) -> Iterator[tuple[str, bytes]]:
        """(key in the import bucket, body) of the reports and sealed records that records of one batch make.

        `name` is used by no other call: a document never replaces another that knows more.
        """
        reports = StudyReports()
        identities: dict[str, list[Identity]] = {}
        for body in records:
            outcome = self._outcome(json.loads(body))
            reports.add(outcome)
            if isinstance(outcome, Deidentified):
                identities.setdefault(outcome.identity.study_instance_uid, []).append(outcome.identity)
        for study, document in reports.documents().items():
            yield f"{REPORTS}{study}/{name}.json", json.dumps(document, indent=2).encode("utf-8")
        for study, found in identities.items():
            yield f"{REIDENTIFICATION}{study}/{name}.sealed", seal(found, key=self._key)

    def _prepare(self, instance: Instance) -> Prepared:
        outcome = self._deidentifier.deidentify(pydicom.dcmread(BytesIO(instance.body)))
        if isinstance(outcome, Quarantined):
            # Its UIDs are the original ones: with the key only can one tell which instance this is.
            sop_instance = self._key.pseudonym(f"instance:{instance.sop_instance_uid}")[:32]
            return Prepared(
                study=hashed(outcome.study_instance_uid or NO_STUDY),
                name=instance_name(sop_instance, instance.body),
                body=instance.body,
                record={
                    "quarantined": list(outcome.reasons),
                    "studyInstanceUid": outcome.study_instance_uid,
                },
                reasons=outcome.reasons,
            )
        target = BytesIO()
        outcome.dataset.save_as(target, enforce_file_format=True)
        body = target.getvalue()
        return Prepared(
            study=hashed(outcome.identity.study_instance_uid),
            name=instance_name(hashed(outcome.identity.sop_instance_uid), body),
            body=body,
            record={
                "sealed": base64.b64encode(seal([outcome.identity], key=self._key)).decode("ascii"),
                "changes": [[one.tag, one.keyword, one.rule, one.path] for one in outcome.changes],
            },
        )

    def _outcome(self, record: Mapping[str, Any]) -> Deidentified | Quarantined:
        if "quarantined" in record:
            return Quarantined(
                reasons=tuple(record["quarantined"]),
                sop_instance_uid="",
                study_instance_uid=str(record["studyInstanceUid"]),
            )
        (identity,) = unseal(base64.b64decode(record["sealed"]), key=self._key)
        return Deidentified(
            # A report counts changes; the instance itself is in the inbox.
            dataset=pydicom.Dataset(),
            changes=tuple(
                Change(tag=tag, keyword=keyword, rule=rule, path=path)
                for tag, keyword, rule, path in record["changes"]
            ),
            identity=identity,
        )
