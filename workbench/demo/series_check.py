"""Checks a written series with programs that did not write it: highdicom, and dciodvfy where it is
installed.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import highdicom
import numpy as np
import pydicom

from workbench.demo.nrrd_volume import CtVolume
from workbench.errors import WorkbenchError

POSITION_TOLERANCE_MM = 1e-4
"""Decimal strings keep ten digits: below a micrometre at any position in a scanner."""


def check_geometry(paths: Sequence[Path], volume: CtVolume) -> None:
    """Read the files back with highdicom and compare positions and values with `volume`, whatever slice
    order it chose.

    Raises:
        WorkbenchError: A position differs by more than a tenth of a micrometre, or any value differs.
    """
    datasets = [pydicom.dcmread(path) for path in paths]
    read = highdicom.get_volume_from_series(datasets)
    # highdicom indexes (slice, row, column); ours is (column, row, slice).
    affine = read.affine[:, [2, 1, 0, 3]]
    array = read.array
    if np.dot(affine[:3, 2], volume.affine[:3, 2]) < 0:
        affine = affine.copy()
        affine[:3, 3] += affine[:3, 2] * (array.shape[0] - 1)
        affine[:3, 2] *= -1
        array = array[::-1]
    uid = str(datasets[0].SeriesInstanceUID)
    if array.shape != volume.array.shape or not np.array_equal(array, volume.array):
        raise WorkbenchError(
            f"Series {uid} read back differs from its source in pixel values.", advice=ADVICE
        )
    if not np.allclose(affine, volume.affine, rtol=0, atol=POSITION_TOLERANCE_MM):
        raise WorkbenchError(f"Series {uid} read back differs from its source in geometry.", advice=ADVICE)


def check_conformance(paths: Sequence[Path]) -> bool:
    """Run dciodvfy (dicom3tools) over the files; False if it is not installed, an exception if it finds an
    error.
    """
    program = shutil.which("dciodvfy")
    if program is None:
        return False
    for path in paths:
        answer = subprocess.run(
            [program, str(path)], capture_output=True, text=True, errors="replace", check=False
        )
        errors = [line for line in (answer.stdout + answer.stderr).splitlines() if line.startswith("Error")]
        if errors:
            raise WorkbenchError(
                f"dciodvfy finds {len(errors)} errors in {path.name}.", advice=ADVICE, details=errors[:20]
            )
    return True


ADVICE = "The series writer of the demo is at fault (workbench/demo/ct_series.py): please report it."
