"""What the evaluation computes, against tables worked out by hand and against other libraries."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from evaluation_models import case
from monai.data import MetaTensor
from monai.metrics import compute_hausdorff_distance
from scipy.stats import mannwhitneyu

from training.errors import EvaluationError
from training.evaluation.classification_scores import (
    ClassificationScores,
    ClassifiedCase,
    area_under_curve,
)
from training.evaluation.intervals import Difference, PatientMeans, estimate, intervals
from training.evaluation.masks import segment_masks
from training.evaluation.measurement import paired_difference
from training.evaluation.segmentation_scores import (
    SCATTERED,
    SegmentationScores,
    SegmentedCase,
    hausdorff,
    score_segments,
    with_common_distances,
)

AFFINE = torch.diag(torch.tensor([-2.0, -1.0, 5.0, 1.0], dtype=torch.float64))
"""10 mm^3 a voxel, in LPS as HealthImaging's images lie."""


def volume(*columns: int) -> torch.Tensor:
    """1000 voxels, of which these columns (100 voxels each) are set."""
    values = torch.zeros((10, 10, 10))
    values[list(columns)] = 1
    return values


def scored(found: torch.Tensor, wanted: torch.Tensor, name: str = "lung") -> SegmentedCase:
    label = MetaTensor(wanted[None], affine=AFFINE)
    return SegmentedCase(
        case=case("chest-1"), segments=score_segments({name: found.bool()}, label, channels={name: 1})
    )


def test_a_segment_half_found() -> None:
    (score,) = scored(volume(1, 2), volume(0, 1)).segments
    assert score.dice == pytest.approx(0.5)
    assert (score.reference_ml, score.predicted_ml) == (pytest.approx(2), pytest.approx(2))
    assert (score.volume_error_ml, score.volume_error_percent) == (pytest.approx(0), pytest.approx(0))
    # Every surface moved by one column, which is 2 mm.
    assert score.hausdorff95_mm == pytest.approx(2)


def test_too_much_and_too_little_are_both_errors_of_volume() -> None:
    for found, percent in ((volume(0, 1, 2), 50), (volume(0), 50), (volume(), 100)):
        (score,) = scored(found, volume(0, 1)).segments
        assert score.volume_error_percent == pytest.approx(percent)


@pytest.mark.parametrize(
    ("found", "wanted", "dice", "missing"),
    [
        (volume(), volume(1), 0.0, "empty in prediction"),
        (volume(1), volume(), 0.0, "empty in reference"),
        (volume(), volume(), None, "empty in reference and prediction"),
    ],
)
def test_an_empty_side_has_no_distance_and_says_why(
    found: torch.Tensor, wanted: torch.Tensor, dice: float | None, missing: str
) -> None:
    (score,) = scored(found, wanted).segments
    assert (score.dice, score.hausdorff95_mm, score.missing) == (dice, None, missing)
    assert score.as_document()["hausdorff95Missing"] == missing


def test_numbers_of_the_label_and_of_the_model_need_not_agree() -> None:
    label = MetaTensor((volume(0) * 2 + volume(1) * 1)[None], affine=AFFINE)
    masks = segment_masks((volume(0) * 7 + volume(1) * 9)[None], {"lung": 7, "heart": 9})
    lung, heart = score_segments(masks, label, channels={"lung": 2, "heart": 1})
    assert (lung.label, lung.dice, heart.label, heart.dice) == ("lung", 1.0, "heart", 1.0)


@pytest.mark.parametrize("speckles", [0.0, 0.2])
def test_the_distance_is_monais_on_either_way_to_it(speckles: float) -> None:
    """Scattered predictions go through a distance transform, others through a tree."""
    random = torch.Generator().manual_seed(0)
    grid = torch.meshgrid(*(torch.linspace(-1, 1, n) for n in (48, 40, 30)), indexing="ij")
    wanted = (grid[0] ** 2 + grid[1] ** 2 + grid[2] ** 2) < 0.5
    found = ((grid[0] - 0.1) ** 2 + grid[1] ** 2 + grid[2] ** 2) < 0.4
    if speckles:
        found ^= torch.rand(found.shape, generator=random) < speckles
    spacing = [0.7, 0.9, 2.5]
    expected = compute_hausdorff_distance(
        found[None, None], wanted[None, None], include_background=True, percentile=95, spacing=spacing
    )
    assert hausdorff(found, wanted, spacing=spacing) == pytest.approx(float(expected), rel=1e-5)
    assert 0 < SCATTERED < 0.2


