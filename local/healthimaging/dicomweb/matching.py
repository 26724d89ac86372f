"""The query parameters of QIDO-RS and how attributes match them (PS3.4 C.2.2.2)."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from pydicom.datadict import tag_for_keyword

from local.healthimaging.elements import Attributes, Element
from local.healthimaging.errors import invalid

DEFAULT_LIMIT = 1_000
MAXIMUM_OFFSET = 1_000_000
MAXIMUM_INCLUDED = 50
_RANGE_VRS = frozenset({"DA", "TM", "DT"})
_WILDCARD_VRS = frozenset({"AE", "CS", "LO", "LT", "PN", "SH", "ST", "UC", "UR", "UT"})


@dataclass(frozen=True, kw_only=True)
class Query:
    """What was asked for: values by tag, further attributes to return, and the page."""

    matches: dict[str, str]
    include: frozenset[str]
    include_all: bool
    fuzzy: bool
    limit: int
    offset: int


def parse_query(parameters: Sequence[tuple[str, str]]) -> Query:
    """The query of a request. Raises ValidationException."""
    found: dict[str, str] = {}
    include: set[str] = set()
    include_all, fuzzy, limit, offset = False, False, DEFAULT_LIMIT, 0
    for name, value in parameters:
        lowered = name.lower()
        if lowered == "imagesetid":
            continue
        if lowered == "includefield":
            for field in value.split(","):
                if field.lower() == "all":
                    include_all = True
                elif field:
                    include.add(_tag(field))
        elif lowered == "fuzzymatching":
            fuzzy = value.lower() == "true"
        elif lowered == "limit":
            limit = _number(name, value, DEFAULT_LIMIT)
        elif lowered == "offset":
            offset = _number(name, value, MAXIMUM_OFFSET)
        else:
            found[_tag(name)] = value
    if len(include) > MAXIMUM_INCLUDED:
        raise invalid(f"includefield names at most {MAXIMUM_INCLUDED} attributes, or all.")
    return Query(
        matches=found,
        include=frozenset(include),
        include_all=include_all,
        fuzzy=fuzzy,
        limit=limit,
        offset=offset,
    )


def _tag(name: str) -> str:
    """The tag of an attribute that is named by keyword or tag; of a dotted path the first part."""
    first = name.split(".")[0]
    if re.fullmatch(r"[0-9A-Fa-f]{8}", first):
        return first.upper()
    number = tag_for_keyword(first)
    if number is None:
        raise invalid(f"{first} is not a DICOM attribute.")
    return f"{number:08X}"


def _number(name: str, value: str, maximum: int) -> int:
    if not value.isdigit() or int(value) > maximum:
        raise invalid(f"{name} is a number from 0 to {maximum}.")
    return int(value)


def matches(attributes: Attributes, query: Query) -> bool:
    """Whether the attributes fit every value of the query. An empty value fits everything (universal
    matching)."""
    return all(
        not wanted or _fits(attributes.get(tag), wanted, query.fuzzy) for tag, wanted in query.matches.items()
    )


def _fits(element: Element | None, wanted: str, fuzzy: bool) -> bool:
    if element is None:
        return wanted == "*"
    vr = element["vr"]
    values = [value for value in _texts(element) if value]
    if vr == "UI":
        return bool(set(values) & set(wanted.replace("\\", ",").split(",")))
    if vr in _RANGE_VRS and "-" in wanted:
        low, _, high = wanted.partition("-")
        # Values are shortened to the bound's precision: 20240101120000 is on 20240101.
        return any(
            (not low or value[: len(low)] >= low) and (not high or value[: len(high)] <= high)
            for value in values
        )
    if vr == "PN":
        return any(_fits_name(value, wanted, fuzzy) for value in values)
    if vr in _WILDCARD_VRS and ("*" in wanted or "?" in wanted):
        pattern = _wildcard(wanted)
        return wanted == "*" or any(pattern.fullmatch(value) for value in values)
    if vr in ("IS", "DS"):
        return any(_same_number(value, wanted) for value in values)
    return wanted in values


def _texts(element: Element) -> Iterator[str]:
    for value in element["value"]:
        if isinstance(value, (str, int, float)):
            yield str(value).strip(" \0")


def _fits_name(value: str, wanted: str, fuzzy: bool) -> bool:
    """Person names match without regard to case, in any of their component groups."""
    pattern = _wildcard(wanted.lower())
    groups = value.lower().split("=")
    if any(pattern.fullmatch(group) for group in groups):
        return True
    if not fuzzy:
        return False
    words = [word for group in groups for word in re.split(r"[\^\s]+", group)]
    return all(
        any(word.startswith(term) for word in words)
        for term in re.split(r"[\^\s]+", wanted.lower().strip("*"))
        if term
    )


def _wildcard(text: str) -> re.Pattern[str]:
    return re.compile(fnmatch.translate(text.replace("[", "[[]")))


def _same_number(value: str, wanted: str) -> bool:
    try:
        return float(value) == float(wanted)
    except ValueError:
        return value == wanted
