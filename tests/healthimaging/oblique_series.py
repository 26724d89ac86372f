"""An oblique CT series as a modality sends it, and the segment that tests find in it."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import numpy as np
import pydicom
from pydicom import Dataset
from pydicom.data import get_testdata_file
from pydicom.sr.coding import Code
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

from healthimaging import SegmentDescription

LUNG = SegmentDescription(
    number=1,
    label="lung",
    category=Code("123037004", "SCT", "Anatomical Structure"),
    type=Code("39607008", "SCT", "Lung"),
)


def ct_series(slices: int = 9, rows: int = 24, columns: int = 32) -> tuple[list[Dataset], Any]:
    """An oblique CT series with non-square pixels, in shuffled order, and its HU (slices, rows, columns)."""
    rng = np.random.default_rng(11)
    stored = rng.integers(0, 4096, (slices, rows, columns), dtype=np.uint16)
    template = pydicom.dcmread(get_testdata_file("CT_small.dcm"))
    study, series, frame = generate_uid(), generate_uid(), generate_uid()
    normal = np.array([0, -0.6, 0.8])
    made = []
    for k in rng.permutation(slices):
        one = Dataset()
        one.update({e.tag: deepcopy(e) for e in template if e.tag.group < 0x7FE0 and not e.tag.is_private})
        one.file_meta = pydicom.dataset.FileMetaDataset()
        one.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        one.StudyInstanceUID, one.SeriesInstanceUID, one.FrameOfReferenceUID = study, series, frame
        one.SOPInstanceUID = generate_uid()
        one.InstanceNumber = int(slices - k)
        x, y, z = np.array([-120.5, 33.25, 10]) + 2.5 * k * normal
        one.ImagePositionPatient = [f"{v:.4f}" for v in (x, y, z)]
        one.ImageOrientationPatient = [1, 0, 0, 0, 0.8, 0.6]
        one.PixelSpacing = [0.75, 0.5]
        one.Rows, one.Columns = rows, columns
        one.BitsAllocated, one.BitsStored, one.HighBit, one.PixelRepresentation = 16, 12, 11, 0
        one.RescaleSlope, one.RescaleIntercept = 1, -1024
        for keyword in ("SmallestImagePixelValue", "LargestImagePixelValue", "PixelPaddingValue"):
            one.pop(keyword, None)
        one.PixelData = stored[k].tobytes()
        made.append(one)
    return made, stored.astype(np.int16) - 1024