def test_a_label_of_another_shape_is_refused() -> None:
    with pytest.raises(
        EvaluationError, match=r"The label has \(9, 10, 10\) voxels and the image \(10, 10, 10\)"
    ):
        score_segments(
            {"lung": volume(1).bool()}, MetaTensor(volume(1)[None, 1:], affine=AFFINE), channels={"lung": 1}
        )


def test_channels_are_read_as_they_are_served() -> None:
    channels = {"lung": 1, "heart": 2}
    background, lung, heart = volume(5, 6, 7), volume(0, 1), volume(2)
    stacked = torch.stack([background, lung, heart])
    for prediction in (stacked, stacked * 0.6 + 0.1, stacked[1:], stacked[1:] * 0.6):
        masks = segment_masks(prediction, channels)
        assert bool((masks["lung"] == lung.bool()).all())
        assert bool((masks["heart"] == heart.bool()).all())
    # Against a background that is more probable, 0.4 is no lung.
    doubtful = torch.stack([volume(0) * 0.6, volume(0) * 0.4])
    assert not segment_masks(doubtful, {"lung": 1})["lung"].any()


@pytest.mark.parametrize(
    ("prediction", "message"),
    [
        (torch.full((1, 2, 2, 2), 3.0), "labels that its metadata does not name: \\[3.0\\]"),
        (torch.zeros((5, 2, 2, 2)), "gives 5 channels; its metadata names 2 segments"),
        (torch.full((3, 2, 2, 2), 4.0), "neither masks nor probabilities"),
    ],
)
def test_answers_that_could_mean_anything_are_refused(prediction: torch.Tensor, message: str) -> None:
    with pytest.raises(EvaluationError, match=message):
        segment_masks(prediction, {"lung": 1, "heart": 2})


def test_a_patient_counts_once_however_many_images_there_are() -> None:
    means = PatientMeans(["a", "a", "a", "b"], {"dice": [0.9, 0.8, None, 0.1], "mm": [None, None, None, 3.0]})
    assert estimate(means) == {"dice": pytest.approx((0.85 + 0.1) / 2), "mm": pytest.approx(3.0)}
    assert means.support() == {"dice": 2, "mm": 1}
    assert intervals(means)["mm"] is None


def test_the_interval_is_that_of_all_resamples() -> None:
    """Of three patients there are 27 equally probable resamples: their quantiles are known."""
    values = [0.2, 0.5, 0.95]
    found = intervals(PatientMeans(["a", "b", "c"], {"dice": values}))["dice"]
    assert found is not None
    means = [math.fsum(draw) / 3 for draw in itertools.product(values, repeat=3)]
    low, high = np.quantile(means, [0.025, 0.975])
    # Two thousand draws place a quantile to within one step of the 27 means.
    assert found.low == pytest.approx(low, abs=0.11)
    assert found.high == pytest.approx(high, abs=0.16)
    assert found.low >= min(values)
    assert found.high <= max(values)
    again = intervals(PatientMeans(["a", "b", "c"], {"dice": values}))["dice"]
    assert again == found
    assert found.as_document() == {
        "low": found.low,
        "high": found.high,
        "level": 0.95,
        "method": "percentile bootstrap over patients, 2000 resamples, seed 0",
        "patients": 3,
    }


def test_images_of_one_patient_do_not_narrow_the_interval() -> None:
    once = intervals(PatientMeans(["a", "b", "c"], {"dice": [0.2, 0.5, 0.9]}))
    tenfold = intervals(PatientMeans(["a", "b", "c"] * 10, {"dice": [0.2, 0.5, 0.9] * 10}))
    assert tenfold["dice"] is not None
    assert once["dice"] is not None
    assert tenfold["dice"].low == pytest.approx(once["dice"].low)
    assert tenfold["dice"].high == pytest.approx(once["dice"].high)


