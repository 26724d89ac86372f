"""From a bundle's prediction to one mask a segment, in the order of DICOM's arrays."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch

from runtime.bundles.files import Channel
from runtime.errors import UnsuitablePredictionError


def channel_masks(prediction: torch.Tensor, channels: Sequence[Channel]) -> npt.NDArray[np.bool_]:
    """Give each channel that is not background its mask.

    Parameters
    ----------
    prediction
        (1, columns, rows, slices) of labels, or (channels, columns, rows, slices) of masks.
    channels
        The bundle's ``channel_def``, by index.

    Returns
    -------
    numpy.ndarray
        bool (segments, slices, rows, columns), the segments in the order of ``channels`` without background.

    Raises
    ------
    UnsuitablePredictionError
        When labels cannot be told apart by ``channel_def``.
    """
    segments = [channel for channel in channels if not channel.is_background]
    if prediction.shape[0] > 1:
        positions = {channel.index: position for position, channel in enumerate(channels)}
        wanted = [positions[channel.index] for channel in segments]
        return _slices_first(prediction[wanted] > 0.5)
    labels = prediction[0]
    if len(channels) == 1:
        # One channel and no background: sigmoid and threshold, so 1 says "inside" whatever its index.
        return _slices_first((labels > 0.5).unsqueeze(0))
    if len(segments) == len(channels):
        msg = "the prediction is a label map, but channel_def names no background for label 0"
        raise UnsuitablePredictionError(msg)
    known = torch.zeros_like(labels, dtype=torch.bool)
    for channel in channels:
        known |= labels == channel.index
    if not known.all():
        unnamed = np.unique(labels[~known].numpy()).tolist()
        msg = f"the prediction holds labels {unnamed} that channel_def does not name"
        raise UnsuitablePredictionError(msg)
    return _slices_first(torch.stack([labels == channel.index for channel in segments]))


def _slices_first(masks: torch.Tensor) -> npt.NDArray[np.bool_]:
    """(segments, columns, rows, slices) -> (segments, slices, rows, columns)."""
    array: npt.NDArray[np.bool_] = masks.as_subclass(torch.Tensor).permute(0, 3, 2, 1).contiguous().numpy()
    return array
