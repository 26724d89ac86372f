"""One instance, from the association to S3. What returns here is durable, and only that is acknowledged."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field
from io import BytesIO

import pydicom
from pydicom.dataset import Dataset

from arrival.deidentification.deidentifier import Deidentifier
from arrival.deidentification.key import KeyMaterial
from arrival.deidentification.outcome import Quarantined
from arrival.deidentification.reidentification import PREFIX as REIDENTIFICATION
from arrival.deidentification.reidentification import seal
from arrival.errors import ArrivalError
from arrival.importing.import_job import BYTES_PER_FILE
from arrival.receiving import records
from arrival.receiving.batch import QUARANTINE, content_digest, digest
from arrival.receiving.objects import Objects
from arrival.receiving.studies import Studies


class NotStorableError(ArrivalError):
    """The data set is not one that could be imported: it names no instance or study, or not what was said."""


class TooLargeError(ArrivalError):
    """The instance is larger than a file that HealthImaging imports."""


@dataclass(frozen=True, kw_only=True)
class Taken:
    """What became of an instance that is durable."""

    quarantined: bool
    """It is not to be imported before a person looked at it."""
    repeated: bool
    """The open batch of its study had the same instance with the same content already."""


@dataclass(frozen=True, kw_only=True)
class Deidentifying:
    """De-identification on the way in."""

    deidentifier: Deidentifier
    key: KeyMaterial


@dataclass(frozen=True, kw_only=True)
class Intake:
    """Stores instances: in their study's open batch, or in quarantine."""

    inbox: Objects
    imports: Objects
    studies: Studies
    deidentifying: Deidentifying | None
    bytes_per_file: int = field(default=BYTES_PER_FILE)

    def take(self, part10: bytes, *, sop_class_uid: str, sop_instance_uid: str) -> Taken:
        """Store an instance. When this returns, it cannot be lost any more.

        Args:
            part10: The DICOM file (PS3.10): preamble, file meta information, and the data set as it was sent.
            sop_class_uid: As the request says (PS3.7 section 9.1.1.1).
            sop_instance_uid: As the request says.

        Raises:
            NotStorableError, TooLargeError: See there. Nothing was stored.
            ClientError, BotoCoreError: S3 did not take it.
        """
        self._check_size(part10)
        dataset = _read(part10)
        study = _text(dataset, "StudyInstanceUID")
        if _text(dataset, "SOPInstanceUID") != sop_instance_uid or not study:
            raise NotStorableError(
                "The data set is not of the instance that the request names, or of no study."
            )
        if _text(dataset, "SOPClassUID") != sop_class_uid:
            raise NotStorableError("The data set is not of the SOP class that the request names.")
        name, body = digest(sop_instance_uid), part10
        if self.deidentifying is not None:
            key = self.deidentifying.key
            study_name, name = key.pseudonym(f"study:{study}")[:32], key.pseudonym(sop_instance_uid)[:32]
            outcome = self.deidentifying.deidentifier.deidentify(dataset)
            if isinstance(outcome, Quarantined):
                return self._quarantine(part10, outcome, study=study_name, name=name)
            target = BytesIO()
            outcome.dataset.save_as(target, enforce_file_format=True)
            body = target.getvalue()
            self._check_size(body)
            # Before the instance: what is imported can always be traced back by those who may. By content:
            # one UID that is sent under two patients leaves a record of each.
            identity = outcome.identity
            self.imports.put(
                f"{REIDENTIFICATION}{identity.study_instance_uid}/received-{name}-{content_digest(body)}.sealed",
                seal([identity], key=key),
            )
        else:
            study_name, outcome = digest(study), None
        with self.studies.writing(study_name, size=len(body)) as batch:
            file = f"{name}-{content_digest(body)}.dcm"
            if outcome is not None:
                # Before the instance, too: it is not imported without its line in the report.
                records.write(self.inbox, batch, records.deidentified(file, outcome))
            self.inbox.put(f"{batch.prefix}{file}", body)
            return Taken(quarantined=False, repeated=not self.studies.keep(batch, file))

    def _quarantine(self, part10: bytes, outcome: Quarantined, *, study: str, name: str) -> Taken:
        """To where a person looks. It belongs to a batch like others, whose report names it."""
        file = f"{name}-{content_digest(part10)}.dcm"
        key = f"{QUARANTINE}{study}/{file}"
        with self.studies.writing(study, size=0) as batch:
            self.inbox.put_json(f"{key.removesuffix('.dcm')}.json", {"reasons": list(outcome.reasons)})
            self.inbox.put(key, part10)
            records.write(self.inbox, batch, records.quarantined(file, outcome, key=key))
            return Taken(quarantined=True, repeated=not self.studies.keep(batch, file))

    def _check_size(self, body: bytes) -> None:
        if len(body) > self.bytes_per_file:
            raise TooLargeError(f"The instance has more than {self.bytes_per_file} bytes.")


def _read(part10: bytes) -> Dataset:
    try:
        with warnings.catch_warnings():
            # They quote values.
            warnings.simplefilter("ignore")
            return pydicom.dcmread(BytesIO(part10))
    except Exception as error:  # noqa: BLE001 - what devices send can break pydicom anywhere; nothing is stored
        raise NotStorableError(f"The data set cannot be read ({type(error).__name__}).") from None


def _text(dataset: Dataset, keyword: str) -> str:
    try:
        return str(dataset.get(keyword) or "").strip("\0 ")
    except Exception:  # noqa: BLE001 - an unreadable identifier is none, which the caller refuses
        return ""
