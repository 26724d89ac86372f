"""Why a pipeline refused a model: each condition held against what the evaluation measured."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from workbench.training.pipeline import Pipeline

_ADVICE = {
    "gate.heldOut": "Its patients were seen in training: make a data set with --test or --test-patient. To "
    "register it knowingly: --allow-training-patients",
    "gate.improvement": "On the same cases the approved model is better: the evaluation's report shows both. "
    "To register this one knowingly: --parameter MinimumImprovement=...",
}
_ADVICE_FOR_SCORES = (
    "Give it more data or steps (--steps), or lower the wanted score knowingly: --minimum-score"
)


@dataclass(frozen=True, kw_only=True)
class Refusal:
    """Conditions that did not hold."""

    reasons: tuple[str, ...]
    advice: tuple[str, ...]


def refusal(pipeline: Pipeline, evaluation: Mapping[str, Any], values: Mapping[str, str]) -> Refusal | None:
    """The conditions of `pipeline` that `evaluation` (evaluation.json) does not fulfil; None if it does all.

    Args:
        pipeline: As it is deployed.
        evaluation: The document.
        values: Parameters of the execution; a parameter that is not there has its default.
    """
    reasons, advice = [], []
    for condition in pipeline.conditions():
        measured = _at(evaluation, condition.path)
        wanted = pipeline.value(condition.parameter, values)
        if isinstance(measured, int | float) and measured >= float(wanted):
            continue
        broken = _at(evaluation, "baseline.error")
        if condition.path == "gate.improvement" and broken:
            approved = _at(evaluation, "baseline.modelPackageArn")
            reasons.append(f"it could not be compared with the approved {approved}: {broken}")
            advice.append("Repair or reject that package, so that an older one is compared with")
            continue
        reasons.append(
            f"{condition.path} is {_shown(measured)}, and {condition.parameter} asks for {wanted} at least"
        )
        advice.append(_ADVICE.get(condition.path, _ADVICE_FOR_SCORES))
    return Refusal(reasons=tuple(reasons), advice=tuple(dict.fromkeys(advice))) if reasons else None


def _at(document: Mapping[str, Any], path: str) -> Any:
    value: Any = document
    for name in path.split("."):
        value = value.get(name) if isinstance(value, Mapping) else None
    return value


def _shown(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, int | float) else "not defined"
