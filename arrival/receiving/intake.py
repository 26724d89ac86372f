"""One instance, from the association to S3. What returns here is durable, and only that is acknowledged."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from io import BytesIO

import pydicom
from pydicom.dataset import Dataset

from arrival.deidentification.deidentifier import Deidentifier
from arrival.deidentification.key import KeyMaterial
from arrival.deidentification.outcome import Quarantined
from arrival.deidentification.reidentification import PREFIX as REIDENTIFICATION
from arrival.deidentification.reidentification import seal
from arrival.errors import ArrivalError
from arrival.receiving.batch import QUARANTINE, content_digest, digest
from arrival.receiving.objects import Objects
from arrival.receiving.studies import Studies


class NotStorableError(ArrivalError):
    """The data set is not one that could be imported: it names no instance or study, or not what was said."""


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

    def take(self, part10: bytes, *, sop_class_uid: str, sop_instance_uid: str) -> bool:
        """Store an instance. When this returns, it cannot be lost any more.

        Args:
            part10: The DICOM file (PS3.10): preamble, file meta information, and the data set as it was sent.
            sop_class_uid: As the request says (PS3.7 section 9.1.1.1).
            sop_instance_uid: As the request says.

        Returns:
            Whether it will be imported; False: it is in quarantine.

        Raises:
            NotStorableError: See there. Nothing was stored.
            ClientError, BotoCoreError: S3 did not take it.
        """
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
                at = f"{QUARANTINE}{study_name}/{name}-{content_digest(part10)}"
                self.inbox.put_json(f"{at}.json", {"reasons": list(outcome.reasons)})
                self.inbox.put(f"{at}.dcm", part10)
                return False
            target = BytesIO()
            outcome.dataset.save_as(target, enforce_file_format=True)
            body = target.getvalue()
            # Before the instance: what is imported can always be traced back by those who may.
            identity = outcome.identity
            self.imports.put(
                f"{REIDENTIFICATION}{identity.study_instance_uid}/received-{name}.sealed",
                seal([identity], key=key),
            )
        else:
            study_name, outcome = digest(study), None
        with self.studies.writing(study_name, size=len(body)) as batch:
            self.inbox.put(f"{batch.prefix}{name}-{content_digest(body)}.dcm", body)
            if outcome is not None:
                self.studies.note(batch, outcome)
        return True


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
