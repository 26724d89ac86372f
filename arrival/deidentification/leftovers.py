"""Is anything left? A search of the new dataset for the identifiers of the old one, independent of the rules.

What is searched for: every part of every person name, patient IDs and numbers of orders, wherever the
original has them, and every UID that was to be replaced. Where: every text, every UID, every number as text,
and bytes other than pixel data. A part of a name with fewer than three Latin letters, and a number with fewer
than four characters, is found by chance in honest text and is not searched for.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset

from arrival.deidentification.keyed import is_registered
from arrival.deidentification.options import tags_of
from arrival.deidentification.vocabulary import WORDS

NUMBERS_OF_PERSONS = tags_of(
    "PatientID PatientBirthDate OtherPatientIDs AccessionNumber AdmissionID ServiceEpisodeID"
    " PatientTelephoneNumbers PatientAddress MilitaryRank MedicalRecordLocator InsurancePlanIdentification"
    " RequestedProcedureID ScheduledProcedureStepID PerformedProcedureStepID"
    " FillerOrderNumberImagingServiceRequest PlacerOrderNumberImagingServiceRequest"
    " IssuerOfPatientID ClinicalTrialSubjectID ClinicalTrialSubjectReadingID"
)
"""Attributes whose values stand for one person or one order."""
OWN_WORDS = frozenset({0x00120062, 0x00120063, 0x00120064, 0x00280303})
"""Written by de-identification itself, at the top level."""
PIXELS = frozenset({0x7FE00008, 0x7FE00009, 0x7FE00010})
TEXTS = frozenset({"AE", "CS", "LO", "LT", "PN", "SH", "ST", "UC", "UR", "UT"})
CODED = frozenset({"AE", "CS"})
BYTES = frozenset({"OB", "UN", "OW"})
NUMERIC_TEXTS = frozenset({"DS", "IS"})
SHORTEST_NAME, SHORTEST_CODED_NAME, SHORTEST_NUMBER, SHORTEST_IN_BYTES = 3, 4, 4, 6
LONGEST_NUMBERS = 64
_WORD = re.compile(r"[^\W_]+")
_UID_IN_TEXT = re.compile(r"\d[\d.]{7,}")


@dataclass(kw_only=True)
class Identifiers:
    """What must not be found again."""

    names: set[str] = field(default_factory=set)
    """Parts of person names, casefolded."""
    numbers: set[str] = field(default_factory=set)
    """Letters and digits of identifying numbers, casefolded."""
    uids: set[str] = field(default_factory=set)


def identifiers_of(dataset: Dataset) -> Identifiers:
    """The identifiers in a dataset, at any depth."""
    found = Identifiers()
    _collect(dataset, found)
    return found


def _collect(dataset: Dataset, found: Identifiers) -> None:
    # Private elements are not read: they are removed anyway, and are most of some vendors' headers.
    for element in (dataset[tag] for tag in list(dataset.keys()) if not tag.is_private):
        if element.VR == "SQ":
            for item in element.value:
                _collect(item, found)
        elif element.VR == "PN":
            for text in _texts(element):
                found.names.update(word for word in _WORD.findall(text.casefold()) if _tells(word))
        elif int(element.tag) in NUMBERS_OF_PERSONS:
            found.numbers.update(
                number for text in _texts(element) if len(number := _bare(text)) >= SHORTEST_NUMBER
            )
        elif element.VR == "UI":
            found.uids.update(
                uid for text in _texts(element) if (uid := _uid(text)) and not is_registered(uid)
            )


def leftovers(dataset: Dataset, *, identifiers: Identifiers, written: frozenset[str]) -> Iterator[str]:
    """Tag and keyword of every element of `dataset` in which an identifier is found; no value.

    Args:
        dataset: De-identified.
        identifiers: Of the original.
        written: Texts that de-identification wrote by itself: pseudonyms.
    """
    return _Search(identifiers, written).elements(dataset)


class _Search:
    def __init__(self, identifiers: Identifiers, written: frozenset[str]) -> None:
        # A word of the vocabulary says nothing about a person, even where it is someone's name.
        self._names = identifiers.names - WORDS
        self._runs = tuple(word for word in self._names if not word.isascii())
        self._numbers = identifiers.numbers - WORDS
        self._uids = identifiers.uids
        self._written = written
        long = sorted(number for number in self._numbers if len(number) >= SHORTEST_IN_BYTES)
        self._long_numbers = re.compile("|".join(map(re.escape, long))) if long else None
        needles = [
            text for text in self._names | self._numbers | self._uids if len(text) >= SHORTEST_IN_BYTES
        ]
        self._bytes = re.compile(b"|".join(re.escape(text.encode()) for text in sorted(needles)))
        self._has_bytes = bool(needles)

    def elements(self, dataset: Dataset, *, skipped: frozenset[int] = OWN_WORDS | PIXELS) -> Iterator[str]:
        for element in dataset:
            if int(element.tag) in skipped:
                continue
            if element.VR == "SQ":
                for item in element.value:
                    yield from self.elements(item, skipped=frozenset())
            elif self._is_in(element):
                yield f"{element.tag} {element.keyword}"

    def _is_in(self, element: DataElement) -> bool:
        vr = element.VR
        if vr in BYTES:
            content = element.value
            return (
                self._has_bytes
                and isinstance(content, bytes)
                and self._bytes.search(content.lower()) is not None
            )
        if vr == "UI":
            return any(_uid(text) in self._uids for text in _texts(element))
        if vr in NUMERIC_TEXTS:
            # A number is an identifier only as a whole, a short one by chance, a contour never.
            if element.VM > LONGEST_NUMBERS:
                return False
            return any(
                len(text) >= SHORTEST_IN_BYTES and _bare(text) in self._numbers for text in _texts(element)
            )
        if vr in TEXTS:
            shortest = SHORTEST_CODED_NAME if vr in CODED else SHORTEST_NAME
            return any(self._is_in_text(text, shortest) for text in _texts(element))
        return False

    def _is_in_text(self, text: str, shortest: int) -> bool:
        if not text or text in self._written:
            return False
        words = _WORD.findall(text.casefold())
        if any(word in self._numbers or (len(word) >= shortest and word in self._names) for word in words):
            return True
        folded = text.casefold()
        # Chinese and Japanese are written without blanks between words.
        if any(run in folded for run in self._runs):
            return True
        if self._long_numbers is not None and self._long_numbers.search("".join(words)):
            return True
        return any(found.strip(".") in self._uids for found in _UID_IN_TEXT.findall(text))


def _texts(element: DataElement) -> list[str]:
    value = element.value
    if value is None:
        return []
    if isinstance(value, list | tuple) or element.VM > 1:
        return [str(one).strip("\0 ") for one in value]
    return [str(value).strip("\0 ")]


def _tells(word: str) -> bool:
    """Whether a part of a name is long enough not to be in other texts by chance; two Han characters are."""
    return len(word) >= (SHORTEST_NAME if word.isascii() else 2)


def _bare(text: str) -> str:
    return "".join(_WORD.findall(text.casefold()))


def _uid(text: str) -> str:
    return text.strip("\0 ")
