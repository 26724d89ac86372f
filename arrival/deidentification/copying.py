"""Builds the de-identified copy of a dataset, element by element and at every depth, by the rules."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

from pydicom.datadict import keyword_for_tag
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.tag import BaseTag, Tag

from arrival.deidentification.dates import capped_age, shifted
from arrival.deidentification.forms import is_well_formed
from arrival.deidentification.keyed import Keyed
from arrival.deidentification.outcome import Change
from arrival.deidentification.profile import Profile
from arrival.deidentification.rules import Action, Rule, rule_of
from arrival.deidentification.safe_private import NUMERIC, SAFE_PRIVATE
from arrival.deidentification.vocabulary import cleaned

PATIENT_ID, PATIENT_NAME = 0x00100020, 0x00100010
REMOVED = "REMOVED"
MALFORMED = Rule(action=Action.EMPTY, name="malformed value")
DUMMIES: dict[str, Any] = {
    **dict.fromkeys(("AE", "CS", "LO", "LT", "PN", "SH", "ST", "UC", "UT"), REMOVED),
    "AS": "000Y",
    "DA": "19000101",
    "DT": "19000101000000",
    "TM": "000000",
    "UR": "https://removed.invalid",
    "DS": "0",
    "IS": "0",
    **dict.fromkeys(("FD", "FL"), 0.0),
    **dict.fromkeys(("SL", "SS", "SV", "UL", "US", "UV"), 0),
}
"""Values that say nothing, by VR. Bytes have none and are emptied."""


class Copying:
    """The copying of one instance, with what it changed."""

    def __init__(
        self, *, keyed: Keyed, profile: Profile, pseudonym: str, days: int, names: frozenset[str]
    ) -> None:
        self._keyed = keyed
        self._profile = profile
        self._pseudonym = pseudonym
        self._days = days
        self._names = names
        """Parts of the names in the original, casefolded: descriptions must not keep them."""
        self.changes: list[Change] = []
        self.written: set[str] = {pseudonym}
        """Pseudonyms that were written."""

    def copy(self, dataset: Dataset, *, path: str = "", nothing_stays: bool = False) -> Dataset:
        """The de-identified copy of a dataset or of an item; `nothing_stays` makes every value a dummy."""
        new = Dataset()
        for tag in sorted(dataset.keys()):
            if tag.is_private:
                self._private(tag, dataset, new, path)
                continue
            element = dataset[tag]
            rule = rule_of(int(tag), element.VR, self._profile)
            if (
                nothing_stays
                and rule.action in (Action.KEEP, Action.CLEAN)
                and element.VR not in ("UI", "SQ")
            ):
                rule = Rule(action=Action.DUMMY, name="D")
            made = self._made(element, rule, path, nothing_stays)
            if made is not None:
                new[tag] = made
        return new

    def _made(self, element: DataElement, rule: Rule, path: str, nothing_stays: bool) -> DataElement | None:
        action = rule.action
        if action is Action.REMOVE:
            self._changed(element, rule.name, path)
            return None
        if element.VR == "SQ":
            return self._sequence(element, rule, path, nothing_stays)
        if action is Action.KEEP and not is_well_formed(element):
            action, rule = Action.EMPTY, MALFORMED
        if action is Action.KEEP or element.is_empty:
            return copy.copy(element)
        if action in (Action.UID, Action.PSEUDONYM, Action.AGE, Action.SHIFT, Action.CLEAN):
            values = self._replaced(element, action)
            if values is None:
                return self._made(element, Rule(action=rule.otherwise, name=rule.name), path, nothing_stays)
            if values == _texts(element):
                return copy.copy(element)
            self._changed(element, rule.name, path)
            return _with(element, values[0] if len(values) == 1 else values)
        self._changed(element, rule.name, path)
        dummy = DUMMIES.get(element.VR) if action is Action.DUMMY else None
        return _with(element, _empty(element.VR) if dummy is None else dummy)

    def _sequence(self, element: DataElement, rule: Rule, path: str, nothing_stays: bool) -> DataElement:
        if rule.action is Action.EMPTY:
            if element.value:
                self._changed(element, rule.name, path)
            return _with(element, Sequence())
        nothing_stays = nothing_stays or rule.action is Action.DUMMY
        items = [
            self.copy(item, path=f"{path}{_keyword(element)}[{index}].", nothing_stays=nothing_stays)
            for index, item in enumerate(element.value)
        ]
        return _with(element, Sequence(items))

    def _replaced(self, element: DataElement, action: Action) -> list[str] | None:
        """The new values; None where nothing of the old ones can stay."""
        one: Callable[[str], str | None]
        if action is Action.UID:
            one = self._keyed.uid
        elif action is Action.AGE:
            one = capped_age
        elif action is Action.SHIFT:
            vr = str(element.VR)

            def one(text: str) -> str | None:
                return shifted(text, vr=vr, days=self._days) if text else ""

        elif action is Action.CLEAN:

            def one(text: str) -> str | None:
                return cleaned(text, extra=self._profile.extra_words, forbidden=self._names)

        else:
            tag = int(element.tag)

            def one(text: str) -> str | None:
                return self._pseudonym_of(tag, text)

        values = [one(text) for text in _texts(element)]
        if action is Action.CLEAN:
            return [value for value in values if value] or None
        if action is Action.PSEUDONYM:
            self.written.update(value for value in values if value)
        complete = [value for value in values if value is not None]
        return complete if len(complete) == len(values) else None

    def _pseudonym_of(self, tag: int, text: str) -> str:
        if tag == PATIENT_NAME:
            return self._pseudonym
        return self._keyed.patient_id(f"id:{text}") if tag == PATIENT_ID else self._keyed.text(text)

    def _private(self, tag: BaseTag, source: Dataset, new: Dataset, path: str) -> None:
        """Keep a number that the standard lists as safe, with the creator of its block; nothing else."""
        if self._profile.retain_safe_private and _is_safe(tag, source):
            creator = _creator_tag(tag)
            new[creator] = copy.copy(source[creator])
            new[tag] = copy.copy(source[tag])
        elif tag.element > 0xFF or not self._has_safe(tag, source):
            self.changes.append(Change(tag=str(tag), keyword="Private", rule="private", path=path))

    def _has_safe(self, creator: BaseTag, source: Dataset) -> bool:
        """Whether this private creator stays because of an element of its block."""
        block = creator.element << 8
        return self._profile.retain_safe_private and any(
            _is_safe(Tag(group, block + low), source)
            for _, group, low in SAFE_PRIVATE
            if group == creator.group and creator.element >= 0x10
        )

    def _changed(self, element: DataElement, rule: str, path: str) -> None:
        self.changes.append(Change(tag=str(element.tag), keyword=_keyword(element), rule=rule, path=path))


def _creator_tag(tag: BaseTag) -> BaseTag:
    """Where the creator of a private element's block is named (PS3.5 7.8.1)."""
    return Tag(tag.group, tag.element >> 8)


def _is_safe(tag: BaseTag, source: Dataset) -> bool:
    creator = _creator_tag(tag)
    if tag.element <= 0xFF or tag not in source or creator not in source:
        return False
    if (str(source[creator].value).strip(), tag.group, tag.element & 0xFF) not in SAFE_PRIVATE:
        return False
    element = source[tag]
    return element.VR in NUMERIC and is_well_formed(element)


def _keyword(element: DataElement) -> str:
    return keyword_for_tag(element.tag) or "Unknown"


def _texts(element: DataElement) -> list[str]:
    value = element.value
    if element.VM > 1:
        return [str(one).strip("\0 ") for one in value]
    return [str(value).strip("\0 ")]


def _with(element: DataElement, value: Any) -> DataElement:
    """An element of the same tag and VR with another value."""
    return DataElement(element.tag, element.VR, value)


def _empty(vr: str) -> Any:
    if vr in ("OB", "OD", "OF", "OL", "OV", "OW", "UN"):
        return b""
    return None if vr in ("FD", "FL", "SL", "SS", "SV", "UL", "US", "UV", "DS", "IS") else ""
