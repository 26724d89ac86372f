"""The model in use, measured on the same cases by the same code as the new one."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from healthimaging import Case
from training.errors import BaselineError, EvaluationError
from training.evaluation.baseline import Baseline, Connect, newest_approved, open_baseline
from training.evaluation.gate import COMPARISON_FAILED, LESS_IS_BETTER, Gate
from training.evaluation.intervals import Interval, estimate, intervals
from training.evaluation.measurement import CaseResult, measure, paired_difference, scores_of
from training.evaluation.model import Model

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What came of the comparison.

    Attributes:
        document: `baseline` of the evaluation document; None where nothing was compared.
        reason: Why nothing was compared.
        improvement: For the gate; None where the job was told no metric.
    """

    document: dict[str, Any] | None
    reason: str | None
    improvement: float | None


class Comparison:
    """Measures the approved model beside the new one, case by case, so that every case is read once.

    An approved model that cannot be measured does not stop the evaluation: the document tells of it, and the
    gate stays shut.

    Args:
        gate: Names the group and the metric.
        model: The new model.
        scratch: An empty folder.
        connect: Makes AWS clients.
    """

    def __init__(self, gate: Gate, model: Model, *, scratch: Path, connect: Connect) -> None:
        self._gate = gate
        self._channels = model.bundle.channels
        self._arn: str | None = None
        self._error: str | None = None
        self._baseline: Baseline | None = None
        self._results: list[CaseResult] = []
        self._left_out: set[str] = set()
        if gate.group is None:
            return
        try:
            approved = newest_approved(gate.group, connect=connect)
            if approved is not None:
                self._arn = approved.arn
                self._baseline = open_baseline(approved, against=model, scratch=scratch, connect=connect)
        except BaselineError as error:
            self._fail(error)

    def measure(self, case: Case, item: Mapping[str, Any]) -> None:
        """Measures the approved model on a case, unless it was trained on the case's patient."""
        if self._baseline is None or self._error is not None:
            return
        if self._baseline.seen is not None and case.patient_key in self._baseline.seen:
            self._left_out.add(case.patient_key)
            return
        try:
            measured = measure(self._baseline.model, case, item, channels=self._channels)
        except EvaluationError as error:
            self._fail(error)
            return
        except Exception as error:  # noqa: BLE001 - the approved bundle's own code may raise anything
            # Whatever it is, it must not keep every later model from being measured.
            _LOG.exception("the approved model failed on image set %s", case.image.image_set_id)
            msg = f"Image set {case.image.image_set_id}: the approved model fails with {type(error).__name__}"
            self._fail(BaselineError(msg))
            return
        self._results.append(measured.result)

    def verdict(self, results: Sequence[CaseResult], score: float | None) -> Verdict:
        """Compares.

        Args:
            results: Of the new model, on all cases.
            score: Of the new model on all cases: the gate's metric.
        """
        gate = self._gate
        if self._error is not None:
            return Verdict(
                document={"modelPackageArn": self._arn, "error": self._error},
                reason=None,
                improvement=None if gate.metric is None else COMPARISON_FAILED,
            )
        alone = gate.improvement(score, None)
        if self._baseline is None:
            reason = (
                "The job was told no model package group"
                if gate.group is None
                else f"{gate.group} has no approved model yet"
            )
            return Verdict(document=None, reason=reason, improvement=alone)
        if not self._results:
            reason = (
                f"The approved model {self._arn} was trained on all {len(self._left_out)} patients: "
                "nothing was compared"
            )
            return Verdict(document=None, reason=reason, improvement=alone)
        return self._compared(self._baseline, results)

    def _compared(self, baseline: Baseline, results: Sequence[CaseResult]) -> Verdict:
        gate = self._gate
        compared = [one for one in results if one.case.patient_key not in self._left_out]
        my_metrics, their_metrics = estimate(scores_of(compared)), estimate(scores_of(self._results))
        difference = paired_difference(compared, self._results)
        found, spread = difference.metrics(np.ones(len(difference.patients))), intervals(difference)
        improvement: float | None = None
        if gate.metric is not None:
            my_score, their_score = my_metrics[gate.metric], their_metrics[gate.metric]
            # One of the two may have no number (say, no segment found at all, so no distance): nobody can say
            # which is better.
            improvement = (
                COMPARISON_FAILED
                if my_score is None or their_score is None
                else gate.improvement(my_score, their_score)
            )
        document = {
            "modelPackageArn": baseline.arn,
            "bundle": {"name": baseline.model.bundle.name, "version": baseline.model.bundle.version},
            "metrics": their_metrics,
            "candidateMetrics": my_metrics,
            "improvement": {
                name: _signed(name, value) if np.isfinite(value) else None for name, value in found.items()
            },
            "improvementIntervals": {name: _turned(name, one) for name, one in spread.items()},
            "patients": len(difference.patients),
            "cases": len(self._results),
            "patientsSeenInTraining": None if baseline.seen is None else len(self._left_out),
            **(
                {
                    "note": "It is not known which patients the approved model was trained on: "
                    f"{baseline.unknown}. If it saw some of these, it looks better here than it is"
                }
                if baseline.seen is None
                else {}
            ),
        }
        return Verdict(document=document, reason=None, improvement=improvement)

    def _fail(self, error: Exception) -> None:
        _LOG.error("the approved model was not compared with: %s", error)
        self._error = str(error)


def _signed(name: str, value: float) -> float:
    """More is better in what this gives."""
    return -value if name in LESS_IS_BETTER else value


def _turned(name: str, one: Interval | None) -> dict[str, Any] | None:
    if one is None:
        return None
    low, high = sorted((_signed(name, one.low), _signed(name, one.high)))
    return Interval(low=low, high=high, patients=one.patients).as_document()
