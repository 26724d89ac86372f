"""From the positions of slices in a header to one regular grid, or a refusal that names the slice.

Order comes from geometry alone: InstanceNumber says what the scanner liked, and may be missing. Nothing is
guessed: a grid that does not hold every slice within the tolerances below is refused, because a volume with
a wrong affine looks right and measures wrong.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from healthimaging.errors import (
    DuplicatePositionError,
    GantryTiltError,
    GeometryError,
    IrregularSpacingError,
    MissingGeometryError,
    MissingSliceError,
    MixedOrientationError,
)
from healthimaging.metadata import Attributes
from healthimaging.volumes.geometry import FloatArray, Geometry, plane_directions

ORIENTATION_TOLERANCE = 1e-3
"""Largest difference of a direction cosine between slices of one volume. The same plane is normally written
with the same text; scanners that compute it anew for each slice differ in the last of three or four
decimals.
"""

PIXEL_SPACING_TOLERANCE = 1e-4
"""Largest difference of pixel spacing between slices of one volume, as a fraction. It is normally the same
text in all of them; a ten-thousandth is a twentieth of a pixel over 512.
"""

SPACING_TOLERANCE = 0.02
"""How far a slice may lie from its regular place along the normal, as a fraction of the spacing.

Positions are rounded decimal text: real oblique MR series jitter by up to 1 % of the spacing. A missing
slice is off by half a spacing or more, and a change of spacing accumulates, so 2 % separates the two safely.
"""

SIDEWAYS_TOLERANCE = 0.25
"""How far a slice may lie beside the normal through the first one, as a fraction of a pixel side.

