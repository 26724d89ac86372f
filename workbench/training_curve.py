"""Reads the course of a training out of the lines that the training image prints.

The lines are the ones that SageMaker's metric definitions match: `step=10 train_loss=0.3123`,
`step=120 val_mean_dice=0.9310`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass

POINT = re.compile(r"\bstep=(\d+)\b.*?\b(train_loss|val_mean_dice)=(\S+)")


@dataclass(frozen=True, kw_only=True)
class TrainingCurve:
    """(step, value) points in the order in which they were printed; values that are not finite are left
    out.
    """

    train_loss: tuple[tuple[int, float], ...]
    val_mean_dice: tuple[tuple[int, float], ...]


def read_training_curve(lines: Iterable[str]) -> TrainingCurve:
    """The points in `lines`; other lines are passed over."""
    points: dict[str, dict[int, float]] = {"train_loss": {}, "val_mean_dice": {}}
    for line in lines:
        found = POINT.search(line)
        if found is None:
            continue
        try:
            value = float(found.group(3).rstrip(",;"))
        except ValueError:
            continue
        if math.isfinite(value):
            points[found.group(2)][int(found.group(1))] = value
    return TrainingCurve(
        train_loss=tuple(points["train_loss"].items()), val_mean_dice=tuple(points["val_mean_dice"].items())
    )
