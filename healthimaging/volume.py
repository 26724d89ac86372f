"""A series as one three-dimensional array on a validated grid."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from healthimaging.codecs import FrameLayout
from healthimaging.errors import FrameLayoutError, GeometryError, MissingGeometryError, VolumeError
from healthimaging.frames import Frame
from healthimaging.geometry import Geometry
from healthimaging.metadata import Attributes, InstanceRecord, SeriesRecord
from healthimaging.slices import SPACING_TOLERANCE, SlicePlane, Stack, slice_plane, stack_slices

VolumeArray = npt.NDArray[np.integer[Any] | np.floating[Any]]

_INTEGERS = (np.int16, np.int32, np.int64)

_RESCALED_MODALITIES = frozenset({"CT", "PT"})
"""Where RescaleSlope and RescaleIntercept are type 1 (DICOM PS3.3 sections C.8.2.1 and C.8.9.4). To
take 1 and 0 for missing ones would shift the HU of most scanners by 1024.
"""


@dataclass(frozen=True, kw_only=True, eq=False)
class Volume:
    """Voxel values on a regular grid in the patient.

    Attributes:
        array: (slices, rows, columns), lying on `geometry`. Values after RescaleSlope and RescaleIntercept
            (HU for CT): the smallest of int16, int32 and int64 that holds them all where every slope and
            intercept is whole, else float32.
        geometry: The grid, LPS in mm; slices run along the normal (row x column direction).
        series_instance_uid: The series.
        instance_uids: SOP Instance UID of each slice, in slice order; a multi-frame instance repeats.
        frame_numbers: Frame number of each slice within its instance, from 1.
        modality: Modality (0008,0060).
    """

    array: VolumeArray
    geometry: Geometry
    series_instance_uid: str
    instance_uids: tuple[str, ...]
    frame_numbers: tuple[int, ...]
    modality: str | None


@dataclass(frozen=True, kw_only=True)
class VolumePlan:
    """What a series' header says of its volume, before any frame is fetched."""

    series: SeriesRecord
    planes: tuple[SlicePlane, ...]
    """In the metadata's order."""
    stack: Stack
    slopes: tuple[float, ...]
    """RescaleSlope of each plane, in the order of `planes`."""
    intercepts: tuple[float, ...]
    dtype: np.dtype[Any]
    """A type that holds the stored values of every frame."""

    @property
    def instances(self) -> list[InstanceRecord]:
        """Instances in slice order, so that the frames that arrive first are neighbours."""
        ordered = dict.fromkeys(self.planes[i].sop_instance_uid for i in self.stack.order)
        return [self.series.instances[uid] for uid in ordered]


def plan_volume(series: SeriesRecord, *, spacing_tolerance: float = SPACING_TOLERANCE) -> VolumePlan:
    """Checks from the header alone that a series is one volume, and how its slices lie.

    Raises:
        VolumeError: No frames, colour, mixed shapes, a lookup table instead of a rescale, or no rescale where
            the modality's values mean nothing without one.
        GeometryError: The slices do not make a regular grid; the subclass says why.
    """
    planes: list[SlicePlane] = []
    rescales: list[tuple[float, float]] = []
    layouts: list[FrameLayout] = []
    frames_of_reference: set[str | None] = set()
    for instance in series.instances.values():
        attributes = instance.attributes.over(series.attributes)
        layout = _grey_layout(attributes, instance)
        if layouts and layout.shape != layouts[0].shape:
            msg = f"A slice has {layout.shape} (rows, columns), the first has {layouts[0].shape}"
            raise VolumeError(msg, sop_instance_uid=instance.sop_instance_uid)
        layouts.append(layout)
        frames_of_reference.add(attributes.text("FrameOfReferenceUID"))
        shared = attributes.sequence("SharedFunctionalGroupsSequence")
        per_frame = attributes.sequence("PerFrameFunctionalGroupsSequence")
        if per_frame and len(per_frame) != len(instance.frames):
            msg = f"{len(per_frame)} per-frame groups for {len(instance.frames)} frames"
            raise MissingGeometryError(msg, sop_instance_uid=instance.sop_instance_uid)
        for number in range(1, len(instance.frames) + 1):
            groups = [*per_frame[number - 1 : number], *shared]
            planes.append(
                slice_plane(
                    attributes,
                    sop_instance_uid=instance.sop_instance_uid,
                    frame_number=number,
                    frame=groups,
                )
            )
            rescales.append(_rescale(attributes, groups, instance))
    if not planes:
        msg = "The series has no frames"
        raise VolumeError(msg, series_instance_uid=series.series_instance_uid)
    try:
        if len(frames_of_reference) > 1:
            msg = (
                f"Positions refer to {len(frames_of_reference)} frames of reference: they are not comparable"
            )
            raise GeometryError(msg)
        stack = stack_slices(
            planes,
            rows=layouts[0].rows,
            columns=layouts[0].columns,
            frame_of_reference_uid=frames_of_reference.pop(),
            spacing_tolerance=spacing_tolerance,
        )
    except GeometryError as error:
        error.series_instance_uid = series.series_instance_uid
        raise
    return VolumePlan(
        series=series,
        planes=tuple(planes),
        stack=stack,
        slopes=tuple(slope for slope, _ in rescales),
        intercepts=tuple(intercept for _, intercept in rescales),
        dtype=np.result_type(*{layout.dtype for layout in layouts}),
    )


