"""How well segments were found: overlap, distance of the surfaces, volume; per case and over patients.

Dice and Hausdorff distance are MONAI's. The distance is the larger of the two directed 95th percentiles of
the distances between surface voxels, in mm (Huttenlocher et al. 1993; 95 as in the Medical Segmentation
Decathlon, whose single outlying voxels do not decide).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from monai.data import MetaTensor
from monai.data.utils import affine_to_spacing
from monai.metrics import compute_dice, get_surface_distance
from numpy.typing import NDArray
from scipy.ndimage import binary_erosion, distance_transform_edt

from healthimaging import Case
from training.errors import EvaluationError
from training.evaluation.intervals import PatientMeans, estimate, intervals

PERCENTILE = 95

SCATTERED = 0.03
"""Above this share of surface voxels a distance transform is faster than a tree of the surface's voxels.

Measured on 512 x 512 x 61 voxels on one core: a body's outline (3 %) takes 1.6 s with the tree and 8 s with
transforms; the speckles of a network that has learned nothing (12 %) take 138 s and 8 s.
"""

Mask = NDArray[np.bool_]

METRICS = ("mean_dice", "mean_hausdorff95_mm", "mean_volume_error_ml", "mean_volume_error_percent")
"""Of a segmentation: means over patients of the means over a patient's cases and their segments."""


@dataclass(frozen=True, kw_only=True)
class SegmentScore:
    """How well one segment of one case was found.

    Attributes:
        label: The segment's name.
        dice: None when neither side has a voxel of it: that is no measurement, neither 0 nor 1.
        hausdorff95_mm: None where a side is empty, see `missing`.
        missing: Why there is no distance.
        reference_ml: Volume in the reference.
        predicted_ml: Volume that was found.
    """

    label: str
    dice: float | None
    hausdorff95_mm: float | None
    missing: str | None
    reference_ml: float
    predicted_ml: float

    @property
    def volume_error_ml(self) -> float | None:
        """How much too much or too little was found, without sign; None when neither side has a voxel."""
        return None if self.dice is None else abs(self.predicted_ml - self.reference_ml)

    @property
    def volume_error_percent(self) -> float | None:
        """The same in percent of the reference; None without a reference."""
        error = self.volume_error_ml
        return 100 * error / self.reference_ml if error is not None and self.reference_ml > 0 else None

    def as_document(self) -> dict[str, Any]:
        return {
            "label": self.label,
            "dice": self.dice,
            "hausdorff95Mm": self.hausdorff95_mm,
            **({"hausdorff95Missing": self.missing} if self.missing else {}),
            "referenceMl": round(self.reference_ml, 3),
            "predictedMl": round(self.predicted_ml, 3),
            "volumeErrorMl": _rounded(self.volume_error_ml),
            "volumeErrorPercent": _rounded(self.volume_error_percent),
        }


@dataclass(frozen=True, kw_only=True)
class SegmentedCase:
    """A case and the scores of its segments."""

    case: Case
    segments: tuple[SegmentScore, ...]

    def mean(self, name: str) -> float | None:
        """The mean of one attribute of `SegmentScore` over the segments that have a number."""
        numbers = [value for one in self.segments if (value := getattr(one, name)) is not None]
        return math.fsum(numbers) / len(numbers) if numbers else None

    @property
    def badness(self) -> float | None:
        """0 for a perfect result, 1 for a useless one; None when there was nothing to find or found."""
        dice = self.mean("dice")
        return None if dice is None else 1 - dice

    def as_document(self) -> dict[str, Any]:
        return {
            "meanDice": self.mean("dice"),
            "segments": [segment.as_document() for segment in self.segments],
        }


class SegmentationScores:
    """The metrics of segmented cases.

    Args:
        cases: Measured with one model.
    """

    def __init__(self, cases: Sequence[SegmentedCase]) -> None:
        self._cases = tuple(cases)
        self._means = PatientMeans(
            [one.case.patient_key for one in cases],
            {name: [one.mean(name.removeprefix("mean_")) for one in cases] for name in METRICS},
        )

    @property
    def patients(self) -> Sequence[str]:
        return self._means.patients

    def metrics(self, counts: Any) -> dict[str, float]:
        return self._means.metrics(counts)

    def support(self) -> dict[str, int]:
        return self._means.support()

    def details(self) -> dict[str, Any]:
        """What the document says beyond metrics: every segment's metrics with their intervals."""
        return {"segments": {label: self._segment(label) for label in self._labels()}}

    def _labels(self) -> list[str]:
        return list(dict.fromkeys(segment.label for one in self._cases for segment in one.segments))

    def _segment(self, label: str) -> dict[str, Any]:
        chosen = [(one, segment) for one in self._cases for segment in one.segments if segment.label == label]
        means = PatientMeans(
            [one.case.patient_key for one, _ in chosen],
            {
                name: [getattr(segment, name) for _, segment in chosen]
                for name in (metric.removeprefix("mean_") for metric in METRICS)
            },
        )
        return {
            "metrics": estimate(means),
            "intervals": {
                name: None if found is None else found.as_document()
                for name, found in intervals(means).items()
            },
            "casesWithIt": sum(1 for _, segment in chosen if segment.reference_ml > 0),
        }


