"""One stack of a series as an array on a validated grid."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from healthimaging.metadata import InstanceRecord, SeriesRecord
from healthimaging.volumes.geometry import Geometry
from healthimaging.volumes.slices import SlicePlane, Stack

if TYPE_CHECKING:
    from healthimaging.volumes.resampling import Resampling

VolumeArray = npt.NDArray[np.integer[Any] | np.floating[Any]]


@dataclass(frozen=True, kw_only=True, eq=False)
class Volume:
    """Voxel values on a regular grid in the patient.

    Attributes:
        array: (slices, rows, columns), lying on `geometry`. Values after RescaleSlope and RescaleIntercept
            (HU for CT): the smallest of int16, int32 and int64 that holds them all where every slope and
            intercept is whole, else float32. Colour is (slices, rows, columns, 3): red, green and blue as
            they are stored.
        geometry: The grid, LPS in mm; slices run along the normal (row x column direction).
        series_instance_uid: The series.
        instance_uids: SOP Instance UID of each slice, in slice order; a multi-frame instance repeats. After
            resampling: of the nearest slice that was measured.
        frame_numbers: Frame number of each slice within its instance, from 1.
        modality: Modality (0008,0060).
        distinction: (keyword, value) of what tells the volume from the others of its series, coarsest first;
            empty when it is the only one. The value is empty where the attribute is absent, and that of the
            first slice where the order of InstanceNumber or TriggerTime tells volumes apart.
        unplaced_instance_uids: Instances of the series that lie in none of its volumes: they are no images,
            or secondary captures without a position.
        resampled: Whether the values were interpolated onto the grid, and are not those that were measured.
    """

    array: VolumeArray
    geometry: Geometry
    series_instance_uid: str
    instance_uids: tuple[str, ...]
    frame_numbers: tuple[int, ...]
    modality: str | None
    distinction: tuple[tuple[str, str], ...] = ()
    unplaced_instance_uids: tuple[str, ...] = ()
    resampled: bool = False

    def __repr__(self) -> str:
        shape = " x ".join(map(str, self.array.shape))
        spacing = " x ".join(f"{side:g}" for side in self.geometry.spacing)
        told = "".join(f", {keyword} {value}" for keyword, value in self.distinction)
        return (
            f"Volume({shape} {self.array.dtype}, {spacing} mm, {self.modality}, "
            f"series {self.series_instance_uid}{told}{', resampled' if self.resampled else ''})"
        )


@dataclass(frozen=True, kw_only=True)
class VolumePlan:
    """What a series' header says of one of its volumes, before any frame is fetched."""

    series: SeriesRecord
    planes: tuple[SlicePlane, ...]
    """In the order of their identifiers; `stack.order` is that of the volume."""
    stack: Stack
    slopes: tuple[float, ...]
    """RescaleSlope of each plane, in the order of `planes`."""
    intercepts: tuple[float, ...]
    dtype: np.dtype[Any]
    """A type that holds the stored values of every frame."""
    samples_per_pixel: int = 1
    """1, or 3 for colour, which is RGB and not rescaled."""
    level: int = 0
    """Number of times that rows and columns are halved; `stack.geometry` is of that level."""
    distinction: tuple[tuple[str, str], ...] = ()
    """As `Volume.distinction`."""
    unplaced_instance_uids: tuple[str, ...] = ()
    """As `Volume.unplaced_instance_uids`."""
    resampling: Resampling | None = None
    """How to make the volume regular; None where it is. `stack.geometry` is then only the shape of the slices
    as they were measured: the volume is what `healthimaging.volumes.resampling.resample` makes of them.
    """

    @property
    def frames(self) -> list[tuple[InstanceRecord, int]]:
        """(instance, frame number from 1) of each slice, in slice order; a multi-frame instance may have
        frames that belong to other volumes.
        """
        ordered = [self.planes[i] for i in self.stack.order]
        return [(self.series.instances[p.sop_instance_uid], p.frame_number) for p in ordered]
