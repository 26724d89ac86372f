"""The coded terms that DICOM wants for a segment, found by the bundle's channel name."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pydicom.sr.coding import Code

from runtime.errors import BundleError

TERMS_FILE = Path(__file__).with_name("segment_terms.toml")


@dataclass(frozen=True, kw_only=True)
class SegmentTerm:
    """What a segment is: property category and type (DICOM PS3.3, C.8.20.4), and its display color."""

    category: Code
    type: Code
    color: tuple[int, int, int]
    """sRGB (red, green, blue), 0 to 255."""


def segment_terms(names: Sequence[str], *, file: Path = TERMS_FILE) -> dict[str, SegmentTerm]:
    """Look up the terms of channel names.

    Raises
    ------
    BundleError
        With every name that the table lacks, and what to do about it.
    """
    with file.open("rb") as stream:
        table = tomllib.load(stream)
    categories = {
        name: Code(value["value"], value["scheme"], value["meaning"])
        for name, value in table["categories"].items()
    }
    terms: dict[str, SegmentTerm] = {}
    unknown: list[str] = []
    for name in names:
        entry = table["segments"].get(normalised(name))
        if entry is None:
            unknown.append(name)
            continue
        terms[name] = SegmentTerm(
            category=categories[entry["category"]],
            type=Code(entry["value"], "SCT", entry["meaning"]),
            color=_rgb(entry["color"]),
        )
    if unknown:
        msg = (
            f"no coded term is known for the channel{'s' if len(unknown) > 1 else ''} "
            f"{', '.join(repr(name) for name in unknown)}: add it to {file.name} with its SNOMED CT code, "
            "or rename the channel in configs/metadata.json (network_data_format.outputs.pred.channel_def)"
        )
        raise BundleError(msg)
    return terms


def normalised(name: str) -> str:
    """Spell a channel name as the table's keys are spelled."""
    return re.sub(r"[\s_-]+", " ", name).strip().lower()


def _rgb(hexadecimal: str) -> tuple[int, int, int]:
    red, green, blue = bytes.fromhex(hexadecimal.removeprefix("#"))
    return red, green, blue
