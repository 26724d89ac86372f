"""Writes the demo's report: one HTML page with everything inside, no script and nothing to fetch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape

from workbench.demo.findings import Findings
from workbench.demo.line_chart import line_chart
from workbench.demo.steps import StepRecord
from workbench.query import table_rows
from workbench.training.evaluation import Evaluation

TEMPLATE = "report.html.j2"
LOSS_COLOUR, DICE_COLOUR = "#1f6f8b", "#1d7a4c"


@dataclass(frozen=True, kw_only=True)
class Bar:
    """A step as a bar on the common time axis; `left` and `width` in percent of the whole."""

    name: str
    ok: bool
    seconds: float
    left: float
    width: float


def bars(steps: Sequence[StepRecord]) -> list[Bar]:
    """The steps as bars, each at the time when it ran."""
    whole = max((step.started + step.seconds for step in steps), default=0.0) or 1.0
    return [
        Bar(
            name=step.name,
            ok=step.ok,
            seconds=step.seconds,
            left=100 * step.started / whole,
            width=100 * step.seconds / whole,
        )
        for step in steps
    ]


def render_report(findings: Findings, steps: Sequence[StepRecord]) -> str:
    """The page; parts that the demo did not reach are left out."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=select_autoescape(default_for_string=True, default=True),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    training = findings.training
    curve = training.curve.validation.get("val_mean_dice", ()) if training else ()
    catalog = findings.catalog
    reports = (findings.ingest, findings.label_ingest, findings.arrival_ingest)
    ingests = [one for one in reports if one is not None]
    return environment.get_template(TEMPLATE).render(
        f=findings,
        ok=findings.error is None and all(step.ok for step in steps),
        steps=bars(steps),
        total=duration(sum(step.seconds for step in steps)),
        started=datetime.fromisoformat(findings.started).strftime("%d %B %Y, %H:%M UTC"),
        catalog_rows=table_rows(catalog) if catalog else [],
        image_sets=[image_set for one in ingests for image_set in one.image_sets],
        holds={identity: name for name, identity in findings.image_sets.items()},
        training_cases=len(findings.dataset.manifest.split("train")) if findings.dataset else 0,
        loss_chart=line_chart(training.curve.train_loss, label="training loss", colour=LOSS_COLOUR)
        if training
        else "",
        dice_chart=line_chart(
            curve, label="mean Dice", colour=DICE_COLOUR, limit=(findings.minimum_dice, "gate")
        )
        if curve
        else "",
        evaluated_on=_evaluated_on(training.evaluation) if training and training.evaluation else "",
    )


def _evaluated_on(evaluation: Evaluation) -> str:
    """Who the pipeline measured the model on, as honestly as the evaluation says it."""
    count = evaluation.patients
    people = (
        f"the {evaluation.split} cases"
        if count is None
        else "1 patient"
        if count == 1
        else f"{count} patients"
    )
    known = {
        True: ", held out: not seen in training",
        False: ", SEEN IN TRAINING: this says nothing about new patients",
        None: "",
    }
    return people + known[evaluation.held_out]


def duration(seconds: float) -> str:
    """A time for people: 42 s, 2 min 5 s."""
    whole = round(seconds)
    return f"{whole} s" if whole < 60 else f"{whole // 60} min {whole % 60} s"
