"""What differs between two datasets, element by element, with pydicom's own reading as the measure."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any

import numpy as np
from pydicom import DataElement, Dataset
from pydicom.tag import BaseTag

PIXELS = frozenset({0x7FE00001, 0x7FE00002, 0x7FE00010})
"""Pixel data and its offset tables are compared as pixels."""


def differences(expected: Dataset, found: Dataset, *, besides: Collection[int] = ()) -> list[str]:
    """Every element that is missing, added, or of another VR or value; text of numbers counts.

    Args:
        expected: As it was imported; words of big endian files are compared as the numbers they are.
        found: As it came back.
        besides: Tags that may differ.
    """
    skipped = {*besides, *PIXELS}
    return list(_differences(expected, found, skipped, big_endian=expected.original_encoding[1] is False))


def _differences(
    expected: Dataset, found: Dataset, skipped: Collection[int], *, big_endian: bool, where: str = ""
) -> Iterator[str]:
    tags = {*expected.keys(), *found.keys()}
    for tag in sorted(tags - set(skipped)):
        if not tag.element or tag.group == 2:  # group lengths, file meta information
            continue
        name = f"{where}{tag}"
        if tag not in found:
            yield f"{name} is missing"
        elif tag not in expected:
            yield f"{name} is added"
        elif expected[tag].VR != found[tag].VR:
            yield f"{name} is {found[tag].VR}, not {expected[tag].VR}"
        elif expected[tag].VR == "SQ":
            yield from _items(expected[tag], found[tag], big_endian=big_endian, where=f"{name} ")
        else:
            one, other = value(expected[tag], big_endian=big_endian), value(found[tag])
            if one != other:
                yield f"{name} {expected[tag].VR}: {one!r:.60} became {other!r:.60}"


def _items(expected: DataElement, found: DataElement, *, big_endian: bool, where: str) -> Iterator[str]:
    if len(expected.value) != len(found.value):
        yield f"{where}has {len(found.value)} items, not {len(expected.value)}"
        return
    for number, (one, other) in enumerate(zip(expected.value, found.value, strict=True), start=1):
        yield from _differences(one, other, (), big_endian=big_endian, where=f"{where}item {number} ")


def value(element: DataElement, *, big_endian: bool = False) -> Any:
    """The value as something that can be compared: DS and IS as written, empty and absent as None."""
    held = element.value
    if held is None or (isinstance(held, (str, bytes)) and not held):
        return None
    if isinstance(held, bytes):
        size = {"OW": 2, "OF": 4, "OL": 4, "OD": 8, "OV": 8}.get(element.VR, 1)
        return np.frombuffer(held, f">u{size}").astype(f"<u{size}").tobytes() if big_endian else held
    several = held if element.VM > 1 else [held]
    if element.VR in ("DS", "IS"):
        return [str(getattr(item, "original_string", item)) for item in several]
    if element.VR == "PN":
        return [str(item) for item in several] if any(str(item) for item in several) else None
    if element.VR == "AT":
        return [BaseTag(item) for item in several]
    return list(several) or None