def _grey_layout(attributes: Attributes, instance: InstanceRecord) -> FrameLayout:
    uid = instance.sop_instance_uid
    if not instance.frames:
        msg = "An instance without frames lies in the series"
        raise VolumeError(msg, sop_instance_uid=uid)
    try:
        layout = FrameLayout.from_attributes(attributes)
    except ValueError as error:
        raise FrameLayoutError(str(error), sop_instance_uid=uid) from error
    if layout.samples_per_pixel != 1 or layout.photometric_interpretation not in (
        "MONOCHROME1",
        "MONOCHROME2",
    ):
        msg = f"Pixels are {layout.photometric_interpretation}, not one quantity"
        raise VolumeError(msg, sop_instance_uid=uid)
    if attributes.sequence("ModalityLUTSequence"):
        msg = "Stored values are mapped by a Modality LUT, which is not supported"
        raise VolumeError(msg, sop_instance_uid=uid)
    return layout


def _rescale(
    attributes: Attributes, groups: Sequence[Attributes], instance: InstanceRecord
) -> tuple[float, float]:
    """(slope, intercept) of one slice: value = stored x slope + intercept (DICOM PS3.3 section C.11.1)."""
    transformations = [
        item for group in groups for item in group.sequence("PixelValueTransformationSequence")
    ]
    place = transformations[0] if transformations else attributes
    needed = attributes.text("Modality") in _RESCALED_MODALITIES
    numbers = []
    for keyword, default in (("RescaleSlope", 1.0), ("RescaleIntercept", 0.0)):
        number = place.decimal(keyword)
        if number is None and place.text(keyword) is not None:
            msg = f"{keyword} is not a number"
            raise VolumeError(msg, sop_instance_uid=instance.sop_instance_uid)
        if number is None and needed:
            msg = f"{keyword} is missing: stored values of this modality mean nothing without it"
            raise VolumeError(msg, sop_instance_uid=instance.sop_instance_uid)
        numbers.append(default if number is None else number)
    slope, intercept = numbers
    if slope == 0:
        msg = "RescaleSlope is 0"
        raise VolumeError(msg, sop_instance_uid=instance.sop_instance_uid)
    return slope, intercept


def assemble_volume(plan: VolumePlan, frames: Iterable[Frame]) -> Volume:
    """Fills the planned volume with its frames, which may come in any order.

    Raises:
        VolumeError: A frame did not come.
    """
    place = {
        (plane.sop_instance_uid, plane.frame_number): k
        for k, plane in enumerate(plan.planes[i] for i in plan.stack.order)
    }
    geometry = plan.stack.geometry
    stored = np.empty(geometry.shape, dtype=plan.dtype)
    lows, highs = [0] * len(place), [0] * len(place)
    missing = dict.fromkeys(place)
    for frame in frames:
        key = (frame.instance_uid, frame.number)
        k = place[key]
        stored[k] = frame.pixels
        lows[k], highs[k] = int(frame.pixels.min()), int(frame.pixels.max())
        missing.pop(key, None)
    if missing:
        uid, number = next(iter(missing))
        msg = f"{len(missing)} frames did not come"
        raise VolumeError(msg, sop_instance_uid=uid, frame_number=number)
    ordered = [plan.planes[i] for i in plan.stack.order]
    return Volume(
        array=rescale(
            stored,
            slopes=[plan.slopes[i] for i in plan.stack.order],
            intercepts=[plan.intercepts[i] for i in plan.stack.order],
            lows=lows,
            highs=highs,
        ),
        geometry=geometry,
        series_instance_uid=plan.series.series_instance_uid,
        instance_uids=tuple(plane.sop_instance_uid for plane in ordered),
        frame_numbers=tuple(plane.frame_number for plane in ordered),
        modality=plan.series.attributes.text("Modality"),
    )


def rescale(
    stored: npt.NDArray[Any],
    *,
    slopes: Sequence[float],
    intercepts: Sequence[float],
    lows: Sequence[int],
    highs: Sequence[int],
) -> VolumeArray:
    """Applies each slice's slope and intercept without wrap-around or truncation.

    Args:
        stored: (slices, rows, columns) of stored values; may be changed.
        slopes: Of each slice.
        intercepts: Of each slice.
        lows: Smallest stored value of each slice.
        highs: Largest stored value of each slice.

    Returns:
        The smallest of int16, int32 and int64 that holds every value where all slopes and intercepts are
        whole, else float32.
    """
    if not all(float(x).is_integer() for x in (*slopes, *intercepts)):
        scaled = np.empty(stored.shape, dtype=np.float32)
        for k, (slope, intercept) in enumerate(zip(slopes, intercepts, strict=True)):
            # In double precision, rounded once: 16 bits x slope would lose digits in single.
            scaled[k] = stored[k] * np.float64(slope) + np.float64(intercept)
        return scaled
    ends = [
        int(slope) * end + int(intercept)
        for slope, intercept, low, high in zip(slopes, intercepts, lows, highs, strict=True)
        for end in (low, high)
    ]
    fitting = [t for t in _INTEGERS if np.iinfo(t).min <= min(ends) and max(ends) <= np.iinfo(t).max]
    if not fitting:
        msg = f"Rescaled values from {min(ends)} to {max(ends)} do not fit 64 bits"
        raise VolumeError(msg)
    target = np.dtype(fitting[0])
    if set(slopes) == {1.0} and stored.dtype.kind in "iu" and stored.dtype.itemsize == target.itemsize:
        # Modular arithmetic in place: the results fit, so adding the wrapped intercept to the same bits is
        # exact.
        wrapped = stored.view(target)
        wrapped += np.array(intercepts, dtype=np.int64).astype(target)[:, None, None]
        return wrapped
    values = np.empty(stored.shape, dtype=target)
    for k, (slope, intercept) in enumerate(zip(slopes, intercepts, strict=True)):
        values[k] = stored[k].astype(np.int64) * int(slope) + int(intercept)
    return values
