"""Frames put together as a volume: each decoded into its place, values rescaled without loss."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from healthimaging.errors import VolumeError
from healthimaging.frames.codecs import PixelArray
from healthimaging.frames.fetching import Frame
from healthimaging.metadata import InstanceRecord
from healthimaging.volumes.volume import Volume, VolumeArray, VolumePlan

_INTEGERS = (np.int16, np.int32, np.int64)


class Assembly:
    """A planned volume while its frames come in, in any order and from any thread.

    `out` and `take` are for `healthimaging.frames.fetching.FrameReading`; `volume` is for when all are taken.
    """

    def __init__(self, plan: VolumePlan) -> None:
        self._plan = plan
        ordered = [plan.planes[i] for i in plan.stack.order]
        self._keys = [(plane.sop_instance_uid, plane.frame_number) for plane in ordered]
        self._place = {key: k for k, key in enumerate(self._keys)}
        self._slopes = [plan.slopes[i] for i in plan.stack.order]
        self._intercepts = [plan.intercepts[i] for i in plan.stack.order]
        colour = (plan.samples_per_pixel,) if plan.samples_per_pixel > 1 else ()
        self._stored = np.empty((*plan.stack.geometry.shape, *colour), dtype=plan.dtype)
        self._slices: list[PixelArray] = list(self._stored)
        self._ends: list[tuple[int, int] | None] = [None] * len(ordered)
        # CT: 16 bits, slope 1. HU nearly always fit int16, so each slice is shifted while it is in the
        # processor's cache, in modular arithmetic on the same bits, which can be undone where they do not.
        self._shifted = (
            not colour
            and plan.dtype.kind in "iu"
            and plan.dtype.itemsize == 2
            and set(self._slopes) == {1.0}
            and all(intercept.is_integer() for intercept in self._intercepts)
        )

    def out(self, instance: InstanceRecord, number: int) -> PixelArray | None:
        """Where a frame can be decoded to."""
        return self._slices[self._place[instance.sop_instance_uid, number]]

    def take(self, frame: Frame) -> None:
        """Puts a frame into its place. A frame that comes again replaces the first."""
        k = self._place[frame.instance_uid, frame.number]
        slice_ = self._slices[k]
        if frame.pixels is not slice_:
            slice_[...] = frame.pixels
        self._ends[k] = int(slice_.min()), int(slice_.max())
        if self._shifted:
            _shift(slice_, self._intercepts[k])

    def volume(self) -> Volume:
        """The volume.

        Raises:
            VolumeError: A frame did not come.
        """
        ends = [pair for pair in self._ends if pair is not None]
        if len(ends) < len(self._ends):
            uid, number = self._keys[self._ends.index(None)]
            msg = f"{len(self._ends) - len(ends)} frames did not come"
            raise VolumeError(msg, sop_instance_uid=uid, frame_number=number)
        return Volume(
            array=self._rescaled([low for low, _ in ends], [high for _, high in ends]),
            geometry=self._plan.stack.geometry,
            series_instance_uid=self._plan.series.series_instance_uid,
            instance_uids=tuple(uid for uid, _ in self._keys),
            frame_numbers=tuple(number for _, number in self._keys),
            modality=self._plan.series.attributes.text("Modality"),
            distinction=self._plan.distinction,
            unplaced_instance_uids=self._plan.unplaced_instance_uids,
        )

    def _rescaled(self, lows: Sequence[int], highs: Sequence[int]) -> VolumeArray:
        if self._plan.samples_per_pixel > 1:
            return self._stored
        if self._shifted:
            narrow = np.iinfo(np.int16)
            ends = zip(self._intercepts, lows, highs, strict=True)
            if all(narrow.min <= low + b and high + b <= narrow.max for b, low, high in ends):
                return self._stored.view(np.int16)
            for slice_, intercept in zip(self._slices, self._intercepts, strict=True):
                _shift(slice_, -intercept)
        return rescale(self._stored, slopes=self._slopes, intercepts=self._intercepts, lows=lows, highs=highs)


def _shift(slice_: PixelArray, intercept: float) -> None:
    """Adds a whole number to 16-bit values, modulo 2^16, in place."""
    bits = slice_.view(np.uint16)
    bits += np.uint16(int(intercept) % 2**16)


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