def with_common_distances(
    mine: Sequence[SegmentedCase], theirs: Sequence[SegmentedCase]
) -> tuple[list[SegmentedCase], list[SegmentedCase]]:
    """Two models' results on the same cases, with a distance only where both found the segment.

    A model that finds nothing has no distance. Without this it would look nearer the less it finds, because
    what is hard to find is mostly far off where it is found. Dice and volumes tell of what was missed.

    Args:
        mine: Of one model.
        theirs: Of the other, in the same order.
    """
    pairs = [_common(one, other) for one, other in zip(mine, theirs, strict=True)]
    return [one for one, _ in pairs], [other for _, other in pairs]


def _common(one: SegmentedCase, other: SegmentedCase) -> tuple[SegmentedCase, SegmentedCase]:
    both = {segment.label for segment in one.segments if segment.hausdorff95_mm is not None} & {
        segment.label for segment in other.segments if segment.hausdorff95_mm is not None
    }

    def only(case: SegmentedCase) -> SegmentedCase:
        segments = (
            segment if segment.label in both else replace(segment, hausdorff95_mm=None)
            for segment in case.segments
        )
        return replace(case, segments=tuple(segments))

    return only(one), only(other)


def score_segments(
    masks: Mapping[str, torch.Tensor], label: MetaTensor, *, channels: Mapping[str, int]
) -> tuple[SegmentScore, ...]:
    """Compares a prediction with the reference, segment by segment.

    Args:
        masks: What was found: booleans (columns, rows, slices) by name of the segment.
        label: (1, columns, rows, slices) of numbers, with an affine in mm.
        channels: Number of each segment in the label, by name.

    Raises:
        EvaluationError: Label and prediction are not of one shape.
    """
    reference = label.as_tensor()[0]
    for mask in masks.values():
        if mask.shape != reference.shape:
            msg = f"The label has {tuple(reference.shape)} voxels and the image {tuple(mask.shape)}"
            raise EvaluationError(msg)
    voxel_ml = abs(float(torch.linalg.det(label.affine[:3, :3].double()))) / 1000
    spacing = [float(mm) for mm in affine_to_spacing(label.affine)]
    return tuple(
        _score(name, masks[name], reference == number, voxel_ml=voxel_ml, spacing=spacing)
        for name, number in channels.items()
    )


def hausdorff(found: torch.Tensor, wanted: torch.Tensor, *, spacing: Sequence[float]) -> float:
    """The larger of the two directed 95th percentiles of surface distances, in mm.

    Args:
        found: Booleans (x, y, z), not empty.
        wanted: Likewise.
        spacing: mm between voxels, in that order.
    """
    box = _filled(found.numpy() | wanted.numpy())
    one, other = (_surface(mask.numpy()[box]) for mask in (found, wanted))
    return max(_directed(one, other, spacing), _directed(other, one, spacing))


def _filled(mask: Mask) -> tuple[slice, ...]:
    """The smallest box around what is set: nothing outside of it matters to a distance."""
    axes = range(mask.ndim)
    along = [np.flatnonzero(mask.any(axis=tuple(other for other in axes if other != axis))) for axis in axes]
    return tuple(slice(int(found[0]), int(found[-1]) + 1) for found in along)


def _surface(mask: Mask) -> Mask:
    """The voxels with a neighbour that is not set, or outside of the image."""
    inner: Mask = binary_erosion(mask)
    return mask & ~inner


def _directed(points: Mask, surface: Mask, spacing: Sequence[float]) -> float:
    if (points.sum() + surface.sum()) / points.size > SCATTERED:
        distances = distance_transform_edt(~surface, sampling=spacing)[points]
    else:
        distances = get_surface_distance(points, surface, spacing=list(spacing))
    return float(np.percentile(distances, PERCENTILE))


def _score(
    name: str, found: torch.Tensor, wanted: torch.Tensor, *, voxel_ml: float, spacing: Sequence[float]
) -> SegmentScore:
    missing = None
    if not bool(wanted.any()) or not bool(found.any()):
        empty = [
            side for side, mask in (("reference", wanted), ("prediction", found)) if not bool(mask.any())
        ]
        missing = f"empty in {' and '.join(empty)}"
    nothing = missing is not None and not bool(found.any()) and not bool(wanted.any())
    distance = None
    if missing is None:
        distance = hausdorff(found, wanted, spacing=spacing)
    dice = float(compute_dice(found[None, None], wanted[None, None], ignore_empty=False))
    return SegmentScore(
        label=name,
        dice=None if nothing else dice,
        hausdorff95_mm=distance,
        missing=missing,
        reference_ml=float(wanted.sum()) * voxel_ml,
        predicted_ml=float(found.sum()) * voxel_ml,
    )


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 3)
