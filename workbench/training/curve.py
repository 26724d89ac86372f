"""Reads the course of a training out of the lines that the training image prints.

The lines are the ones that SageMaker's metric definitions match: `step=10 train_loss=0.3123`,
`step=120 val_mean_dice=0.9310`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

VALIDATION = "val_"
"""What the names of values on the validation cases begin with."""

_STEP = re.compile(r"\bstep=(\d+)\b(.*)")
_VALUE = re.compile(r"\b([a-z]\w*)=([^\s,;]+)")
_WANTED = re.compile(rf"train_loss|{VALIDATION}\w+")

Points = tuple[tuple[int, float], ...]


@dataclass(frozen=True, kw_only=True)
class Point:
    """One value at one step."""

    step: int
    name: str
    value: float


@dataclass(frozen=True, kw_only=True)
class TrainingCurve:
    """(step, value) points in the order in which they were printed; values that are not finite are left
    out, and of a step that ran again after an interruption the last value counts.
    """

    train_loss: Points
    validation: Mapping[str, Points]
    """By name: {"val_mean_dice": ...}."""


def read_points(line: str) -> Iterator[Point]:
    """The losses and validation values of one line; none if it is another kind of line."""
    found = _STEP.search(line)
    if found is None:
        return
    for name, text in _VALUE.findall(found.group(2)):
        try:
            value = float(text)
        except ValueError:
            continue
        if _WANTED.fullmatch(name) and math.isfinite(value):
            yield Point(step=int(found.group(1)), name=name, value=value)


def read_training_curve(lines: Iterable[str]) -> TrainingCurve:
    """The points in `lines`; other lines are passed over."""
    points: dict[str, dict[int, float]] = {}
    for line in lines:
        for point in read_points(line):
            points.setdefault(point.name, {})[point.step] = point.value
    return TrainingCurve(
        train_loss=tuple(points.pop("train_loss", {}).items()),
        validation={name: tuple(values.items()) for name, values in points.items()},
    )
