"""One stack of slices that a series holds several times: phases, echoes, b-values, time points.

Nothing is guessed. An attribute of the header may tell repetitions apart only when it makes whole volumes:
each of its values must occur at every place, and equally often. That it is absent is a value, too: an image
without diffusion weighting has no direction of it. What attributes leave together, the order
of times or instance numbers may still tell apart, where it can be read in one way only.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise

from healthimaging.errors import DuplicatePositionError, GeometryError, MissingSliceError
from healthimaging.volumes.series_slices import SeriesSlice
from healthimaging.volumes.slices import stack_slices

Distinction = tuple[tuple[str, str], ...]
Separated = list[tuple[Distinction, tuple[SeriesSlice, ...]]]
_Volumes = list[tuple[Distinction, list[int]]]

_ATTRIBUTES: tuple[tuple[str, ...], ...] = (
    ("TemporalPositionIdentifier",),
    ("TemporalPositionIndex", "FrameContentSequence"),
    ("NominalPercentageOfCardiacPhase", "CardiacSynchronizationSequence"),
    ("NominalPercentageOfRespiratoryPhase", "RespiratorySynchronizationSequence"),
    ("EchoNumbers",),
    ("EchoTime",),
    ("EffectiveEchoTime", "MREchoSequence"),
    ("InversionTime",),
    ("InversionTimes", "MRModifierSequence"),
    ("FlipAngle",),
    ("FlipAngle", "MRTimingAndRelatedParametersSequence"),
    ("DiffusionBValue",),
    ("DiffusionBValue", "MRDiffusionSequence"),
    ("DiffusionGradientOrientation",),
    ("DiffusionGradientOrientation", "MRDiffusionSequence", "DiffusionGradientDirectionSequence"),
    ("ImageType",),
    ("FrameType", "MRImageFrameTypeSequence"),
    ("FrameType", "CTImageFrameTypeSequence"),
    ("FrameType", "PETFrameTypeSequence"),
    ("ComplexImageComponent", "MRImageFrameTypeSequence"),
    ("ConvolutionKernel",),
    ("ConvolutionKernel", "CTReconstructionSequence"),
    ("KVP",),
    ("SliceThickness",),
    ("AcquisitionNumber",),
    ("FrameAcquisitionNumber", "FrameContentSequence"),
    ("FrameReferenceTime",),
)
"""Keyword, and the sequences of the functional group that it lies in; the most telling first."""

_DIMENSIONS = ("DimensionIndexValues", "FrameContentSequence")

_NUMBER = "InstanceNumber"

_TIMES = (("TriggerTime",), ("NominalCardiacTriggerDelayTime", "CardiacSynchronizationSequence"))
"""Times differ a little from slice to slice of one phase: their order counts, not their value."""

_OWN_RANGE: tuple[tuple[str, ...], ...] = (
    ("StackID", "FrameContentSequence"),
    ("AcquisitionNumber",),
    ("SliceThickness",),
)
"""What is different for stacks of ranges of their own that overlap, as chest and abdomen do."""


def separate_repetitions(
    slices: Sequence[SeriesSlice],
    places: Sequence[int],
    *,
    spacing_tolerance: float,
    accept_incomplete: bool,
) -> Separated:
    """Sorts slices into volumes in which every place occurs once.

    Args:
        slices: Slices of one plane, in any order.
        places: A number for the place of each slice.
        spacing_tolerance: As `healthimaging.volumes.slices.SPACING_TOLERANCE`.
        accept_incomplete: As for `plan_volumes`.

    Returns:
        (what distinguishes it, its slices) of each volume; nothing distinguishes the only one.

    Raises:
        DuplicatePositionError: Nothing in the header separates the repetitions.
        MissingSliceError: An attribute separates them, but one lacks slices that the others have.
    """
    everything = list(range(len(slices)))
    count = Counter(places)
    if max(count.values()) == 1:
        return [((), tuple(slices))]
    header = _Header(slices, places)
    found = (
        header.separate(everything)
        or header.with_own_ranges(everything, spacing_tolerance)
        or header.with_gaps(everything, accept_incomplete=accept_incomplete)
    )
    if not found:
        place = min(place for place, times in count.items() if times > 1)
        one, two = [slices[i].plane for i in everything if places[i] == place][:2]
        msg = (
            f"Two slices lie at one place, and no attribute sorts the repetitions into whole volumes: "
            f"also instance {one.sop_instance_uid} frame {one.frame_number}"
        )
        raise DuplicatePositionError(
            msg, sop_instance_uid=two.sop_instance_uid, frame_number=two.frame_number
        )
    return [(distinction, tuple(slices[i] for i in chosen)) for distinction, chosen in found]


class _Header:
    """What the header says of slices, which are meant by their numbers here, and their places."""

    def __init__(self, slices: Sequence[SeriesSlice], places: Sequence[int]) -> None:
        self._slices = slices
        self._places = places
        columns: list[tuple[str, list[str]]] = [
            (keyword, ["\\".join(one.texts(keyword, *macro) or []) for one in slices])
            for keyword, *macro in _ATTRIBUTES
        ]
        dimensions = [one.texts(*_DIMENSIONS) or [] for one in slices]
        for k in range(min(len(values) for values in dimensions)):
            # The value alone would not say which of the dimensions it is of.
            columns.append((_DIMENSIONS[0], [f"{k + 1}:{values[k]}" for values in dimensions]))
        if all(len(one.instance.frames) > 1 for one in slices):
            columns.append(("SOPInstanceUID", [one.plane.sop_instance_uid for one in slices]))
        self._columns = columns

    def separate(self, chosen: list[int]) -> _Volumes | None:
        """Volumes of every place each, by attributes, then by order; None when nothing separates them."""
        count = self._count(chosen)
        if set(count.values()) == {1}:
            return [((), chosen)]
        if len(set(count.values())) > 1:  # at some places a slice is missing, or one too many
            return None
        for keyword, column in self._columns:
            groups = _groups(chosen, column)
            if len(groups) < 2 or any(self._count(group).keys() != count.keys() for _, group in groups):
                continue
            volumes: _Volumes = []
            for value, group in groups:
                inner = self.separate(group)
                if inner is None:
                    break
                volumes += [(((keyword, value), *distinction), part) for distinction, part in inner]
            else:
                return volumes
        return self._by_time(chosen) or self._by_number(chosen)

    def with_own_ranges(self, chosen: list[int], spacing_tolerance: float) -> _Volumes | None:
        """Regular stacks of places of their own, such as chest and abdomen, where no slice is missing."""
        most = max(self._count(chosen).values())
        for keyword, *macro in _OWN_RANGE:
            column = ["\\".join(one.texts(keyword, *macro) or []) for one in self._slices]
            groups = _groups(chosen, column)
            # Scanners that count every rotation as an acquisition have more acquisitions than ranges.
            if not 1 < len(groups) <= most:
                continue
            if all(self._is_regular(group, spacing_tolerance) for _, group in groups) and self._is_complete():
                return [(((keyword, value),), group) for value, group in groups]
        return None

    def with_gaps(self, chosen: list[int], *, accept_incomplete: bool) -> _Volumes | None:
        """Repetitions by an attribute that would make whole volumes, were not slices of some missing.

        Raises:
            MissingSliceError: There are such, and they are not accepted.
        """
        count = self._count(chosen)
        for keyword, column in self._columns:
            groups = _groups(chosen, column)
            counts = [self._count(group) for _, group in groups]
            if len(groups) != max(count.values()) or any(max(one.values()) > 1 for one in counts):
                continue
            if not accept_incomplete:
                value, shortest = min(groups, key=lambda group: len(group[1]))
                one = self._slices[shortest[0]].plane
                places = f"{len(shortest)} of {len(count)} places"
                msg = f"The repetition with {keyword} {value or '(none)'} has slices at {places}"
                raise MissingSliceError(
                    msg, sop_instance_uid=one.sop_instance_uid, frame_number=one.frame_number
                )
            return [(((keyword, value),), group) for value, group in groups]
        return None

    def _count(self, chosen: Sequence[int]) -> Counter[int]:
        """How many slices lie at each place."""
        return Counter(self._places[i] for i in chosen)

    def _is_complete(self) -> bool:
        """Whether no slice can be missing at an end of a range, where a gap would not show."""
        if all(len(one.instance.frames) > 1 for one in self._slices):
            return True  # an instance has all of its frames
        numbers = self._numbers(range(len(self._slices)), (_NUMBER,))
        return len(set(numbers)) == len(self._slices) == max(numbers, default=0) - min(numbers, default=0) + 1

    def _is_regular(self, group: Sequence[int], spacing_tolerance: float) -> bool:
        layout = self._slices[0].layout
        try:
            stack_slices(
                [self._slices[i].plane for i in group],
                rows=layout.rows,
                columns=layout.columns,
                spacing_tolerance=spacing_tolerance,
            )
        except GeometryError:
            return False
        return True

    def _numbers(self, chosen: Iterable[int], path: tuple[str, ...]) -> list[float]:
        """The attribute's value for each slice; empty when one has none."""
        keys = [_numeric((self._slices[i].texts(*path) or [""])[0]) for i in chosen]
        return [] if any(isinstance(key, str) for key in keys) else [float(key[0]) for key in keys]

    def _by_time(self, chosen: list[int]) -> _Volumes | None:
        for path in _TIMES:
            numbers = dict(zip(chosen, self._numbers(chosen, path), strict=False))
            ranks = self._ranks(chosen, numbers)
            if ranks:
                return [(((path[0], f"{numbers[rank[0]]:g}"),), rank) for rank in ranks]
        return None

    def _by_number(self, chosen: list[int]) -> _Volumes | None:
        """Volumes whose instances are numbered one volume after the other, or one place after the other."""
        numbers = dict(zip(chosen, self._numbers(chosen, (_NUMBER,)), strict=False))
        ranks = self._ranks(chosen, numbers)
        if not ranks and numbers and len(set(numbers.values())) == len(chosen):
            times = len(chosen) // len(self._count(chosen))
            in_order = sorted(chosen, key=numbers.__getitem__)
            runs = [in_order[k : k + times] for k in range(0, len(in_order), times)]
            if all(len({self._places[i] for i in run}) == 1 for run in runs):
                ranks = [[run[k] for run in runs] for k in range(times)]
        return [(((_NUMBER, f"{numbers[rank[0]]:g}"),), rank) for rank in ranks] or None

    def _ranks(self, chosen: Sequence[int], numbers: Mapping[int, float]) -> list[list[int]]:
        """The first, second, ... of each place, where all the first come before all the second, and so on."""
        if not numbers:
            return []
        at_place: dict[int, list[int]] = {}
        for i in sorted(chosen, key=numbers.__getitem__):
            at_place.setdefault(self._places[i], []).append(i)
        ranks = [
            [at_place[place][k] for place in sorted(at_place)]
            for k in range(len(at_place[self._places[chosen[0]]]))
        ]
        apart = all(
            max(numbers[i] for i in one) < min(numbers[i] for i in two) for one, two in pairwise(ranks)
        )
        return ranks if apart else []


def _groups(chosen: Sequence[int], column: Sequence[str]) -> list[tuple[str, list[int]]]:
    """(value, slices) in the order of values, numbers as such; slices without a value come first."""
    groups: dict[tuple[float, ...] | str, list[int]] = {}
    names: dict[tuple[float, ...] | str, str] = {}
    for i in chosen:
        key = _numeric(column[i])
        groups.setdefault(key, []).append(i)
        names[key] = min(column[i], names.get(key, column[i]))
    keys = sorted(groups, key=lambda key: (key != "", isinstance(key, str), key))
    return [(names[key], groups[key]) for key in keys]


def _numeric(text: str) -> tuple[float, ...] | str:
    """Numbers that are written differently are one value."""
    try:
        numbers = tuple(float(part) for part in text.split("\\"))
    except ValueError:
        return text
    return numbers if all(map(math.isfinite, numbers)) else text
