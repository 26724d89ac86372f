"""How well volumes were told apart, and how far the probabilities can be believed.

Every patient counts once: a case weighs one over the number of its patient's cases.

- AUC: the chance that a case of the class gets a higher probability than one that is not of it, ties half
  (Hanley and McNeil, Radiology 143 (1982) 29-36). With two classes that of the second one; with more the mean
  of each against the rest.
- Brier score: half the squared distance between probabilities and truth, which for two classes is the usual
  (p - y)^2 and lies in 0..1 for any number of them.
- Expected calibration error: mean distance between the probability of the predicted class and how often it
  was right, over ten bins of equal width (Guo et al., "On Calibration of Modern Neural Networks", 2017).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from healthimaging import Case
from training.evaluation.intervals import Counts, intervals

METRICS = ("auc", "accuracy", "balanced_accuracy", "brier", "expected_calibration_error")

BINS = 10

Floats = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class ClassifiedCase:
    """A case, its class, and how probable the model finds each class.

    Attributes:
        case: The case.
        true: Name of its class.
        probabilities: 0..1 by class name, in the order of the bundle's channels.
    """

    case: Case
    true: str
    probabilities: Mapping[str, float]

    @property
    def predicted(self) -> str:
        """The most probable class; the first one of several."""
        return max(self.probabilities, key=lambda name: self.probabilities[name])

    @property
    def badness(self) -> float | None:
        return 1 - self.probabilities[self.true]

    def as_document(self) -> dict[str, Any]:
        return {
            "class": self.true,
            "predicted": self.predicted,
            "probabilities": {name: round(value, 6) for name, value in self.probabilities.items()},
        }


class ClassificationScores:
    """The metrics of classified cases.

    Args:
        cases: Measured with one model; all have the same classes.
    """

    def __init__(self, cases: Sequence[ClassifiedCase]) -> None:
        self._classes = list(cases[0].probabilities)
        keys = [one.case.patient_key for one in cases]
        self.patients = tuple(dict.fromkeys(keys))
        place = {patient: i for i, patient in enumerate(self.patients)}
        self._patient = np.asarray([place[key] for key in keys])
        self._share = 1 / np.bincount(self._patient)[self._patient]
        self._probabilities: Floats = np.asarray([list(one.probabilities.values()) for one in cases])
        self._true = np.asarray([self._classes.index(one.true) for one in cases])
        self._predicted = np.asarray([self._classes.index(one.predicted) for one in cases])
        self._present = sorted(set(self._true.tolist()))

    def metrics(self, counts: Counts) -> dict[str, float]:
        weights = counts[self._patient] * self._share
        right = (self._predicted == self._true).astype(np.float64)
        recalls = [_mean(right, weights * (self._true == number)) for number in self._present]
        truth = np.eye(len(self._classes))[self._true]
        squared = ((self._probabilities - truth) ** 2).sum(axis=1) / 2
        return {
            "auc": self._area(weights),
            "accuracy": _mean(right, weights),
            # Of one class it would be the share of that class which was found: 1 for a model that always says
            # the same.
            "balanced_accuracy": math.fsum(recalls) / len(recalls) if len(recalls) > 1 else math.nan,
            "brier": _mean(squared, weights),
            "expected_calibration_error": self._calibration_error(weights),
        }

    def support(self) -> dict[str, int]:
        return dict.fromkeys(METRICS, len(self.patients))

    def details(self) -> dict[str, Any]:
        """What the document says beyond metrics: classes, confusion matrix and reliability."""
        per_class = _PerClass(self)
        spread = intervals(per_class)
        found = per_class.metrics(np.ones(len(self.patients)))
        confusion = np.zeros((len(self._classes), len(self._classes)), dtype=int)
        np.add.at(confusion, (self._true, self._predicted), 1)
        classes = {}
        for number, name in enumerate(self._classes):
            figures = {kind: found[f"{kind}:{name}"] for kind in ("auc", "sensitivity", "specificity")}
            classes[name] = {
                "cases": int((self._true == number).sum()),
                "metrics": {kind: value if math.isfinite(value) else None for kind, value in figures.items()},
                "intervals": {
                    kind: None if (one := spread[f"{kind}:{name}"]) is None else one.as_document()
                    for kind in figures
                },
            }
        return {
            "classes": classes,
            "confusion": {
                "classes": self._classes,
                "rows": "true class",
                "columns": "predicted class",
                "cases": confusion.tolist(),
            },
            "calibration": {
                "of": "the predicted class's probability",
                "bins": self._reliability(),
            },
        }

    def class_metrics(self, counts: Counts) -> dict[str, float]:
        """`auc:NAME`, `sensitivity:NAME` and `specificity:NAME` of each class against the rest."""
        weights = counts[self._patient] * self._share
        found = {}
        for number, name in enumerate(self._classes):
            positive, called = self._true == number, self._predicted == number
            found[f"auc:{name}"] = area_under_curve(self._probabilities[:, number], positive, weights)
            found[f"sensitivity:{name}"] = _mean(called.astype(np.float64), weights * positive)
            found[f"specificity:{name}"] = _mean((~called).astype(np.float64), weights * ~positive)
        return found

    def _area(self, weights: Floats) -> float:
        # The mean of two classes against each other would count each pair twice, with the same result only
        # where the two probabilities add up to one.
        numbers = [1] if len(self._classes) == 2 else self._present
        areas = [
            area_under_curve(self._probabilities[:, number], self._true == number, weights)
            for number in numbers
        ]
        return math.fsum(areas) / len(areas)

    def _bins(self) -> tuple[NDArray[np.int64], Floats, Floats]:
        confidence = self._probabilities[np.arange(len(self._true)), self._predicted]
        bins = np.minimum((confidence * BINS).astype(np.int64), BINS - 1)
        return bins, confidence, (self._predicted == self._true).astype(np.float64)

    def _calibration_error(self, weights: Floats) -> float:
        bins, confidence, right = self._bins()
        gaps = np.bincount(bins, weights * (confidence - right), minlength=BINS)
        total = weights.sum()
        return float(np.abs(gaps).sum() / total) if total > 0 else math.nan

    def _reliability(self) -> list[dict[str, Any]]:
        bins, confidence, right = self._bins()
        return [
            {
                "from": number / BINS,
                "to": (number + 1) / BINS,
                "cases": int((bins == number).sum()),
                "probability": _mean(confidence, self._share * (bins == number)),
                "right": _mean(right, self._share * (bins == number)),
            }
            for number in range(BINS)
            if (bins == number).any()
        ]


class _PerClass:
    """The metrics of single classes, as something that has intervals."""

    def __init__(self, scores: ClassificationScores) -> None:
        self.patients = scores.patients
        self.metrics = scores.class_metrics
        self._names = list(scores.class_metrics(np.ones(len(scores.patients))))

    def support(self) -> dict[str, int]:
        return dict.fromkeys(self._names, len(self.patients))


def area_under_curve(values: Floats, positive: NDArray[np.bool_], weights: Floats) -> float:
    """Area under the ROC curve of weighted cases; NaN where one side has no weight.

    Args:
        values: (n) Higher means more likely positive.
        positive: (n) Which cases are.
        weights: (n) Not negative.
    """
    levels, place = np.unique(values, return_inverse=True)
    up = np.bincount(place, weights * positive, minlength=len(levels))
    down = np.bincount(place, weights * ~positive, minlength=len(levels))
    pairs = up.sum() * down.sum()
    if pairs <= 0:
        return math.nan
    below = np.cumsum(down) - down
    # Rounding must not carry a perfect order beyond 1.
    return min(1.0, float((up * (below + down / 2)).sum() / pairs))


def _mean(values: Floats, weights: Floats) -> float:
    total = weights.sum()
    return float(weights @ values / total) if total > 0 else math.nan
