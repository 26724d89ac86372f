"""The coded terms that DICOM wants for a segment or a class, found by the bundle's channel name."""

from __future__ import annotations

import colorsys
import hashlib
import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code

TERMS_FILE = Path(__file__).with_name("segment_terms.toml")

_SIDES = re.compile(r"^(?:left|right) | (?:left|right)$|(?<=rib) (?:left|right)(?= \d)")
_RIB_NUMBER = re.compile(r"(?<=\brib) \d{1,2}$")


@dataclass(frozen=True, kw_only=True)
class SegmentTerm:
    """What a segment is: property category and type (DICOM PS3.3, C.8.20.4), and its display color."""

    category: Code
    type: Code
    color: tuple[int, int, int]
    """sRGB (red, green, blue), 0 to 255."""


def segment_terms(names: Sequence[str], *, file: Path = TERMS_FILE) -> dict[str, SegmentTerm]:
    """Look up the terms of channel names.

    A name that the table lacks is Tissue (SCT 85756007), which is a category and a type of its own (PS3.16,
    CID 7150 and 7166): a wrong concept would be worse, and the segment's label says what the bundle calls it.
    """
    table = _table(file)
    terms = {}
    for name in names:
        entry = _entry(table["segments"], name)
        if entry is None:
            terms[name] = SegmentTerm(category=_TISSUE, type=_TISSUE, color=_own_color(name))
            continue
        category = table["categories"][entry["category"]]
        color = entry.get("color")
        terms[name] = SegmentTerm(
            category=Code(category["value"], category["scheme"], category["meaning"]),
            type=Code(entry["value"], "SCT", entry["meaning"]),
            color=_own_color(name) if color is None else _rgb(color),
        )
    return terms


def class_terms(names: Sequence[str], *, file: Path = TERMS_FILE) -> dict[str, Code]:
    """Look up the concepts of class names; a name that the table lacks has none."""
    table = _table(file)
    found = {name: _entry(table["segments"], name) for name in names}
    return {name: Code(entry["value"], "SCT", entry["meaning"]) for name, entry in found.items() if entry}


def normalised(name: str) -> str:
    """Spell a channel name as the table's keys are spelled."""
    return re.sub(r"[\s_-]+", " ", name).strip().lower()


_TISSUE = Code(codes.SCT.Tissue.value, "SCT", codes.SCT.Tissue.meaning)


@cache
def _table(file: Path) -> Mapping[str, Any]:
    with file.open("rb") as stream:
        return tomllib.load(stream)


def _entry(segments: Mapping[str, Any], name: str) -> Mapping[str, Any] | None:
    return next((segments[spelling] for spelling in _spellings(name) if spelling in segments), None)


def _spellings(name: str) -> Iterator[str]:
    """The name, then what it says without its side and its number: less specific, and never wrong."""
    whole = normalised(name)
    yield whole
    without_side = _SIDES.sub("", whole)
    yield without_side
    yield _RIB_NUMBER.sub("", without_side)


def _own_color(name: str) -> tuple[int, int, int]:
    """A color that is the same wherever the name is stored."""
    first, second = hashlib.sha256(normalised(name).encode()).digest()[:2]
    red, green, blue = colorsys.hsv_to_rgb(first / 256, 0.35 + second / 640, 0.9)
    return round(red * 255), round(green * 255), round(blue * 255)


def _rgb(hexadecimal: str) -> tuple[int, int, int]:
    red, green, blue = bytes.fromhex(hexadecimal.removeprefix("#"))
    return red, green, blue