Rounded direction cosines let a long stack drift by a fraction of a pixel; a quarter of a pixel cannot be
seen in any resampling. A gantry tilt of 1 degree shifts 20 slices of 5 mm by 1.7 mm.
"""

DUPLICATE_TOLERANCE = 0.01
"""Slices closer than this along the normal, in mm, are at one place: no scanner makes slices of 10
micrometres.
"""

MOST_MISSING = 4.5
"""Where most gaps are this many times the smallest or more, two slices lie unusually close, rather than
slices being missing everywhere else.
"""


@dataclass(frozen=True, kw_only=True)
class SlicePlane:
    """Where one slice lies: one single-frame instance, or one frame of a multi-frame instance."""

    sop_instance_uid: str
    frame_number: int
    """Counted from 1."""
    position: tuple[float, float, float]
    """ImagePositionPatient: LPS mm of the centre of the first voxel."""
    orientation: tuple[float, ...]
    """ImageOrientationPatient: six direction cosines."""
    pixel_spacing: tuple[float, float]
    """PixelSpacing: (between rows, between columns) in mm."""
    thickness: float | None
    """SpacingBetweenSlices, else SliceThickness, in mm: the only spacing that a single slice has."""


@dataclass(frozen=True, kw_only=True)
class Stack:
    """Slices in the order of their positions, and the grid that they make."""

    order: tuple[int, ...]
    """Indices into the slices that came in: `slices[order[k]]` is slice k of the grid."""
    geometry: Geometry


def slice_plane(
    attributes: Attributes, *, sop_instance_uid: str, frame_number: int = 1, frame: Sequence[Attributes] = ()
) -> SlicePlane:
    """The plane of one slice.

    Args:
        attributes: The instance's attributes.
        sop_instance_uid: The instance, for errors.
        frame_number: The frame within the instance, from 1.
        frame: Functional groups of a multi-frame instance that hold for this frame, most specific first
            (DICOM PS3.3 section C.7.6.16).

    Raises:
        MissingGeometryError: Position, orientation or pixel spacing is missing or not numbers.
    """

    def numbers(keyword: str, macro: str, count: int) -> tuple[float, ...]:
        places = [item for group in frame for item in group.sequence(macro)] + [attributes]
        for place in places:
            values = place.decimals(keyword)
            if values is not None and len(values) == count:
                return tuple(values)
        msg = f"A slice has no usable {keyword}"
        raise MissingGeometryError(msg, sop_instance_uid=sop_instance_uid, frame_number=frame_number)

    spacing = numbers("PixelSpacing", "PixelMeasuresSequence", 2)
    if min(spacing) <= 0:
        msg = "A slice's PixelSpacing is not positive"
        raise MissingGeometryError(msg, sop_instance_uid=sop_instance_uid, frame_number=frame_number)
    measures = [item for group in frame for item in group.sequence("PixelMeasuresSequence")] + [attributes]
    thicknesses = [
        value
        for keyword in ("SpacingBetweenSlices", "SliceThickness")
        for place in measures
        if (value := place.decimal(keyword)) is not None and value > 0
    ]
    x, y, z = numbers("ImagePositionPatient", "PlanePositionSequence", 3)
    return SlicePlane(
        sop_instance_uid=sop_instance_uid,
        frame_number=frame_number,
        position=(x, y, z),
        orientation=numbers("ImageOrientationPatient", "PlaneOrientationSequence", 6),
        pixel_spacing=(spacing[0], spacing[1]),
        thickness=thicknesses[0] if thicknesses else None,
    )


def common_orientation(slices: Sequence[SlicePlane]) -> tuple[float, ...]:
    """ImageOrientationPatient of slices of one plane: their mean, which no order of the slices changes.

    Args:
        slices: At least one, all in one plane within `ORIENTATION_TOLERANCE`.
    """
    distinct = sorted({one.orientation for one in slices})
    if len(distinct) == 1:
        return distinct[0]
    return tuple(
        math.fsum(cosines) / len(slices) for cosines in zip(*(s.orientation for s in slices), strict=True)
    )


def slice_coordinates(slices: Sequence[SlicePlane]) -> FloatArray:
    """(slices, 3): mm of each slice's first voxel along the rows, along the columns, and along the normal.

    The axes are those of the slices' common plane, through the origin of the patient coordinates.

    Raises:
        GeometryError: The orientation is not two unit vectors at right angles.
    """
    try:
        axes = plane_directions(common_orientation(slices))
    except GeometryError as error:
        raise GeometryError(error.message, sop_instance_uid=slices[0].sop_instance_uid) from error
    positions = np.array([one.position for one in slices], dtype=np.float64)
    return np.asarray(positions @ np.stack(axes, axis=1), dtype=np.float64)


def stack_slices(
    slices: Sequence[SlicePlane],
    *,
    rows: int,
    columns: int,
    frame_of_reference_uid: str | None = None,
    spacing_tolerance: float = SPACING_TOLERANCE,
) -> Stack:
    """Orders slices along the normal of their plane and fits the regular grid through them.

    Slice order follows row x column direction, so that the affine is right-handed: an axial stack runs from
    feet to head.

    Args:
        slices: The slices in any order, at least one.
        rows: Rows of every slice.
        columns: Columns of every slice.
        frame_of_reference_uid: Frame of Reference UID of the series.
        spacing_tolerance: As `SPACING_TOLERANCE`.

    Raises:
        MissingGeometryError: A single slice without thickness.
        MixedOrientationError: A slice lies in another plane, or has another pixel spacing.
        DuplicatePositionError: Two slices at one place.
        GantryTiltError: The stack is sheared.
        MissingSliceError: Gaps in an otherwise regular stack.
        IrregularSpacingError: Uneven spacing.
    """
    if not slices:
        msg = "A stack needs at least one slice"
        raise GeometryError(msg)
    _require_one_plane(slices)
    coordinates = slice_coordinates(slices)
    order = np.argsort(coordinates[:, 2], kind="stable")
    ordered = [slices[i] for i in order]
    spacing = _regular_spacing(ordered, coordinates[order, 2], tolerance=spacing_tolerance)
    _require_straight(ordered, coordinates[order])
    geometry = Geometry.from_dicom(
        position=ordered[0].position,
        orientation=common_orientation(slices),
        pixel_spacing=ordered[0].pixel_spacing,
        slice_spacing=spacing,
        shape=(len(slices), rows, columns),
        frame_of_reference_uid=frame_of_reference_uid,
    )
    return Stack(order=tuple(int(i) for i in order), geometry=geometry)


def _require_one_plane(slices: Sequence[SlicePlane]) -> None:
    first = slices[0]
    orientations = np.array([one.orientation for one in slices])
    spacings = np.array([one.pixel_spacing for one in slices])
    turned = np.abs(orientations - orientations[0]).max(axis=1) > ORIENTATION_TOLERANCE
    scaled = np.abs(spacings / spacings[0] - 1).max(axis=1) > PIXEL_SPACING_TOLERANCE
    wrong = turned | scaled
    if not wrong.any():
        return
    worst = int(np.argmax(wrong))
    other = slices[worst]
    what = "lies in another plane" if turned[worst] else "has another pixel spacing"
    msg = f"A slice {what} than the first (instance {first.sop_instance_uid})"
    raise MixedOrientationError(msg, sop_instance_uid=other.sop_instance_uid, frame_number=other.frame_number)


def _regular_spacing(ordered: Sequence[SlicePlane], distances: FloatArray, *, tolerance: float) -> float:
    """Slice spacing in mm of slices that are sorted along the normal."""
    if len(ordered) == 1:
        if ordered[0].thickness is None:
            msg = "A single slice without SpacingBetweenSlices and SliceThickness has no extent"
            raise MissingGeometryError(msg, sop_instance_uid=ordered[0].sop_instance_uid)
        return ordered[0].thickness
    gaps = np.diff(distances)
    closest = int(np.argmin(gaps))
    if gaps[closest] < DUPLICATE_TOLERANCE:
        one, two = ordered[closest], ordered[closest + 1]
        msg = f"Two slices lie at one place: also instance {one.sop_instance_uid} frame {one.frame_number}"
        raise DuplicatePositionError(
            msg, sop_instance_uid=two.sop_instance_uid, frame_number=two.frame_number
        )
    count = len(ordered)
    spacing = float((distances[-1] - distances[0]) / (count - 1))
    off = np.abs(distances - (distances[0] + spacing * np.arange(count)))
    if off.max() <= tolerance * spacing:
        return spacing
    # Uneven. Slices are missing when all gaps are whole multiples of the usual one, or, where slices are
    # missing in most of them, of the smallest.
    usual, smallest = usual_gap(gaps), float(gaps.min())
    for unit in (usual, smallest) if usual < MOST_MISSING * smallest else (usual,):
        multiples = np.round(gaps / unit)
        missing = int(multiples.sum()) - (count - 1)
        off_multiples = np.abs(gaps / unit - multiples).max()
        if not missing or multiples.min() < 1 or off_multiples > 2 * tolerance * multiples.max():
            continue
        before = ordered[int(np.argmax(gaps))]
        gap = f"the widest gap is {gaps.max():.3f} mm where {unit:.3f} mm is usual"
        msg = f"{missing} of {missing + count} slices are missing; {gap}"
        raise MissingSliceError(
            msg, sop_instance_uid=before.sop_instance_uid, frame_number=before.frame_number
        )
    worst = ordered[int(np.argmax(np.abs(gaps - usual)))]
    msg = f"Slice spacing varies from {gaps.min():.3f} to {gaps.max():.3f} mm; the most unusual gap follows"
    raise IrregularSpacingError(msg, sop_instance_uid=worst.sop_instance_uid, frame_number=worst.frame_number)


def usual_gap(gaps: FloatArray) -> float:
    """The median distance of neighbours; the lower of two, since slices can be missing but not added."""
    return float(np.sort(gaps)[(len(gaps) - 1) // 2])


def _require_straight(ordered: Sequence[SlicePlane], coordinates: FloatArray) -> None:
    offsets = coordinates - coordinates[0]
    sideways = np.hypot(offsets[:, 0], offsets[:, 1])
    worst = int(np.argmax(sideways))
    if sideways[worst] <= SIDEWAYS_TOLERANCE * min(ordered[0].pixel_spacing):
        return
    height = float(offsets[worst, 2])
    degrees = float(np.degrees(np.arctan2(sideways[worst], height)))
    msg = (
        f"Slices shift sideways by {sideways[worst]:.3f} in {height:.3f} mm, a tilt of {degrees:.2f} degrees"
    )
    raise GantryTiltError(
        msg, sop_instance_uid=ordered[worst].sop_instance_uid, frame_number=ordered[worst].frame_number
    )
