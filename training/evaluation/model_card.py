"""The model card of an evaluated model, in SageMaker's JSON schema.

Source: Amazon SageMaker AI Developer Guide, "Model package model card schema": of a package's card,
`model_overview` has only `model_creator` and `model_artifact`, and there is no `model_package_details`. The
schema allows no other keys, and limits the lengths of texts.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from training.evaluation.wording import FIGURES, figure

NAME, NOTES, TEXT = 63, 1024, 2048
"""Longest name of a group, note and text that the schema takes."""

LARGEST_MATRIX = 20
"""Most rows that the schema takes."""

Document = Mapping[str, Any]


def model_card(document: Document, *, provenance: Document) -> dict[str, Any]:
    """A card that says what the model is, what it was trained on, and what was measured.

    Args:
        document: What `evaluation.json` holds.
        provenance: What the training recorded; may be empty.
    """
    bundle, archive = document["bundle"], document["modelArchive"] or {}
    card: dict[str, Any] = {
        "model_overview": {
            "model_creator": f"MONAI on AWS, bundle {bundle['name']} {bundle['version']}",
            **({"model_artifact": [archive["uri"]]} if "uri" in archive else {}),
        },
        "intended_uses": {
            "purpose_of_model": _cut(
                f"{document['task']} of image sets by the MONAI bundle {bundle['name']}"
            ),
            "intended_uses": "Research and development. Not for diagnostic use without the regulatory "
            "clearance that the place of use asks for.",
            "risk_rating": "Unknown",
        },
        "evaluation_details": [_evaluation(document)],
        "additional_information": {
            "caveats_and_recommendations": _cut(" ".join(_caveats(document))),
            "custom_details": {name: str(value)[:NOTES] for name, value in _custom(document, provenance)},
        },
    }
    if provenance:
        card["training_details"] = _training(provenance)
    return card


def _training(provenance: Document) -> dict[str, Any]:
    parameters = provenance.get("hyperparameters") or {}
    image = provenance.get("image")
    return {
        "training_observations": _cut(
            f"Weights of step {provenance.get('stepOfWeights')} of {provenance.get('steps')}, seed "
            f"{provenance.get('seed')}, on {provenance.get('device')}",
            NOTES,
        ),
        "training_job_details": {
            "training_datasets": [
                f"{provenance.get('manifestName')} (SHA-256 {provenance.get('manifestSha256')})"
            ],
            **({"training_environment": {"container_image": [str(image)]}} if image else {}),
            "user_provided_hyper_parameters": [
                {"name": str(name), "value": str(value)[:255]}
                for name, value in parameters.items()
                if str(value)
            ],
        },
    }


def _evaluation(document: Document) -> dict[str, Any]:
    groups = [
        {
            "name": "Means over patients" if document["task"] == "segmentation" else "Over patients",
            "metric_data": list(_metrics(document["metrics"], document["intervals"])),
        }
    ]
    for kind in ("segments", "classes"):
        for name, one in document.get(kind, {}).items():
            data = list(_metrics(one["metrics"], one["intervals"]))
            if data:
                groups.append({"name": name[:NAME], "metric_data": data})
    if "confusion" in document and len(document["confusion"]["classes"]) <= LARGEST_MATRIX:
        confusion = document["confusion"]
        groups.append(
            {
                "name": "Confusion matrix",
                "metric_data": [
                    {
                        "name": "Cases by true (y) and predicted (x) class",
                        "type": "matrix",
                        "value": confusion["cases"],
                        "x_axis_name": [name[:NAME] for name in confusion["classes"]],
                        "y_axis_name": [name[:NAME] for name in confusion["classes"]],
                    }
                ],
            }
        )
    manifest = document["manifest"]
    return {
        "name": f"{document['split']} split"[:NAME],
        "evaluation_observation": _cut(
            f"{'Held out' if document['heldOut'] else 'NOT HELD OUT'}: {document['heldOutReason']}. "
            f"{document['patients']} patients, {len(document['cases'])} image sets."
        ),
        "datasets": [f"{manifest['name']} (SHA-256 {manifest['sha256']})"],
        "metric_groups": groups,
    }


def _metrics(metrics: Document, spread: Document) -> Iterator[dict[str, Any]]:
    """A metric without a value is left out: the schema has no place for "undefined"."""
    for name, value in metrics.items():
        if value is None:
            continue
        interval = spread.get(name)
        notes = (
            f"{interval['level']:.0%} interval {figure(name, interval['low'])} to "
            f"{figure(name, interval['high'])}, {interval['method']}"
            if interval
            else "no interval: fewer than two patients have a value, or it is undefined for most resamples"
        )
        kind = FIGURES.get(name)
        yield {
            "name": kind.title if kind else name,
            "type": "number",
            "value": value,
            "notes": notes[:NOTES],
        }


def _caveats(document: Document) -> Iterator[str]:
    if not document["heldOut"]:
        yield "The figures say nothing about patients that the model has not seen."
    if document["patients"] < 30:
        yield f"Measured on {document['patients']} patients only; the intervals of so few are too narrow."
    baseline = document["baseline"]
    if baseline is None:
        yield f"Not compared with another model: {document.get('baselineReason', 'none was named')}."
    elif "error" in baseline:
        yield f"The comparison with the approved model failed: {baseline['error']}."


def _custom(document: Document, provenance: Document) -> Iterator[tuple[str, Any]]:
    archive = document["modelArchive"]
    if archive:
        yield "model archive SHA-256", archive["sha256"]
    yield "evaluation device", document["device"]
    for key, title in (("bundleSha256", "bundle SHA-256"), ("codeSha256", "code SHA-256")):
        if provenance.get(key):
            yield title, provenance[key]
    for name, number in (provenance.get("packages") or {}).items():
        yield f"package {name}", number
    baseline = document["baseline"]
    if baseline:
        yield "compared with", baseline.get("modelPackageArn") or "unknown"


def _cut(text: str, limit: int = TEXT) -> str:
    return text if len(text) <= limit else text[: limit - 3] + "..."