def test_one_patient_has_no_interval() -> None:
    assert intervals(PatientMeans(["a", "a"], {"dice": [0.2, 0.5]})) == {"dice": None}


def test_a_paired_difference_is_narrower_than_the_figures() -> None:
    patients = ["a", "b", "c", "d"]
    mine = PatientMeans(patients, {"dice": [0.3, 0.5, 0.7, 0.95]})
    theirs = PatientMeans(patients, {"dice": [0.2, 0.4, 0.6, 0.85]})
    found = intervals(Difference(mine, theirs))["dice"]
    assert found is not None
    assert (found.low, found.high) == (pytest.approx(0.1), pytest.approx(0.1))
    with pytest.raises(ValueError, match="same patients"):
        Difference(mine, PatientMeans(["a"], {"dice": [1.0]}))


def test_who_finds_nothing_is_not_nearer_for_it() -> None:
    """On a hard case one model is far off, and the other finds nothing: a distance tells them apart on the
    other cases only, and Dice on all.
    """

    def measured(*found: torch.Tensor) -> list[SegmentedCase]:
        labels = (volume(4), volume(4))
        return [
            replace(scored(mask, wanted), case=case(f"chest-{number}"))
            for number, (mask, wanted) in enumerate(zip(found, labels, strict=True))
        ]

    missing, far = measured(volume(5), volume()), measured(volume(5), volume(9))
    assert SegmentationScores(missing).metrics(np.ones(2))["mean_hausdorff95_mm"] == pytest.approx(2)
    assert SegmentationScores(far).metrics(np.ones(2))["mean_hausdorff95_mm"] == pytest.approx(6)
    found = paired_difference(missing, far)
    assert found.metrics(np.ones(2))["mean_hausdorff95_mm"] == 0
    assert found.support()["mean_hausdorff95_mm"] == 1
    assert found.support()["mean_dice"] == 2
    # Nothing else of the results is touched.
    for before, after in zip((missing, far), with_common_distances(missing, far), strict=True):
        names = [name for name in SegmentationScores(before).support() if "hausdorff" not in name]
        old, new = (SegmentationScores(one).metrics(np.ones(2)) for one in (before, after))
        assert {name: old[name] for name in names} == {name: new[name] for name in names}


def test_segments_have_figures_of_their_own() -> None:
    label = MetaTensor((volume(0) + volume(5) * 2)[None], affine=AFFINE)
    masks = {"lung": volume(0).bool(), "heart": volume().bool()}
    segments = score_segments(masks, label, channels={"lung": 1, "heart": 2})
    scores = SegmentationScores(
        [SegmentedCase(case=case(name), segments=segments) for name in ("chest-1", "chest-2")]
    )
    assert estimate(scores)["mean_dice"] == pytest.approx(0.5)
    details = scores.details()["segments"]
    assert details["lung"]["metrics"]["dice"] == 1.0
    assert details["heart"]["metrics"] == {
        "dice": 0.0,
        "hausdorff95_mm": None,
        "volume_error_ml": pytest.approx(1.0),
        "volume_error_percent": pytest.approx(100.0),
    }
    assert details["heart"]["intervals"]["hausdorff95_mm"] is None
    assert details["heart"]["casesWithIt"] == 2


def classified(*rows: tuple[str, str, dict[str, float]]) -> ClassificationScores:
    """Scores of (patient, true class, probabilities)."""
    return ClassificationScores(
        [
            ClassifiedCase(
                case=case(f"grey-{i}", patient=patient, class_name=true),
                true=true,
                probabilities=probabilities,
            )
            for i, (patient, true, probabilities) in enumerate(rows)
        ]
    )


def two(positive: float) -> dict[str, float]:
    return {"no": 1 - positive, "yes": positive}


