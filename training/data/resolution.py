"""How coarse images may be read: a grid of 4 mm needs no pixels of 0.6 mm.

HTJ2K gives every half of the resolution for a part of the decoding, and a quarter of the memory.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from monai.transforms import (
    Compose,
    EnsureChannelFirstd,
    EnsureTyped,
    LoadImaged,
    Orientationd,
    ScaleIntensityRanged,
    Spacingd,
)

from healthimaging import Case
from training.data.cases import CaseReader

COARSEST = 5
"""HealthImaging's streams have five levels below the full resolution."""

_MARGIN = 2.0
"""Pixels are at most half as large as the target's: what is interpolated was sampled finely enough."""

_BEFORE = (LoadImaged, EnsureChannelFirstd, EnsureTyped, Orientationd, ScaleIntensityRanged)
"""What gives the same on a coarser grid; after anything else the full resolution may matter. A range that
cuts values off does not: metal would be averaged with what is around it before it is cut off.
"""


def coarse_level(preprocessing: Compose, spacing: Sequence[float]) -> int:
    """The largest level at which a case may be read for a chain of transforms.

    Args:
        preprocessing: Its first `Spacingd` says how fine the grid is on which the network works. Axes may be
            turned before it, so the finest of the target's spacings counts.
        spacing: Voxel size in mm along (columns, rows, slices); the larger of the first two counts.

    Returns:
        How often rows and columns may be halved; 0 where no `Spacingd` is, or something before it depends on
        the grid.
    """
    target = _target(preprocessing)
    pixel = max(spacing[0], spacing[1])
    if target is None or pixel <= 0:
        return 0
    # A spacing is rarely a round number: 0.5 mm from an affine may be a little more.
    halvings = math.floor(math.log2(target / _MARGIN / pixel) + 1e-6)
    return min(max(halvings, 0), COARSEST)


class CaseLevels:
    """The level of each case, decided by its header.

    Args:
        reader: Knows the spacing of a case.
        preprocessing: As for `coarse_level`.
    """

    def __init__(self, reader: CaseReader, preprocessing: Compose) -> None:
        self._reader = reader
        self._preprocessing = preprocessing
        self._needed = _target(preprocessing) is not None

    def __call__(self, case: Case) -> int:
        """Raises:
        DataError: The header cannot be read.
        """
        return coarse_level(self._preprocessing, self._reader.spacing(case)) if self._needed else 0


def _target(preprocessing: Compose) -> float | None:
    """mm of the finest axis of the grid that a chain resamples to; None where the resolution must stay."""
    for transform in preprocessing.flatten().transforms:
        if isinstance(transform, Spacingd):
            return _finest(transform)
        if not isinstance(transform, _BEFORE) or (
            isinstance(transform, ScaleIntensityRanged) and transform.scaler.clip
        ):
            return None
    return None


def _finest(transform: Spacingd) -> float | None:
    """mm of the finest axis of the target; None where an axis of the image may stay as it is."""
    spacing = transform.spacing_transform
    pixdim = np.atleast_1d(spacing.pixdim)
    limits = np.concatenate([np.atleast_1d(spacing.min_pixdim), np.atleast_1d(spacing.max_pixdim)])
    # Zero or less leaves an axis as it is, and so does a spacing within the limits.
    resampled = "image" in transform.keys and bool((pixdim > 0).all()) and bool(np.isnan(limits).all())
    return float(pixdim.min()) if resampled else None
