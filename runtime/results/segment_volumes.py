"""Volumes of the segments of a DICOM SEG."""

from __future__ import annotations

import numpy as np
from pydicom import Dataset

from runtime.results.answer import SegmentVolume

_CUBIC_MM_PER_ML = 1000.0


def segment_volumes(segmentation: Dataset) -> tuple[SegmentVolume, ...]:
    """Count the voxels of each segment on the grid that the SEG is stored on, which is the source's.

    Parameters
    ----------
    segmentation
        Binary DICOM SEG (PS3.3, A.51) with its pixels: one frame for each slice of each segment; slices
        without any voxel of a segment may be left out.

    Returns
    -------
    tuple of SegmentVolume
        By segment number; the volume in millilitres.
    """
    shared = segmentation.SharedFunctionalGroupsSequence[0]
    measures = shared.PixelMeasuresSequence[0]
    rows_mm, columns_mm = (float(value) for value in measures.PixelSpacing)
    slices_mm = float(measures.get("SpacingBetweenSlices") or measures.SliceThickness)
    voxel_ml = rows_mm * columns_mm * slices_mm / _CUBIC_MM_PER_ML
    frames = segmentation.pixel_array.reshape(-1, segmentation.Rows, segmentation.Columns)
    counts: dict[int, int] = {int(segment.SegmentNumber): 0 for segment in segmentation.SegmentSequence}
    for frame, groups in zip(frames, segmentation.PerFrameFunctionalGroupsSequence, strict=True):
        # What all frames have in common is shared (PS3.3, C.7.6.16): with one segment, its number.
        identification = groups.get("SegmentIdentificationSequence") or shared.SegmentIdentificationSequence
        number = int(identification[0].ReferencedSegmentNumber)
        counts[number] += int(np.count_nonzero(frame))
    labels = {int(s.SegmentNumber): str(s.SegmentLabel) for s in segmentation.SegmentSequence}
    return tuple(
        SegmentVolume(label=labels[number], volume_ml=round(counts[number] * voxel_ml, 3))
        for number in sorted(counts)
    )