def test_a_table_of_four_patients() -> None:
    scores = classified(
        ("a", "yes", two(0.9)), ("b", "no", two(0.6)), ("c", "yes", two(0.4)), ("d", "no", two(0.1))
    )
    found = estimate(scores)
    # Pairs yes against no: 0.9 wins twice, 0.4 wins once of two.
    assert found["auc"] == pytest.approx(3 / 4)
    assert found["accuracy"] == pytest.approx(2 / 4)
    assert found["balanced_accuracy"] == pytest.approx((1 / 2 + 1 / 2) / 2)
    assert found["brier"] == pytest.approx((0.01 + 0.36 + 0.36 + 0.01) / 4)
    # Confidence 0.9 twice and always right; 0.6 twice and never right.
    assert found["expected_calibration_error"] == pytest.approx((2 * 0.1 + 2 * 0.6) / 4)
    details = scores.details()
    assert details["confusion"]["cases"] == [[1, 1], [1, 1]]
    assert details["classes"]["yes"]["metrics"] == {"auc": 0.75, "sensitivity": 0.5, "specificity": 0.5}
    bins = details["calibration"]["bins"]
    assert [(one["cases"], one["probability"], one["right"]) for one in bins] == [
        (2, pytest.approx(0.6), 0.0),
        (2, pytest.approx(0.9), 1.0),
    ]


def test_the_area_is_the_mann_whitney_statistic_ties_included() -> None:
    random = np.random.default_rng(3)
    values = np.round(random.random(200), 1)
    positive = random.random(200) < 0.3
    expected = mannwhitneyu(values[positive], values[~positive]).statistic / (
        positive.sum() * (~positive).sum()
    )
    assert area_under_curve(values, positive, np.ones(200)) == pytest.approx(float(expected))
    # A weight of two is the case twice.
    doubled = np.concatenate([values, values[:50]]), np.concatenate([positive, positive[:50]])
    weights = np.ones(200) + (np.arange(200) < 50)
    assert area_under_curve(values, positive, weights) == pytest.approx(
        area_under_curve(*doubled, np.ones(250))
    )


def test_three_classes_are_each_held_against_the_rest() -> None:
    names = ("AD", "CN", "MCI")
    rows = [
        ("a", "AD", (0.8, 0.1, 0.1)),
        ("b", "AD", (0.3, 0.6, 0.1)),
        ("c", "CN", (0.2, 0.7, 0.1)),
        ("d", "MCI", (0.1, 0.2, 0.7)),
        ("e", "MCI", (0.5, 0.1, 0.4)),
    ]
    scores = classified(*((p, t, dict(zip(names, row, strict=True))) for p, t, row in rows))
    areas = {"AD": (3 + 2) / 6, "CN": 4 / 4, "MCI": 6 / 6}
    details = scores.details()
    for name, area in areas.items():
        assert details["classes"][name]["metrics"]["auc"] == pytest.approx(area)
    found = estimate(scores)
    assert found["auc"] == pytest.approx(sum(areas.values()) / 3)
    assert found["balanced_accuracy"] == pytest.approx((1 / 2 + 1 + 1 / 2) / 3)
    first = (0.2**2 + 0.1**2 + 0.1**2) / 2
    assert estimate(classified(("a", "AD", dict(zip(names, rows[0][2], strict=True)))))[
        "brier"
    ] == pytest.approx(first)
    assert details["confusion"]["cases"] == [[1, 1, 0], [0, 1, 0], [1, 0, 1]]


def test_one_class_alone_has_no_area_and_the_rest_stands() -> None:
    scores = classified(("a", "yes", two(0.9)), ("b", "yes", two(0.2)))
    found = estimate(scores)
    assert found["auc"] is None
    # A model that always says "yes" must not have the best possible value here.
    assert found["balanced_accuracy"] is None
    assert found["accuracy"] == pytest.approx(0.5)
    assert intervals(scores)["auc"] is None


def test_a_patient_of_many_images_weighs_no_more_than_another() -> None:
    many = [("a", "yes", two(0.2))] * 9
    scores = classified(*many, ("b", "yes", two(0.9)), ("c", "no", two(0.1)))
    assert estimate(scores)["accuracy"] == pytest.approx(2 / 3)
    assert estimate(scores)["balanced_accuracy"] == pytest.approx((1 / 2 + 1) / 2)
