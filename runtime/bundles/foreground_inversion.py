"""Brings a two-class softmax prediction back to the source's grid for half the price, with the same mask.

Model zoo bundles end in softmax -> ``Invertd`` with linear interpolation -> argmax. The inversion resamples
every channel to the source's resolution and is most of a request's time. The two channels sum to one at
every voxel, and so they do after any interpolation whose weights sum to one: argmax is then the test
"foreground above one half", and background need not be resampled.

Two things would make a mask that is not the bundle's. Where an interpolation reads voxels that a crop took
away, the channels sum to less than one: such inversions are left as they are. And where foreground is one
half up to rounding, which channel is greater is decided by the last bit: if there is any such voxel,
background is resampled as well.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any

import torch
from monai.data import MetaTensor
from monai.transforms import Activationsd, AsDiscreted, Compose, EnsureTyped, Invertd, ToTensord

ROUNDING = 1e-6
"""Channels may miss the sum of one by this. An interpolation of three dimensions in single precision adds
eight products of values up to one: at most 16 roundings of 2^-24."""

_RESAMPLING = frozenset({"Spacing", "SpatialResample", "SeparableResample"})
_PERMUTING = frozenset({"Orientation", "Flip", "Rotate90", "Transpose"})
_FIELD_OF_VIEW = frozenset(
    {"CropForeground", "SpatialCrop", "CenterSpatialCrop", "Pad", "SpatialPad", "DivisiblePad"}
)


class ForegroundInversion:
    """Softmax, inversion and argmax of two channels as one step on the data dictionary."""

    def __init__(
        self,
        *,
        key: str,
        original: str,
        probabilities: Sequence[Callable[..., Any]],
        inversion: Sequence[Callable[..., Any]],
        argmax: Callable[..., Any],
    ) -> None:
        """
        Parameters
        ----------
        key
            Name of the prediction.
        original
            Name of the image whose preprocessing is inverted.
        probabilities, inversion, argmax
            The bundle's own steps, in their order.
        """
        self._key = key
        self._original = original
        self._probabilities = tuple(probabilities)
        self._inversion = tuple(inversion)
        self._argmax = argmax

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        softmax = _apply(self._probabilities, dict(data))
        channels = softmax[self._key]
        if not (_sums_to_one(channels) and interpolates_all_of(softmax.get(self._original))):
            return _apply((*self._inversion, self._argmax), softmax)
        result = self._inverted(softmax, channels[1:])
        foreground = result[self._key]
        if bool(((foreground - 0.5).abs() <= ROUNDING).any()):
            background = self._inverted(softmax, channels[:1])[self._key]
            result[self._key] = torch.cat((background, foreground))
            return _apply((self._argmax,), result)
        result[self._key] = (foreground > 0.5).to(torch.float32)
        return result

    def _inverted(self, data: Mapping[Hashable, Any], channels: Any) -> dict[Hashable, Any]:
        return _apply(self._inversion, {**data, self._key: channels})


def interpolates_all_of(image: object) -> bool:
    """Whether inverting what was done to the image keeps the sum of channels at one, or at zero outside the
    field of view.

    The image is resampled with ``padding_mode`` border only, and cropped only before that: the inversion
    runs backwards, so that it fills with zeros after its last interpolation.
    """
    if not isinstance(image, MetaTensor):
        return False
    resampled = False
    for operation in image.applied_operations:
        name = str(operation.get("class", ""))
        if name in _RESAMPLING:
            resampled = True
            if not _is_linear_to_the_border(operation):
                return False
        elif name in _FIELD_OF_VIEW:
            if resampled:
                return False
        elif name not in _PERMUTING:
            return False
    return True


def invert_foreground_only(postprocessing: Compose, *, key: str) -> Compose:
    """Join softmax -> invert (interpolating) -> argmax to one step; return anything else as it is.

    Parameters
    ----------
    postprocessing
        The bundle's transforms, with those that write files already left out.
    key
        Name of the prediction in the data dictionary.
    """
    transforms = list(postprocessing.flatten().transforms)
    steps = [index for index, step in enumerate(transforms) if not isinstance(step, EnsureTyped | ToTensord)]
    if len(steps) < 3:
        return postprocessing
    first, second, third = steps[:3]
    inversion = transforms[second]
    if not (
        _is_softmax(transforms[first], key)
        and _is_interpolating_inversion(inversion, key)
        and _is_argmax(transforms[third], key)
    ):
        return postprocessing
    joined = ForegroundInversion(
        key=key,
        original=inversion.orig_keys[0],
        probabilities=transforms[:second],
        inversion=transforms[second:third],
        argmax=transforms[third],
    )
    return Compose([joined, *transforms[third + 1 :]])


def _apply(steps: Sequence[Callable[..., Any]], data: dict[Hashable, Any]) -> dict[Hashable, Any]:
    for step in steps:
        data = step(data)
    return data


def _sums_to_one(channels: Any) -> bool:
    """Softmax in half precision misses the sum by more than is tolerated here."""
    return channels.shape[0] == 2 and channels.dtype in (torch.float32, torch.float64)


def _is_linear_to_the_border(operation: Mapping[str, Any]) -> bool:
    info = operation.get("extra_info") or {}
    return str(info.get("padding_mode")) == "border" and str(info.get("mode")) == "bilinear"


def _is_softmax(transform: object, key: str) -> bool:
    return (
        isinstance(transform, Activationsd)
        and transform.keys == (key,)
        and _all(transform.softmax)
        and not _any(transform.sigmoid)
        and all(function is None for function in transform.other)
    )


def _is_interpolating_inversion(transform: object, key: str) -> bool:
    return (
        isinstance(transform, Invertd)
        and transform.keys == (key,)
        and not _any(transform.nearest_interp)
        and not _any(transform.post_func)
    )


def _is_argmax(transform: object, key: str) -> bool:
    return (
        isinstance(transform, AsDiscreted)
        and transform.keys == (key,)
        and _all(transform.argmax)
        and all(value is None for value in (*transform.to_onehot, *transform.threshold, *transform.rounding))
    )


def _all(flags: Sequence[object]) -> bool:
    return bool(flags) and all(flags)


def _any(flags: Sequence[object]) -> bool:
    return any(flags)
