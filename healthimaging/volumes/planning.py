"""What a series' header says of its volumes, before any frame is fetched."""

from __future__ import annotations

import numpy as np

from healthimaging.errors import GantryTiltError, GeometryError, HealthImagingError, IrregularSpacingError
from healthimaging.metadata import SeriesRecord
from healthimaging.volumes.completeness import require_complete
from healthimaging.volumes.resampling import Resampling, plan_resampling
from healthimaging.volumes.series_slices import read_slices
from healthimaging.volumes.slices import SPACING_TOLERANCE, Stack, stack_slices
from healthimaging.volumes.splitting import Part, split_by_stack_id, split_series
from healthimaging.volumes.volume import VolumePlan

__all__ = ["VolumePlan", "plan_volumes"]


def plan_volumes(
    series: SeriesRecord,
    *,
    spacing_tolerance: float = SPACING_TOLERANCE,
    resample: bool = False,
    level: int = 0,
    accept_incomplete: bool = False,
) -> list[VolumePlan]:
    """Checks from the header alone which volumes a series holds, and how their slices lie.

    Slices of different shape, colours, frame of reference, plane or pixel spacing, localizers, and stacks
    beside each other are volumes of their own. Slices at one place are told apart by the first attribute that
    makes whole volumes of them (temporal position, echo, b-value, image type, acquisition, ...), else by
    the order of their times or instance numbers. A slice without neighbours is a volume of one slice.
    Instances that are no images, and secondary captures without a place, are in no volume; each plan names
    them. Any other image must find its place, or the series is refused.

    Slices that are missing at an end of a stack cannot be seen in a header, unless another repetition of
    the stack has them, or the header counts them (PET: NumberOfSlices; concatenations:
    InConcatenationTotalNumber). Who has to be sure must compare with the archive.

    Args:
        series: The whole series: a part of it may look complete.
        spacing_tolerance: How far a slice may lie from its regular place along the normal, as a fraction of
            the spacing (see `healthimaging.volumes.slices.SPACING_TOLERANCE`).
        resample: Plan tilted and uneven stacks, too, to be resampled (`healthimaging.volumes.resampling`).
        level: Number of times that rows and columns are halved.
        accept_incomplete: Accept stacks that are regular although the header shows that slices of them are
            not here: numbers of instances that leave out the same number from slice to slice, fewer slices
            than announced, a repetition with fewer slices than the others. A gap in a stack is never
            accepted.

    Returns:
        The volumes in the order of their smallest InstanceNumber; repetitions of one stack in the order of
        what distinguishes them.

    Raises:
        VolumeError: No frames, palette colour or other pixels that are neither one quantity nor RGB, a
            lookup table or a dose scale instead of a rescale, a mosaic of slices, or no rescale where the
            modality's values mean nothing without one.
        MetadataError: An instance has more or fewer frames than its header announces.
        FrameLayoutError: The header does not say how pixels are laid out.
        GeometryError: Slices do not make regular grids; the subclass says why.
    """
    try:
        slices, unplaced = read_slices(series)
        plans = []
        for part in split_series(
            slices, spacing_tolerance=spacing_tolerance, accept_incomplete=accept_incomplete
        ):
            for piece, stack, how in _stacks(part, spacing_tolerance, resample=resample, level=level):
                ordered = [piece.slices[i] for i in stack.order]
                if not accept_incomplete:
                    require_complete(ordered, series)
                plans.append(_plan(series, piece, stack, how, unplaced, level=level))
    except HealthImagingError as error:
        error.series_instance_uid = series.series_instance_uid
        raise
    return plans


def _stacks(
    part: Part, spacing_tolerance: float, *, resample: bool, level: int
) -> list[tuple[Part, Stack, Resampling | None]]:
    """The part as one stack; where it is none, as the stacks that its header names, or resampled."""
    try:
        return [(part, *_stack(part, spacing_tolerance, resample=False, level=level))]
    except GeometryError:
        named = split_by_stack_id(part)
    return [(piece, *_stack(piece, spacing_tolerance, resample=resample, level=level)) for piece in named]


def _stack(
    part: Part, spacing_tolerance: float, *, resample: bool, level: int
) -> tuple[Stack, Resampling | None]:
    first = part.slices[0]
    planes = [one.plane for one in part.slices]
    rows, columns = first.layout.rows, first.layout.columns
    try:
        stack = stack_slices(
            planes,
            rows=rows,
            columns=columns,
            frame_of_reference_uid=first.frame_of_reference_uid,
            spacing_tolerance=spacing_tolerance,
        )
    except (GantryTiltError, IrregularSpacingError):
        if not resample:
            raise
        return plan_resampling(
            planes,
            rows=rows,
            columns=columns,
            frame_of_reference_uid=first.frame_of_reference_uid,
            spacing_tolerance=spacing_tolerance,
            level=level,
        )
    return Stack(order=stack.order, geometry=stack.geometry.at_level(level)), None


def _plan(
    series: SeriesRecord,
    part: Part,
    stack: Stack,
    resampling: Resampling | None,
    unplaced: tuple[str, ...],
    *,
    level: int,
) -> VolumePlan:
    return VolumePlan(
        series=series,
        planes=tuple(one.plane for one in part.slices),
        stack=stack,
        slopes=tuple(one.slope for one in part.slices),
        intercepts=tuple(one.intercept for one in part.slices),
        dtype=np.result_type(*{one.layout.dtype for one in part.slices}),
        samples_per_pixel=part.slices[0].layout.samples_per_pixel,
        level=level,
        distinction=part.distinction,
        unplaced_instance_uids=unplaced,
        resampling=resampling,
    )
