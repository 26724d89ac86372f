"""The evaluation as one HTML file, for the person who approves the model: no scripts, nothing fetched."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from training.evaluation.gate import LESS_IS_BETTER
from training.evaluation.pictures import Picture
from training.evaluation.wording import FIGURES, NONE, figure

TEMPLATE = "report.html.j2"

MANY_CASES = 200
"""More rows than this nobody reads; `evaluation.json` has them all."""

Document = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Row:
    """A metric in the table of figures."""

    title: str
    value: str
    interval: str
    baseline: str
    improvement: str
    improvement_interval: str
    better: bool | None
    """Whether it is better than in use; None where it is neither or unknown."""

    less_is_better: bool


def report(document: Document, *, provenance: Document, pictures: Sequence[Picture]) -> str:
    """Renders the report.

    Args:
        document: What `evaluation.json` holds.
        provenance: What the training recorded; may be empty.
        pictures: Of the worst cases, the worst first.
    """
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    # Worst first, which is the order in which a reader wants them.
    cases = sorted(document["cases"], key=_score)
    return environment.get_template(TEMPLATE).render(
        d=document,
        rows=_rows(document),
        compared=_compared(document),
        parts=_parts(document),
        figure=figure,
        dash=NONE,
        cases=cases[:MANY_CASES],
        left_out=max(0, len(cases) - MANY_CASES),
        dots=_dots(cases),
        pictures=[
            {
                "source": "data:image/png;base64," + base64.b64encode(one.png).decode(),
                "image_set_id": one.image_set_id,
            }
            for one in pictures
        ],
        provenance=provenance,
        origin=_origin(document, provenance),
    )


def _rows(document: Document) -> list[Row]:
    baseline = document["baseline"] or {}
    theirs, gains = baseline.get("metrics", {}), baseline.get("improvement", {})
    spread = baseline.get("improvementIntervals", {})
    rows = []
    for name, value in document["metrics"].items():
        gain, interval = gains.get(name), spread.get(name)
        clear = interval is not None and (interval["low"] > 0 or interval["high"] < 0)
        rows.append(
            Row(
                title=FIGURES[name].title,
                value=figure(name, value),
                interval=_range(name, document["intervals"][name]),
                baseline=figure(name, theirs.get(name)),
                improvement=figure(name, gain, signed=True),
                improvement_interval=_range(name, interval, signed=True),
                better=gain > 0 if gain is not None and clear else None,
                less_is_better=name in LESS_IS_BETTER,
            )
        )
    return rows


def _compared(document: Document) -> bool:
    return bool(document["baseline"]) and "error" not in document["baseline"]


def _parts(document: Document) -> list[dict[str, Any]]:
    """Segments or classes, with their figures."""
    parts = []
    for kind in ("segments", "classes"):
        for name, one in document.get(kind, {}).items():
            figures = [
                (FIGURES[metric].title, figure(metric, value), _range(metric, one["intervals"][metric]))
                for metric, value in one["metrics"].items()
            ]
            count = one["casesWithIt"] if kind == "segments" else one["cases"]
            parts.append({"name": name, "cases": count, "figures": figures})
    return parts


def _range(name: str, interval: Document | None, *, signed: bool = False) -> str:
    if interval is None:
        return NONE
    low, high = (figure(name, interval[end], signed=signed) for end in ("low", "high"))
    unit = FIGURES[name].unit
    return f"{low.removesuffix(unit).rstrip() if unit else low} to {high}"


def _score(case: Document) -> float:
    """What a case is placed by: its mean Dice, or the probability of its true class; without one, last."""
    if "probabilities" in case:
        return float(case["probabilities"][case["class"]])
    return 2.0 if case["meanDice"] is None else float(case["meanDice"])


def _dots(cases: Sequence[Document]) -> list[dict[str, Any]]:
    """A dot a case on an axis from 0 to 1; dots that would cover each other are stacked."""
    stacks: dict[int, int] = {}
    dots = []
    for case in cases:
        score = _score(case)
        if score > 1:
            continue
        column = round(score * 100)
        stacks[column] = stacks.get(column, 0) + 1
        dots.append({"x": score, "level": stacks[column], "image_set_id": case["imageSetId"]})
    return dots


def _origin(document: Document, provenance: Document) -> list[tuple[str, str]]:
    """Data and provenance, in the order in which one asks for it."""
    archive = document["modelArchive"] or {}
    manifest = document["manifest"]
    measured_on = (
        f"{document['split']} split, {document['patients']} patients, {len(document['cases'])} image sets, "
        f"device {document['device']}"
    )
    facts = [
        ("Manifest", f"{manifest['name']}, SHA-256 {manifest['sha256']}"),
        ("Measured on", measured_on),
        ("Model archive", f"SHA-256 {archive['sha256']}" if archive else "not packed"),
        ("Archive lies at", archive.get("uri", "")),
        ("Weights", ", ".join(f"{name} {sha256[:16]}..." for name, sha256 in document["weights"].items())),
    ]
    known = (
        ("Training job", "trainingJob"),
        ("Training image", "image"),
        ("Code SHA-256", "codeSha256"),
        ("Trained on device", "device"),
        ("Ranks", "worldSize"),
        ("Seed", "seed"),
        ("Steps", "steps"),
        ("Weights of step", "stepOfWeights"),
        ("Bundle SHA-256", "bundleSha256"),
    )
    facts += [(title, str(provenance[key])) for title, key in known if provenance.get(key) is not None]
    for title, key in (("Hyperparameters", "hyperparameters"), ("Packages", "packages")):
        values = provenance.get(key)
        if isinstance(values, Mapping) and values:
            facts.append((title, ", ".join(f"{name} {value}" for name, value in values.items())))
    return [(title, text) for title, text in facts if text]
