"""Brings a softmax prediction back to the source's grid for half the price.

Model zoo bundles end in softmax -> ``Invertd`` with linear interpolation -> argmax. The inversion resamples
every channel to the source's resolution and is most of a request's time. Softmax channels sum to one at
every voxel, and so does any linear resampling of them: background needs no resampling, it is one minus the
rest. For one foreground class, argmax is then the test "probability above one half".
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import torch
from monai.transforms import Activationsd, AsDiscreted, Compose, EnsureTyped, Invertd, MapTransform, ToTensord


class DropBackgroundd(MapTransform):
    """Removes channel 0 of channel-first probabilities that sum to one."""

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        result = dict(data)
        for key in self.key_iterator(result):
            result[key] = result[key][1:]
        return result


class ForegroundArgmaxd(MapTransform):
    """Turns foreground probabilities into labels: (C - 1, ...) -> (1, ...), 0 = background, k = channel k.

    Outside the inverted field of view all probabilities are zero: that is background, as with argmax.
    """

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        result = dict(data)
        for key in self.key_iterator(result):
            foreground = result[key]
            if foreground.shape[0] == 1:
                result[key] = (foreground > 0.5).to(torch.float32)
            else:
                background = 1 - foreground.sum(dim=0, keepdim=True)
                result[key] = (
                    torch.cat((background, foreground)).argmax(dim=0, keepdim=True).to(torch.float32)
                )
        return result


def invert_foreground_only(postprocessing: Compose, *, key: str) -> Compose:
    """Rewrite softmax -> invert (interpolating) -> argmax; return anything else as it is.

    Parameters
    ----------
    postprocessing
        The bundle's transforms, with those that write files already left out.
    key
        Name of the prediction in the data dictionary.
    """
    transforms = list(postprocessing.flatten().transforms)
    steps = [t for t in transforms if not isinstance(t, EnsureTyped | ToTensord)]
    if len(steps) < 3:
        return postprocessing
    softmax, inversion, argmax = steps[:3]
    if not (
        _is_softmax(softmax, key) and _is_interpolating_inversion(inversion, key) and _is_argmax(argmax, key)
    ):
        return postprocessing
    rewritten: list[Any] = []
    for transform in transforms:
        if transform is argmax:
            rewritten.append(ForegroundArgmaxd(keys=key))
        else:
            rewritten.append(transform)
        if transform is softmax:
            rewritten.append(DropBackgroundd(keys=key))
    return Compose(rewritten)


def _is_softmax(transform: object, key: str) -> bool:
    return (
        isinstance(transform, Activationsd)
        and transform.keys == (key,)
        and _all(transform.softmax)
        and not _any(transform.sigmoid)
        and all(function is None for function in transform.other)
    )


def _is_interpolating_inversion(transform: object, key: str) -> bool:
    return isinstance(transform, Invertd) and transform.keys == (key,) and not _any(transform.nearest_interp)


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
