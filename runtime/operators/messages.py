"""What the operators hand to each other. Objects travel by reference: nothing is copied or written."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from pydicom import Dataset

from healthimaging import ImageSet, Volume
from runtime.results.identity import ResultIdentity


@dataclass(frozen=True, kw_only=True, eq=False)
class OpenedImageSet:
    """An image set whose metadata is read, and the identity that its result will have."""

    image_set: ImageSet
    identity: ResultIdentity


@dataclass(frozen=True, kw_only=True, eq=False)
class SelectedSeries:
    """The series to segment: headers without pixels."""

    opened: OpenedImageSet
    series_instance_uid: str
    headers: tuple[Dataset, ...]


@dataclass(frozen=True, kw_only=True, eq=False)
class SourceVolume:
    """The volume to segment, and the headers of its instances in the order of its slices."""

    opened: OpenedImageSet
    volume: Volume
    headers: tuple[Dataset, ...]


@dataclass(frozen=True, kw_only=True, eq=False)
class Masks:
    """bool (segments, slices, rows, columns) on the grid of the source volume."""

    source: SourceVolume
    masks: npt.NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True, eq=False)
class Segmentation:
    """A DICOM SEG that is ready to be stored."""

    opened: OpenedImageSet
    dataset: Dataset
