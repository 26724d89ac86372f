"""The frames of a SEG, each with the slice of the source's grid that it lies on."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from pydicom import Dataset

from healthimaging import Geometry


@dataclass(frozen=True, kw_only=True, eq=False)
class SegmentFrame:
    """One slice of one segment: bool (rows, columns)."""

    segment_number: int
    slice_index: int
    mask: npt.NDArray[np.bool_]


def segment_frames(segmentation: Dataset, grid: Geometry) -> Iterator[SegmentFrame]:
    """Go through a binary SEG frame by frame, so that segments which overlap need no array each.

    Parameters
    ----------
    segmentation
        Written on ``grid`` by `healthimaging.write_segmentation`, with its pixels. Slices without a voxel of
        a segment have no frame.
    grid
        That of the source volume.

    Raises
    ------
    ValueError
        When a frame lies outside the grid: the SEG is that of another volume.
    """
    shared = segmentation.SharedFunctionalGroupsSequence[0]
    frames = segmentation.pixel_array.reshape(-1, segmentation.Rows, segmentation.Columns)
    for frame, groups in zip(frames, segmentation.PerFrameFunctionalGroupsSequence, strict=True):
        # What all frames have in common is shared (PS3.3, C.7.6.16): a single slice, or a single segment.
        place = (groups.get("PlanePositionSequence") or shared.PlanePositionSequence)[0]
        segment = (groups.get("SegmentIdentificationSequence") or shared.SegmentIdentificationSequence)[0]
        index = int(np.round(grid.to_index([float(x) for x in place.ImagePositionPatient])[2]))
        if not 0 <= index < grid.shape[0] or frame.shape != grid.shape[1:]:
            msg = f"a frame of SEG {segmentation.SOPInstanceUID} lies outside the grid of its source"
            raise ValueError(msg)
        yield SegmentFrame(
            segment_number=int(segment.ReferencedSegmentNumber),
            slice_index=index,
            mask=frame.astype(np.bool_),
        )
