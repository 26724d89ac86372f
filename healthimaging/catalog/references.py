"""Which other series an object is about."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from healthimaging.metadata import Attributes

_DEEPEST = 16
"""Sequences within sequences that are looked into: RT structure sets need three, reports four."""


def referenced_series(attributes: Attributes) -> Iterator[str]:
    """Series Instance UIDs (0020,000E) within sequences: of ReferencedSeriesSequence (0008,1115) in
    segmentations, of RTReferencedSeriesSequence (3006,0014) in structure sets, of the evidence of reports.
    """
    for value in attributes.values.values():
        if isinstance(value, list):
            yield from _within(value, depth=1)


def _within(items: list[Any], *, depth: int) -> Iterator[str]:
    if depth > _DEEPEST:
        return
    for item in items:
        if not isinstance(item, dict):
            continue
        uid = item.get("SeriesInstanceUID")
        if isinstance(uid, str) and uid.strip(" \0"):
            yield uid.strip(" \0")
        for value in item.values():
            if isinstance(value, list):
                yield from _within(value, depth=depth + 1)
