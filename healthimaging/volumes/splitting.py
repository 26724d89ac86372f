"""A series' slices sorted into the stacks that they belong to.

A series may hold several volumes: a localizer among axial slices, several orientations, two reconstructions,
or one stack many times (phases, echoes, b-values). What cannot lie in one array is told apart by its
header; slices that lie at one place are told apart by the attribute that makes whole volumes of them, and
refused when none does.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from healthimaging.errors import MissingGeometryError
from healthimaging.volumes.geometry import FloatArray
from healthimaging.volumes.repetitions import separate_repetitions
from healthimaging.volumes.series_slices import SeriesSlice
from healthimaging.volumes.slices import (
    DUPLICATE_TOLERANCE,
    ORIENTATION_TOLERANCE,
    PIXEL_SPACING_TOLERANCE,
    SIDEWAYS_TOLERANCE,
    slice_coordinates,
)

IntArray = npt.NDArray[np.intp]


@dataclass(frozen=True, kw_only=True, eq=False)
class Part:
    """Slices that are meant to be one volume."""

    slices: tuple[SeriesSlice, ...]
    distinction: tuple[tuple[str, str], ...] = ()
    """(keyword, value) of what tells it from the other parts of the series, coarsest first."""


def split_series(
    slices: Sequence[SeriesSlice], *, spacing_tolerance: float, accept_incomplete: bool
) -> list[Part]:
    """Sorts the slices of a series into parts of one shape, plane, pixel spacing and frame of reference.

    Within a part no two slices lie at one place. Parts come in the order of their smallest InstanceNumber;
    parts that lie at the same places in the order of what distinguishes them. The order of the slices that
    come in changes nothing.

    Args:
        slices: From `read_slices`, at least one.
        spacing_tolerance: As `healthimaging.volumes.slices.SPACING_TOLERANCE`.
        accept_incomplete: As for `plan_volumes`.

    Raises:
        DuplicatePositionError: Slices lie at one place, and no attribute sorts them into whole volumes.
        MissingSliceError: A repetition of a stack lacks slices that the others have.
        GeometryError: An orientation is malformed, or only some slices name a frame of reference.
    """
    _require_comparable_places(slices)
    parts = [Part(slices=tuple(sorted(slices, key=_identity)))]
    for keyword, label in _LABELS:
        parts = [piece for part in parts for piece in _divided(part, keyword, label(part.slices))]
    parts.sort(key=lambda part: min((_number(one), *_identity(one)) for one in part.slices))
    return [
        Part(slices=chosen, distinction=(*part.distinction, *distinction))
        for part in parts
        for distinction, chosen in separate_repetitions(
            part.slices,
            _places(part.slices),
            spacing_tolerance=spacing_tolerance,
            accept_incomplete=accept_incomplete,
        )
    ]


def split_by_stack_id(part: Part) -> list[Part]:
    """The stacks that the header of an enhanced image names (PS3.3 section C.7.6.16.2.2.4); else the part."""
    labels = ["\\".join(one.texts("StackID", "FrameContentSequence") or [""]) for one in part.slices]
    return [part] if "" in labels else _divided(part, "StackID", labels)


def _identity(one: SeriesSlice) -> tuple[str, int]:
    return one.plane.sop_instance_uid, one.plane.frame_number


def _number(one: SeriesSlice) -> float:
    number = one.attributes.integer("InstanceNumber")
    return math.inf if number is None else number


def _require_comparable_places(slices: Sequence[SeriesSlice]) -> None:
    unnamed = [one for one in slices if one.frame_of_reference_uid is None]
    if unnamed and len(unnamed) < len(slices):
        msg = f"{len(unnamed)} of {len(slices)} slices name no frame of reference: their place is not known"
        raise MissingGeometryError(msg, sop_instance_uid=unnamed[0].plane.sop_instance_uid)


def _divided(part: Part, keyword: str, labels: Iterable[str]) -> list[Part]:
    groups: dict[str, list[SeriesSlice]] = {}
    for one, label in zip(part.slices, labels, strict=True):
        groups.setdefault(label, []).append(one)
    if len(groups) == 1:
        return [part]
    return [
        replace(part, slices=tuple(group), distinction=(*part.distinction, (keyword, label)))
        for label, group in sorted(groups.items())
    ]


def _image_types(slices: Sequence[SeriesSlice]) -> list[str]:
    types = [one.texts("ImageType") or [] for one in slices]
    return ["LOCALIZER" if "LOCALIZER" in values else "not LOCALIZER" for values in types]


def _orientations(slices: Sequence[SeriesSlice]) -> list[str]:
    points = np.array([one.plane.orientation for one in slices])
    return _named(clusters(points, ORIENTATION_TOLERANCE), points)


def _pixel_spacings(slices: Sequence[SeriesSlice]) -> list[str]:
    points = np.array([one.plane.pixel_spacing for one in slices])
    return _named(clusters(np.log(points), PIXEL_SPACING_TOLERANCE), points)


def _columns_of_slices(slices: Sequence[SeriesSlice]) -> list[str]:
    """Names stacks that stand beside each other, as those of two breasts or knees do."""
    coordinates = slice_coordinates([one.plane for one in slices])
    column = clusters(coordinates[:, :2], SIDEWAYS_TOLERANCE * min(slices[0].plane.pixel_spacing))
    levels = _levels(coordinates[:, 2])
    beside = [len({int(c) for c in column[levels == level]}) for level in range(int(levels.max()) + 1)]
    # In a tilted stack every slice stands in a column of its own, but alone at its height.
    if not 1 < len(set(column.tolist())) <= max(beside):
        return [""] * len(slices)
    return _named(column, np.array([one.plane.position for one in slices]))


_LABELS: tuple[tuple[str, Callable[[Sequence[SeriesSlice]], list[str]]], ...] = (
    ("Rows", lambda slices: [str(one.layout.rows) for one in slices]),
    ("Columns", lambda slices: [str(one.layout.columns) for one in slices]),
    ("SamplesPerPixel", lambda slices: [str(one.layout.samples_per_pixel) for one in slices]),
    ("FrameOfReferenceUID", lambda slices: [one.frame_of_reference_uid or "" for one in slices]),
    ("ImageType", _image_types),
    ("ImageOrientationPatient", _orientations),
    ("PixelSpacing", _pixel_spacings),
    ("ImagePositionPatient", _columns_of_slices),
)


def _named(cluster: IntArray, points: FloatArray) -> list[str]:
    """For each point the smallest point of its cluster, as DICOM writes it."""
    names = {
        label: "\\".join(f"{x + 0.0:.9g}" for x in min(points[cluster == label].tolist()))
        for label in set(cluster.tolist())
    }
    return [names[label] for label in cluster.tolist()]


def clusters(points: FloatArray, tolerance: float) -> IntArray:
    """Numbers points such that neighbours, no coordinate of which differs by more, have one number.

    Chains count: so the result does not depend on the order of the points.
    """
    unique, inverse = np.unique(points, axis=0, return_inverse=True)
    labels = np.full(len(unique), -1, dtype=np.intp)
    for seed in range(len(unique)):
        if labels[seed] >= 0:
            continue
        waiting = [seed]
        labels[seed] = seed
        while waiting:
            distances = np.abs(unique - unique[waiting.pop()]).max(axis=1)
            near = np.flatnonzero((distances <= tolerance) & (labels < 0))
            labels[near] = seed
            waiting.extend(near.tolist())
    return np.asarray(labels[inverse.reshape(-1)], dtype=np.intp)


def _levels(distances: FloatArray) -> IntArray:
    """Numbers slices by their distance along the normal, from 0; those at one place have one number."""
    order = np.argsort(distances, kind="stable")
    levels = np.empty(len(distances), dtype=np.intp)
    levels[order] = np.concatenate([[0], np.cumsum(np.diff(distances[order]) >= DUPLICATE_TOLERANCE)])
    return levels


def _places(slices: Sequence[SeriesSlice]) -> list[int]:
    return [int(n) for n in _levels(slice_coordinates([one.plane for one in slices])[:, 2])]
