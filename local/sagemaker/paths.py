"""Paths into JSON as pipeline definitions write them: "metrics.mean_dice", "Outputs['evaluation'].S3Uri"."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

_PART = re.compile(r"\.?(?P<name>[^.\[\]]+)|\[(?P<index>\d+)\]|\[(?P<quote>['\"])(?P<key>.+?)(?P=quote)\]")
_NAMED_BY = ("OutputName", "InputName", "ChannelName", "MetricName", "Name")
"""The member that gives an element of a list its name, so that a list can be looked into by name."""


class PathError(LookupError):
    """A path that leads nowhere, or is none."""


def parts(path: str) -> list[str | int]:
    """The steps of a path."""
    found: list[str | int] = []
    position = 0
    while position < len(path):
        match = _PART.match(path, position)
        if match is None:
            raise PathError(f"{path!r} is not a path")
        found.append(int(match["index"]) if match["index"] is not None else match["name"] or match["key"])
        position = match.end()
    return found


def look_up(document: Any, path: str) -> Any:
    """The value at a path.

    Raises:
        PathError: with the part that is missing.
    """
    value = document
    for part in parts(path):
        value = _step(value, part, path)
    return value


def _step(value: Any, part: str | int, path: str) -> Any:
    if isinstance(value, Mapping) and part in value:
        return value[part]
    if isinstance(value, Sequence) and not isinstance(value, str):
        if isinstance(part, int) and part < len(value):
            return value[part]
        for element in value:
            if isinstance(element, Mapping) and any(element.get(member) == part for member in _NAMED_BY):
                return element
    raise PathError(f"nothing at {part!r} of {path!r}")
