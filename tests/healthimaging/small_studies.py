"""Small CT series as a modality sends them, for archives of many."""

from __future__ import annotations

from copy import deepcopy
from functools import cache
from typing import Any

import numpy as np
import pydicom
from pydicom import Dataset
from pydicom.data import get_testdata_file
from pydicom.uid import ExplicitVRLittleEndian, generate_uid


@cache
def _template() -> Dataset:
    found = pydicom.dcmread(get_testdata_file("CT_small.dcm"))
    del found[0xFFFCFFFC]  # padding behind the pixels
    return found


def ct_datasets(slices: int = 3, *, size: int = 8, study_uid: str = "", **attributes: Any) -> list[Dataset]:
    """One CT series of `size` x `size` slices, 2.5 mm apart; every slice has pixels of its own."""
    made = []
    study_uid, series_uid = study_uid or generate_uid(), generate_uid()
    for k in range(slices):
        one = deepcopy(_template())
        one.StudyInstanceUID, one.SeriesInstanceUID = study_uid, series_uid
        one.SOPInstanceUID = one.file_meta.MediaStorageSOPInstanceUID = generate_uid()
        one.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        one.InstanceNumber, one.ImagePositionPatient = k + 1, [0, 0, 2.5 * k]
        one.Rows = one.Columns = size
        one.PixelData = np.random.default_rng(k).integers(-1024, 3072, (size, size), np.int16).tobytes()
        for keyword, value in attributes.items():
            setattr(one, keyword, value)
        made.append(one)
    return made
