"""What the pipeline's condition asks: measured on held-out patients, and no worse than what is approved."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from training.errors import EvaluationError

GROUP, METRIC, ARCHIVE_URI = "MODEL_PACKAGE_GROUP", "GATE_METRIC", "MODEL_ARCHIVE_URI"
"""Environment variables of the evaluation job."""

LESS_IS_BETTER = frozenset(
    {"mean_hausdorff95_mm", "mean_volume_error_ml", "mean_volume_error_percent"}
    | {"brier", "expected_calibration_error"}
)

COMPARISON_FAILED = -1e9
"""The improvement over an approved model that could not be measured.

The pipeline's condition needs a number. This one is below every minimum that is meant as one, so that a
broken comparison registers nothing; who wants to register all the same gives this very minimum.
"""


@dataclass(frozen=True, kw_only=True)
class Gate:
    """What a model is judged by.

    Attributes:
        group: The model package group whose newest approved package is the baseline; None: no comparison.
        metric: The metric of the comparison; None where the job was told none.
        archive_uri: Where the measured archive lies, for the record.
    """

    group: str | None
    metric: str | None
    archive_uri: str | None

    @classmethod
    def from_environment(cls, environ: Mapping[str, str]) -> Gate:
        return cls(
            group=environ.get(GROUP) or None,
            metric=environ.get(METRIC) or None,
            archive_uri=environ.get(ARCHIVE_URI) or None,
        )

    def score(self, metrics: Mapping[str, float | None], *, why_none: str) -> float | None:
        """The metric's value; None where the job was told no metric.

        Args:
            metrics: By name.
            why_none: What to say about a metric of this task that has no value.

        Raises:
            EvaluationError: The task has no such metric, or it is undefined for these cases.
        """
        if self.metric is None:
            return None
        if self.metric not in metrics:
            msg = f"{METRIC} is {self.metric!r}; this task has {', '.join(metrics)}"
            raise EvaluationError(msg)
        value = metrics[self.metric]
        if value is None:
            msg = f"{self.metric}, by which the model is to be judged, is undefined: {why_none}"
            raise EvaluationError(msg)
        return value

    def improvement(self, score: float | None, baseline: float | None) -> float | None:
        """How much better than the baseline, more always being better.

        Args:
            score: Of the model, on the cases that are compared.
            baseline: Of the approved model on them. None: there is nothing to compare with, and the
                improvement is the score itself, or 0 for a metric of which less is better.
        """
        if score is None or self.metric is None:
            return None
        sign = -1.0 if self.metric in LESS_IS_BETTER else 1.0
        if baseline is None:
            return max(sign * score, 0.0)
        return sign * (score - baseline)


@dataclass(frozen=True, kw_only=True)
class HeldOut:
    """Whether the model has not seen the patients that it is measured on, and why this is known or not."""

    value: bool
    reason: str


def held_out(
    *, split: str, patients: Iterable[str], manifest_sha256: str, provenance: Mapping[str, Any]
) -> HeldOut:
    """Judges by what the training recorded: which patients it was trained on, or at least by which manifest.

    Args:
        split: The side of the evaluation's manifest that was measured on.
        patients: Keys of the patients there.
        manifest_sha256: Of the evaluation's manifest.
        provenance: What the training recorded; empty where there is no record.
    """
    if split == "train":
        return HeldOut(value=False, reason="These are the patients that the model was trained on")
    trained_on, trained_by = trained_patients(provenance), provenance.get("manifestSha256")
    if trained_on is not None:
        seen = trained_on & set(patients)
        if seen:
            return HeldOut(value=False, reason=f"The model was trained on {len(seen)} of these patients")
    elif not trained_by:
        return HeldOut(
            value=False,
            reason="The model does not say what it was trained on; it may have seen these patients",
        )
    # A manifest has no patient on two sides, so that under the training's own one the split decides.
    elif trained_by != manifest_sha256:
        return HeldOut(
            value=False,
            reason=f"The model was trained from another manifest (SHA-256 {str(trained_by)[:12]}...) and "
            "does not say on which patients; it may have seen these",
        )
    if split == "validation":
        return HeldOut(
            value=True,
            reason="No weights were fitted to these patients, but the training may have chosen among its "
            "weights by them: the figures may be somewhat too good",
        )
    return HeldOut(value=True, reason="The model was trained on none of these patients")


def trained_patients(provenance: Mapping[str, Any]) -> frozenset[str] | None:
    """Keys of the patients that a model was trained on; None where its record does not name them."""
    keys = provenance.get("trainPatients")
    return frozenset(map(str, keys)) if isinstance(keys, list) and keys else None
