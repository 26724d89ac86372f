"""How far a figure would move with other patients: percentile bootstrap over patients.

Images of one patient resemble each other, so that resampling images would promise more than the data hold
(Field and Welsh, "Bootstrapping clustered data", J. R. Statist. Soc. B 69 (2007) 369-390). A patient is
therefore drawn with all images or not at all, and counts once however many images there are.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

LEVEL = 0.95
RESAMPLES = 2000
SEED = 0

LEAST_USABLE = 0.5
"""Share of the resamples in which a metric must be a number (AUC is none where only one class was drawn)."""

Counts = NDArray[np.float64]
"""How often each patient counts, in the order of `Scores.patients`."""


class Scores(Protocol):
    """Measured cases that give metrics for any weighting of their patients."""

    @property
    def patients(self) -> Sequence[str]:
        """Keys of the patients, each once."""

    def metrics(self, counts: Counts) -> dict[str, float]:
        """Metrics by name, each patient counted as often as `counts` says; NaN where one is undefined."""

    def support(self) -> dict[str, int]:
        """How many patients have a value, by metric."""


@dataclass(frozen=True, kw_only=True)
class Interval:
    """A confidence interval of one metric, in the metric's unit, and how many patients it rests on."""

    low: float
    high: float
    patients: int

    def as_document(self) -> dict[str, Any]:
        return {
            "low": self.low,
            "high": self.high,
            "level": LEVEL,
            "method": f"percentile bootstrap over patients, {RESAMPLES} resamples, seed {SEED}",
            "patients": self.patients,
        }


def estimate(scores: Scores) -> dict[str, float | None]:
    """The metrics with every patient counted once; None where a metric is undefined."""
    return {
        name: value if math.isfinite(value) else None
        for name, value in scores.metrics(np.ones(len(scores.patients))).items()
    }


def intervals(scores: Scores) -> dict[str, Interval | None]:
    """An interval for every metric.

    Returns:
        By metric; None where fewer than two patients have a value, or the metric is undefined for most
        resamples.
    """
    patients, support = len(scores.patients), scores.support()
    if patients < 2:
        return dict.fromkeys(support)
    draws = np.random.default_rng(SEED).multinomial(patients, [1 / patients] * patients, size=RESAMPLES)
    values: dict[str, list[float]] = {name: [] for name in support}
    for draw in draws:
        for name, value in scores.metrics(draw.astype(np.float64)).items():
            values[name].append(value)
    return {name: _percentiles(np.asarray(values[name]), patients=count) for name, count in support.items()}


def _percentiles(values: NDArray[np.float64], *, patients: int) -> Interval | None:
    usable = values[np.isfinite(values)]
    if patients < 2 or len(usable) < LEAST_USABLE * len(values):
        return None
    low, high = np.quantile(usable, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(low=float(low), high=float(high), patients=patients)


class PatientMeans:
    """Metrics that are means: first over a patient's cases, then over patients.

    Args:
        patients: Key of each case's patient.
        values: For each metric one value a case; None is no measurement and does not count.
    """

    def __init__(self, patients: Sequence[str], values: Mapping[str, Sequence[float | None]]) -> None:
        self.patients = tuple(dict.fromkeys(patients))
        cases = {patient: [i for i, p in enumerate(patients) if p == patient] for patient in self.patients}
        means = {
            name: np.asarray([_mean([column[i] for i in cases[p]]) for p in self.patients])
            for name, column in values.items()
        }
        # Each patient's mean, 0 where there is none, and which patients have one.
        self._means = {name: (np.nan_to_num(one), np.isfinite(one)) for name, one in means.items()}

    def metrics(self, counts: Counts) -> dict[str, float]:
        found = {}
        for name, (means, has_one) in self._means.items():
            total = counts @ has_one
            found[name] = float(counts @ means / total) if total > 0 else math.nan
        return found

    def support(self) -> dict[str, int]:
        return {name: int(has_one.sum()) for name, (_, has_one) in self._means.items()}


class Difference:
    """What one model's metrics have over another's, on the same patients (a paired comparison).

    Args:
        candidate: Scores of one model.
        baseline: Scores of the other, on the same cases.
    """

    def __init__(self, candidate: Scores, baseline: Scores) -> None:
        if tuple(candidate.patients) != tuple(baseline.patients):
            msg = "Only measurements of the same patients can be compared"
            raise ValueError(msg)
        self.patients = tuple(candidate.patients)
        self._candidate, self._baseline = candidate, baseline

    def metrics(self, counts: Counts) -> dict[str, float]:
        theirs = self._baseline.metrics(counts)
        return {name: value - theirs[name] for name, value in self._candidate.metrics(counts).items()}

    def support(self) -> dict[str, int]:
        theirs = self._baseline.support()
        return {name: min(count, theirs[name]) for name, count in self._candidate.support().items()}


def _mean(values: Sequence[float | None]) -> float:
    numbers = [value for value in values if value is not None]
    return math.fsum(numbers) / len(numbers) if numbers else math.nan
