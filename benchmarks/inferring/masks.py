"""Masks of two DICOM SEGs of one series, compared voxel by voxel."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from pydicom import Dataset


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """How far two masks agree."""

    voxels: int
    """Of the first."""
    different: int

    @property
    def same(self) -> bool:
        """Whether they are one mask, and there is one."""
        return self.voxels > 0 and self.different == 0


def compare(one: Dataset, other: Dataset) -> Comparison:
    """Compare the masks of SEGs with one segment each, by the source instances that their frames name."""
    first, second = _frames(one), _frames(other)
    different = 0
    for uid in first.keys() | second.keys():
        # Slices without a voxel of the segment may be left out.
        empty = np.zeros_like(next(iter((first | second).values())))
        different += int(np.count_nonzero(first.get(uid, empty) != second.get(uid, empty)))
    return Comparison(voxels=sum(int(frame.sum()) for frame in first.values()), different=different)


def _frames(segmentation: Dataset) -> dict[str, npt.NDArray[np.bool_]]:
    """Masks by the SOPInstanceUID of the source."""
    frames = segmentation.pixel_array.reshape(-1, segmentation.Rows, segmentation.Columns) > 0
    groups = segmentation.PerFrameFunctionalGroupsSequence
    return {
        str(group.DerivationImageSequence[0].SourceImageSequence[0].ReferencedSOPInstanceUID): frame
        for group, frame in zip(groups, frames, strict=True)
    }
