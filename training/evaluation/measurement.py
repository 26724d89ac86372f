"""One case measured with one model, whatever the task."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from healthimaging import Case
from training.configuration.bundle import Task
from training.errors import EvaluationError
from training.evaluation.classification_scores import ClassificationScores, ClassifiedCase
from training.evaluation.intervals import Difference
from training.evaluation.masks import segment_masks
from training.evaluation.model import Model
from training.evaluation.segmentation_scores import (
    SegmentationScores,
    SegmentedCase,
    score_segments,
    with_common_distances,
)

CaseResult = SegmentedCase | ClassifiedCase


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What a model made of a case.

    Attributes:
        result: The scores.
        masks: What a segmentation found: booleans (columns, rows, slices) by name; empty otherwise.
    """

    result: CaseResult
    masks: Mapping[str, torch.Tensor]


def measure(model: Model, case: Case, item: Mapping[str, Any], *, channels: Mapping[str, int]) -> Measured:
    """Runs a model on a case and compares with the case's label.

    Args:
        model: Has the names of `channels`, under any numbers.
        case: The case.
        item: Its `image` and `label`, as a `CaseReader` gives them.
        channels: The numbers in the label, by name.

    Raises:
        EvaluationError: Naming the image set: the answer is no number, lies elsewhere or does not fit the
            label.
    """
    try:
        if model.bundle.task is Task.CLASSIFICATION:
            names = {number: name for name, number in channels.items()}
            probabilities = model.classify(item["image"])
            result: CaseResult = ClassifiedCase(
                case=case,
                true=names[int(item["label"])],
                probabilities={names[number]: probabilities[names[number]] for number in sorted(names)},
            )
            return Measured(result=result, masks={})
        masks = segment_masks(model.segment(item["image"]), model.bundle.channels)
        segments = score_segments(masks, item["label"], channels=channels)
    except EvaluationError as error:
        msg = f"Image set {case.image.image_set_id}: {error}"
        raise EvaluationError(msg) from error
    return Measured(result=SegmentedCase(case=case, segments=segments), masks=masks)


def scores_of(results: Sequence[CaseResult]) -> SegmentationScores | ClassificationScores:
    """The metrics of cases that one model was measured on."""
    segmented = [one for one in results if isinstance(one, SegmentedCase)]
    if segmented:
        return SegmentationScores(segmented)
    return ClassificationScores([one for one in results if isinstance(one, ClassifiedCase)])


def paired_difference(mine: Sequence[CaseResult], theirs: Sequence[CaseResult]) -> Difference:
    """What one model's metrics have over another's.

    Args:
        mine: Results of one model.
        theirs: Of the other, on the same cases in the same order.
    """
    my_segments, their_segments = with_common_distances(
        [one for one in mine if isinstance(one, SegmentedCase)],
        [one for one in theirs if isinstance(one, SegmentedCase)],
    )
    return Difference(scores_of(my_segments or mine), scores_of(their_segments or theirs))


def why_undefined(results: Sequence[CaseResult]) -> str:
    """What to say about a metric that has no value for these cases."""
    classes = sorted({one.true for one in results if isinstance(one, ClassifiedCase)})
    if classes:
        return (
            f"all {len(results)} cases are of class {classes[0]!r}; evaluate on patients of every class"
            if len(classes) == 1
            else "it is not a number for these cases"
        )
    return "no case has a voxel to find and one found; look at the labels, and at what the model finds"
