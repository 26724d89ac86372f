"""What a bundle's network is for."""

from __future__ import annotations

from enum import StrEnum


class Task(StrEnum):
    """The kinds of result that this runtime makes of a volume."""

    SEGMENTATION = "segmentation"
    """Masks on the grid of the volume."""

    CLASSIFICATION = "classification"
    """A probability for each class, for the volume as a whole."""
