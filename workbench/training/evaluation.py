"""What the Evaluate step measured: evaluation.json."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from botocore.exceptions import ClientError

from workbench.errors import WorkbenchError
from workbench.session import Session

FILE = "evaluation.json"


@dataclass(frozen=True, kw_only=True)
class Interval:
    """A confidence interval over patients."""

    low: float
    high: float
    level: float
    """0.95"""

    def __str__(self) -> str:
        return f"{self.low:.3f} to {self.high:.3f}"


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """A model's scores, and on whom they were measured."""

    metrics: Mapping[str, float | None]
    """For example {"mean_dice": 0.93}; None where the cases do not define it."""
    split: str
    """The cases it was measured on: "test", "validation", or "train" if the manifest has no others."""
    held_out: bool | None = None
    """False: the model has seen these patients; None: the document does not say."""
    held_out_reason: str = ""
    """Why it is known, or not, that the model has not seen them."""
    patients: int | None = None
    cases: int | None = None
    intervals: Mapping[str, Interval] = field(default_factory=dict)
    """By metric; none where there is one patient."""
    task: str = ""
    bundle: str = ""
    """Name and version."""
    manifest_sha256: str = ""
    """Two evaluations are comparable where it, and the split, are the same."""
    weights: Mapping[str, str] = field(default_factory=dict)
    """SHA-256 by file."""
    baseline: str = ""
    """ARN of the approved package that it was compared with; empty: there was none."""
    improvement: float | None = None
    """Over the baseline, of the metric that decides; positive is better. None: not compared."""
    comparison_error: str = ""
    """Why the baseline could not be measured."""
    uri: str = ""
    """Of evaluation.json."""

    def lines(self) -> list[str]:
        """A line for each metric."""
        who = f"{self.split} cases" if self.patients is None else f"{counted_patients(self)} ({self.split})"
        found = []
        for name, value in self.metrics.items():
            shown = "not defined" if value is None else f"{value:.4f}"
            interval = self.intervals.get(name)
            within = f", {interval.level:.0%} interval {interval}" if interval else ""
            found.append(f"{name} {shown}{within} on {who}")
        return found

    def to_json(self) -> dict[str, object]:
        return {
            "metrics": dict(self.metrics),
            "split": self.split,
            "heldOut": self.held_out,
            "heldOutReason": self.held_out_reason or None,
            "patients": self.patients,
            "cases": self.cases,
            "intervals": {
                name: {"low": one.low, "high": one.high, "level": one.level}
                for name, one in self.intervals.items()
            },
            "bundle": self.bundle or None,
            "baseline": self.baseline or None,
            "improvement": self.improvement,
            "comparisonError": self.comparison_error or None,
            "uri": self.uri or None,
        }


def counted_patients(evaluation: Evaluation) -> str:
    """On how many patients, and whether the model knew them: "1 patient, held out"."""
    count = evaluation.patients
    known = {True: ", held out", False: ", SEEN IN TRAINING", None: ""}[evaluation.held_out]
    return f"{count} {'patient' if count == 1 else 'patients'}{known}"


def read_evaluation(document: Mapping[str, Any], *, uri: str = "") -> Evaluation:
    """An evaluation.json of schema 2, or of schema 1, which has only metrics, split and cases."""
    intervals = {
        str(name): Interval(low=float(one["low"]), high=float(one["high"]), level=float(one["level"]))
        for name, one in (document.get("intervals") or {}).items()
        if one is not None and one.get("low") is not None and one.get("high") is not None
    }
    bundle = document.get("bundle") or {}
    baseline, gate = document.get("baseline") or {}, document.get("gate") or {}
    cases = document.get("cases")
    return Evaluation(
        metrics={
            str(name): None if value is None else float(value)
            for name, value in (document.get("metrics") or {}).items()
        },
        split=str(document.get("split", "")),
        held_out=document.get("heldOut"),
        held_out_reason=str(document.get("heldOutReason") or ""),
        patients=document.get("patients"),
        cases=len(cases) if isinstance(cases, list) else None,
        intervals=intervals,
        task=str(document.get("task", "")),
        bundle=" ".join(str(bundle[one]) for one in ("name", "version") if one in bundle),
        manifest_sha256=str((document.get("manifest") or {}).get("sha256", "")),
        weights={str(name): str(one) for name, one in (document.get("weights") or {}).items()},
        baseline=str(baseline.get("modelPackageArn") or ""),
        improvement=gate.get("improvement") if "metrics" in baseline else None,
        comparison_error=str(baseline.get("error") or ""),
        uri=uri,
    )


def evaluation_of(session: Session, package: Mapping[str, Any]) -> Evaluation | None:
    """What a model package (DescribeModelPackage's answer) was measured with; None if it names nothing.

    Raises:
        WorkbenchError: It names an evaluation that is not there.
    """
    uri = package.get("ModelMetrics", {}).get("ModelQuality", {}).get("Statistics", {}).get("S3Uri")
    if not uri:
        return None
    try:
        return read_evaluation(session.read_json(str(uri)), uri=str(uri))
    except ClientError as error:
        # Whoever may not list a bucket is told of an object that is not there that it may not be read.
        if error.response["Error"]["Code"] not in {"NoSuchKey", "AccessDenied"}:
            raise
        raise WorkbenchError(
            f"The package names an evaluation that is not there or may not be read: {uri}.",
            advice="Look at the object's versions, or evaluate the model again.",
        ) from error
