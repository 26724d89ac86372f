"""What a header says of slices that are not here.

Slices that are missing between others leave a gap, which `healthimaging.volumes.slices` refuses. Where every
second slice is missing, or the last ones, the rest is regular, and only numbers can tell.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from healthimaging.errors import MissingSliceError
from healthimaging.metadata import SeriesRecord
from healthimaging.volumes.series_slices import SeriesSlice

_PET_IMAGE_STORAGE = "1.2.840.10008.5.1.4.1.1.128"


def require_complete(ordered: Sequence[SeriesSlice], series: SeriesRecord) -> None:
    """Checks that a regular stack is not what is left of a larger one.

    Args:
        ordered: The slices of one volume, in their order.
        series: The series that they are of.

    Raises:
        MissingSliceError: The instance numbers leave out the same number from slice to slice, though no other
            instance of the series has these numbers; a PET stack has fewer slices than NumberOfSlices
            (PS3.3 section C.8.9.1); or instances of a concatenation are missing (section C.7.6.16.2.2.4).
    """
    _require_numbers(ordered, series)
    _require_pet_slices(ordered)
    _require_concatenation(ordered)


def _require_numbers(ordered: Sequence[SeriesSlice], series: SeriesRecord) -> None:
    if any(len(one.instance.frames) != 1 for one in ordered):
        return
    numbers = [one.attributes.integer("InstanceNumber") for one in ordered]
    known = [number for number in numbers if number is not None]
    steps = {two - one for one, two in pairwise(known)}
    if len(known) < len(numbers) or len(steps) != 1 or abs(step := steps.pop()) < 2:
        return
    everywhere = {instance.attributes.integer("InstanceNumber") for instance in series.instances.values()}
    left_out = set(range(min(known), max(known) + 1)) - everywhere
    if left_out:
        msg = (
            f"Instance numbers step by {abs(step)} from slice to slice, and {len(left_out)} of those between "
            f"are not in the series: only one of {abs(step)} slices seems to be here (accept_incomplete "
            "takes the stack as it is)"
        )
        raise MissingSliceError(msg, sop_instance_uid=ordered[0].plane.sop_instance_uid)


def _require_pet_slices(ordered: Sequence[SeriesSlice]) -> None:
    first = ordered[0]
    announced = first.attributes.integer("NumberOfSlices")
    is_pet = first.attributes.text("SOPClassUID") == _PET_IMAGE_STORAGE
    if is_pet and announced is not None and announced > len(ordered):
        msg = f"The header announces {announced} slices, the stack has {len(ordered)}"
        raise MissingSliceError(msg, sop_instance_uid=first.plane.sop_instance_uid)


def _require_concatenation(ordered: Sequence[SeriesSlice]) -> None:
    parts: dict[str, set[int]] = {}
    totals: dict[str, int] = {}
    for one in ordered:
        uid = one.attributes.text("ConcatenationUID")
        number = one.attributes.integer("InConcatenationNumber")
        if uid is None or number is None:
            continue
        parts.setdefault(uid, set()).add(number)
        totals[uid] = max(
            totals.get(uid, 0), number, one.attributes.integer("InConcatenationTotalNumber") or 0
        )
    for uid, total in totals.items():
        if len(parts[uid]) < total:
            msg = f"Concatenation {uid} has {total} instances, {len(parts[uid])} are here"
            raise MissingSliceError(msg, sop_instance_uid=ordered[0].plane.sop_instance_uid)
