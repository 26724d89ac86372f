"""From a bundle's prediction to one mask a segment, in the order of DICOM's arrays.

What a bundle's postprocessing ends on is one of

* labels: one channel; also labels that an inversion has interpolated, which are rounded,
* masks: one channel of zeros and ones for each entry of ``channel_def``; they may overlap (whole tumour and
  tumour core), or be a one-hot map,
* probabilities: as many channels, where ``channel_def`` with a background names alternatives (the greatest
  wins) and ``channel_def`` without one names independent findings (each above one half).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch

from runtime.bundles.metadata import Channel, require_places
from runtime.errors import UnsuitablePredictionError

_OUT_OF_RANGE = 1e-3
"""How far interpolation may carry a probability out of 0 to 1."""


def channel_masks(prediction: torch.Tensor, channels: Sequence[Channel]) -> npt.NDArray[np.bool_]:
    """Give each channel that is not background its mask.

    Parameters
    ----------
    prediction
        (1, columns, rows, slices) of labels, or (channels, columns, rows, slices) of masks or probabilities.
    channels
        The bundle's ``channel_def``, by index.

    Returns
    -------
    numpy.ndarray
        bool (segments, slices, rows, columns), the segments in the order of ``channels`` without background.

    Raises
    ------
    UnsuitablePredictionError
        When the values are none of these, or labels cannot be told apart by ``channel_def``.
    """
    values = prediction.as_subclass(torch.Tensor)
    if values.shape[0] > 1:
        return _slices_first(_masks_of_channels(values, channels))
    return _slices_first(_masks_of_labels(values[0], channels))


def _masks_of_channels(values: torch.Tensor, channels: Sequence[Channel]) -> torch.Tensor:
    wanted = [position for position, channel in enumerate(channels) if not channel.is_background]
    require_places(channels)
    if bool(((values == 0) | (values == 1)).all()):
        return values[wanted] == 1
    if not bool(((values >= -_OUT_OF_RANGE) & (values <= 1 + _OUT_OF_RANGE)).all()):
        msg = (
            "the prediction holds neither masks nor probabilities but values from "
            f"{values.min():g} to {values.max():g}: postprocessing must end on softmax, sigmoid or argmax"
        )
        raise UnsuitablePredictionError(msg)
    if len(wanted) == len(channels):
        return values > 0.5
    greatest = values.argmax(dim=0)
    return torch.stack([greatest == position for position in wanted])


def _masks_of_labels(labels: torch.Tensor, channels: Sequence[Channel]) -> torch.Tensor:
    segments = [channel for channel in channels if not channel.is_background]
    if len(channels) == 1:
        # One channel and no background: sigmoid and threshold, so 1 says "inside" whatever its index.
        if not bool(((labels >= -_OUT_OF_RANGE) & (labels <= 1 + _OUT_OF_RANGE)).all()):
            msg = (
                "the prediction holds neither a mask nor probabilities but values from "
                f"{labels.min():g} to {labels.max():g}: postprocessing must end on sigmoid or a threshold"
            )
            raise UnsuitablePredictionError(msg)
        return (labels > 0.5).unsqueeze(0)
    if any(channel.index == 0 for channel in segments):
        msg = (
            "the prediction is a label map, but channel_def gives label 0 a name that is not background: "
            "nothing tells its segment from what lies outside"
        )
        raise UnsuitablePredictionError(msg)
    labels = labels.round()
    known = labels == 0
    for channel in channels:
        known |= labels == channel.index
    if not known.all():
        unnamed = np.unique(labels[~known].numpy()).tolist()
        msg = f"the prediction holds labels {unnamed[:10]} that channel_def does not name"
        raise UnsuitablePredictionError(msg)
    return torch.stack([labels == channel.index for channel in segments])


def _slices_first(masks: torch.Tensor) -> npt.NDArray[np.bool_]:
    """(segments, columns, rows, slices) -> (segments, slices, rows, columns)."""
    source = masks.numpy()
    segments, columns, rows, slices = source.shape
    turned = np.empty((segments, slices, rows, columns), np.bool_)
    # Row by row, which is what a cache holds: turning the whole volume at once takes five times as long.
    for row in range(rows):
        turned[:, :, row] = source[:, :, row].transpose(0, 2, 1)
    return turned
