"""What the operators hand to each other. Objects travel by reference: nothing is copied or written."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from pydicom import Dataset

from healthimaging import Geometry, ImageSet, Volume
from runtime.bundles.class_scores import ClassScore
from runtime.results.identity import ResultIdentity
from runtime.results.results import Found


@dataclass(frozen=True, kw_only=True, eq=False)
class OpenedImageSet:
    """An image set whose metadata is read, and the identity that its result will have."""

    image_set: ImageSet
    identity: ResultIdentity


@dataclass(frozen=True, kw_only=True, eq=False)
class SelectedSeries:
    """The series to look at: headers without pixels."""

    opened: OpenedImageSet
    series_instance_uid: str
    headers: tuple[Dataset, ...]


@dataclass(frozen=True, kw_only=True, eq=False)
class SourceVolume:
    """The volume to look at, and the headers of its instances in the order of its slices."""

    opened: OpenedImageSet
    volume: Volume
    headers: tuple[Dataset, ...]


@dataclass(frozen=True, kw_only=True, eq=False)
class Masks:
    """bool (segments, slices, rows, columns) on the grid of the source volume."""

    source: SourceVolume
    masks: npt.NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True, eq=False)
class Scores:
    """How probable each class is, of the source volume as a whole."""

    source: SourceVolume
    scores: tuple[ClassScore, ...]


@dataclass(frozen=True, kw_only=True, eq=False)
class ResultObject:
    """The DICOM object that a result is, ready to be stored: a SEG, or the report of a classification."""

    source: SourceVolume
    dataset: Dataset


@dataclass(frozen=True, kw_only=True, eq=False)
class FoundResult:
    """What the archive holds of a result already; something of it is missing."""

    opened: OpenedImageSet
    found: Found


@dataclass(frozen=True, kw_only=True, eq=False)
class StoredResultObject:
    """The object that a result is, as the archive holds it, and what its reports are made of."""

    series: SelectedSeries
    """With the headers of the volume's instances alone, in the order of its slices."""
    grid: Geometry
    """Of the volume."""
    volume: Volume | None
    """None where the result was in the archive already: it is read when a report needs it."""
    found: Found
