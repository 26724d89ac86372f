"""De-identifies one instance: PS3.15 Annex E with the options of a profile.

The new dataset is built element by element; the given one is not changed. What cannot be examined or taken
away is never passed on: the instance is quarantined, with the reasons.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pydicom
from pydicom.config import IGNORE
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset
from pydicom.sequence import Sequence
from pydicom.uid import PYDICOM_IMPLEMENTATION_UID, UID

from arrival.deidentification.copying import Copying
from arrival.deidentification.key import KeyMaterial
from arrival.deidentification.keyed import Keyed
from arrival.deidentification.leftovers import PIXELS, identifiers_of, leftovers
from arrival.deidentification.outcome import Change, Deidentified, Identity, Quarantined
from arrival.deidentification.pixel_risk import risks
from arrival.deidentification.profile import DEFAULT, Profile
from arrival.deidentification.table import EDITION

__all__ = ["Change", "Deidentified", "Deidentifier", "Identity", "Quarantined"]

METHOD = f"PS3.15 {EDITION} Basic Profile and options, see codes"
"""DeidentificationMethod (0012,0063), LO."""
IMPLEMENTATION_VERSION = "MONAI-ON-AWS"

UNDEFINED_LENGTH = 0xFFFFFFFF
_REQUIRED = (
    ("StudyInstanceUID", "(0020,000D)"),
    ("SeriesInstanceUID", "(0020,000E)"),
    ("SOPInstanceUID", "(0008,0018)"),
)


class Deidentifier:
    """De-identifies instances under one key and one profile. May be used by several threads at once.

    The same dataset, key and profile give the same bytes, on every machine.
    """

    def __init__(self, *, key: KeyMaterial, profile: Profile = DEFAULT) -> None:
        self._keyed = Keyed(key)
        self._profile = profile

    def deidentify(
        self, dataset: pydicom.Dataset, *, without_pixels: bool = False
    ) -> Deidentified | Quarantined:
        """A new dataset that may leave, or the reasons why a person has to look at this one first.

        Args:
            dataset: With its file meta information (the transfer syntax at least).
            without_pixels: Pixel data were not read on purpose; otherwise an image without any was cut off.
        """
        try:
            return self._deidentify(dataset, without_pixels=without_pixels)
        except Exception as error:  # noqa: BLE001 - a malformed value can raise anything, at any depth of pydicom
            # The error's text may quote the value.
            return self._quarantined(
                dataset, f"an element cannot be read or written again ({type(error).__name__})"
            )

    def _deidentify(self, dataset: Dataset, *, without_pixels: bool) -> Deidentified | Quarantined:
        reasons = [f"{keyword} {tag} is missing" for keyword, tag in _REQUIRED if not _text(dataset, keyword)]
        meta = getattr(dataset, "file_meta", None)
        syntax = _text(meta, "TransferSyntaxUID") if meta is not None else ""
        if not syntax:
            reasons.append("TransferSyntaxUID (0002,0010) is missing")
        elif not UID(syntax, IGNORE).is_transfer_syntax:
            reasons.append("TransferSyntaxUID (0002,0010) is private or unknown to pydicom")
        reasons.extend(_cut_off(dataset))
        if not without_pixels and "Rows" in dataset and not any(tag in dataset for tag in PIXELS):
            reasons.append("an image without pixel data: the file is cut off")
        reasons.extend(risks(dataset))
        if reasons:
            return self._quarantined(dataset, *reasons)

        person = _person(dataset)
        identifiers = identifiers_of(dataset)
        days = self._keyed.days_of_shift(person) if self._profile.shift_dates else 0
        new_patient = self._keyed.patient_id(person)
        copying = Copying(
            keyed=self._keyed,
            profile=self._profile,
            pseudonym=new_patient,
            days=days,
            names=frozenset(identifiers.names),
        )
        copy = copying.copy(dataset)
        copy.PatientID = copy.PatientName = new_patient
        self._mark(copy)
        identity = self._identity(dataset, copy, days=days)
        if self._profile.retain_uids:
            identifiers = replace(identifiers, uids=set())
        left = dict.fromkeys(leftovers(copy, identifiers=identifiers, written=frozenset(copying.written)))
        if left:
            return self._quarantined(
                dataset, *(f"an identifier of the original is left in {at}" for at in left)
            )
        copy.file_meta = _file_meta(copy, syntax)
        copy.preamble = b"\0" * 128
        _check_writable(copy)
        return Deidentified(dataset=copy, changes=tuple(copying.changes), identity=identity)

    def _mark(self, dataset: Dataset) -> None:
        """PS3.15 E.1.1 step 6 and PS3.3 C.7.1.1: that, how and under which options it was de-identified."""
        dataset.PatientIdentityRemoved = "YES"
        dataset.DeidentificationMethod = METHOD
        items = []
        for value, meaning in self._profile.codes:
            item = Dataset()
            item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, "DCM", meaning
            items.append(item)
        dataset.DeidentificationMethodCodeSequence = Sequence(items)
        dataset.LongitudinalTemporalInformationModified = (
            "MODIFIED" if self._profile.shift_dates else "REMOVED"
        )

    def _identity(self, dataset: Dataset, copy: Dataset, *, days: int) -> Identity:
        return Identity(
            original_patient_id=_text(dataset, "PatientID"),
            patient_id=_text(copy, "PatientID"),
            original_study_instance_uid=_text(dataset, "StudyInstanceUID"),
            study_instance_uid=_text(copy, "StudyInstanceUID"),
            original_series_instance_uid=_text(dataset, "SeriesInstanceUID"),
            series_instance_uid=_text(copy, "SeriesInstanceUID"),
            original_sop_instance_uid=_text(dataset, "SOPInstanceUID"),
            sop_instance_uid=_text(copy, "SOPInstanceUID"),
            days_of_shift=days,
        )

    def _quarantined(self, dataset: Dataset, *reasons: str) -> Quarantined:
        study = _readable(dataset, "StudyInstanceUID")
        if study and not self._profile.retain_uids:
            study = self._keyed.uid(study)
        return Quarantined(
            reasons=reasons,
            sop_instance_uid=_readable(dataset, "SOPInstanceUID"),
            study_instance_uid=study,
        )


def _cut_off(dataset: Dataset) -> Iterator[str]:
    """Elements that are shorter than they say. Written again they would look whole, and hide the loss."""
    for element in dataset.values():
        if isinstance(element, RawDataElement) and element.value is not None:
            said = 0 if element.length == UNDEFINED_LENGTH else element.length
            if len(element.value) < said:
                yield f"the file is cut off in {element.tag}"


def _person(dataset: Dataset) -> str:
    """What stands for the patient: the patient ID; without one, the study, which then has a patient of its
    own."""
    patient = _text(dataset, "PatientID")
    return f"id:{patient}" if patient else f"study:{_text(dataset, 'StudyInstanceUID')}"


def _file_meta(dataset: Dataset, transfer_syntax: str) -> FileMetaDataset:
    """New file meta information: nothing of the sender's, no AE titles, no private information (PS3.10
    7.1)."""
    meta = FileMetaDataset()
    meta.FileMetaInformationVersion = b"\0\1"
    meta.MediaStorageSOPClassUID = UID(_text(dataset, "SOPClassUID"))
    meta.MediaStorageSOPInstanceUID = UID(_text(dataset, "SOPInstanceUID"))
    meta.TransferSyntaxUID = UID(transfer_syntax)
    meta.ImplementationClassUID = PYDICOM_IMPLEMENTATION_UID
    meta.ImplementationVersionName = IMPLEMENTATION_VERSION
    return meta


def _check_writable(dataset: Dataset) -> None:
    """Encode everything but the pixels once: what cannot be written must be known before it counts as
    done."""
    syntax = dataset.file_meta.TransferSyntaxUID
    buffer = DicomBytesIO()
    buffer.is_little_endian, buffer.is_implicit_VR = syntax.is_little_endian, syntax.is_implicit_VR
    tags = [tag for tag in dataset.keys() if tag not in PIXELS]  # noqa: SIM118 - a dataset iterates over elements
    small = Dataset({tag: dataset.get_item(tag) for tag in tags})
    write_dataset(buffer, small, dataset.get("SpecificCharacterSet") or "iso8859")


def _text(dataset: Dataset, keyword: str) -> str:
    value = dataset.get(keyword)
    return "" if value is None else str(value).strip("\0 ")


def _readable(dataset: Dataset, keyword: str) -> str:
    """As `_text`, of a dataset in which this very element may be what cannot be read."""
    try:
        return _text(dataset, keyword)
    except Exception:  # noqa: BLE001 - see deidentify(); the answer without the UID is still an answer
        return ""
