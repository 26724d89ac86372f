"""The masks in a segmentation's answer, read as the inference image reads them (docs/bundles.md)."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from training.errors import EvaluationError

_OUT_OF_RANGE = 1e-3
"""How far half precision may carry a probability out of 0 to 1."""


def segment_masks(prediction: torch.Tensor, channels: Mapping[str, int]) -> dict[str, torch.Tensor]:
    """One mask for each segment.

    One channel holds label numbers. Several hold masks or probabilities: of these the greatest wins where one
    of the channels is background, and otherwise those above a half.

    Args:
        prediction: (1 or channels, columns, rows, slices).
        channels: The bundle's foreground channels: number by name.

    Returns:
        Booleans (columns, rows, slices), by name.

    Raises:
        EvaluationError: The answer holds other labels than these, channels that cannot be told apart, or
            values that are neither masks nor probabilities.
    """
    if prediction.shape[0] == 1:
        return _of_labels(prediction[0], channels)
    names = sorted(channels, key=lambda name: channels[name])
    background = prediction.shape[0] - len(names)
    if background not in (0, 1):
        msg = (
            f"The model gives {prediction.shape[0]} channels; its metadata names {len(names)} segments, "
            "which are as many channels, or one more with background"
        )
        raise EvaluationError(msg)
    places = {name: place + background for place, name in enumerate(names)}
    if bool(((prediction == 0) | (prediction == 1)).all()):
        return {name: prediction[place] == 1 for name, place in places.items()}
    _require_probabilities(prediction)
    if background:
        greatest = prediction.argmax(dim=0)
        return {name: greatest == place for name, place in places.items()}
    return {name: prediction[place] > 0.5 for name, place in places.items()}


def _of_labels(labels: torch.Tensor, channels: Mapping[str, int]) -> dict[str, torch.Tensor]:
    if len(channels) == 1 and float(labels.max()) <= 1 + _OUT_OF_RANGE:
        # One structure: 1 says "inside" whatever its number, and so does a probability above a half.
        _require_probabilities(labels)
        return dict.fromkeys(channels, labels > 0.5)
    numbers = labels.round()
    unknown = sorted(set(torch.unique(numbers).tolist()) - {0.0, *map(float, channels.values())})
    if unknown:
        msg = f"The model's answer holds labels that its metadata does not name: {unknown[:5]}"
        raise EvaluationError(msg)
    return {name: numbers == number for name, number in channels.items()}


def _require_probabilities(values: torch.Tensor) -> None:
    low, high = float(values.min()), float(values.max())
    if low < -_OUT_OF_RANGE or high > 1 + _OUT_OF_RANGE:
        msg = (
            f"The model's values run from {low:g} to {high:g}, which are neither masks nor probabilities: "
            "postprocessing of inference.json must end on softmax, sigmoid, argmax or a threshold"
        )
        raise EvaluationError(msg)
