"""Rules by which a model says which series it can be given."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from pydicom import Dataset

from runtime.errors import NoMatchingSeriesError, SeveralMatchingSeriesError


@dataclass(frozen=True, kw_only=True)
class SeriesRule:
    """Conditions on the headers of a series; those that are set must all hold.

    ``modality`` (0008,0060) and ``body_part`` (0018,0015) are compared without regard to case,
    ``description`` is a regular expression searched in SeriesDescription (0008,103E), ``image_type`` are
    values that ImageType (0008,0008) of every instance must contain, ``minimum_slices`` is the least number
    of slices of the volume.
    """

    modality: str | None = None
    body_part: str | None = None
    description: str | None = None
    image_type: tuple[str, ...] = ()
    minimum_slices: int = 2

    def __post_init__(self) -> None:
        if self.description is not None:
            try:
                re.compile(self.description)
            except re.error as error:
                msg = f"description is not a regular expression: {error}"
                raise ValueError(msg) from error
        if self.minimum_slices < 1:
            msg = f"minimum_slices must be at least 1, got {self.minimum_slices}"
            raise ValueError(msg)

    @classmethod
    def from_document(cls, document: Any) -> SeriesRule:
        """Read one rule from JSON with camelCase keys (``bodyPart``, ``imageType``, ``minimumSlices``)."""
        if not isinstance(document, Mapping):
            msg = "a rule must be a JSON object"
            raise ValueError(msg)
        names = {re.sub(r"_(\w)", lambda match: match[1].upper(), f.name): f.name for f in fields(cls)}
        unknown = sorted(set(document) - set(names))
        if unknown:
            msg = f"unknown condition {', '.join(unknown)}; known are {', '.join(sorted(names))}"
            raise ValueError(msg)
        values = {names[key]: value for key, value in document.items()}
        for name in ("modality", "body_part", "description"):
            if not isinstance(values.get(name, ""), str):
                msg = f"{name} must be text"
                raise ValueError(msg)
        types = values.get("image_type", [])
        if not isinstance(types, list) or not all(isinstance(value, str) for value in types):
            msg = "imageType must be a list of texts"
            raise ValueError(msg)
        slices = values.get("minimum_slices", cls.minimum_slices)
        if not isinstance(slices, int) or isinstance(slices, bool):
            msg = "minimumSlices must be a whole number"
            raise ValueError(msg)
        return cls(**{**values, "image_type": tuple(types), "minimum_slices": slices})

    def mismatches(self, headers: Sequence[Dataset]) -> Iterator[str]:
        """Name the conditions that a series does not fulfil, without repeating its header's values."""
        first = headers[0]
        if self.modality is not None and not _same(first.get("Modality"), self.modality):
            yield f"modality is not {self.modality}"
        if self.body_part is not None and not _same(first.get("BodyPartExamined"), self.body_part):
            yield f"body part is not {self.body_part}"
        if self.description is not None:
            text = str(first.get("SeriesDescription") or "")
            if not re.search(self.description, text, re.IGNORECASE):
                yield f"description does not match {self.description!r}"
        for value in self.image_type:
            if any(value not in _values(header.get("ImageType")) for header in headers):
                yield f"image type lacks {value}"
        slices = sum(int(header.get("NumberOfFrames") or 1) for header in headers)
        if slices < self.minimum_slices:
            yield f"{slices} slices, at least {self.minimum_slices} wanted"


def select_series(
    candidates: Mapping[str, Sequence[Dataset]], rules: Sequence[SeriesRule], *, image_set_id: str
) -> str:
    """Choose the one series that fulfils the first rule that any series fulfils.

    Parameters
    ----------
    candidates
        SeriesInstanceUID -> headers of its instances.
    rules
        In order of preference.

    Raises
    ------
    NoMatchingSeriesError
        With the conditions that each series fails.
    SeveralMatchingSeriesError
        When the rule that decides is fulfilled by more than one series.
    """
    reasons: list[str] = []
    for rule in rules:
        matching: list[str] = []
        for uid, headers in candidates.items():
            mismatches = list(rule.mismatches(headers))
            if mismatches:
                reasons.append(f"series {uid}: {', '.join(mismatches)}")
            else:
                matching.append(uid)
        if len(matching) > 1:
            msg = f"image set {image_set_id}: {len(matching)} series match: {', '.join(sorted(matching))}"
            raise SeveralMatchingSeriesError(msg)
        if matching:
            return matching[0]
    why = "; ".join(reasons) or "it holds no series"
    msg = f"image set {image_set_id}: no series can be given to this model: {why}"
    raise NoMatchingSeriesError(msg)


def _same(value: object, wanted: str) -> bool:
    return str(value or "").strip().casefold() == wanted.strip().casefold()


def _values(value: Any) -> list[str]:
    if value is None:
        return []
    return [value] if isinstance(value, str) else [str(item) for item in value]
