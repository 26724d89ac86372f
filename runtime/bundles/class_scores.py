"""What a classification says about a volume."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from pydicom.sr.coding import Code

from runtime.bundles.metadata import Channel, require_places
from runtime.errors import UnsuitablePredictionError

_OUT_OF_RANGE = 1e-3
"""How far half precision may carry a probability out of 0 to 1."""


@dataclass(frozen=True, kw_only=True)
class ClassScore:
    """How probable one class is."""

    label: str
    """The class's name, as the bundle's ``channel_def`` gives it."""

    probability: float
    """0 to 1."""

    term: Code | None
    """The coded concept of the class; None when its name has none."""


def class_scores(
    vector: torch.Tensor, channels: Sequence[Channel], terms: Mapping[str, Code]
) -> tuple[ClassScore, ...]:
    """Name the entries of a network's output after softmax or sigmoid.

    Parameters
    ----------
    vector
        One probability for each entry of ``channel_def``, in any shape of that many values.
    channels
        The bundle's ``channel_def``, by index.
    terms
        Coded concepts by class name, for the classes that have one.

    Raises
    ------
    UnsuitablePredictionError
        When there are more or fewer values than classes, it is not known which is which, or they are no
        probabilities.
    """
    values = vector.detach().as_subclass(torch.Tensor).cpu().double().flatten().tolist()
    if len(values) != len(channels):
        msg = f"the network gives {len(values)} values for the {len(channels)} classes of channel_def"
        raise UnsuitablePredictionError(msg)
    require_places(channels)
    if not all(-_OUT_OF_RANGE <= value <= 1 + _OUT_OF_RANGE for value in values):
        msg = (
            f"the classes' values run from {min(values):g} to {max(values):g}, which are no probabilities: "
            "postprocessing must apply softmax or sigmoid"
        )
        raise UnsuitablePredictionError(msg)
    return tuple(
        ClassScore(
            label=channel.name,
            probability=min(max(value, 0.0), 1.0),
            term=terms.get(channel.name),
        )
        for channel, value in zip(channels, values, strict=True)
    )
