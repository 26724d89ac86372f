"""How metrics are named and written for people."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Figure:
    """A metric's name, unit and digits after the point."""

    title: str
    unit: str = ""
    digits: int = 3


FIGURES = {
    "mean_dice": Figure(title="Dice"),
    "mean_hausdorff95_mm": Figure(title="Hausdorff distance 95", unit="mm", digits=1),
    "mean_volume_error_ml": Figure(title="Volume error", unit="ml", digits=1),
    "mean_volume_error_percent": Figure(title="Volume error, relative", unit="%", digits=1),
    "dice": Figure(title="Dice"),
    "hausdorff95_mm": Figure(title="Hausdorff 95", unit="mm", digits=1),
    "volume_error_ml": Figure(title="Volume error", unit="ml", digits=1),
    "volume_error_percent": Figure(title="Relative", unit="%", digits=1),
    "auc": Figure(title="AUC"),
    "accuracy": Figure(title="Accuracy"),
    "balanced_accuracy": Figure(title="Balanced accuracy"),
    "brier": Figure(title="Brier score"),
    "expected_calibration_error": Figure(title="Expected calibration error"),
    "sensitivity": Figure(title="Sensitivity"),
    "specificity": Figure(title="Specificity"),
}
"""By the metric's name in `evaluation.json`."""

MINUS = "−"  # noqa: RUF001 - as wide as a plus, so that columns of signed figures align
NONE = "–"  # noqa: RUF001 - a dash as wide as a figure
"""In the place of a figure that is undefined."""


def figure(name: str, value: float | None, *, signed: bool = False) -> str:
    """A metric's value with its unit."""
    if value is None:
        return NONE
    kind = FIGURES.get(name, Figure(title=name))
    number = f"{value:+.{kind.digits}f}" if signed else f"{value:.{kind.digits}f}"
    return f"{number} {kind.unit}".rstrip().replace("-", MINUS)
