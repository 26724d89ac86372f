"""Brings a prediction back to the source's spacing one axis after the other.

Bundles end in ``Invertd``, which undoes ``Spacingd`` by sampling the prediction at every voxel of the source.
MONAI makes a grid of three 64-bit coordinates a voxel for that (384 MB for 512 x 512 x 61) and interpolates
between eight neighbours. A change of spacing moves no axis into another, and there linear interpolation is a
product of one interpolation along each axis: the same numbers from two neighbours at a time, most of them
computed while the volume is still small. Rounding apart: both compute in 64 bits and give 32.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from monai.data import MetaTensor
from monai.transforms import Compose, Flipd, InvertibleTransform, Orientationd, Spacingd, SpatialResample
from monai.utils import TraceKeys

_STRAIGHT_VOXELS = 1e-9
"""How far an axis may lean into another over the whole volume, in voxels, to count as straight: what rounding
does to an oblique volume's affine. The rest of the rounding errors are of this size, too."""

_SLAB_BYTES = 8 * 1024 * 1024
"""Of the result in 64 bits that is in work at a time; fits a processor's cache."""


def invert_axis_by_axis(preprocessing: Compose) -> None:
    """Let each ``Spacingd`` of a bundle's preprocessing undo itself in this way where it can.

    Has to be called before the first volume is preprocessed: a transform that is undone later is found by its
    identity.
    """
    transforms = preprocessing.flatten().transforms
    for index, transform in enumerate(transforms):
        if isinstance(transform, Spacingd) and _is_undone_first(transforms[index + 1 :]):
            spacing = transform.spacing_transform
            if type(spacing.sp_resample) is SpatialResample:
                spacing.sp_resample = SeparableResample.like(spacing.sp_resample)


def _is_undone_first(later: Sequence[object]) -> bool:
    """Whether the resampling is undone on the prediction as it is, or on its mirror image.

    What undoes a crop fills with zeros. MONAI's rounding lets a voxel in there have 1e-17 of its neighbour,
    of which an argmax makes a segment: not sensible, and not ours to change.
    """
    return all(
        isinstance(step, Orientationd | Flipd) for step in later if isinstance(step, InvertibleTransform)
    )


class SeparableResample(SpatialResample):
    """MONAI's resampling, with an inverse that goes axis by axis where axes stay axes."""

    @classmethod
    def like(cls, other: SpatialResample) -> SeparableResample:
        return cls(
            mode=other.mode,
            padding_mode=other.padding_mode,
            align_corners=other.align_corners,
            dtype=other.dtype,
            lazy=other.lazy,
        )

    def inverse(self, data: torch.Tensor) -> torch.Tensor:
        """Undo the resampling that was applied last.

        Parameters
        ----------
        data
            (channels, X, Y, Z) with the affine of the resampled grid.

        Returns
        -------
        torch.Tensor
            float32 (channels, X', Y', Z') on the grid before; as MONAI's, but for rounding.
        """
        axes = self._axes(data)
        if axes is None or not isinstance(data, MetaTensor):
            inverted: torch.Tensor = super().inverse(data)
            return inverted
        transform = self.pop_transform(data)
        before = torch.as_tensor(transform[TraceKeys.EXTRA_INFO]["src_affine"], dtype=torch.float64)
        array = _resampled(data.as_tensor(), axes)
        result: torch.Tensor = MetaTensor(
            array, before, meta=dict(data.meta), applied_operations=list(data.applied_operations)
        )
        return result

    def _axes(self, data: torch.Tensor) -> Sequence[_Axis] | None:
        """How each axis is interpolated; None where this is left to MONAI."""
        if not isinstance(data, MetaTensor) or data.pending_operations or data.device.type != "cpu":
            return None
        transform = self.get_most_recent_transform(data)
        info: dict[str, Any] = transform[TraceKeys.EXTRA_INFO]
        linear = info["mode"] in ("bilinear", "trilinear") and info["dtype"] == "float64"
        before, now = tuple(int(n) for n in transform[TraceKeys.ORIG_SIZE]), tuple(data.shape[1:])
        # Zeros outside are not for ever: see `_is_undone_first`.
        if not linear or info["padding_mode"] != "border" or len(before) != 3 or len(now) != 3:
            return None
        # Voxel indices before the resampling -> voxel indices now.
        matrix = np.linalg.solve(
            np.asarray(data.affine, dtype=np.float64), np.asarray(info["src_affine"], dtype=np.float64)
        )
        leaning = matrix[:3, :3] - np.diag(np.diag(matrix[:3, :3]))
        if np.abs(leaning).sum(axis=1).max() * max(before) > _STRAIGHT_VOXELS or 1 in (*before, *now):
            return None
        return [
            _Axis.at(
                torch.arange(before[axis], dtype=torch.float64) * matrix[axis, axis] + matrix[axis, 3],
                size=now[axis],
            )
            for axis in range(3)
        ]


@dataclass(frozen=True, kw_only=True, eq=False)
class _Axis:
    """Linear interpolation along one axis: for each new position two neighbours and their weights."""

    lower: torch.Tensor
    upper: torch.Tensor
    lower_weight: torch.Tensor
    upper_weight: torch.Tensor

    @classmethod
    def at(cls, positions: torch.Tensor, *, size: int) -> _Axis:
        """Interpolate at `positions` (voxels) of an axis of `size` voxels, whose ends go on for ever."""
        positions = positions.clamp(0, size - 1)
        lower = positions.floor()
        upper_weight = positions - lower
        return cls(
            lower=lower.long(),
            upper=(lower + 1).clamp(max=size - 1).long(),
            lower_weight=1 - upper_weight,
            upper_weight=upper_weight,
        )

    def part(self, begin: int, end: int) -> _Axis:
        """The positions from `begin` to before `end`."""
        return _Axis(
            lower=self.lower[begin:end],
            upper=self.upper[begin:end],
            lower_weight=self.lower_weight[begin:end],
            upper_weight=self.upper_weight[begin:end],
        )

    def along(self, array: torch.Tensor, axis: int) -> torch.Tensor:
        """Interpolate a float64 array along one of its axes."""
        shape = [-1 if one == axis else 1 for one in range(array.ndim)]
        result = array.index_select(axis, self.lower).mul_(self.lower_weight.reshape(shape))
        return result.addcmul_(array.index_select(axis, self.upper), self.upper_weight.reshape(shape))


def _resampled(image: torch.Tensor, axes: Sequence[_Axis]) -> torch.Tensor:
    """(channels, X, Y, Z) -> float32 (channels, X', Y', Z').

    The last step makes the volume as large as it gets; it goes by slabs of X', which are whole in memory.
    """
    sizes = [len(axis.lower) for axis in axes]
    result = torch.empty((image.shape[0], *sizes), dtype=torch.float32)
    step = max(1, _SLAB_BYTES // (8 * sizes[1] * sizes[2]))
    for channel, into in zip(image, result, strict=True):
        # Along Z and Y first: there are fewer voxels now than there will be.
        narrow = axes[1].along(axes[2].along(channel.to(torch.float64), 2), 1)
        for begin in range(0, sizes[0], step):
            end = min(begin + step, sizes[0])
            into[begin:end] = axes[0].part(begin, end).along(narrow, 0)
    return result
