"""Reads an NRRD volume into DICOM's conventions: LPS, millimetres, (slice, row, column)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nrrd
import numpy as np
import numpy.typing as npt

from workbench.errors import WorkbenchError

LPS_SIGNS = {
    "left-posterior-superior": (1.0, 1.0, 1.0),
    "lps": (1.0, 1.0, 1.0),
    "right-anterior-superior": (-1.0, -1.0, 1.0),
    "ras": (-1.0, -1.0, 1.0),
    "left-anterior-superior": (1.0, -1.0, 1.0),
    "las": (1.0, -1.0, 1.0),
}
"""Factors from the axes of an NRRD "space" (format definition, section 5) to LPS, by its name."""


@dataclass(frozen=True, kw_only=True)
class CtVolume:
    """One CT volume on a regular grid."""

    array: npt.NDArray[np.int16]
    """(slices, rows, columns), Hounsfield units."""
    affine: npt.NDArray[np.float64]
    """4 x 4, maps (column, row, slice) index to LPS millimetres."""

    @property
    def spacing(self) -> tuple[float, float, float]:
        """(column, row, slice) in mm."""
        lengths = np.linalg.norm(self.affine[:3, :3], axis=0)
        return float(lengths[0]), float(lengths[1]), float(lengths[2])

    @property
    def voxel_ml(self) -> float:
        """Volume of one voxel in millilitres."""
        return abs(float(np.linalg.det(self.affine[:3, :3]))) / 1000.0


def read_nrrd(path: Path) -> CtVolume:
    """Read a CT in HU. The file's first axis runs fastest, which is DICOM's column index."""
    data, header = nrrd.read(str(path), index_order="F")
    if data.ndim != 3 or data.dtype.kind not in "iu":
        raise WorkbenchError(
            f"{path.name} is not a volume of whole Hounsfield units ({data.ndim} axes of {data.dtype}).",
            advice="Give a three-dimensional CT.",
        )
    return CtVolume(
        array=np.ascontiguousarray(data.transpose(2, 1, 0), dtype=np.int16), affine=lps_affine(header)
    )


def lps_affine(header: dict[str, Any]) -> npt.NDArray[np.float64]:
    """The index-to-LPS matrix of an NRRD header: its space's axes may be RAS, its directions are one row
    per axis.
    """
    space = str(header.get("space", "")).lower()
    if space not in LPS_SIGNS:
        raise WorkbenchError(
            f"NRRD space {space or 'none'!r} does not say where the patient's left, back and head are.",
            advice=f"Known spaces: {', '.join(sorted(LPS_SIGNS))}.",
        )
    signs = np.array(LPS_SIGNS[space])
    affine = np.eye(4)
    affine[:3, :3] = (np.asarray(header["space directions"], dtype=np.float64) * signs).T
    affine[:3, 3] = np.asarray(header["space origin"], dtype=np.float64) * signs
    return affine
