"""The masks of a segmentation as NIfTI-1 files (https://nifti.nimh.nih.gov/nifti-1)."""

from __future__ import annotations

import gzip
from dataclasses import dataclass
from typing import Any

import nibabel
import numpy as np
import numpy.typing as npt
from pydicom import Dataset

from healthimaging import Geometry
from runtime.reports.segment_frames import segment_frames

_GZIP_LEVEL = 1
"""Masks are long runs of equal bytes: higher levels take several times as long for some per cent."""


_NIFTI: Any = nibabel.Nifti1Image  # nibabel is not annotated


@dataclass(frozen=True, kw_only=True)
class LabelMapFile:
    """A NIfTI file in memory."""

    suffix: str
    """Tells several files of one result apart; empty where there is one."""
    content: bytes
    """Gzip-compressed; the same masks are the same bytes."""


def write_label_maps(*, segmentation: Dataset, grid: Geometry, description: str) -> tuple[LabelMapFile, ...]:
    """Write the masks of a SEG as one label map, whose values are segment numbers and 0 for none.

    A voxel can have one label. Where segments overlap, each is a file of its own with its number as the only
    label, because leaving some voxels out would not be the result that is in the archive.

    Parameters
    ----------
    segmentation
        As `runtime.reports.segment_frames` reads it.
    grid
        That of the source volume.
    description
        Names the model, in the header's 79 characters.

    Returns
    -------
    tuple of LabelMapFile
        Arrays are (columns, rows, slices) of uint8, or uint16 above 255 segments; the affine maps their
        indices to RAS mm.
    """
    numbers = sorted(int(segment.SegmentNumber) for segment in segmentation.SegmentSequence)
    dtype = np.uint8 if numbers[-1] <= np.iinfo(np.uint8).max else np.uint16
    labels = np.zeros(grid.shape, dtype=dtype)
    overlap = False
    for frame in segment_frames(segmentation, grid):
        plane = labels[frame.slice_index]
        overlap = overlap or bool(plane[frame.mask].any())
        plane[frame.mask] = frame.segment_number
    if not overlap:
        return (LabelMapFile(suffix="", content=_nifti(labels, grid, description)),)
    files = []
    for number in numbers:
        single = np.zeros(grid.shape, dtype=dtype)
        for frame in segment_frames(segmentation, grid):
            if frame.segment_number == number:
                single[frame.slice_index][frame.mask] = number
        files.append(LabelMapFile(suffix=f"-segment-{number}", content=_nifti(single, grid, description)))
    return tuple(files)


def _nifti(labels: npt.NDArray[np.unsignedinteger], grid: Geometry, description: str) -> bytes:
    """(slices, rows, columns) as a compressed file."""
    image = _NIFTI(labels.transpose(2, 1, 0), grid.ras_affine)
    image.header.set_xyzt_units("mm")
    image.header.set_intent("label")
    image.header["descrip"] = description.encode("ascii", "replace")[:79]
    # Scanner coordinates, in both of the header's forms.
    image.set_sform(grid.ras_affine, code="scanner")
    image.set_qform(grid.ras_affine, code="scanner")
    content: bytes = image.to_bytes()
    return gzip.compress(content, compresslevel=_GZIP_LEVEL, mtime=0)
