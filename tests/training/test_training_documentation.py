"""docs/train.md says what the training image does: its hyperparameters and its errors."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path

from training import errors
from training.errors import TrainingError
from training.evaluation import classification_scores, segmentation_scores
from training.job.hyperparameters import Hyperparameters

GUIDE = (Path(__file__).resolve().parents[2] / "docs" / "train.md").read_text(encoding="utf-8")


def rows(heading: str, *, table: int = 1) -> list[list[str]]:
    """Cells of a table below a heading, without its first row."""
    section = GUIDE.split(f"\n## {heading}\n")[1].split("\n## ")[0]
    lines = re.split(r"^\|---.*\n", section, flags=re.MULTILINE)[table].split("\n\n")[0].splitlines()
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]


def quoted(text: str) -> list[str]:
    return re.findall(r"`([^`]+)`", text)


def test_the_hyperparameters_are_told_with_their_defaults() -> None:
    told = {quoted(row[0])[0]: row[1] for row in rows("Hyperparameters")}
    defaults = Hyperparameters()
    known = {field.name: getattr(defaults, field.name) for field in fields(Hyperparameters)}
    assert told.keys() == known.keys()
    for name, text in told.items():
        default = known[name]
        if re.fullmatch(r"`[^`]+`|[0-9.]+", text):
            assert text.strip("`").lower() == str(default).lower(), name


def test_every_error_is_told() -> None:
    told = {name for row in rows("Errors") for name in quoted(row[0])}
    known = {
        name
        for name, one in vars(errors).items()
        if isinstance(one, type) and issubclass(one, TrainingError) and one is not TrainingError
    }
    assert told == known


def test_every_metric_of_an_evaluation_is_told() -> None:
    told = [(name, row[1]) for row in rows("The evaluation", table=2) for name in quoted(row[0])]
    known = [(name, "segmentation") for name in segmentation_scores.METRICS]
    known += [(name, "classification") for name in classification_scores.METRICS]
    assert told == known
